"""Evaluation tasks: BEIR-like folders in, Parquet and keys out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.config import IngestConfig
from continual.errors import DataError, InvalidNameError, NotFoundError
from continual.registry import Registry
from continual.registry.text import hash_text
from continual.stream import TaskReport, import_task, ingest
from continual.stream.task_files import read_task
from continual.stream.task_tables import TaskReading, task_tables, write_task
from tests.rows import make_pairs
from tests.tasks import CORPUS, QRELS, QUERIES, write_beir, write_jsonl


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "beir")


def read(path: Path) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in pq.read_table(path).to_pylist()]


def test_a_beir_folder_becomes_a_task(registry: Registry, beir: Path) -> None:
    report = import_task(registry, "ood", beir)
    expected = TaskReport(
        name="ood",
        domain=None,
        queries=2,
        documents=3,
        judgements=4,
        leaked_rows=0,
        dropped_queries=1,
        dropped_documents=1,
        unchanged=False,
        reading=TaskReading("qrels/test.tsv", unjudged_queries=1, empty_documents=1, negative_grades=1),
    )
    assert report == expected
    folder = registry.path("tasks/ood")
    assert sorted(path.name for path in folder.iterdir()) == [
        "corpus.parquet",
        "keys.parquet",
        "leaks.parquet",
        "qrels.parquet",
        "queries.parquet",
        "shingles.parquet",
    ]
    assert read(folder / "corpus.parquet") == [("d1", "Title first  document"), ("d2", "sécond"), ("d3", "third")]
    assert read(folder / "queries.parquet") == [("q1", "one"), ("q2", "two")]
    assert read(folder / "qrels.parquet") == [("q1", "d1", 2), ("q1", "d3", 0), ("q2", "d1", 0), ("q2", "d2", 1)]
    assert sorted(read(folder / "keys.parquet")) == sorted(
        [
            ("query", hash_text("one")),
            ("query", hash_text("two")),
            ("document", hash_text("Title first document")),
            ("document", hash_text("first document")),
            ("document", hash_text("s\u00e9cond")),
        ]
    )
    assert pq.read_schema(folder / "qrels.parquet").field("score").type == pa.int64()
    (task,) = registry.tasks()
    assert (task.name, task.domain, task.path, task.origin) == ("ood", None, "tasks/ood", str(beir))


def test_every_layout_is_the_same_task(beir: Path, tmp_path: Path) -> None:
    expected = read_task(beir).sha256()

    no_header = shutil.copytree(beir, tmp_path / "no_header")
    (no_header / "qrels" / "test.tsv").unlink()
    (no_header / "qrels.tsv").write_text("\r\n".join("\t".join(map(str, row)) for row in QRELS[::-1]))
    write_jsonl(no_header / "corpus.jsonl.gz", CORPUS[::-1])
    (no_header / "corpus.jsonl").unlink()
    assert read_task(no_header).sha256() == expected

    parquet = tmp_path / "parquet"
    parquet.mkdir()
    corpus = [{"doc_id": row["_id"], "title": row.get("title"), "text": row["text"]} for row in CORPUS]
    pq.write_table(pa.Table.from_pylist(corpus), parquet / "corpus.parquet")
    queries = [{"query_id": row["_id"], "text": row["text"]} for row in QUERIES]
    pq.write_table(pa.Table.from_pylist(queries), parquet / "queries.parquet")
    columns = list(zip(*QRELS, strict=True))
    names = ["query_id", "doc_id", "score"]
    pq.write_table(
        pa.table([columns[0], columns[1], pa.array(columns[2], pa.int32())], names), parquet / "qrels.parquet"
    )
    assert read_task(parquet).sha256() == expected

    jsonl = shutil.copytree(beir, tmp_path / "jsonl")
    (jsonl / "qrels" / "test.tsv").unlink()
    names = ["query-id", "corpus-id", "score"]
    write_jsonl(jsonl / "qrels.jsonl", [dict(zip(names, row, strict=True)) for row in QRELS])
    assert read_task(jsonl).sha256() == expected


def test_writing_and_reading_back_gives_the_same_task(beir: Path, tmp_path: Path) -> None:
    tables = read_task(beir)
    write_task(tables, tmp_path / "copy")
    again = read_task(tmp_path / "copy")
    assert again.sha256() == tables.sha256()
    assert again.reading == TaskReading("qrels.parquet", unread_files=("keys.parquet", "shingles.parquet"))


def test_numbers_as_ids(tmp_path: Path) -> None:
    corpus, queries = [{"_id": 1, "text": "a"}], [{"_id": 7, "text": "b"}]
    tables = read_task(write_beir(tmp_path / "t", corpus, queries, [(7, 1, 1)]))
    assert tables.qrels.to_pylist() == [{"query_id": "7", "doc_id": "1", "score": 1}]


def test_the_same_task_again_changes_nothing(registry: Registry, beir: Path, tmp_path: Path) -> None:
    import_task(registry, "ood", beir)
    before = registry.tasks()
    again = import_task(registry, "ood", shutil.copytree(beir, tmp_path / "copy"))
    assert again.unchanged
    assert again.queries == 2
    assert registry.tasks() == before
    other = write_beir(tmp_path / "other", qrels=QRELS[:3])
    with pytest.raises(InvalidNameError, match="The name 'ood' is taken: it is an out-of-domain task with 2 queries"):
        import_task(registry, "ood", other)
    assert registry.tasks() == before
    assert import_task(registry, "ood2", beir).unchanged is False  # another name is another task


def test_stored_rows_that_leak_are_counted(registry: Registry, tmp_path: Path) -> None:
    rows = make_pairs(40)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    ingest(registry, IngestConfig(), str(tmp_path / "a.parquet"), holdout=0)
    folder = write_beir(
        tmp_path / "leaky",
        [{"_id": "d", "text": rows[0]["positive"]}, {"_id": "e", "text": rows[1]["positive"]}],
        [{"_id": "q", "text": f" {rows[2]['query']} "}],
        [("q", "d", 1)],
    )
    report = import_task(registry, "leaky", folder, domain="a")
    assert (report.leaked_rows, report.domain) == (2, "a")  # document e is a distractor
    assert import_task(registry, "leaky", folder, domain="a").unchanged
    with pytest.raises(InvalidNameError, match="it is the task of domain 'a'"):
        import_task(registry, "leaky", folder)
    with pytest.raises(NotFoundError, match=r"no domain 'aa'\. Did you mean 'a'"):
        import_task(registry, "other", folder, domain="aa")


def test_a_titled_document_leaks_with_its_title_and_without(registry: Registry, tmp_path: Path) -> None:
    corpus = [
        {"_id": "d", "title": "On rain", "text": "It falls."},
        {"_id": "e", "title": "Only a title", "text": ""},
        {"_id": "f", "title": "On snow", "text": "A distractor."},
    ]
    queries = [{"_id": "q", "title": "not read", "text": "weather"}]
    folder = write_beir(tmp_path / "titled", corpus, queries, [("q", "d", 1), ("q", "e", 1)])
    leaks = ["On rain It falls.", " It  falls.", "On rain\n\nIt falls.", "Only a title"]
    others = ["On rain", "A distractor.", "On snow A distractor."]
    rows = [{"query": f"query {i}", "positive": text} for i, text in enumerate(leaks + others)]
    source = tmp_path / "a.jsonl"
    write_jsonl(source, [*rows, {"query": "weather", "positive": "anything"}])

    before = Registry(tmp_path / "before")
    before.catalog.create()
    ingest(before, IngestConfig(), str(source), holdout=0)
    assert import_task(before, "titled", folder).leaked_rows == 5

    import_task(registry, "titled", folder)
    report = ingest(registry, IngestConfig(), str(source), holdout=0)
    assert (report.leaked, report.kept) == (5, 3)
    (batch,) = registry.batches()
    assert {row["positive"] for row in pq.read_table(registry.path(batch.path)).to_pylist()} == set(others)


FAULTS = [
    ("queries.jsonl", [*QUERIES, {**QUERIES[0], "text": "two"}], "row 4, repeats the id 'q1' with another text"),
    ("corpus.jsonl", [*CORPUS, {"_id": "d1", "text": "x"}], "row 5, repeats the id 'd1' with another text"),
    ("queries.jsonl", [{"_id": "q1", "text": "one"}], r"1 of 2 judgements above 0 \(50%\).* such as query 'q2'"),
    ("corpus.jsonl", CORPUS[1:], r"1 of 2 judgements above 0 \(50%\).* such as document 'd1'"),
    ("queries.jsonl", [{"_id": "q1", "text": " "}, QUERIES[1]], "has no text, such as query 'q1'"),
    ("queries.jsonl", [{"_id": "q1", "text": None}, QUERIES[1]], "has no text, such as query 'q1'"),
    ("queries.jsonl", [{"_id": "q1", "text": ["one"]}, QUERIES[1]], "something other than text"),
    ("queries.jsonl", [{"_id": "q1", "text": "a\0"}, QUERIES[1]], "NUL character"),
    ("corpus.jsonl", [{"_id": "d1", "text": "\ud800"}, *CORPUS[1:]], "lone surrogate"),
    ("corpus.jsonl", [{"_id": "d1", "text": ""}, *CORPUS[1:]], "has no text, such as document 'd1'"),
    ("queries.jsonl", [{"_id": None, "text": "one"}], "an id that cannot be used"),
    ("queries.jsonl", [{"_id": "", "text": "one"}], "an id that cannot be used"),
    ("queries.jsonl", [{"_id": "\ud800", "text": "one"}], "lone surrogate"),
    ("queries.jsonl", [{"name": "q1", "text": "one"}], "but none of query_id"),
    ("corpus.jsonl", [{"_id": "d1", "body": "one"}], "but none of text"),
    ("corpus.jsonl", None, "none of the files corpus.parquet, corpus.jsonl"),
    ("qrels/test.tsv", None, "none of the files qrels.parquet"),
    ("qrels/test.tsv", "q1\td1\n", "2 tab-separated fields"),
    ("qrels/test.tsv", "q1\td1\t1\nq2\td2\thigh\n", "row 2, has the grade 'high'"),
    ("qrels/test.tsv", "q1\td1\t1\nq1\td1\t2\n", "row 2, judges .'q1', 'd1'. as 2, but a row before it says 1"),
    ("qrels/test.tsv", "q1\td1\t0\n", "no query has a relevant document"),
    ("qrels/test.tsv", "", "no query has a relevant document"),
    ("qrels/test.tsv", b"q1\td\xff\t1\n", "not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), FAULTS)
def test_what_is_wrong_with_a_folder(registry: Registry, beir: Path, name: str, content, message: str) -> None:
    path = beir / name
    if content is None:
        path.unlink()
    elif isinstance(content, list):
        write_jsonl(path, content)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as error:
        import_task(registry, "ood", beir)
    assert str(beir) in str(error.value)
    assert registry.tasks() == []
    assert not (registry.root / "tasks").exists()


def test_grades_are_read_as_trec_eval_reads_them(beir: Path) -> None:
    rows = [("q1", "d1", "2.0"), ("q1", "d2", "0.5"), ("q1", "d3", "-1"), ("q2", "d1", "1.7"), ("q2", "d3", "-0.5")]
    (beir / "qrels" / "test.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    expected = [("q1", "d1", 2), ("q1", "d2", 0), ("q1", "d3", 0), ("q2", "d1", 1), ("q2", "d3", 0)]
    tables = read_task(beir)
    assert [tuple(row.values()) for row in tables.qrels.to_pylist()] == expected
    assert (tables.reading.cut_grades, tables.reading.negative_grades) == (3, 2)
    (beir / "qrels" / "test.tsv").unlink()
    numbers = [{"query-id": query, "corpus-id": document, "score": float(grade)} for query, document, grade in rows]
    write_jsonl(beir / "qrels.jsonl", numbers)
    assert read_task(beir).sha256() == tables.sha256()


@pytest.mark.parametrize(
    "grade", ["NaN", "Infinity", "1e999", "9" * 30, "9" * 5000, "true", "null", '"x"', '"1e99"', "[]"]
)
def test_what_no_grade_can_be(beir: Path, grade: str) -> None:
    (beir / "qrels" / "test.tsv").unlink()
    (beir / "qrels.jsonl").write_text(f'{{"query-id": "q1", "corpus-id": "d1", "score": {grade}}}\n')
    with pytest.raises(DataError, match=r"row 1.* (a grade is a number of at most 2,147,483,647|not a JSON object)"):
        read_task(beir)


def test_damaged_rows_of_a_task(beir: Path) -> None:
    with (beir / "corpus.jsonl").open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(DataError, match="row 5: not a JSON object"):
        read_task(beir)


def test_folders_and_names(registry: Registry, beir: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        import_task(registry, "ood", beir / "none")
    with pytest.raises(DataError, match="is a file"):
        import_task(registry, "ood", beir / "corpus.jsonl")
    with pytest.raises(DataError, match="cannot be opened: File name too long"):
        import_task(registry, "ood", beir / ("x" * 5000))
    for name in ("a/b", "", "..", "a\x00b"):
        with pytest.raises(InvalidNameError):
            import_task(registry, name, beir)


def test_a_failed_transaction_leaves_no_folder(registry: Registry, beir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add_task", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            import_task(registry, "ood", beir)
    assert list((registry.root / "tasks").iterdir()) == []
    import_task(registry, "ood", beir)


def test_what_stops_an_import_after_its_transaction_removes_nothing(
    registry: Registry, beir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_task = Registry.add_task

    def add_and_stop(*arguments: object, **more: object) -> None:
        add_task(*arguments, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "add_task", add_and_stop)
        with pytest.raises(KeyboardInterrupt):
            import_task(registry, "ood", beir)
    (task,) = registry.tasks()
    assert read_task(registry.path(task.path)).sha256() == task.sha256
    assert import_task(registry, "ood", beir).unchanged


def test_a_relevant_document_found_twice_is_one_key(tmp_path: Path) -> None:
    corpus = pa.table({"doc_id": ["a", "b"], "text": ["same  text", "same text"]})
    queries = pa.table({"query_id": ["q"], "text": ["query"]})
    qrels = pa.table({"query_id": ["q", "q"], "doc_id": ["b", "a"], "score": [1, 1]})
    write_task(task_tables(corpus, queries, qrels), tmp_path / "t")
    assert read(tmp_path / "t" / "keys.parquet") == [
        ("document", hash_text("same text")),
        ("query", hash_text("query")),
    ]
