"""Scores and labels of pairs: what is positive, what becomes a hard negative, and what must be said about both."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.config import IngestConfig
from continual.errors import DataError, InputError
from continual.registry import Registry
from continual.stream import Columns, IngestReport, ingest
from tests.stream.rows import CONFIG, balanced, new_registry, state, stored, write_rows

STS = [
    {"sentence1": "a plane takes off", "sentence2": "an air plane takes off", "score": 0.9},
    {"sentence1": "a plane takes off", "sentence2": "a man plays a flute", "score": 0.1},
    {"sentence1": "a plane takes off", "sentence2": "a dog sleeps", "score": 0.3},
    {"sentence1": "a plane takes off", "sentence2": "a plane lands", "score": 0.5},
    {"sentence1": "a cat eats", "sentence2": "a kitten eats", "score": 0.7},
    {"sentence1": "nobody is here", "sentence2": "a crowd sings", "score": 0.0},
]
SCORED = Columns(score="score", positive_at=0.7, negative_at=0.3)


def negatives(registry: Registry, report: IngestReport) -> dict[str, set[str]]:
    return {row["query"]: set(row["negatives"]) for row in stored(registry, report.batch)}


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_low_scores_are_negatives_of_their_query(registry: Registry, tmp_path: Path, kind: str) -> None:
    report = ingest(registry, CONFIG, write_rows(tmp_path / f"a.{kind}", STS), columns=SCORED, holdout=0)
    assert balanced_scores(report)
    assert (report.rows_in, report.kept, report.not_positive, report.between) == (6, 2, 4, 1)
    assert report.hard_negatives == 2  # the row of "nobody is here" has no positive to serve
    assert report.scores == (0.0, 0.9)
    assert report.columns["score"] == "score"
    assert negatives(registry, report) == {
        "a plane takes off": {"a man plays a flute", "a dog sleeps"},
        "a cat eats": set(),
    }


def balanced_scores(report: IngestReport) -> bool:
    fates = report.kept + report.duplicates + report.leaked + report.rejected + report.held_out + report.not_positive
    return report.rows_in == fates


@pytest.mark.parametrize("name", ["score", "label", "Label", "similarity", "relevance", "rating", "gold_label"])
def test_a_score_column_is_not_ignored(registry: Registry, tmp_path: Path, name: str) -> None:
    rows = [{"sentence1": f"q{i}", "sentence2": f"p{i}", name: i % 2} for i in range(20)]
    source = write_rows(tmp_path / "a.jsonl", rows)
    before = state(registry)
    with pytest.raises(DataError, match=f"column {name!r}.*--score-column {name} --positive-at X.*--score-column none"):
        ingest(registry, CONFIG, source)
    assert state(registry) == before
    report = ingest(registry, CONFIG, source, columns=Columns(score="none"), holdout=0)
    assert (report.kept, report.not_positive, report.scores, report.unread) == (20, 0, None, [name])
    assert "score" not in registry.batches()[0].columns  # as it was recorded before there were scores


def test_a_score_column_that_begins_late_is_not_ignored(registry: Registry, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(150)]
    source = write_rows(tmp_path / "a.jsonl", [*rows, {"query": "q", "positive": "p", "score": 0.0}])
    with pytest.raises(DataError, match="column 'score'"):
        ingest(registry, CONFIG, source)


def test_negatives_that_begin_late_are_read(registry: Registry, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(150)]
    late = {"query": "q", "positive": "p", "negatives": ["n"], "extra": 1}
    source = write_rows(tmp_path / "a.jsonl", [*rows, late])
    report = ingest(registry, CONFIG, source, holdout=0)
    assert negatives(registry, report)["q"] == {"n"}
    assert report.unread == ["extra"]
    assert ingest(registry, CONFIG, source).unchanged


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    rng = random.Random(0)
    names = [f"q{rng.choice((0, 1, 2)) if rng.random() < 0.5 else rng.randint(3, 99)}" for _ in range(1000)]
    rows = [{"query": name, "positive": f"p{rng.randint(0, 200)}", "label": rng.random()} for name in names]
    rows += [{**row, "positive": f" {row['positive']} "} for row in rows[:50]]  # the same text, spelled otherwise
    results = []
    for place, ordered in enumerate((rows, rng.sample(rows, len(rows)))):
        registry = new_registry(tmp_path / str(place))
        source = write_rows(tmp_path / "a.jsonl", ordered)
        report = ingest(
            registry,
            IngestConfig(batch_rows=1 + 99 * place),
            source,
            columns=Columns(positive_at=0.8, negative_at=0.5),
            holdout=0.02,
        )
        assert balanced_scores(report)
        results.append((stored(registry, report.batch), report.hard_negatives, report.held_out, report.between))
    assert results[0] == results[1]
    # Against the rule in plain Python: a text is no negative of a query that it is a positive of.
    positives = {(row["query"], row["positive"].strip()) for row in rows if row["label"] >= 0.8}
    low = {(row["query"], row["positive"].strip()) for row in rows if row["label"] <= 0.5} - positives
    assert max(len(row["negatives"]) for row in results[0][0]) == 32
    for row in results[0][0]:
        expected = {text for query, text in low if query == row["query"]}
        assert set(row["negatives"]) <= expected
        assert len(row["negatives"]) == min(32, len(expected))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "score: missing"),
        ("", "score: missing"),
        (float("nan"), "score: missing"),
        ("entailment", "score: not a number but text"),
        ([1], "score: not a number but a list"),
        (float("inf"), "score: out of range"),
        (10**400, "score: out of range"),
    ],
)
def test_scores_that_are_none(registry: Registry, tmp_path: Path, value: object, reason: str) -> None:
    rows = [{"query": f"q{i}", "positive": f"p{i}", "score": 1} for i in range(20)]
    source = write_rows(tmp_path / "a.jsonl", [*rows, {"query": "q", "positive": "p", "score": value}])
    report = ingest(registry, CONFIG, source, columns=Columns(positive_at=1))
    assert report.reject_reasons == {reason: 1}


def test_labels_of_a_csv_and_booleans(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("query,positive,is_duplicate\na,p,True\na,n,false\nb,p2,1\nb,n2,0.0\n")
    report = ingest(registry, CONFIG, str(path), columns=Columns(positive_at=1, negative_at=0), holdout=0)
    assert negatives(registry, report) == {"a": {"n"}, "b": {"n2"}}
    table = pa.table({"query": ["c", "c"], "positive": ["p", "n"], "label": [True, False]})
    pq.write_table(table, tmp_path / "b.parquet")
    source = str(tmp_path / "b.parquet")
    report = ingest(registry, CONFIG, source, columns=Columns(positive_at=1, negative_at=0), holdout=0)
    assert negatives(registry, report) == {"c": {"n"}}
    again = ingest(registry, CONFIG, source, columns=Columns(positive_at=1, negative_at=0))
    assert (again.unchanged, again.not_positive) == (True, 1)
    assert not ingest(registry, CONFIG, source, columns=Columns(positive_at=1)).unchanged  # other meaning, other batch


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (Columns(score="score"), InputError, "need --positive-at"),
        (Columns(negative_at=0.1), InputError, "need --positive-at"),
        (Columns(positive_at=0.3, negative_at=0.3), InputError, "must be below --positive-at"),
        (Columns(positive_at=float("nan")), InputError, "take a number"),
        (Columns(score="none", positive_at=1.0), InputError, "--score-column none reads no scores"),
        (Columns(score="zzz", positive_at=1.0), DataError, "no column 'zzz' for --score-column"),
        (Columns(positive_at=3.0), DataError, "no pair has a 'score' of 3 or more; its scores are from 0 to 0.9"),
    ],
)
def test_what_is_said_about_scores_must_make_sense(
    registry: Registry, tmp_path: Path, columns: Columns, error: type[Exception], message: str
) -> None:
    source = write_rows(tmp_path / "a.jsonl", STS)
    with pytest.raises(error, match=message):
        ingest(registry, CONFIG, source, columns=columns)
    plain = write_rows(tmp_path / "b.jsonl", [{"query": "q", "positive": "p"}])
    with pytest.raises(DataError, match="no column for the score"):
        ingest(registry, CONFIG, plain, columns=Columns(positive_at=1.0))


# Lists of texts.


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "text", "csv"])
def test_each_of_several_positives_is_a_row(registry: Registry, tmp_path: Path, kind: str) -> None:
    rows = [
        {"query": "a", "pos": ["p1", "p2"], "neg": ["n1", "n2"]},
        {"query": "b", "pos": ["p3"], "neg": ["n1"]},
    ]
    source = tmp_path / "a.csv"
    if kind == "csv":
        cells = [json.dumps(row[name]).replace('"', '""') for row in rows for name in ("pos", "neg")]
        source.write_text('query,pos,neg\na,"{}","{}"\nb,"{}","{}"\n'.format(*cells))
    else:
        text = [row | {name: json.dumps(row[name]) for name in ("pos", "neg")} for row in rows]
        source = Path(write_rows(tmp_path / f"a.{kind.replace('text', 'jsonl')}", text if kind == "text" else rows))
    report = ingest(registry, CONFIG, str(source), holdout=0)
    assert (report.rows_in, report.kept, report.several_positives) == (3, 3, 1)
    assert balanced(report)
    found = {(row["query"], row["positive"], tuple(row["negatives"])) for row in stored(registry, "b1")}
    assert found == {("a", "p1", ("n1", "n2")), ("a", "p2", ("n1", "n2")), ("b", "p3", ("n1",))}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"query": '["a", "b"]', "positive": "p"}, "query: not one text but a list"),
        ({"query": "a", "positive": "['p', 'r']"}, "positive: a list of texts that is not JSON"),
        ({"query": "a", "positive": "p", "negatives": "['p' 'r']"}, "negatives: a list of texts that is not JSON"),
        ({"query": "a", "positive": '[["p", 1]]'}, "positive: not text but a list"),
        ({"query": "a", "positive": "p", "negatives": "[12, 5]"}, "negatives: not text but a number"),
    ],
)
def test_lists_that_are_no_texts(registry: Registry, tmp_path: Path, row: dict[str, object], reason: str) -> None:
    rows: list[dict[str, object]] = [{"query": f"q{i}", "positive": f"[{i}] p"} for i in range(20)]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", [*rows, row]))
    assert report.reject_reasons == {reason: 1}


def test_a_deeply_nested_value_is_a_bad_row(registry: Registry, tmp_path: Path) -> None:
    rows = "".join(f'{{"query": "q{i}", "positive": "p{i}"}}\n' for i in range(20))
    nested = "".join(f'{{"query": "q", "positive": {"[" * depth}{"]" * depth}}}\n' for depth in (600, 100_000))
    (tmp_path / "a.jsonl").write_text(rows + nested)
    report = ingest(registry, CONFIG, str(tmp_path / "a.jsonl"))
    assert (report.rejected, report.rows_in) == (2, 22)
    for number, reasons in (
        ("1e999", {"doc_id: not an id but a number": 1}),
        ("1" + "0" * 400, {}),
        ("1" + "0" * 5000, {"not a JSON object": 1}),
    ):
        (tmp_path / "b.jsonl").write_text(rows + f'{{"query": "q", "positive": "p", "doc_id": {number}}}\n')
        report = ingest(registry, CONFIG, str(tmp_path / "b.jsonl"), holdout=0)
        assert report.reject_reasons == reasons


# A folder in the layout of BEIR.


def test_the_judgements_of_a_beir_folder(registry: Registry, beir: Path) -> None:
    (beir / "qrels").mkdir()
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nt1\tx\t1\n")
    with pytest.raises(DataError, match=r"no qrels/train.tsv.*continual task add"):
        ingest(registry, CONFIG, str(beir))
    (beir / "corpus.jsonl").write_text(
        '{"_id": "x", "title": "The", "text": "answer"}\n{"_id": "y", "text": "distractor"}\n{"_id": 3, "text": "z"}\n'
    )
    (beir / "queries.jsonl").write_text('{"_id": "t1", "text": "\\"the question"}\n{"_id": "t2", "text": "other"}\n')
    (beir / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nt1\tx\t1\nt1\ty\t0\nt2\t3\t2\nt2\tw\t1\n")
    with pytest.raises(DataError, match="column 'score'"):
        ingest(registry, CONFIG, str(beir))
    columns, config = Columns(positive_at=1, negative_at=0), IngestConfig(max_reject_share=0.5)
    report = ingest(registry, config, str(beir), columns=columns, holdout=0)
    assert balanced_scores(report)
    assert (report.domain, report.kept, report.not_positive) == ("beir", 2, 1)
    assert report.reject_reasons == {"positive: no text with this id": 1}  # there is no document w
    found = {(row["query"], row["positive"], tuple(row["negatives"]), row["doc_id"]) for row in stored(registry, "b1")}
    assert found == {('"the question', "The answer", ("distractor",), "x"), ("other", "z", (), "3")}
    assert ingest(registry, config, str(beir), columns=columns).unchanged
    with (beir / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "x", "text": "again"}\n')
    with pytest.raises(DataError, match="1 rows without an id of their own"):
        ingest(registry, config, str(beir), columns=columns)


# Columns that are not read.


def test_columns_that_are_not_read_are_named(registry: Registry, tmp_path: Path) -> None:
    rows = [{"query": f"q{i}", "positive": f"p{i}", "title": "t", "url": "u"} for i in range(20)]
    for kind in ("parquet", "jsonl"):
        source = write_rows(tmp_path / f"{kind}.{kind}", rows)
        assert ingest(registry, CONFIG, source, holdout=0).unread == ["title", "url"]
