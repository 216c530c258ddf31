"""Task folders as they are found in the wild: other layouts, flaws that cost a few judgements, and traps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.errors import DataError
from continual.stream import task_rows
from continual.stream.task_files import read_task
from tests.tasks import write_beir, write_jsonl

CORPUS = [{"_id": f"d{number}", "text": f"document {number}"} for number in range(20)]
QUERIES = [{"_id": f"q{number}", "text": f"query {number}"} for number in range(20)]
QRELS = [(f"q{number}", f"d{number}", 1) for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path / "t", CORPUS, QUERIES, QRELS)


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


def qrels(folder: Path, text: str, name: str = "qrels/test.tsv") -> Path:
    (folder / name).write_text(text, newline="")
    return folder


def pairs(folder: Path) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in read_task(folder).qrels.to_pylist()]


def test_a_few_judgements_of_absent_ids_are_left_out(folder: Path) -> None:
    expected = read_task(folder)
    lines = [*QRELS, ("q1", "gone", 1), ("nobody", "d1", 1), ("q2", "gone", 0), ("q3", "gone", 0), ("q4", "lost", 0)]
    qrels(folder, "".join("\t".join(map(str, line)) + "\n" for line in lines))
    found = read_task(folder)
    assert found.sha256() == expected.sha256()
    assert found.reading.dropped_judgements == 5  # two above 0 of 22, and three of 0
    assert found.reading.dropped_example == "query 'nobody'"
    qrels(folder, "".join("\t".join(map(str, line)) + "\n" for line in [*lines, ("q5", "d77", 1)]))
    with pytest.raises(DataError, match=r"3 of 23 judgements above 0 \(13%\).*Up to 10% are left out") as error:
        read_task(folder)
    assert "query 'nobody'" in str(error.value)


def test_a_text_that_is_empty_costs_its_judgements_only(folder: Path) -> None:
    write_jsonl(folder / "corpus.jsonl", [{"_id": "d0", "text": " "}, *CORPUS[1:], {"_id": "e", "text": None}])
    write_jsonl(folder / "queries.jsonl", [*QUERIES[:-1], {"_id": "q19", "text": ""}, {"_id": "of dev", "text": "x"}])
    found = read_task(folder)
    assert (found.queries.num_rows, found.corpus.num_rows, found.qrels.num_rows) == (18, 19, 18)
    reading = found.reading
    assert (reading.dropped_judgements, reading.empty_documents, reading.empty_queries) == (2, 2, 1)
    assert (reading.unjudged_queries, reading.irrelevant_queries) == (1, 1)


def test_what_is_repeated_is_counted_unless_it_contradicts(folder: Path) -> None:
    expected = read_task(folder).sha256()
    write_jsonl(folder / "corpus.jsonl", [*CORPUS, CORPUS[3]])
    write_jsonl(folder / "queries.jsonl", [QUERIES[3], *QUERIES])
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("q3\td3\t1.0\n")
    found = read_task(folder)
    assert found.sha256() == expected
    assert (found.reading.repeated_rows, found.reading.repeated_judgements) == (2, 1)


TEXTS = {
    "tabs": "q1\td1\t2\nq2\td2\t1\n",
    "header": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n",
    "header, another order": "relevance\tdocid\tqid\n2\td1\tq1\n1\td2\tq2\n",
    "header in capitals": "Query ID\tDoc_ID\tScore\nq1\td1\t2\nq2\td2\t1\n",
    "blank lines and CRLF": "\r\nq1\td1\t2\r\n\r\nq2\td2\t1\r\n",
    "no line end": "q1\td1\t2\nq2\td2\t1",
    "byte order mark": "\ufeffq1\td1\t2\nq2\td2\t1\n",
    "byte order mark, header": "\ufeffquery-id\tcorpus-id\tscore\nq1\td1\t2\nq2\td2\t1\n",
    "TREC, spaces": "q1 0 d1 2\nq2  Q0 d2   1\n",
    "TREC, tabs": "q1\t0\td1\t2\nq2\t0\td2\t1\n",
    "TREC, header": "query_id iteration doc_id relevance\nq1 0 d1 2\nq2 0 d2 1\n",
    "three, spaces": "q1 d1 2\nq2 d2 1\n",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("file", ["qrels/test.tsv", "qrels/test.txt", "qrels/test.trec"])
def test_judgements_as_text(folder: Path, name: str, file: str) -> None:
    (folder / "qrels" / "test.tsv").unlink()
    assert pairs(qrels(folder, TEXTS[name], file)) == [("q1", "d1", 2), ("q2", "d2", 1)]
    ignored = {"qrels/" + Path(file).name: ["iteration"]} if name == "TREC, header" else {}
    assert read_task(folder).reading.unread_columns == ignored


BAD_TEXTS = [
    ("q1\td1\t1\nq2\td2\n", "row 2, has 2 tab-separated fields, but the first row has 3"),
    ("q1 0 d1 1\nq 2 0 d2 1\n", "row 2, has 5 space-separated fields.*tabs if ids contain spaces"),
    ("q1 d1\n", "row 1, has 2 space-separated fields, but three"),
    ("a\tb\tc\nq1\td1\t1\n", "row 1, has the grade 'c'.*if it is a header, name its columns query-id, corpus-id"),
    ("qid\tquery-id\tpid\tscore\n", "the columns qid and query-id, which mean the same"),
    ("query_id\tquery-id\tpid\tscore\nq1\tq1\td1\t1\n", "the columns query_id and query-id, which mean the same"),
    ('"q1"\t"d1"\t1\n', r"""such as query '"q1"'"""),  # quotes belong to the id
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS)
def test_judgements_that_can_be_read_in_two_ways(folder: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_task(qrels(folder, text))


def test_ids_with_spaces_and_numbers(tmp_path: Path) -> None:
    corpus = [{"id": 1, "passage": "one"}, {"id": "two words", "passage": "two"}]
    queries = [{"qid": "1", "query": "first"}, {"qid": 2, "query": "second"}]
    folder = write_beir(tmp_path / "t", corpus, queries, [(1, 1, 1), (2, "two words", 1)])
    assert pairs(folder) == [("1", "1", 1), ("2", "two words", 1)]
    write_jsonl(folder / "corpus.jsonl", [*corpus, {"id": "1", "passage": "another"}])
    with pytest.raises(DataError, match="row 3, repeats the id '1' with another text"):
        read_task(folder)
    write_jsonl(folder / "corpus.jsonl", [{"id": 1.0, "passage": "one"}])
    with pytest.raises(DataError, match=r"id that cannot be used \(1\.0\): not text or a whole number"):
        read_task(folder)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_files(folder: Path, ending: str) -> None:
    expected = read_task(folder).sha256()
    for file in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        data = b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n")
        file.with_name(file.name + ending).write_bytes(gzip.compress(data) if ending == ".gz" else zstd(data))
        file.unlink()
    assert read_task(folder).sha256() == expected
    file = folder / f"corpus.jsonl{ending}"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=f"corpus.jsonl{ending} cannot be read"):
        read_task(folder)


def test_of_several_splits_test_is_read_and_a_file_chooses_another(folder: Path) -> None:
    qrels(folder, "q1\td1\t1\n", "qrels/dev.tsv")
    qrels(folder, "q2\td2\t1\n", "qrels/train.tsv")
    found = read_task(folder)
    assert (found.qrels.num_rows, found.reading.qrels) == (20, "qrels/test.tsv")
    assert found.reading.unread_files == ("qrels/dev.tsv", "qrels/train.tsv")
    assert pairs(folder / "qrels" / "dev.tsv") == [("q1", "d1", 1)]
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"qrels/dev\.tsv, qrels/train\.tsv\. Name one: `continual task add NAME .*dev"):
        read_task(folder)
    (folder / "qrels" / "train.tsv").unlink()
    assert pairs(folder) == [("q1", "d1", 1)]
    with pytest.raises(DataError, match="another ending than judgements can have"):
        read_task(Path(qrels(folder, "", "qrels/dev.csv") / "qrels" / "dev.csv"))


@pytest.mark.parametrize("second", ["corpus.jsonl.gz", "queries.parquet", "qrels.tsv", "qrels/test.txt"])
def test_two_files_of_a_kind_are_refused(folder: Path, second: str) -> None:
    (folder / second).write_bytes(b"x")
    with pytest.raises(DataError, match=f"has several files of the same kind.*{second}"):
        read_task(folder)


def test_what_is_not_read_is_named(folder: Path) -> None:
    write_jsonl(folder / "corpus.jsonl", [{**CORPUS[0], "metadata": {"a": 1}}, *CORPUS[1:-1], {**CORPUS[-1], "url": 1}])
    write_jsonl(folder / "queries.jsonl", [{**row, "id": 7, "title": "t"} for row in QUERIES[:1]] + QUERIES[1:])
    (folder / "README.md").write_text("x")
    (folder / ".hidden").write_text("x")
    (folder / "images").mkdir()
    with pytest.raises(DataError, match="the columns _id and id, which mean the same"):
        read_task(folder)
    write_jsonl(folder / "queries.jsonl", [{"qid": row["_id"], "id": 7, "text": row["text"]} for row in QUERIES])
    reading = read_task(folder).reading
    assert reading.unread_columns == {"corpus.jsonl": ["metadata", "url"], "queries.jsonl": ["id"]}
    assert reading.unread_files == ("README.md", "images/")


def test_a_title_that_only_late_rows_have_is_read(folder: Path) -> None:
    corpus = [*CORPUS, *({"_id": f"x{number}", "text": "more"} for number in range(100))]
    write_jsonl(folder / "corpus.jsonl", [*corpus, {"_id": "late", "title": "Title", "text": "text"}])
    tables = read_task(folder)
    assert (
        dict(zip(*(tables.corpus[name].to_pylist() for name in ("doc_id", "text")), strict=True))["late"]
        == "Title text"
    )


def bomb_of_zeros(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(bytes(64 << 20)))


def bomb_of_blank_lines(folder: Path) -> None:
    (folder / "queries.jsonl").unlink()
    (folder / "queries.jsonl.zst").write_bytes(zstd(b"\n" * (64 << 20)))


def bomb_of_repeated_judgements(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").unlink()
    (folder / "qrels" / "test.tsv.gz").write_bytes(gzip.compress(b"q1\td1\t1\n" * (1 << 19)))


def bomb_of_one_long_text(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), ["x" * 1_000_000])
    table = pa.table({"_id": [f"d{number}" for number in range(10_000)], "text": texts})
    pq.write_table(table, folder / "corpus.parquet", compression="zstd")


def bomb_of_plain_text(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    table = pa.table({"_id": [f"d{number}" for number in range(50)], "text": ["x" * 1_000_000] * 50})
    pq.write_table(table, folder / "corpus.parquet", compression="zstd", use_dictionary=False)


def bomb_of_rows(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").unlink()
    names = ["query_id", "doc_id", "score"]
    table = pa.table([pa.repeat(value, 3_000_000) for value in ("q1", "d1", 1)], names)
    pq.write_table(table, folder / "qrels.parquet", compression="zstd")


BOMBS = [
    bomb_of_zeros,
    bomb_of_blank_lines,
    bomb_of_repeated_judgements,
    bomb_of_one_long_text,
    bomb_of_plain_text,
    bomb_of_rows,
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_explodes_is_refused(folder: Path, bomb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_rows, "FREE_BYTES", 1 << 18)  # the same in less time
    bomb(folder)
    with pytest.raises(DataError, match="grows to more than 100 times its size"):
        read_task(folder)


def test_a_text_that_many_rows_share_is_no_bomb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_rows, "BATCH_ROWS", 7)
    rows = [{"_id": row["_id"], "text": "the same" if number % 2 else row["text"]} for number, row in enumerate(CORPUS)]
    rows[3]["text"] = None
    (folder / "corpus.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), folder / "corpus.parquet")
    tables = read_task(folder)
    expected = {row["_id"]: row["text"] for row in rows if row["text"]}
    assert dict(zip(*(tables.corpus[name].to_pylist() for name in ("doc_id", "text")), strict=True)) == expected


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"_id": ' * 50_000, '{"_id": "a", "text": ' + "[" * 900 + "]" * 900 + "}"]
)
def test_nested_json_is_refused(folder: Path, line: str) -> None:
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=r"row 21.*(not a JSON object|something other than text)"):
        read_task(folder)


def test_errors_cut_what_they_quote(folder: Path) -> None:
    for row in ({"_id": ["x" * 10_000], "text": "a"}, {"_id": json.loads("[" * 500 + "]" * 500), "text": "a"}):
        write_jsonl(folder / "corpus.jsonl", [row])
        with pytest.raises(DataError, match="an id that cannot be used") as error:
            read_task(folder)
        assert len(str(error.value)) < 400 + len(str(folder))


def test_parquet_that_is_not_text(folder: Path) -> None:
    (folder / "corpus.jsonl").unlink()
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"_id": ["a"], "text": broken}), folder / "corpus.parquet")
    with pytest.raises(DataError, match="row 1, holds text that is not UTF-8"):
        read_task(folder)
    data = (folder / "corpus.parquet").read_bytes()
    (folder / "corpus.parquet").write_bytes(data[:-10])
    with pytest.raises(DataError, match="is truncated"):
        read_task(folder)
