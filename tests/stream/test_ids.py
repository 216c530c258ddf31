"""Rows that name their texts by id: MS MARCO's triples, lists of ids, and what is done about absent ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.config import IngestConfig
from continual.errors import DataError
from continual.registry import Registry
from continual.stream import Columns, Dialect, ingest
from continual.stream.readers import TextFiles, ids, open_ids
from tests.stream.rows import CONFIG, state, stored, write_rows

Found = dict[object, tuple[object, object, set[str]]]


def collection(folder: Path, passages: int = 200, queries: int = 30) -> dict[str, Path]:
    """Write a collection and queries as MS MARCO does: TSV without a header, in which quotes are text."""
    corpus, asked = folder / "collection.tsv", folder / "queries.tsv"
    corpus.write_text("".join(f'{n}\t"passage {n}\n' for n in range(passages)))
    asked.write_text("".join(f"{1000 + n}\tquery {n}?\n" for n in range(queries)))
    return {"corpus": corpus, "queries": asked}


def rows(registry: Registry, batch: str | None) -> Found:
    return {row["query"]: (row["positive"], row["doc_id"], set(row["negatives"])) for row in stored(registry, batch)}  # type: ignore[call-overload]


def expected(negatives: dict[int, list[int]]) -> Found:
    return {
        f"query {n}?": (f'"passage {n}', str(n), {f'"passage {one}' for one in found}) for n, found in negatives.items()
    }


def test_triples_of_ms_marco(registry: Registry, tmp_path: Path) -> None:
    texts = collection(tmp_path)
    given = {n: [100 + n, 130 + n, 160 + n] for n in range(30)}
    lines = [f"{1000 + n}\t{n}\t{one}\n" for n, found in given.items() for one in found]
    triples = tmp_path / "qidpidtriples.train.tsv"
    triples.write_text("".join(lines))
    report = ingest(registry, CONFIG, str(triples), holdout=0, **texts)
    assert (report.domain, report.rows_in, report.kept, report.rejected) == ("qidpidtriples.train", 30, 30, 0)
    assert rows(registry, report.batch) == expected(given)
    assert report.warnings == [
        f"{triples} has no header line, so its columns are called 1, 2, ...; query ids are read from 1, positive ids "
        "are read from 2, negatives ids are read from 3.",
        "90 rows have 30 different pairs of a query and a positive. Each pair is one row with at most 32 of its "
        "negatives.",
    ]
    assert ingest(registry, CONFIG, str(triples), **texts).unchanged
    texts["queries"].write_text(texts["queries"].read_text().replace("?", "!"))
    assert not ingest(registry, CONFIG, str(triples), holdout=0, **texts).unchanged

    other = Registry(tmp_path / "other" / ".continual", busy_seconds=0.0)
    other.catalog.create()
    triples.write_text("".join(lines[::-1]))
    again = ingest(other, CONFIG, str(triples), holdout=0, **(collection(tmp_path)))
    assert stored(other, again.batch) == stored(registry, report.batch)


SHAPES: dict[str, tuple[str, dict[str, object]]] = {
    "jsonl": ("query_id positive_id negative_ids", {}),
    "parquet": ("qid pos_id neg_ids", {}),
    "csv": ("query-id corpus-id negative_ids", {}),
    "numbered": ("query_id positive_id negative_id_1 negative_id_2", {}),
    "asked": ("a b c", {"columns": Columns(query="a", positive="b", negatives="c")}),
    "no header": ("qid pid neg", {"dialect": Dialect(header=False)}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_in_every_shape(registry: Registry, tmp_path: Path, shape: str) -> None:
    texts, given = collection(tmp_path), {n: [100 + n, 130 + n] for n in range(30)}
    names, options = SHAPES[shape][0].split(), SHAPES[shape][1]
    table: list[dict[str, object]] = []
    for n, found in given.items():
        cells = [1000 + n, n, *(found if len(names) == 4 else [found])]
        table.append(dict(zip(names, cells, strict=True)))
    if shape in ("csv", "no header"):
        source = tmp_path / "a.tsv"
        lines = [names] if shape == "csv" else []
        lines += [[str(cell) for cell in row.values()] for row in table]
        source.write_text("".join("\t".join(cells) + "\n" for cells in lines))
    else:
        source = Path(write_rows(tmp_path / ("a.parquet" if shape == "parquet" else "a.jsonl"), table))
    report = ingest(registry, CONFIG, str(source), holdout=0, **texts, **options)
    assert rows(registry, report.batch) == expected(given)


def test_texts_in_the_layout_of_beir_with_scores(registry: Registry, tmp_path: Path) -> None:
    corpus, asked = tmp_path / "corpus.jsonl.gz", tmp_path / "queries.parquet"
    with gzip.open(corpus, "wt") as file:
        file.writelines(json.dumps({"_id": str(n), "title": f"T{n}", "text": f"text {n}"}) + "\n" for n in range(80))
    pq.write_table(pa.table({"_id": [f"q{n}" for n in range(30)], "text": [f"query {n}" for n in range(30)]}), asked)
    judged = [{"query_id": f"q{n}", "doc_id": 30 * low + n, "score": 1 - low} for n in range(30) for low in (0, 1)]
    report = ingest(
        registry,
        CONFIG,
        write_rows(tmp_path / "a.jsonl", judged),
        columns=Columns(positive_at=1, negative_at=0),
        holdout=0,
        corpus=corpus,
        queries=asked,
    )
    assert (report.rows_in, report.kept, report.not_positive) == (60, 30, 30)
    assert rows(registry, report.batch)["query 3"] == ("T3 text 3", "3", {"T33 text 33"})


def test_only_the_passages_may_have_ids(registry: Registry, tmp_path: Path) -> None:
    corpus = collection(tmp_path)["corpus"]
    table = [{"question": f"what is {n}", "positive_ids": [n, n + 100], "topic": "x"} for n in range(30)]
    source = write_rows(tmp_path / "a.jsonl", table)
    report = ingest(registry, CONFIG, source, corpus=corpus, holdout=0)
    assert (report.rows_in, report.kept, report.unread) == (60, 60, ["topic"])
    found = {(row["query"], row["positive"]) for row in stored(registry, report.batch)}
    assert found == {(f"what is {n}", f'"passage {m}') for n in range(30) for m in (n, n + 100)}


def test_absent_ids_are_counted_and_too_many_refused(registry: Registry, tmp_path: Path) -> None:
    texts = collection(tmp_path)
    source = tmp_path / "a.tsv"
    head, lines = "qid\tpid\tneg_id\n", [f"{1000 + n}\t{n}\t{100 + n}\n" for n in range(27)]
    absent = ["7\t27\t127\n", "1028\t777\t128\n", "1029\t29\t999\n"]
    source.write_text(head + "".join(lines + absent))
    report = ingest(registry, CONFIG, str(source), holdout=0, **texts)
    assert (report.rows_in, report.kept) == (30, 28)
    assert report.reject_reasons == {"positive: no text with this id": 1, "query: no text with this id": 1}
    assert f"1 of 30 negatives have an id without a text in {texts['corpus']}. They are left out." in report.warnings
    rejects = [json.loads(line) for line in registry.path(str(report.rejects_path)).read_text().splitlines()]
    assert [(line["row"], line["data"]["query"], line["data"]["positive"]) for line in rejects] == [
        (29, "7", '"passage 27'),
        (30, "query 28?", "777"),
    ]
    before = state(registry)[:3]
    source.write_text(head + "".join([*lines[:15], *absent]))
    with pytest.raises(DataError, match="positive: no text with this id"):
        ingest(registry, CONFIG, str(source), domain="b", **texts)
    source.write_text(head + "".join(line.replace("\t1", "\t9") for line in lines))
    with pytest.raises(DataError, match=r"27 of 27 negatives have an id without a text.*--corpus"):
        ingest(registry, IngestConfig(max_reject_share=1), str(source), domain="b", **texts)
    assert state(registry)[:3] == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"query_id": 1, "positive_id": 2, "negative_ids": [3]}\n'),
        ("a.jsonl", '{"query": "a question", "positive_ids": [2]}\n'),
        ("a.tsv", "qid\tpid\tneg\n1\t2\t3\n"),
        ("a.tsv", "121352\t2912791\t7282917\n121352\t2912791\t3702141\n"),
        ("a.csv", "query,positive\n1,2\n3,4\n"),
    ],
)
def test_ids_without_texts_are_refused(registry: Registry, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    before = state(registry)
    with pytest.raises(DataError, match=r"ids and no texts.*--corpus collection.tsv --queries queries.tsv"):
        ingest(registry, CONFIG, str(tmp_path / name), holdout=0)
    assert state(registry) == before


def test_what_is_wrong_with_ids_is_said(registry: Registry, tmp_path: Path) -> None:
    texts = collection(tmp_path)
    source = write_rows(tmp_path / "a.jsonl", [{"query_id": 1000 + n, "positive_id": n, "x": 1} for n in range(20)])
    with pytest.raises(DataError, match=r"no column 'positve_id' for --positive-column. Did you mean 'positive_id'"):
        ingest(registry, CONFIG, source, columns=Columns(positive="positve_id"), **texts)
    for column, message in (("positive", "a column 'positive' besides the ids"), ("pos_id", "2 columns .*for the id")):
        table = [{"query_id": 1, "positive_id": 2, column: "text"}]
        with pytest.raises(DataError, match=message):
            ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", table), **texts)
    with pytest.raises(DataError, match="none for the id of the positive: name it with --positive-column"):
        ingest(registry, CONFIG, write_rows(tmp_path / "c.jsonl", [{"query_id": 1, "x": 2}]), **texts)
    texts["corpus"].write_text("1\ta\n1\tb\n")
    with pytest.raises(DataError, match="1 rows without an id of their own"):
        ingest(registry, CONFIG, source, **texts)
    texts["corpus"].write_text("1\ta\tb\n")
    with pytest.raises(DataError, match=r"an id .* and a text are expected"):
        ingest(registry, CONFIG, source, **texts)


def test_pieces_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "PIECE_BYTES", 100)
    texts = collection(tmp_path)
    lines = [f"{1000 + n}\t{n}\t{m}\n" for n in range(30) for m in range(100, 160)]
    (tmp_path / "a.tsv").write_text("".join(lines))
    opened = open_ids(str(tmp_path / "a.tsv"), Dialect(), TextFiles(**texts), Columns())
    pieces = list(opened.read(opened.columns, 1000))
    assert [len(piece.numbers) for piece in pieces] == [1] * 30
    assert all(len(set(piece.columns["negatives"][0])) == 32 for piece in pieces)
