"""The hold-out: which rows become the task of their domain."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.config import IngestConfig
from continual.errors import (
    DataError,
    InputError,
)
from continual.registry import Registry
from continual.registry.text import hash_text
from continual.stream import ingest
from tests.rows import make_pairs
from tests.stream.rows import CONFIG, balanced, state, stored, task_rows, write_rows


def test_the_held_out_task_is_a_task(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(60)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0.25)
    task = task_rows(registry, "a")
    held = {(row["query"], row["positive"]) for row in rows} - {
        (row["query"], row["positive"]) for row in stored(registry, "b1")
    }
    corpus = {row["doc_id"]: row["text"] for row in task["corpus"]}
    queries = {row["query_id"]: row["text"] for row in task["queries"]}
    assert {(queries[row["query_id"]], corpus[row["doc_id"]]) for row in task["qrels"]} == held
    assert len(held) == 15
    assert {row["score"] for row in task["qrels"]} == {1}
    assert set(corpus.values()) == {row["positive"] for row in rows}  # the rest are distractors
    assert {(row["kind"], row["hash"]) for row in task["keys"]} == {
        *(("query", hash_text(query)) for query, _ in held),
        *(("document", hash_text(positive)) for _, positive in held),
    }


def test_all_rows_of_a_held_out_document_are_held_out(registry: Registry, tmp_path: Path) -> None:
    rows = [{"query": f"q {i}", "positive": f"chunk {i}", "doc_id": str(i // 5)} for i in range(100)]
    # Another document has one chunk in common with each: its row goes with the chunk.
    rows += [{"query": f"again {i}", "positive": f"chunk {i}", "doc_id": f"copy {i}"} for i in range(0, 100, 5)]
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0.2)
    kept = stored(registry, "b1")
    by_hash = {hash_text(row["positive"]): row["positive"] for row in rows}
    keys = {row["hash"] for row in task_rows(registry, "a")["keys"] if row["kind"] == "document"}
    held = {by_hash[key] for key in keys}
    assert held
    assert not held & {row["positive"] for row in kept}
    for document in {row["doc_id"] for row in rows}:
        chunks = {row["positive"] for row in rows if row["doc_id"] == document}
        others = {row["doc_id"] for row in rows if row["positive"] in chunks} - {document}
        if chunks <= held and document not in {row["doc_id"] for row in kept} and len(chunks) > 1:
            assert not others & {row["doc_id"] for row in kept}


def test_later_files_bring_no_row_of_a_held_out_document(registry: Registry, tmp_path: Path) -> None:
    rows = [{"query": f"q {i}", "positive": f"chunk {i}", "doc_id": str(i // 5)} for i in range(100)]
    ingest(registry, IngestConfig(max_holdout_queries=3), write_rows(tmp_path / "a.parquet", rows), holdout=0.2)
    kept = {row["doc_id"] for row in stored(registry, "b1")}
    held = {row["doc_id"] for row in rows} - kept
    assert held
    new = [{"query": f"new {i}", "positive": f"new chunk {i}", "doc_id": str(i // 5)} for i in range(100)]
    # A text that was held out, also beyond the queries of the task, now without its document's id.
    bare = [{"query": f"bare {i}", "positive": f"chunk {i}", "doc_id": None} for i in range(100)]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", new + bare), domain="a")
    later = stored(registry, "b2")
    assert {row["doc_id"] for row in later if row["doc_id"]} == kept
    assert {row["positive"] for row in later if not row["doc_id"]} == {
        row["positive"] for row in rows if row["doc_id"] in kept
    }
    assert balanced(report)
    assert report.leaked == 10 * len(held)
    judged = len(task_rows(registry, "a")["qrels"])
    assert report.of_held == report.leaked - judged
    # The ids of documents are a domain's own; their texts are everybody's.
    other = [{**row, "query": f"other {row['query']}"} for row in new + bare]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "c.parquet", other), domain="other", holdout=0)
    assert report.leaked == 5 * len(held)


def test_a_document_that_was_trained_on_is_not_held_out_later(registry: Registry, tmp_path: Path) -> None:
    rows = [{"query": f"q {i}", "positive": f"chunk {i}", "doc_id": str(i)} for i in range(20)]
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0)
    more = [{"query": f"more {i}", "positive": f"more {i}", "doc_id": str(i)} for i in range(40)]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", more), domain="a", holdout=0.5)
    assert report.held_out == 20
    assert {row["doc_id"] for row in stored(registry, "b2")} == {str(i) for i in range(20)}


def test_a_training_row_with_a_held_out_query_is_leaked(registry: Registry, tmp_path: Path) -> None:
    rows = [{"query": f"q {i // 2}", "positive": f"p {i}"} for i in range(100)]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0.1)
    assert report.held_out == 10
    queries = {row["text"] for row in task_rows(registry, "a")["queries"]}
    assert report.leaked == 2 * len(queries) - 10 > 0
    assert not queries & {row["query"] for row in stored(registry, "b1")}
    # The other positive of such a query answers it: it must not be a distractor.
    corpus = {row["text"] for row in task_rows(registry, "a")["corpus"]}
    assert len(corpus) == 10 + report.kept


def test_the_task_has_at_most_max_holdout_queries(registry: Registry, tmp_path: Path) -> None:
    config = IngestConfig(max_holdout_queries=7)
    report = ingest(registry, config, write_rows(tmp_path / "a.parquet", make_pairs(200)), holdout=0.5)
    assert (report.held_out, registry.tasks()[0].queries) == (7, 7)  # rows beyond it are better trained on
    # One document can bring more queries than that: all its rows stay out, the task takes the first.
    rows = [{"query": f"q {i}", "positive": f"p {i % 4}"} for i in range(80)]
    report = ingest(registry, config, write_rows(tmp_path / "b.parquet", rows), holdout=0.5)
    assert (report.held_out, registry.tasks()[1].queries, report.kept) == (20, 7, 60)


def test_the_corpus_is_bounded(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.stream.holdout.MAX_CORPUS", 30)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(200)))
    assert registry.tasks()[0].documents == 30


def test_a_second_batch_keeps_the_task(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(50)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows))
    task = task_rows(registry, "a")
    held = {row["text"] for row in task["queries"]}
    known = [row for row in rows if row["query"] in held][:2] + [row for row in rows if row["query"] not in held][:3]
    fresh = make_pairs(30, seed=5)
    answer = next(row["positive"] for row in rows if row["query"] in held)
    new = [*known, *fresh, {**fresh[0], "query": min(held)}, {**fresh[1], "query": "unseen", "positive": answer}]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "week2.parquet", new), domain="a")
    # Held-out pairs were never stored, so they leak rather than repeat.
    assert (report.batch, report.kept, report.duplicates, report.leaked, report.held_out) == ("b2", 30, 3, 4, 0)
    assert report.task is None
    assert task_rows(registry, "a") == task
    assert [batch.id for batch in registry.batches("a")] == ["b1", "b2"]


def test_a_later_batch_can_be_held_out_from_if_there_is_no_task(registry: Registry, tmp_path: Path, beir: Path) -> None:
    rows = make_pairs(50)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0)
    shared = [{**row, "query": f"new {i}"} for i, row in enumerate(rows)]  # trained on: cannot be held out
    more = write_rows(tmp_path / "more.parquet", shared + make_pairs(50, seed=2))
    with pytest.raises(InputError, match="has stored rows already"):
        ingest(registry, CONFIG, more, domain="a", task=beir)
    report = ingest(registry, CONFIG, more, domain="a", holdout=0.2)
    assert (report.task, report.held_out, report.kept) == ("a", 20, 80)
    positives = {row["positive"] for row in rows}
    relevant = {row["doc_id"] for row in task_rows(registry, "a")["qrels"]}
    assert not relevant & {hash_text(positive) for positive in positives}


def test_what_other_domains_train_on_is_not_held_out(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(40)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0)
    same = [{**row, "query": f"new {i}"} for i, row in enumerate(rows)]
    source = write_rows(tmp_path / "b.parquet", same)
    with pytest.raises(DataError, match=r"share texts with stored rows.*--task DIR.*--holdout 0"):
        ingest(registry, CONFIG, source)
    assert ingest(registry, CONFIG, source, holdout=0).kept == 40


@pytest.mark.parametrize(
    ("rows", "holdout", "message"),
    [
        (4, None, "less than one document"),
        (20, 0.01, "less than one document"),
        (20, 1.0, "no row to train on"),
    ],
)
def test_a_domain_too_small_to_hold_out_of(registry, tmp_path, rows, holdout, message) -> None:
    before = state(registry)
    source = write_rows(tmp_path / "a.parquet", make_pairs(rows))
    with pytest.raises(DataError, match=f"{message}.*--task DIR.*--holdout 0"):
        ingest(registry, CONFIG, source, holdout=holdout)
    assert state(registry) == before
    assert ingest(registry, CONFIG, source, holdout=0).kept == rows


def test_a_task_that_is_too_small_for_the_gate_is_a_warning(registry: Registry, tmp_path: Path) -> None:
    rows = [{"query": f"a question {n}", "positive": f"an answer {n}"} for n in range(3000)]
    source = write_rows(tmp_path / "a.jsonl", rows[:1000])
    (warning,) = ingest(registry, CONFIG, source, max_forgetting=2.0).warnings
    assert warning.startswith("the task a has 100 queries, and the gate usually needs 218 to tell a fall of 2 points")
    large = write_rows(tmp_path / "b.jsonl", rows[1000:])
    assert ingest(registry, CONFIG, large, holdout=0.11, max_forgetting=2.0).warnings == []
    none = write_rows(tmp_path / "c.jsonl", [row | {"query": f"{row['query']} again"} for row in rows[:500]])
    assert ingest(registry, CONFIG, none, holdout=0, max_forgetting=2.0).warnings == []
