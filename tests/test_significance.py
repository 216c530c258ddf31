"""The paired bootstrap: exact cases, coverage, and agreement with the normal approximation."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.errors import DataError
from continual.eval import significance
from continual.eval.significance import Interval, mean_bootstrap, paired, paired_bootstrap, permutation_test


def sample(queries: int, shift: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Correlated scores in steps like nDCG's, the new ones `shift` higher on average."""
    generator = np.random.default_rng(seed)
    old = generator.beta(2, 1, queries)
    return np.clip(old + shift + generator.normal(0, 0.2, queries), -1, 2), old


def test_the_mean_and_the_standard_error_are_those_of_the_textbook() -> None:
    new, old = sample(400, 0.03, 1)
    found = paired_bootstrap(new, old, 5000, 0.95, seed=3)
    difference = 100 * (new - old)
    assert found.difference == pytest.approx(difference.mean())
    error = difference.std(ddof=1) / np.sqrt(400)
    assert found.low == pytest.approx(difference.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(difference.mean() + 1.96 * error, abs=0.1 * error)


def test_the_p_value_is_that_of_a_z_test() -> None:
    from scipy.stats import norm

    for shift in (0.0, 0.01, 0.02, 0.05):
        new, old = sample(300, shift, 5)
        difference = new - old
        z = difference.mean() / (difference.std() / np.sqrt(300))
        assert paired_bootstrap(new, old, 4000).p == pytest.approx(2 * norm.sf(abs(z)), abs=0.03)


def test_coverage_is_about_the_stated_level() -> None:
    truth, inside, repetitions = 2.0, 0, 200
    for seed in range(repetitions):
        new, old = sample(150, truth / 100, seed)
        found = paired_bootstrap(new, old, 400, 0.9, seed=seed)
        inside += found.low <= truth <= found.high
    # 0.9 plus and minus three standard errors of 200 repetitions.
    assert 0.836 <= inside / repetitions <= 0.964


def test_equal_scores_differ_by_nothing() -> None:
    new, _ = sample(50, 0, 0)
    assert paired_bootstrap(new, new, 200) == Interval(0.0, 0.0, 0.0, 1.0)
    constant = paired_bootstrap(np.full(30, 0.6), np.full(30, 0.5), 999)
    assert constant.low == constant.high == pytest.approx(10)
    assert constant.p == pytest.approx(1 / 1000)


def test_the_same_seed_gives_the_same_interval_however_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = sample(120, 0.02, 2)
    whole = paired_bootstrap(new, old, 500, seed=9)
    assert paired_bootstrap(new, old, 500, seed=9) == whole
    assert paired_bootstrap(new, old, 500, seed=10) != whole
    monkeypatch.setattr(significance, "CELLS", 1000)
    assert paired_bootstrap(new, old, 500, seed=9) == whole
    swapped = paired_bootstrap(old, new, 500, seed=9)
    assert (swapped.difference, swapped.low, swapped.high) == pytest.approx(
        (-whole.difference, -whole.high, -whole.low)
    )


def test_a_mean_over_tasks_counts_every_task_the_same() -> None:
    large, small = sample(2000, 0.0, 1), sample(50, 0.1, 2)
    found = mean_bootstrap([large, small], 3000)
    single = [paired_bootstrap(*pair, 3000) for pair in (large, small)]
    assert found.difference == pytest.approx(np.mean([each.difference for each in single]))
    errors = [(each.high - each.low) / 3.92 for each in single]
    assert (found.high - found.low) / 3.92 == pytest.approx(np.hypot(*errors) / 2, rel=0.1)


def test_what_does_not_pair_is_an_error() -> None:
    for pairs in ([], [([0.1], [0.1, 0.2])], [([], [])], [([[0.1]], [[0.1]])]):
        with pytest.raises(ValueError):
            mean_bootstrap(pairs)


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
