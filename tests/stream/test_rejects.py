"""Rows that cannot be read: kept with their reasons, or the whole file refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from continual.config import IngestConfig
from continual.errors import DataError
from continual.registry import Registry
from continual.stream import ingest
from tests.rows import make_pairs
from tests.stream.rows import CONFIG, balanced, state, stored, write_rows

BAD = [
    ({"query": "", "positive": "p"}, "query: empty"),
    ({"query": " \t\u00a0", "positive": "p"}, "query: empty"),
    ({"query": None, "positive": "p"}, "query: missing"),
    ({"positive": "p"}, "query: missing"),
    ({"query": "q", "positive": float("nan")}, "positive: missing"),
    ({"query": "q", "positive": 3}, "positive: not text but a number"),
    ({"query": "q", "positive": True}, "positive: not text but true or false"),
    ({"query": ["q"], "positive": "p"}, "query: not one text but a list"),
    ({"query": "q", "positive": []}, "positive: missing"),
    ({"query": "q", "positive": ["p", ""]}, "positive: empty"),
    ({"query": "q", "positive": ["p", ["p"]]}, "positive: not text but a list"),
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
    assert lines[14]["data"]["query"] == "q\ud800"


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
