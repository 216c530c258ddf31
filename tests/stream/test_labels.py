"""Columns that may say that a pair is not a positive: by their names, and by their values."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.config import IngestConfig
from continual.errors import DataError
from continual.registry import Registry
from continual.stream import Columns, ingest
from tests.stream.rows import CONFIG, state, stored, write_rows

ASKED = r"may say that a pair is not a positive.*--score-column .*--score-column none"
BY_NAME = ["Label ", "isDuplicate", "Is-Relevant", "relatedness_score", "quality_score", "human_score", "score2"]
BY_NAME += ["pos_scores", "neg_scores", "cosineSimilarity"]
BY_VALUES = ["is_match", "relevant", "match", "correct", "sim", "cosine", "judgment", "is_negative", "distance"]
BY_VALUES += ["target", "entailment", "flag", "x", "zz"]


def pairs(name: str, values: list[object]) -> list[dict[str, object]]:
    return [{"query": f"q{i}", "positive": f"p{i}", name: value} for i, value in enumerate(values)]


def ask(registry: Registry, folder: Path, kind: str, rows: list[dict[str, object]], **columns: object) -> None:
    """Ingest rows in a format."""
    file = folder / f"a.{kind}"
    if kind in ("csv", "tsv"):
        cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        file.write_text("".join(("," if kind == "csv" else "\t").join(line) + "\n" for line in cells))
    else:
        write_rows(file, rows)
    ingest(registry, CONFIG, str(file), holdout=0, columns=Columns(**columns))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BY_NAME + BY_VALUES)
def test_a_label_of_any_name_is_asked_about(registry: Registry, tmp_path: Path, name: str) -> None:
    before = state(registry)
    rows = pairs(name, [1, 0] * 10)
    for kind in ("csv", "jsonl", "parquet"):
        with pytest.raises(DataError, match=ASKED):
            ask(registry, tmp_path, kind, rows)
    assert state(registry) == before
    ask(registry, tmp_path, "jsonl", rows, score="none")
    ask(registry, tmp_path, "parquet", rows, score=name, positive_at=1.0)
    assert [batch.kept for batch in registry.batches()] == [20]  # the positive ones are duplicates


LABELS: dict[str, list[object]] = {
    "booleans": [True, False],
    "text": ["true", "False"],
    "yes or no": ["yes", "no"],
    "words": ["Entailment", "neutral", "not entailment"],
    "signs": [-1, 1],
    "signs as numbers with a point": [-1.0, 1.0],
    "shares": [0.25, 0.5, 1.0],
    "cosines": ["-0.31", "0.77"],
}
GRADES: dict[str, list[object]] = {"small": [0, 1, 2, 3], "percent": [12, 99, 100], "all the same": [0]}


@pytest.mark.parametrize("values", LABELS)
def test_values_of_labels_are_recognised_under_any_name(registry: Registry, tmp_path: Path, values: str) -> None:
    with pytest.raises(DataError, match=rf"column 'zz' with the values .*{ASKED}"):
        ask(registry, tmp_path, "jsonl", pairs("zz", LABELS[values] * 10))


@pytest.mark.parametrize("values", GRADES)
def test_other_numbers_are_labels_if_the_name_hints_at_one(registry: Registry, tmp_path: Path, values: str) -> None:
    with pytest.raises(DataError, match=ASKED):
        ask(registry, tmp_path, "tsv", pairs("judgement", GRADES[values] * 10))
    ask(registry, tmp_path, "jsonl", pairs("zz", GRADES[values] * 10))


INNOCENT: dict[str, tuple[str, list[object]]] = {
    "row numbers": ("zz", list(range(20))),
    "two row numbers": ("zz", [0, 1]),
    "pandas": ("", list(range(20))),
    "an id": ("topic_id", [0, 1] * 10),
    "an id of the pair": ("match_id", [10, 11] * 10),
    "an index": ("chunkIndex", [0, 1] * 10),
    "a year": ("year", [2019, 2020] * 10),
    "a length": ("positive_length", [60, 81] * 10),
    "a count": ("answer_count", [0, 1] * 10),
    "a time": ("zz", ["2024-01-01", "2024-01-02"] * 10),
    "a price": ("price", [0.5, 0.25] * 10),
    "prices": ("zz", [0.5, 12.5] * 10),
    "a constant": ("zz", [1] * 20),
    "a false constant": ("zz", [False] * 20),
    "a title": ("target", ["a title", "yes"] * 10),
    "a text": ("zz", ["true", "a longer text"] * 10),
    "nothing": ("label_of_nothing", [None] * 20),
    "lists": ("zz", [[1], [0]] * 10),
}


@pytest.mark.parametrize("case", INNOCENT)
def test_ids_lengths_and_the_like_are_no_labels(registry: Registry, tmp_path: Path, case: str) -> None:
    name, values = INNOCENT[case]
    for kind in ("jsonl", "parquet"):
        ask(registry, tmp_path, kind, pairs(name, values))
    assert [batch.kept for batch in registry.batches()] == [len(values)]


def test_the_whole_file_decides(registry: Registry, tmp_path: Path) -> None:
    late = [*pairs("zz", [1] * 150), *pairs("zz", [0] * 150)]
    with pytest.raises(DataError, match=r"'zz' with the values 0, 1"):
        ask(registry, tmp_path, "jsonl", late)
    first = [{"query": f"q{i}", "positive": f"p{i}"} for i in range(150)]
    with pytest.raises(DataError, match="'zz' with the values 0, 1"):  # keys that only later rows have
        ask(registry, tmp_path, "jsonl", [*first, *late])
    ask(registry, tmp_path, "jsonl", [*first, *late, *pairs("zz", [2])])


def test_columns_of_other_types_are_no_labels(registry: Registry, tmp_path: Path) -> None:
    table = pa.table(
        {
            "query": ["a", "b", "c"],
            "positive": ["p", "q", "r"],
            "when": pa.array([0, 1, 1], pa.timestamp("ns")),
            "vector": [[0.5], [0.1], [1.0]],
            "meta": [{"label": 0}, {"label": 1}, {"label": 1}],
            "raw": pa.array([b"\xff", b"a", b"b"]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert ingest(registry, CONFIG, str(tmp_path / "a.parquet"), holdout=0).kept == 3
    coded = table.select(["query", "positive"]).append_column("zz", pa.array(["no", "yes", "no"]).dictionary_encode())
    pq.write_table(coded, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="'zz' with the values no, yes"):
        ingest(registry, CONFIG, str(tmp_path / "b.parquet"), holdout=0)


def test_a_folder_and_ids_are_looked_at_too(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_rows(folder / "1.jsonl", pairs("zz", [1] * 10))
    write_rows(folder / "2.jsonl", pairs("zz", [0] * 10))
    with pytest.raises(DataError, match="'zz' with the values 0, 1"):
        ingest(registry, CONFIG, str(folder), holdout=0)
    corpus = tmp_path / "c.tsv"
    corpus.write_text("".join(f"d{i}\ttext {i}\n" for i in range(20)))
    rows = [{"query": f"q{i}", "pid": f"d{i}", "zz": i % 2} for i in range(20)]
    source = write_rows(tmp_path / "ids.jsonl", rows)
    with pytest.raises(DataError, match="'zz' with the values 0, 1"):
        ingest(registry, CONFIG, source, holdout=0, corpus=corpus)
    assert ingest(registry, CONFIG, source, holdout=0, corpus=corpus, columns=Columns(score="none")).kept == 20


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_thresholds_are_compared_in_the_type_of_the_column(
    registry: Registry, tmp_path: Path, kind: pa.DataType
) -> None:
    scores = pa.array([0.9, 0.8, 0.7, 0.3, 0.5], pa.float64()).cast(kind)
    table = pa.table({"query": ["q"] * 5, "positive": [f"p{i}" for i in range(5)], "score": scores})
    pq.write_table(table, tmp_path / "a.parquet")
    columns = Columns(positive_at=0.7, negative_at=0.3)
    report = ingest(registry, CONFIG, str(tmp_path / "a.parquet"), holdout=0, columns=columns)
    assert (report.kept, report.not_positive, report.between, report.hard_negatives) == (3, 2, 1, 1)
    graded = ingest(
        registry,
        CONFIG,
        str(tmp_path / "a.parquet"),
        domain="g",
        kind="graded",
        columns=Columns(score_range=(0.3, 0.9)),
    )
    assert (graded.kept + graded.duplicates, graded.rejected) == (5, 0)
    assert all(0 <= row["score"] <= 1 for row in stored(registry, graded.batch))  # type: ignore[operator]


@pytest.mark.parametrize("text", ["yes", "no", "1_0"])
def test_scores_are_numbers_or_true_or_false(registry: Registry, tmp_path: Path, text: str) -> None:
    rows = pairs("score", [1] * 20 + [text])
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", rows), holdout=0, columns=Columns(positive_at=1))
    assert report.reject_reasons == {"score: not a number but text": 1}


@pytest.mark.parametrize("names", [("query", "Query"), ("Query", "QUERY"), ("text", "Text")])
def test_two_columns_that_differ_in_case_stop_the_ingest(
    registry: Registry, tmp_path: Path, names: tuple[str, str]
) -> None:
    rows: list[dict[str, object]] = [{names[0]: f"q{i}", names[1]: f"r{i}", "positive": f"p{i}"} for i in range(20)]
    source = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"2 columns .*for the query: name it with --query-column"):
        ingest(registry, CONFIG, source, holdout=0)
    assert ingest(registry, CONFIG, source, holdout=0, columns=Columns(query=names[1])).kept == 20


@pytest.mark.parametrize("mark", ["\\N", "NaN", "NULL", "None", "NA", "nan", "null"])
def test_marks_of_missing_values_are_missing_in_csv_only(registry: Registry, tmp_path: Path, mark: str) -> None:
    rows = [f"q{i},p{i},n{i}" for i in range(20)]
    (tmp_path / "a.csv").write_text(
        "\n".join(["query,positive,negative", *rows, f"{mark},p,n", f"q,{mark},n", f"q,p,{mark}"])
    )
    report = ingest(registry, CONFIG, str(tmp_path / "a.csv"), holdout=0)
    assert report.reject_reasons == {"query: missing": 1, "positive: missing": 1}
    assert next(row for row in stored(registry, "b1") if row["query"] == "q")["negatives"] == []
    report = ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", [{"query": mark, "positive": mark}]), holdout=0)
    assert report.kept == 1


def test_negatives_that_are_positives_of_the_query_are_left_out(registry: Registry, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"query": "a", "positive": "p", "negatives": ["p ", "n", "p2"]},  # its own, and one of another row
        {"query": "a ", "positive": "p2", "negatives": ["n"]},
        {"query": "b", "positive": ["r", "s"], "negatives": ["s", "p"]},
    ]
    report = ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", rows), holdout=0)
    found = {(row["query"], row["positive"]): row["negatives"] for row in stored(registry, "b1")}
    assert found == {("a", "p"): ["n"], ("a", "p2"): ["n"], ("b", "r"): ["p"], ("b", "s"): ["p"]}
    assert (report.kept, report.dropped_negatives) == (4, 4)


def test_numbers_are_texts_if_their_columns_are_named(registry: Registry, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"query": str(i), "positive": str(i * i)} for i in range(20, 40)]
    source = write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match="--query-column and --positive-column"):
        ingest(registry, CONFIG, source, holdout=0)
    assert ingest(registry, CONFIG, source, holdout=0, columns=Columns("query", "positive")).kept == 20


def test_hidden_files_of_rows_are_named(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jsonl", "_c.jsonl", ".b.jsonl"):
        write_rows(folder / name, [{"query": f"q{name}{i}", "positive": f"p{name}{i}"} for i in range(20)])
    (folder / "_SUCCESS").touch()
    report = ingest(registry, CONFIG, str(folder), holdout=0)
    assert report.kept == 20
    assert report.warnings == ["The folder also holds .b.jsonl, _c.jsonl, which are not read."]


def test_the_hint_for_splits_names_no_evaluation_file(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("train-1.jsonl", "validation-1.jsonl"):
        write_rows(folder / name, [{"query": name, "positive": name}])
    with pytest.raises(DataError, match=r"such as \S+/in/train-1.jsonl, with --domain"):
        ingest(registry, CONFIG, str(folder), holdout=0)


def test_rejected_rows_keep_only_what_was_read(registry: Registry, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [*pairs("title", ["t"] * 20), {"query": "", "positive": "p", "title": "t"}]
    report = ingest(registry, IngestConfig(), write_rows(tmp_path / "a.jsonl", rows), holdout=0)
    (line,) = registry.path(str(report.rejects_path)).read_text().splitlines()
    assert json.loads(line)["data"] == {"query": "", "positive": "p"}
