"""From files to batches: the fates of rows, the hold-out, and that nothing is half done."""

from __future__ import annotations

import random
import tempfile
import unicodedata
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continual.config import IngestConfig
from continual.errors import (
    DataError,
    InputError,
    InvalidNameError,
)
from continual.registry import Registry
from continual.registry.text import hash_row, hash_text, normalise
from continual.stream import (
    Columns,
    import_task,
    ingest,
)
from continual.stream.stage import BATCH_SCHEMA
from tests.rows import make_pairs
from tests.stream.rows import CONFIG, balanced, new_registry, state, stored, task_rows, write_rows


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


@settings(max_examples=6, deadline=None)
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


def test_a_task_is_never_replaced(registry: Registry, tmp_path: Path, beir: Path) -> None:
    ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", make_pairs(50)))
    more = write_rows(tmp_path / "more.parquet", make_pairs(50, seed=2))
    before = state(registry)
    for options in ({"holdout": 0.2}, {"task": beir}):
        with pytest.raises(InputError, match="continual task add NAME DIR --domain a"):
            ingest(registry, CONFIG, more, domain="a", **options)
    assert state(registry) == before
    assert ingest(registry, CONFIG, more, domain="a", holdout=0.0).kept == 50


LEAKS = [
    {"query": "THE Question!", "positive": "nearly its query"},
    {"query": "A question", "positive": "other words"},
    {"query": "the  question ", "positive": "its query is in the task"},
    {"query": "its positive is relevant", "positive": "\u00a0answer"},
    {"query": "its positive is only a distractor", "positive": "distractor"},
    {"query": "answer", "positive": "the document as a query"},
]


def test_rows_that_leak_into_a_task_are_held_back(registry: Registry, tmp_path: Path, beir: Path) -> None:
    import_task(registry, "ood", beir)
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", LEAKS), holdout=0)
    assert (report.kept, report.leaked, report.near) == (2, 4, 1)
    assert {row["query"] for row in stored(registry, "b1")} == {LEAKS[1]["query"], LEAKS[4]["query"]}


def test_a_folder_as_the_domains_task(registry: Registry, tmp_path: Path, beir: Path) -> None:
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.parquet", LEAKS), task=beir)
    assert (report.kept, report.leaked, report.held_out, report.task) == (2, 4, 0, "a")
    (task,) = registry.tasks()
    assert (task.name, task.domain, task.queries, task.documents, task.origin) == ("a", "a", 1, 2, str(beir))
    assert len(task_rows(registry, "a")["keys"]) == 2


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
    assert bars.told == [("checking rows", 50, "rows", 50), ("writing rows", 45, "rows", 45)]


def test_a_folder_has_one_hold_out_over_all_its_files(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(100)
    folder = tmp_path / "notes"
    folder.mkdir()
    for shard in range(4):
        write_rows(folder / f"{shard}.jsonl", rows[shard::4])
    (folder / "3.jsonl").write_text((folder / "3.jsonl").read_text() + '{"query": ""}\n')
    report = ingest(registry, CONFIG, str(folder))
    whole = new_registry(tmp_path / "whole")
    expected = ingest(whole, CONFIG, write_rows(tmp_path / "all.jsonl", rows), domain="notes")
    assert (report.domain, report.kept, report.held_out) == ("notes", expected.kept, expected.held_out)
    assert stored(registry, "b1") == stored(whole, "b1")
    assert task_rows(registry, "notes") == task_rows(whole, "notes")
    assert '"row": 26, "file": "3.jsonl"' in registry.path(report.rejects_path).read_text()
    assert ingest(registry, CONFIG, str(folder)).unchanged
