"""From files to batches: the fates of rows, the hold-out, and that nothing is half done."""

from __future__ import annotations

import json
import random
import tempfile
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.config import IngestConfig
from continual.errors import (
    DataError,
    InputError,
    InvalidNameError,
    WorkspaceBusy,
)
from continual.registry import Registry
from continual.registry.text import hash_row, hash_text, normalise
from continual.storage.locks import exclusive
from continual.stream import (
    Columns,
    IngestReport,
    import_task,
    ingest,
)
from continual.stream.stage import BATCH_SCHEMA
from tests.conftest import make_pairs

CONFIG = IngestConfig()


def new_registry(folder: Path) -> Registry:
    registry = Registry(folder / ".continual", busy_seconds=0.0)
    registry.catalog.create()
    return registry


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return new_registry(tmp_path)


def write_rows(path: Path, rows: list[dict[str, object]], **options: object) -> str:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, **options)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def stored(registry: Registry, batch: str | None) -> list[dict[str, object]]:
    record = next(each for each in registry.batches() if each.id == batch)
    return pq.read_table(registry.path(record.path)).to_pylist()


def task_rows(registry: Registry, name: str) -> dict[str, list[dict[str, object]]]:
    folder = registry.path(f"tasks/{name}")
    return {
        part: pq.read_table(folder / f"{part}.parquet").to_pylist() for part in ("corpus", "queries", "qrels", "keys")
    }


def balanced(report: IngestReport) -> bool:
    return report.rows_in == report.kept + report.duplicates + report.leaked + report.rejected + report.held_out


def state(registry: Registry) -> tuple[object, ...]:
    """Everything that an ingest could change: the catalog's records, and the files below `.continual`."""
    files = {str(path): path.stat().st_size for path in registry.root.rglob("*") if path.is_file()}
    lasting = {path: size for path, size in files.items() if "catalog" not in path and "lock" not in path}
    return registry.domains(), registry.batches(), registry.tasks(), lasting


def test_a_first_batch_is_stored_in_the_order_of_its_hashes(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(200)
    rows[3]["query"] = "  caf\u0065\u0301  a\n"
    report = ingest(registry, CONFIG, write_rows(tmp_path / "notes.parquet", rows, row_group_size=30))
    assert (report.domain, report.batch, report.task, report.unchanged) == ("notes", "b1", "notes", False)
    assert (report.rows_in, report.kept, report.held_out) == (200, 180, 20)
    assert balanced(report)

    file = pq.ParquetFile(registry.path("data/notes/b1.parquet"))
    assert file.schema_arrow.equals(BATCH_SCHEMA)
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    kept = stored(registry, "b1")
    assert [row["row_hash"] for row in kept] == sorted(row["row_hash"] for row in kept)
    given_rows = {hash_row(row["query"], row["positive"]): row for row in rows}
    for row in kept:
        original = given_rows[row["row_hash"]]
        assert row["query"] == unicodedata.normalize("NFC", original["query"]).strip()
        assert row["positive"] == original["positive"]
        assert (row["negatives"], row["doc_id"]) == (original["negatives"], original["doc_id"])
        assert row["query_hash"] == hash_text(original["query"])
        assert row["positive_hash"] == hash_text(original["positive"])

    (batch,) = registry.batches()
    assert (batch.rows_in, batch.kept, batch.held_out, batch.domain) == (200, 180, 20, "notes")
    (task,) = registry.tasks()
    assert (task.name, task.domain, task.queries, task.documents, task.judgements) == ("notes", "notes", 20, 200, 20)
    assert not (registry.root / "staging").exists()


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


WORDS = st.sampled_from(["a", "b", "c", "d", "é", "e\u0301", " a", "A", "f", "g"])
TEXTS = st.lists(WORDS, min_size=1, max_size=2).map(" ".join)
PAIRS = st.fixed_dictionaries(
    {
        "query": TEXTS,
        "positive": TEXTS,
        "negatives": st.lists(TEXTS, max_size=2),
        "doc_id": st.sampled_from([None, "d1", "d2", "d3", "d4", "d5"]),
    }
)


@settings(max_examples=10, deadline=None)
@given(st.lists(PAIRS, min_size=5, max_size=60), st.lists(PAIRS, min_size=1, max_size=20), st.randoms())
def test_what_holds_for_any_rows(rows: list[dict], later: list[dict], rng: random.Random) -> None:
    """Every row has one fate; nothing held out is trained on; the order of the rows does not matter."""
    shuffled = rng.sample(rows, len(rows))
    outcomes = []
    for ordered in (rows, shuffled):
        with tempfile.TemporaryDirectory() as folder:
            registry = new_registry(Path(folder))
            config = IngestConfig(batch_rows=rng.randint(1, 20))
            source = write_rows(Path(folder) / "x.jsonl", ordered)
            try:
                report = ingest(registry, config, source, holdout=0.3)
            except DataError as error:
                outcomes.append(str(error).removeprefix(source))
                continue
            second = ingest(registry, config, write_rows(Path(folder) / "y.jsonl", later), domain="x")
            kept = stored(registry, report.batch)
            more = stored(registry, second.batch) if second.batch and not second.unchanged else []
            task = task_rows(registry, "x")
            outcomes.append((report.kept, report.duplicates, report.leaked, report.held_out, kept, more, task))

            assert balanced(report)
            assert balanced(second)
            distinct = {(normalise(row["query"]), normalise(row["positive"])) for row in rows}
            assert report.duplicates == len(rows) - len(distinct)
            hashes = [row["row_hash"] for row in kept + more]
            assert len(set(hashes)) == len(hashes)
            keys = {(row["kind"], row["hash"]) for row in task["keys"]}
            assert not any(("query", row["query_hash"]) in keys for row in kept + more)
            assert not any(("document", row["positive_hash"]) in keys for row in kept + more)
            # Pairs that were neither kept nor leaked are the held-out ones, and all of them are in the task.
            corpus = {row["doc_id"]: normalise(row["text"]) for row in task["corpus"]}
            queries = {row["query_id"]: normalise(row["text"]) for row in task["queries"]}
            judged = {(queries[row["query_id"]], corpus[row["doc_id"]]) for row in task["qrels"]}
            assert judged <= distinct
            assert len(judged) == report.held_out
            assert {query for query, _ in judged} == set(queries.values())
            # What a query of the task is paired with is in its corpus only if it is judged.
            assert {(q, d) for q, d in distinct if q in queries.values() and d in corpus.values()} == judged
    assert outcomes[0] == outcomes[1]


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


def test_duplicates_in_the_file_and_in_every_domain(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(50)
    again = [{**row, "query": f" {row['query'].replace(' ', '  ')}", "negatives": []} for row in rows]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", again + rows), holdout=0)
    assert (report.kept, report.duplicates, report.task) == (50, 50, None)
    assert all(row["negatives"] for row in stored(registry, "b1"))  # the fuller of two equal rows
    other = ingest(registry, CONFIG, write_rows(tmp_path / "b.parquet", rows[:20] + make_pairs(20, seed=1)))
    assert (other.kept, other.duplicates, other.held_out) == (18, 20, 2)
    assert [domain.name for domain in registry.domains()] == ["a", "b"]


def test_a_file_of_nothing_but_duplicates_is_no_error_and_no_batch(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(30)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0)
    before = state(registry)
    report = ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", rows))
    assert (report.kept, report.duplicates, report.batch, report.task, report.unchanged) == (0, 30, None, None, False)
    assert state(registry) == before


def test_the_same_file_twice_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(40))
    first = ingest(registry, CONFIG, source)
    before = state(registry)
    copy = tmp_path / "renamed.parquet"
    copy.write_bytes(Path(source).read_bytes())
    again = ingest(registry, CONFIG, str(copy), domain="a", holdout=0.5)
    assert again.unchanged
    assert (again.batch, again.kept, again.rows_in) == ("b1", first.kept, 40)
    assert state(registry) == before


def test_the_same_file_with_other_columns_is_another_batch(registry: Registry, tmp_path: Path) -> None:
    rows = [{**row, "title": f"title {i}"} for i, row in enumerate(make_pairs(40))]
    source = write_rows(tmp_path / "a.parquet", rows)
    ingest(registry, CONFIG, source, holdout=0)
    titles = Columns(query="title")
    report = ingest(registry, CONFIG, source, columns=titles, holdout=0)
    assert (report.batch, report.kept, report.unchanged) == ("b2", 40, False)
    assert {row["query"] for row in stored(registry, "b2")} == {row["title"] for row in rows}
    before = state(registry)
    assert ingest(registry, CONFIG, source, columns=titles).batch == "b2"
    # Naming the columns that are recognised anyway is the same mapping, whatever else is left out.
    assert ingest(registry, CONFIG, source, columns=Columns(query="query", negatives="negatives")).batch == "b1"
    # Without the negatives the pairs are the same: duplicates, and no batch.
    fewer = ingest(registry, CONFIG, source, columns=Columns(negatives="title"))
    assert (fewer.unchanged, fewer.batch, fewer.duplicates) == (False, None, 40)
    assert state(registry) == before


def test_a_task_beside_a_file_that_was_ingested_before(registry: Registry, tmp_path: Path, beir: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(20))
    ingest(registry, CONFIG, source, domain="without", holdout=0)
    with pytest.raises(InputError, match=r"has stored rows already.*task add NAME DIR --domain without"):
        ingest(registry, CONFIG, source, domain="without", task=beir)
    more = write_rows(tmp_path / "b.parquet", make_pairs(20, seed=1))
    ingest(registry, CONFIG, more, domain="with", task=beir)
    assert ingest(registry, CONFIG, more, domain="with", task=beir).unchanged
    (beir / "queries.jsonl").write_text('{"_id": "t1", "text": "another question"}\n')
    with pytest.raises(InputError, match="has the evaluation task 'with', which stays as it is"):
        ingest(registry, CONFIG, more, domain="with", task=beir)


def test_a_task_beside_a_file_without_new_rows_is_refused(registry: Registry, tmp_path: Path, beir: Path) -> None:
    rows = make_pairs(20)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows), holdout=0)
    before = state(registry)
    source = write_rows(tmp_path / "b.jsonl", [*rows, {"query": "the question", "positive": "p"}])
    with pytest.raises(
        DataError, match=r"20 of its 21 rows are duplicates, 1 leak .*, 0 cannot be used\. .*task add NAME DIR"
    ):
        ingest(registry, CONFIG, source, task=beir)
    assert state(registry) == before
    source = write_rows(tmp_path / "c.jsonl", [*rows, {"query": ""}])
    with pytest.raises(DataError, match=r"1 cannot be used \(listed in \.continual/rejects/c-\w+\.jsonl\)"):
        ingest(registry, CONFIG, source, task=beir)
    assert len(list((registry.root / "rejects").iterdir())) == 1


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


def test_a_task_is_never_replaced(registry: Registry, tmp_path: Path, beir: Path) -> None:
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(50)))
    more = write_rows(tmp_path / "more.parquet", make_pairs(50, seed=2))
    before = state(registry)
    for options in ({"holdout": 0.2}, {"task": beir}):
        with pytest.raises(InputError, match="continual task add NAME DIR --domain a"):
            ingest(registry, CONFIG, more, domain="a", **options)
    assert state(registry) == before
    assert ingest(registry, CONFIG, more, domain="a", holdout=0.0).kept == 50


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


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A small task: query t1 is answered by document x; y is a distractor."""
    folder = tmp_path / "beir"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(
        '{"_id": "x", "title": "", "text": "answer"}\n{"_id": "y", "text": "distractor"}\n'
    )
    (folder / "queries.jsonl").write_text('{"_id": "t1", "text": "the question"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nt1\tx\t1\n")
    return folder


LEAKS = [
    {"query": "THE Question!", "positive": "nearly its query"},
    {"query": "A question", "positive": "other words"},
    {"query": "the  question ", "positive": "its query is in the task"},
    {"query": "its positive is relevant", "positive": "\u00a0answer"},
    {"query": "its positive is only a distractor", "positive": "distractor"},
    {"query": "answer", "positive": "a document as a query is no leak"},
]


def test_rows_that_leak_into_a_task_are_held_back(registry: Registry, tmp_path: Path, beir: Path) -> None:
    import_task(registry, "ood", beir)
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", LEAKS), holdout=0)
    assert (report.kept, report.leaked, report.near) == (3, 3, 1)
    assert {row["query"] for row in stored(registry, "b1")} == {LEAKS[1]["query"], LEAKS[4]["query"], LEAKS[5]["query"]}


def test_a_folder_as_the_domains_task(registry: Registry, tmp_path: Path, beir: Path) -> None:
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", LEAKS), task=beir)
    assert (report.kept, report.leaked, report.held_out, report.task) == (3, 3, 0, "a")
    (task,) = registry.tasks()
    assert (task.name, task.domain, task.queries, task.documents, task.origin) == ("a", "a", 1, 2, str(beir))
    assert len(task_rows(registry, "a")["keys"]) == 2


BAD = [
    ({"query": "", "positive": "p"}, "query: empty"),
    ({"query": " \t\u00a0", "positive": "p"}, "query: empty"),
    ({"query": None, "positive": "p"}, "query: missing"),
    ({"positive": "p"}, "query: missing"),
    ({"query": "q", "positive": float("nan")}, "positive: missing"),
    ({"query": "q", "positive": 3}, "positive: not text but a number"),
    ({"query": "q", "positive": True}, "positive: not text but true or false"),
    ({"query": "q", "positive": ["p"]}, "positive: not text but a list"),
    ({"query": "q", "positive": {"p": 1}}, "positive: not text but an object"),
    ({"query": "q", "positive": "x" * 101}, "positive: over 100 characters"),
    ({"query": "q\0", "positive": "p"}, "query: NUL character"),
    ({"query": "q\ud800", "positive": "p"}, "query: lone surrogate"),
    ({"query": "q", "positive": "p", "negatives": 3}, "negatives: not text but a number"),
    ({"query": "q", "positive": "p", "negatives": [["n"]]}, "negatives: not text but a list"),
    ({"query": "q", "positive": "p", "negatives": ["n\0"]}, "negatives: NUL character"),
    ({"query": "q", "positive": "p", "doc_id": [1]}, "doc_id: not an id but a list"),
    ({"query": "q", "positive": "p", "doc_id": "\ud800"}, "doc_id: lone surrogate"),
    ("not an object", "not a JSON object"),
]


def test_bad_rows_are_kept_with_their_reasons(registry: Registry, tmp_path: Path) -> None:
    good = make_pairs(30)
    config = IngestConfig(max_chars=100, max_reject_share=0.5, batch_rows=4)
    source = write_rows(tmp_path / "a.jsonl", good + [row for row, _ in BAD])
    report = ingest(registry, config, source)
    assert (report.rejected, report.rows_in) == (len(BAD), 30 + len(BAD))
    assert balanced(report)
    assert report.rejects_path == registry.batches()[0].rejects_path == "data/a/b1.rejects.jsonl"
    lines = [json.loads(line) for line in registry.path(report.rejects_path).read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in lines] == [(31 + i, reason) for i, (_, reason) in enumerate(BAD)]
    assert report.reject_reasons == {reason: [r for _, r in BAD].count(reason) for reason in {r for _, r in BAD}}
    assert lines[5]["data"] == {"query": "q", "positive": 3, "negatives": None, "doc_id": None}
    assert lines[11]["data"]["query"] == "q\ud800"


def test_values_in_reject_files_are_short(registry: Registry, tmp_path: Path) -> None:
    bad = {"query": "x" * 3000, "positive": list(range(100)), "negatives": [float("inf"), {"a": "y" * 500}]}
    ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", [bad, *make_pairs(20)]))
    (line,) = registry.path("data/a/b1.rejects.jsonl").read_text().splitlines()
    assert len(line) < 1000
    assert json.loads(line, parse_constant=pytest.fail)["data"]["query"] == "x" * 200 + "... (3000 characters)"


def test_negatives_and_document_ids_as_they_come(registry: Registry, tmp_path: Path) -> None:
    rows = [
        {"query": "a", "positive": "p", "negative_2": "n2", "negative_1": " n1 ", "doc_id": 7},
        {"query": "b", "positive": "p", "negative_1": None, "negative_2": ["n", "", None, " "], "doc_id": 7.0},
        {"query": "c", "positive": "p", "doc_id": float("nan")},
        {"query": "d", "positive": "p", "doc_id": " x "},
        {"query": "e", "positive": "p", "negative_1": float("nan"), "doc_id": ""},
    ]
    ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", rows), holdout=0)
    found = {row["query"]: (row["negatives"], row["doc_id"]) for row in stored(registry, "b1")}
    assert found == {"a": (["n1", "n2"], "7"), "b": (["n"], "7"), "c": ([], None), "d": ([], "x"), "e": ([], None)}


def test_a_csv_spells_negatives_as_json(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('query,positive,negatives\na,p,"[""n1"", ""n2""]"\nb,p,[1] is a footnote\nc,p,\nd,p,[broken\n')
    ingest(registry, CONFIG, str(path), holdout=0)
    found = {row["query"]: row["negatives"] for row in stored(registry, "b1")}
    assert found == {"a": ["n1", "n2"], "b": ["[1] is a footnote"], "c": [], "d": ["[broken"]}


def test_too_many_bad_rows_refuse_the_file(registry: Registry, tmp_path: Path) -> None:
    rows = [*make_pairs(80), *({"query": "", "positive": "p"} for _ in range(15)), *({"query": "q"} for _ in range(5))]
    before = state(registry)
    with pytest.raises(
        DataError, match=r"20 of 100 rows \(20\.0%\).*query: empty \(15\), positive: missing \(5\)"
    ) as error:
        ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", rows))
    (rejects,) = (registry.root / "rejects").iterdir()
    assert str(rejects) in str(error.value)
    assert len(rejects.read_text().splitlines()) == 20
    rejects.unlink()
    assert state(registry) == before
    report = ingest(registry, IngestConfig(max_reject_share=0.2), str(tmp_path / "a.jsonl"))
    assert report.rejected == 20


def test_rejects_of_a_file_that_made_no_batch(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(20)
    ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", rows), holdout=0)
    report = ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", [*rows, {"query": ""}]))
    assert (report.batch, report.rejected) == (None, 1)
    assert registry.path(report.rejects_path).read_text().count("\n") == 1


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


@pytest.mark.parametrize("domain", ["a/b", "../a", "", "a\nb", ".hidden", "x" * 101, "\ud800"])
def test_domain_names_are_checked(registry: Registry, tmp_path: Path, domain: str) -> None:
    before = state(registry)
    with pytest.raises(InvalidNameError):
        ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(20)), domain=domain)
    assert state(registry) == before


def test_a_domain_is_of_one_kind(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(40)
    for row in rows[::4]:
        row["negatives"] = []
    first = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", rows[:20]), holdout=0, kind="classification")
    assert (first.kind, first.kept, first.without_negatives) == ("classification", 20, 5)
    (domain,) = registry.domains()
    assert (domain.kind, domain.in_batch) == ("classification", False)
    later = write_rows(tmp_path / "later.parquet", rows[20:])
    before = state(registry)
    with pytest.raises(InputError, match=r"kind classification, and --kind says sts: .*Leave --kind out"):
        ingest(registry, CONFIG, later, domain="a", kind="sts")
    with pytest.raises(InputError, match=r"--kind takes .*, not 'clusterin'\. Did you mean 'clustering'\?"):
        ingest(registry, CONFIG, later, domain="b", kind="clusterin")
    assert state(registry) == before
    assert ingest(registry, CONFIG, later, domain="a").kind == "classification"
    assert ingest(registry, CONFIG, later, domain="a", kind="classification").unchanged
    other = ingest(registry, CONFIG, write_rows(tmp_path / "c.parquet", make_pairs(20, seed=1)), holdout=0)
    assert (other.kind, other.without_negatives, registry.domains()[1].in_batch) == ("retrieval", 0, True)


def test_classes_without_any_negative_are_refused(registry: Registry, tmp_path: Path) -> None:
    rows = [row | {"negatives": []} for row in make_pairs(40)]
    file = write_rows(tmp_path / "a.parquet", rows)
    with pytest.raises(DataError, match=r"none of its 36 new rows has negatives.*--negatives-column"):
        ingest(registry, CONFIG, file, kind="clustering")
    assert registry.batches() == registry.tasks() == registry.domains() == []
    assert ingest(registry, CONFIG, file, kind="pair-classification").kept == 36


def test_calls_that_contradict_themselves(registry: Registry, tmp_path: Path, beir: Path) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(20))
    for holdout in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="share from 0 to 1"):
            ingest(registry, CONFIG, source, holdout=holdout)
    with pytest.raises(InputError, match="exclude each other"):
        ingest(registry, CONFIG, source, holdout=0.1, task=beir)
    with pytest.raises(DataError, match="Did you mean 'query'"):
        ingest(registry, CONFIG, source, columns=Columns(query="querry"))
    import_task(registry, "a", beir)
    for options in ({}, {"task": beir}):
        with pytest.raises(InvalidNameError, match="choose another --domain"):
            ingest(registry, CONFIG, source, **options)
    assert ingest(registry, CONFIG, source, holdout=0).kept == 20


def test_one_ingest_at_a_time(registry: Registry, tmp_path: Path, beir: Path) -> None:
    with exclusive(registry.root / "ingest.lock", "ingest"):
        with pytest.raises(WorkspaceBusy):
            ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(20)))
        with pytest.raises(WorkspaceBusy):
            import_task(registry, "ood", beir)


def test_a_damaged_file_changes_nothing(registry: Registry, tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in make_pairs(50))
    (tmp_path / "a.jsonl").write_text(text[:-20])
    before = state(registry)
    with pytest.raises(DataError, match="truncated"):
        ingest(registry, IngestConfig(batch_rows=10), str(tmp_path / "a.jsonl"))
    assert state(registry) == before


@pytest.mark.parametrize("holdout", [0.1, 0.0])
def test_a_failed_transaction_leaves_no_files(registry, tmp_path, monkeypatch, holdout) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(30))
    before = state(registry)
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add_batch", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(registry, CONFIG, source, holdout=holdout)
    assert state(registry) == before
    assert ingest(registry, CONFIG, source, holdout=holdout).batch == "b1"


def test_what_stops_an_ingest_after_its_transaction_removes_nothing(registry, tmp_path, monkeypatch) -> None:
    source = write_rows(tmp_path / "a.parquet", make_pairs(30))
    add_batch = Registry.add_batch

    def add_and_stop(*arguments: object, **more: object) -> None:
        add_batch(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add_batch", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            ingest(registry, CONFIG, source)
    assert len(stored(registry, "b1")) == 27
    assert len(task_rows(registry, "a")["queries"]) == 3
    assert ingest(registry, CONFIG, source).unchanged


def test_what_a_killed_ingest_left_is_removed(registry: Registry, tmp_path: Path) -> None:
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(30)))
    lost = ["staging/rows.parquet", "data/b/b2.parquet", "data/b/b2.rejects.jsonl", "data/a/.b2.parquet.0.partial"]
    lost += ["tasks/b/corpus.parquet", "rejects/.b.jsonl.0.partial"]
    before = state(registry)
    for name in lost:
        registry.path(name).parent.mkdir(parents=True, exist_ok=True)
        registry.path(name).write_text("half")
    again = ingest(registry, CONFIG, write_rows(tmp_path / "again.jsonl", make_pairs(30)))
    assert (again.batch, again.unchanged) == (None, False)
    assert state(registry) == before
    assert not registry.path("data/b").exists()


def test_memory_is_bounded_by_small_pieces(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outcome in one piece, in many, sorted at once or in ranges, and with row groups of any size."""
    monkeypatch.setattr("continual.stream.ordered.GROUP_ROWS", 64)
    monkeypatch.setattr("continual.stream.ordered.MAX_RANGES", 40)
    rows = make_pairs(500)
    outcomes = []
    for number, (size, batch_rows, range_bytes) in enumerate(
        [(1000, 1000, 1 << 20), (17, 7, 40_000), (100, 33, 5_000)]
    ):
        monkeypatch.setattr("continual.stream.ordered.RANGE_BYTES", range_bytes)
        source = write_rows(tmp_path / f"{number}.parquet", rows, row_group_size=size)
        other = new_registry(tmp_path / str(number))
        ingest(other, IngestConfig(batch_rows=batch_rows), source, domain="a")
        metadata = pq.ParquetFile(other.path("data/a/b1.parquet")).metadata
        outcomes.append((stored(other, "b1"), other.tasks()[0].sha256))
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        assert sizes == [64] * 7 + [2] if range_bytes > 5_000 else max(sizes) < 20  # bounded in bytes, too
    hashes = [row["row_hash"] for row in outcomes[0][0]]
    assert len(hashes) == 450
    assert hashes == sorted(hashes)
    assert outcomes[0] == outcomes[1] == outcomes[2]


class Bars:
    """Records what a progress bar was told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.told.append((label, total, unit, 0))

    def advance(self, count: int) -> None:
        *rest, done = self.told[-1]
        self.told[-1] = (*rest, done + count)

    def finish(self) -> None:
        pass


def test_progress_counts_rows(registry: Registry, tmp_path: Path) -> None:
    bars = Bars()
    ingest(registry, IngestConfig(batch_rows=7), write_rows(tmp_path / "a.parquet", make_pairs(50)), progress=bars)
    assert bars.told == [("checking", 50, "rows", 50), ("writing", 45, "rows", 45)]
