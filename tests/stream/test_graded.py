"""Graded pairs: every pair is kept with its score, in a range that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual.errors import DataError, InputError
from continual.registry import Registry
from continual.stream import Columns, ingest
from tests.stream.rows import CONFIG, state, stored, write_rows


def sts(count: int, first: int = 0, scale: float = 1.0) -> list[dict[str, object]]:
    """Return pairs whose scores are 0, 1, ..., 5 times a scale."""
    return [
        {"sentence1": f"a man {n}", "sentence2": f"a person {n}", "score": scale * (n % 6)}
        for n in range(first, first + count)
    ]


def grades(registry: Registry, batch: str | None) -> dict[object, object]:
    return {row["query"]: row["score"] for row in stored(registry, batch)}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_every_pair_is_kept_with_its_score(registry: Registry, tmp_path: Path, suffix: str) -> None:
    source = write_rows(tmp_path / f"sts.{suffix}", sts(30))
    report = ingest(registry, CONFIG, source, kind="graded", columns=Columns(score_range=(0, 10)))
    assert (report.rows_in, report.kept, report.held_out, report.not_positive, report.task) == (30, 30, 0, 0, None)
    assert grades(registry, report.batch) == {f"a man {n}": n % 6 / 10 for n in range(30)}
    assert all(row["negatives"] == [] for row in stored(registry, report.batch))
    assert (report.scores, report.score_range, report.columns["score"]) == ((0.0, 5.0), (0, 10), "score")
    assert registry.batches()[0].columns["grades"] == {"name": "score", "range": [0, 10]}
    assert registry.domains()[0].graded
    (warning,) = report.warnings
    assert "has no evaluation task" in warning
    assert "continual task add mteb:STSBenchmark --domain sts" in warning


def test_the_range_is_that_of_the_scores_and_later_that_of_the_domain(registry: Registry, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "sts.jsonl", sts(30))
    first = ingest(registry, CONFIG, source, kind="graded")
    assert first.score_range == (0.0, 5.0)
    assert "taken to be from 0 to 5" in first.warnings[0]
    later = [row for row in sts(60, 100) if row["score"] in (1.0, 2.0)]
    second = ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", later), domain="sts")
    assert second.score_range == (0.0, 5.0)
    assert set(grades(registry, second.batch).values()) == {0.2, 0.4}
    assert not any("taken to be" in warning for warning in second.warnings)
    assert ingest(registry, CONFIG, source, domain="sts").unchanged


def test_scores_outside_of_the_range_are_bad_rows(registry: Registry, tmp_path: Path) -> None:
    ingest(registry, CONFIG, write_rows(tmp_path / "sts.jsonl", sts(30)), kind="graded")
    before = state(registry)
    percent = write_rows(tmp_path / "b.jsonl", sts(30, 100, scale=20.0))
    with pytest.raises(DataError, match="score: not from 0 to 5"):
        ingest(registry, CONFIG, percent, domain="sts")
    assert state(registry)[:3] == before[:3]
    report = ingest(registry, CONFIG, percent, domain="sts", columns=Columns(score_range=(0, 100)))
    assert set(grades(registry, report.batch).values()) == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}


def test_the_order_of_contradicting_rows_does_not_matter(registry: Registry, tmp_path: Path) -> None:
    rows = [*sts(12), {"sentence1": "a man 3", "sentence2": "a person 3", "score": 0.5}]
    found = []
    for place, ordered in enumerate((rows, rows[::-1])):
        source = write_rows(tmp_path / f"{place}.jsonl", ordered)
        report = ingest(registry, CONFIG, source, kind="graded", domain=f"d{place}")
        if place == 0:
            found.append(grades(registry, report.batch))
            assert any(warning.startswith("1 pairs have several scores") for warning in report.warnings)
            assert (report.kept, report.duplicates) == (12, 1)
        else:
            assert report.kept == 0  # all stored in d0
    other = Registry(tmp_path / "other" / ".continual", busy_seconds=0.0)
    other.catalog.create()
    report = ingest(other, CONFIG, str(tmp_path / "1.jsonl"), kind="graded")
    assert grades(other, report.batch) == found[0]


WRONG = [
    ({"columns": Columns(positive_at=0.5)}, InputError, "every pair is kept with its score"),
    ({"columns": Columns(score="none")}, InputError, "every pair is kept with its score"),
    ({"columns": Columns(score_range=(5, 0))}, InputError, "such as 0 5, not 5 0"),
    ({"columns": Columns(score_range=(0, float("inf")))}, InputError, "smallest and the largest possible score"),
    ({"columns": Columns(negatives="score")}, InputError, "have no negatives"),
    ({"columns": Columns(score="mark")}, DataError, "no column 'mark'"),
    ({"holdout": 0.1}, InputError, "continual task add mteb:STSBenchmark --domain sts"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG)
def test_what_contradicts_graded_pairs_is_refused(
    registry: Registry, tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    source = write_rows(tmp_path / "sts.jsonl", sts(30))
    before = state(registry)
    with pytest.raises(error, match=message):
        ingest(registry, CONFIG, source, kind="graded", **options)
    assert state(registry) == before


def test_graded_files_need_scores_that_differ(registry: Registry, tmp_path: Path) -> None:
    same = [row | {"score": 2} for row in sts(10)]
    with pytest.raises(DataError, match=r"every 'score' is 2, .*--score-range LOW HIGH"):
        ingest(registry, CONFIG, write_rows(tmp_path / "a.jsonl", same), kind="graded")
    none = [{"query": f"q{n}", "positive": f"p{n}"} for n in range(10)]
    with pytest.raises(DataError, match="no column for the score, and every row of a domain of kind graded needs one"):
        ingest(registry, CONFIG, write_rows(tmp_path / "b.jsonl", none), kind="graded")
    assert registry.batches() == []


def test_a_range_needs_the_kind(registry: Registry, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "sts.jsonl", sts(30))
    with pytest.raises(InputError, match="Add --kind graded"):
        ingest(registry, CONFIG, source, columns=Columns(score_range=(0, 5)))
    with pytest.raises(DataError, match="train on the scores themselves with --kind graded"):
        ingest(registry, CONFIG, source)
