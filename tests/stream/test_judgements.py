"""Files of ids without a header line: judgements of TREC, rankings, labels, and files of texts with broken lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.errors import DataError
from continual.registry import Registry
from continual.stream import Columns, ingest
from tests.stream.rows import CONFIG, state, stored

JUDGED = Columns(positive_at=1, negative_at=0)


def texts(folder: Path, first: str = "") -> dict[str, Path]:
    """Write texts whose ids begin with `first`; the first document has the number 0, as in MS MARCO."""
    corpus, queries = folder / "c.tsv", folder / "q.tsv"
    corpus.write_text("".join(f"{first}{n}\tpassage {n}\n" for n in range(60)))
    queries.write_text("".join(f"{first}{100 + n}\tquery {n}\n" for n in range(20)))
    return {"corpus": corpus, "queries": queries}


def found(registry: Registry, batch: str | None) -> dict[str, tuple[object, object]]:
    return {str(row["query"]): (row["positive"], row["negatives"]) for row in stored(registry, batch)}


@pytest.mark.parametrize("first", ["", "D"])
@pytest.mark.parametrize("iteration", ["0", "Q0"])
def test_judgements_of_trec(registry: Registry, tmp_path: Path, first: str, iteration: str) -> None:
    both = texts(tmp_path, first)
    source = tmp_path / "qrels.train.tsv"
    grades = {n: (1 + n % 2, 20 + n) for n in range(20)}
    source.write_text(
        "".join(
            f"{first}{100 + n}\t{iteration}\t{first}{n}\t{grade}\n{first}{100 + n}\t{iteration}\t{first}{low}\t0\n"
            for n, (grade, low) in grades.items()
        )
    )
    before = state(registry)
    with pytest.raises(DataError, match=r"column 'score'.*--positive-at"):
        ingest(registry, CONFIG, str(source), holdout=0, domain="z", **both)
    assert state(registry) == before
    report = ingest(registry, CONFIG, str(source), holdout=0, domain="z", columns=JUDGED, **both)
    assert (report.kept, report.not_positive) == (20, 20)
    assert found(registry, "b1") == {f"query {n}": (f"passage {n}", [f"passage {20 + n}"]) for n in range(20)}
    graded = ingest(
        registry, CONFIG, str(source), domain="g", kind="graded", columns=Columns(score="4", score_range=(0, 2)), **both
    )
    assert (graded.rows_in, graded.rejected, graded.kept + graded.duplicates) == (40, 0, 40)


def test_judgements_of_beir(registry: Registry, tmp_path: Path) -> None:
    source = tmp_path / "train.tsv"
    source.write_text("query-id\tcorpus-id\tscore\n" + "".join(f"{100 + n}\t{n}\t{n % 2}\n" for n in range(20)))
    with pytest.raises(DataError, match=r"column 'score'.*--positive-at"):
        ingest(registry, CONFIG, str(source), holdout=0, **texts(tmp_path))
    assert ingest(registry, CONFIG, str(source), holdout=0, columns=JUDGED, **texts(tmp_path)).kept == 10


THIRD = {
    "labels": [(n, 30 * low + n, 1 - low) for n in range(20) for low in (0, 1)],
    "labels of a few rows": [(0, 1, 1), (1, 2, 0), (2, 3, 1)],
    "grades": [(n, n, n % 4) for n in range(20)],
    "ranks": [(n, (n + rank) % 60, rank) for n in range(20) for rank in range(1, 15)],
    "ranks from 0": [(n, (n + rank) % 60, rank) for n in range(20) for rank in range(15)],
    "scores": [(n, n, 0.5 + n / 7) for n in range(20)],
}


@pytest.mark.parametrize("case", THIRD)
def test_a_third_column_of_labels_or_ranks_is_asked_about(registry: Registry, tmp_path: Path, case: str) -> None:
    source = tmp_path / "a.tsv"
    source.write_text("".join(f"{100 + query}\t{document}\t{third}\n" for query, document, third in THIRD[case]))
    before = state(registry)[:3]
    with pytest.raises(DataError, match=r"third column.*--score-column 3 --positive-at X.*--negatives-column 3"):
        ingest(registry, CONFIG, str(source), holdout=0, **texts(tmp_path))
    assert state(registry)[:3] == before
    columns = Columns(score="3", positive_at=1)
    report = ingest(registry, CONFIG, str(source), holdout=0, columns=columns, **texts(tmp_path))
    assert report.kept + report.duplicates + report.not_positive == len(THIRD[case])
    assert report.kept == sum(third >= 1 for *_, third in THIRD[case])


def test_ids_of_negatives_are_still_taken_for_what_they_are(registry: Registry, tmp_path: Path) -> None:
    source = tmp_path / "a.tsv"
    source.write_text("".join(f"{100 + n}\t{n}\t{(7 * n + k * k + 23) % 60}\n" for n in range(20) for k in range(3)))
    assert ingest(registry, CONFIG, str(source), holdout=0, **texts(tmp_path)).kept == 20
    source.write_text("".join(f"{100 + n}\t{n}\t59\n" for n in range(10)))
    columns = Columns(negatives="3")
    report = ingest(registry, CONFIG, str(source), holdout=0, domain="b", columns=columns, **texts(tmp_path))
    assert report.batch is None  # the pairs are stored already
    assert report.duplicates == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("100\tQ0\t1\t1\t14.8\tbm25", "TREC run"),
        ("100\t1\t2\t3\t4", "5 columns without names"),
        ("100\t1\t1\t14.8", "4 columns without names"),
    ],
)
def test_rankings_and_unknown_columns_are_refused(registry: Registry, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "a.tsv").write_text(f"{line}\n" * 3)
    with pytest.raises(DataError, match=f"{message}.*--query-column 1"):
        ingest(registry, CONFIG, str(tmp_path / "a.tsv"), **texts(tmp_path))


@pytest.mark.parametrize("header", [False, True])
def test_texts_with_a_tab_are_not_cut(registry: Registry, tmp_path: Path, header: bool) -> None:
    both = texts(tmp_path)
    source = tmp_path / "a.tsv"
    source.write_text("".join(f"{100 + n}\t{n}\n" for n in range(20)))
    for file, name in ((both["queries"], "query"), (both["corpus"], "passage")):
        file.write_text(("id\ttext\n" if header else "") + file.read_text().replace(f"{name} 3\n", f"{name}\t3\n"))
    report = ingest(registry, CONFIG, str(source), holdout=0, **both)
    line = 4 + header
    told = f"1 of 20 rows of {both['queries']} can't be read (first line {line}: 3 fields instead of 2)"
    assert any(warning.startswith(told) for warning in report.warnings)
    assert (report.kept, report.reject_reasons) == (19, {"query: no text with this id": 1})
    both["queries"].write_text(
        "".join(f"{100 + n}\tquery\t{n}\n" if n % 2 else f"{100 + n}\tq {n}\n" for n in range(20))
    )
    with pytest.raises(DataError, match=r"10 of 20 rows of .*q.tsv can't be read"):
        ingest(registry, CONFIG, str(source), holdout=0, domain="b", **both)


def test_unread_columns_of_files_of_texts_are_named(registry: Registry, tmp_path: Path) -> None:
    both = texts(tmp_path)
    both["queries"].write_text("id\ttext\ttopic\n" + "".join(f"{100 + n}\tquery {n}\tt\n" for n in range(20)))
    (tmp_path / "a.tsv").write_text("".join(f"{100 + n}\t{n}\n" for n in range(20)))
    report = ingest(registry, CONFIG, str(tmp_path / "a.tsv"), holdout=0, **both)
    assert f"{both['queries']} has columns that are not read: topic." in report.warnings


def test_a_positive_of_the_query_is_not_its_negative(registry: Registry, tmp_path: Path) -> None:
    source = tmp_path / "a.tsv"
    lines = [(n, n, (7 * n + 23) % 60) for n in range(10)] + [(10, 10, 11), (10, 11, 40), (12, 12, 12)]
    source.write_text("qid\tpid\tneg_id\n" + "".join(f"{100 + q}\t{p}\t{n}\n" for q, p, n in lines))
    report = ingest(registry, CONFIG, str(source), holdout=0, **texts(tmp_path))
    assert report.dropped_negatives == 2
    assert found(registry, "b1")["query 12"] == ("passage 12", [])
