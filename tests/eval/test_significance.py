"""Intervals, permutation tests and Holm's correction: exact cases, coverage, and agreement with scipy."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.errors import DataError
from continual.eval import significance
from continual.eval.significance import (
    Moments,
    combine_moments,
    holm,
    mean_interval,
    mean_permutation,
    moments,
    paired,
    paired_interval,
    permutation_test,
)


def sample(queries: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated scores in steps like nDCG's, the new ones `shift` higher on average."""
    generator = np.random.default_rng(seed)
    old = generator.beta(2, 1, queries)
    return np.clip(old + shift + generator.normal(0, 0.2, queries), -1, 2), old


def by_hand(new: np.ndarray, old: np.ndarray, confidence: float) -> tuple[float, float, float]:
    """The posterior of a normal mean, its variance having a scaled inverse chi-squared prior, with scipy's t."""
    from scipy.stats import t

    difference = 100 * (new - old)
    freedom = significance.PRIOR + len(difference) - 1
    spread = (significance.PRIOR * significance.SPREAD**2 + difference.var() * len(difference)) / freedom
    low, high = t.interval(confidence, freedom, difference.mean(), np.sqrt(spread / len(difference)))
    return difference.mean(), low, high


@pytest.mark.parametrize("queries", [1, 2, 5, 40, 400])
def test_the_interval_is_that_of_the_textbook(queries: int) -> None:
    new, old = sample(queries, 0.03, 1)
    found = paired_interval(new, old, 0.9)
    assert (found.difference, found.low, found.high) == pytest.approx(by_hand(new, old, 0.9))
    if queries == 400:  # the prior hardly matters any more
        assert found.error == pytest.approx(100 * (new - old).std(ddof=1) / np.sqrt(queries), rel=0.01)


def test_the_p_values_belong_to_the_interval() -> None:
    new, old = sample(60, 0.03, 4)
    found = paired_interval(new, old, 0.9)
    assert paired_interval(new, old, 1 - found.p).low == pytest.approx(0, abs=1e-6)
    assert found.p_below(found.high) == pytest.approx(0.05)
    assert found.p_below(found.low) == pytest.approx(0.95)
    assert found.p_below() == pytest.approx(1 - found.p / 2)


@pytest.mark.parametrize("queries", [5, 20, 150])
def test_coverage_is_about_the_stated_level(queries: int) -> None:
    # Half of the queries stay as they are: what a bootstrap of few queries is too sure of.
    generator = np.random.default_rng(1)
    kinds = generator.random((1000, queries))
    differences = np.where(kinds < 0.2, -0.5, np.where(kinds > 0.7, 0.3, 0.0))
    truth, inside = 100 * (-0.5 * 0.2 + 0.3 * 0.3), 0
    for row in differences:
        found = paired_interval(row, np.zeros(queries))
        inside += found.low <= truth <= found.high
    # 0.95 minus three standard errors of 1000 repetitions; on five queries the prior rightly makes it wide.
    assert inside / 1000 >= 0.929
    assert queries == 5 or inside / 1000 <= 0.985


def test_equal_scores_differ_by_nothing_but_few_queries_prove_little() -> None:
    new, _ = sample(50, 0, 0)
    same = paired_interval(new, new)
    assert (same.difference, same.p) == (0.0, 1.0)
    assert same.low == -same.high < 0
    assert paired_interval(new[:5], new[:5]).high > 3 * same.high
    constant = paired_interval(np.full(30, 0.6), np.full(30, 0.5))
    assert 0 < constant.low < 10 < constant.high


def test_versions_exchanged_give_the_interval_exchanged() -> None:
    new, old = sample(120, 0.02, 2)
    whole, swapped = paired_interval(new, old), paired_interval(old, new)
    assert (swapped.difference, swapped.low, swapped.high, swapped.p) == pytest.approx(
        (-whole.difference, -whole.high, -whole.low, whole.p)
    )


def test_a_mean_over_tasks_counts_every_task_the_same() -> None:
    large, small = sample(2000, 0.0, 1), sample(50, 0.1, 2)
    found = mean_interval([large, small])
    single = [paired_interval(*pair) for pair in (large, small)]
    assert found.difference == pytest.approx(np.mean([each.difference for each in single]))
    assert found.error == pytest.approx(np.hypot(*(each.error for each in single)) / 2)
    # Nearly all of the error is that of the small task, and so are the degrees of freedom.
    assert single[1].freedom < found.freedom < 1.2 * single[1].freedom


def test_samples_at_once_have_the_moments_of_each() -> None:
    generator = np.random.default_rng(3)
    points = generator.normal(0, 30, (4, 7, 25))
    found = moments(points)
    for place in np.ndindex(4, 7):
        one = moments(points[place])
        assert [values[place] for values in (found.mean, found.variance)] == pytest.approx([one.mean, one.variance])
    # What has no weight may be unknown, what has one may not.
    weights = np.tile([0.5, 0.5, 0, 0, 0, 0, 0], (4, 1))
    blank = Moments(*(np.where(weights == 0, np.nan, each) for each in (found.mean, found.variance, found.freedom)))
    assert combine_moments(blank, weights).mean == pytest.approx(found.mean[:, :2].mean(1))
    assert np.isnan(combine_moments(blank, np.full((4, 7), 1 / 7)).ends(0.95)).all()


def test_what_does_not_pair_is_an_error() -> None:
    for pairs in ([], [([0.1], [0.1, 0.2])], [([], [])], [([[0.1]], [[0.1]])]):
        with pytest.raises(ValueError):
            mean_interval(pairs)


def test_files_are_matched_by_query(tmp_path: Path) -> None:
    for name, queries, scores in (("new", ["b", "a", "x"], [0.2, 0.1, 0.9]), ("old", ["a", "b", "y"], [0.3, 0.4, 0.5])):
        pq.write_table(pa.table({"query_id": queries, "score": scores}), tmp_path / f"{name}.parquet")
    new, old = paired(tmp_path / "new.parquet", tmp_path / "old.parquet")
    assert new.tolist() == [0.1, 0.2]
    assert old.tolist() == [0.3, 0.4]
    pq.write_table(pa.table({"query_id": ["z"], "score": [0.5]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no query in common"):
        paired(tmp_path / "new.parquet", tmp_path / "other.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        paired(tmp_path / "new.parquet", tmp_path / "missing.parquet")


def test_the_permutation_test_is_exact_on_few_queries() -> None:
    new, old = np.array([0.5, 0.9, 0.7, 1.0]), np.array([0.4, 0.6, 0.8, 0.5])
    difference = new - old
    signs = np.array(list(itertools.product((-1, 1), repeat=4)))
    exact = np.mean(np.abs(signs @ difference) >= abs(difference.sum()) - 1e-9)
    assert permutation_test(new, old, 20_000) == pytest.approx(exact, abs=0.015)
    assert permutation_test(new, new) == 1.0
    with pytest.raises(ValueError, match="one shape"):
        permutation_test(new, old[:3])


def test_the_permutation_test_agrees_with_scipy() -> None:
    from scipy.stats import permutation_test as reference

    for shift in (0.0, 0.02, 0.04):
        new, old = sample(200, shift, 8)
        found = reference(
            (new, old), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples", vectorized=True, rng=1
        ).pvalue
        assert permutation_test(new, old) == pytest.approx(found, abs=0.015)


def test_the_permutation_test_of_a_mean_counts_every_task_the_same() -> None:
    # One task of a single query against one of four: all 32 exchanges by hand.
    large, small = (np.array([0.5, 0.9, 0.7, 1.0]), np.array([0.4, 0.6, 0.8, 0.5])), (np.array([0.9]), np.array([0.5]))
    moved = np.concatenate([(large[0] - large[1]) / 4, small[0] - small[1]])
    signs = np.array(list(itertools.product((-1, 1), repeat=5)))
    exact = np.mean(np.abs(signs @ moved) >= abs(moved.sum()) - 1e-9)
    assert mean_permutation([large, small], 20_000) == pytest.approx(exact, abs=0.015)
    assert mean_permutation([(large[0], large[0])]) == 1.0


def test_holm_calls_what_his_procedure_calls() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    generator = np.random.default_rng(0)
    for _ in range(20):
        p = generator.random(6) ** 3
        level = 0.1
        # Holm's own words: go up from the least until one is above level / (number left).
        called, left = set(), 6
        for place in np.argsort(p):
            if p[place] > level / left:
                break
            called.add(int(place))
            left -= 1
        assert {place for place, value in enumerate(holm(p.tolist())) if value <= level} == called
