"""Metrics of the R matrix: by hand, against a slow independent reading of the formulae, and as invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.eval.metrics import METRICS, acc, bwt, forgetting, fwt, ood_mean

NAN = float("nan")

# Three steps, one task each, and one task out of domain.
R = np.array(
    [
        [50.0, 40.0, 30.0, 80.0],
        [70.0, 44.0, 31.0, 79.0],
        [66.0, 60.0, 36.0, 78.0],
        [63.0, 61.0, 55.0, 77.0],
    ]
)
LEARNED = [1, 2, 3, None]


def test_by_hand() -> None:
    assert acc(R, LEARNED) == pytest.approx((63 + 61 + 55) / 3)
    assert bwt(R, LEARNED) == pytest.approx(((63 - 70) + (61 - 60)) / 2)
    assert fwt(R, LEARNED) == pytest.approx(((44 - 40) + (36 - 30)) / 2)
    assert forgetting(R, LEARNED) == pytest.approx(((70 - 63) + (60 - 61)) / 2)
    assert ood_mean(R, [3]) == 77
    assert acc(R[:3], LEARNED) == pytest.approx((66 + 60) / 2)
    assert bwt(R[:3], LEARNED) == pytest.approx(66 - 70)
    assert forgetting(R[:3], LEARNED) == pytest.approx(70 - 66)
    assert fwt(R[:3], LEARNED) == pytest.approx(44 - 40)


def test_undefined_is_not_zero() -> None:
    for rows in (1, 2):
        for metric in (bwt, fwt, forgetting):
            assert math.isnan(metric(R[:rows], LEARNED)), (metric, rows)
    assert math.isnan(acc(R[:1], LEARNED))
    assert acc(R[:2], LEARNED) == 70
    assert math.isnan(ood_mean(R, []))
    assert math.isnan(acc(np.empty((1, 0)), []))


def test_several_domains_in_one_step() -> None:
    learned = [1, 1, 2]
    matrix = R[:3, :3]
    assert acc(matrix, learned) == pytest.approx((66 + 60 + 36) / 3)
    assert bwt(matrix, learned) == pytest.approx(((66 - 70) + (60 - 44)) / 2)
    assert fwt(matrix, learned) == pytest.approx(31 - 30)


def test_forgetting_sees_the_root_and_the_way_between() -> None:
    matrix = np.array([[90.0, 10.0], [80.0, 10.0], [85.0, 20.0], [70.0, 30.0]])
    assert forgetting(matrix, [1, 2]) == pytest.approx(((90 - 70) + (20 - 30)) / 2)
    assert bwt(matrix, [1, 2]) == pytest.approx(((70 - 80) + (30 - 20)) / 2)


def test_missing_cells_leave_their_task_out() -> None:
    matrix = R.copy()
    matrix[3, 0] = NAN
    assert acc(matrix, LEARNED) == pytest.approx((61 + 55) / 2)
    assert bwt(matrix, LEARNED) == pytest.approx(61 - 60)
    assert forgetting(matrix, LEARNED) == pytest.approx(60 - 61)
    matrix = R.copy()
    matrix[0, :] = NAN
    assert math.isnan(fwt(matrix, LEARNED))
    assert forgetting(matrix, LEARNED) == pytest.approx(((70 - 63) + (60 - 61)) / 2)
    matrix[3, 3] = NAN
    assert math.isnan(ood_mean(matrix, [3]))
    matrix[:3, 0] = NAN
    assert forgetting(matrix, LEARNED) == pytest.approx(60 - 61)


def brute(matrix: list[list[float]], learned: list[int | None]) -> dict[str, float]:
    """Read the formulae literally, in loops."""
    last = len(matrix) - 1
    sums: dict[str, list[float]] = {name: [] for name in METRICS}
    for task, step in enumerate(learned):
        if step is None or step > last:
            continue
        sums["acc"].append(matrix[last][task])
        if step < last:
            sums["bwt"].append(matrix[last][task] - matrix[step][task])
            best = matrix[0][task]
            for row in range(last):
                best = max(best, matrix[row][task])
            sums["forgetting"].append(best - matrix[last][task])
        if step >= 2:
            sums["fwt"].append(matrix[step - 1][task] - matrix[0][task])
    return {name: sum(values) / len(values) if values else NAN for name, values in sums.items()}


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[list[float]], list[int | None]]:
    rows, tasks = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    points = st.floats(0, 100).map(lambda value: round(value, 3))
    matrix = draw(st.lists(st.lists(points, min_size=tasks, max_size=tasks), min_size=rows, max_size=rows))
    step = st.one_of(st.none(), st.integers(1, 8))
    return matrix, draw(st.lists(step, min_size=tasks, max_size=tasks))


@given(streams())
def test_against_loops(stream: tuple[list[list[float]], list[int | None]]) -> None:
    matrix, learned = stream
    expected = brute(matrix, learned)
    for name, metric in METRICS.items():
        assert metric(np.array(matrix), learned) == pytest.approx(expected[name], abs=1e-9, nan_ok=True), name


@given(streams())
def test_relations(stream: tuple[list[list[float]], list[int | None]]) -> None:
    matrix, learned = np.array(stream[0]), stream[1]
    if not math.isnan(bwt(matrix, learned)):
        # The best before is at least what it was right after learning.
        assert forgetting(matrix, learned) >= -bwt(matrix, learned) - 1e-9
    shifted = matrix + 5
    for name, shift in (("acc", 5), ("bwt", 0), ("fwt", 0), ("forgetting", 0)):
        value = METRICS[name](matrix, learned)
        assert METRICS[name](shifted, learned) == pytest.approx(value + shift, abs=1e-6, nan_ok=True)


def mammoth(matrix: np.ndarray, learned: list[int]) -> float:
    """Forgetting as Mammoth has it: the maximum includes the last row."""
    before = [task for task, step in enumerate(learned) if step < len(matrix) - 1]
    return float(np.mean([matrix[1:, task].max() - matrix[-1, task] for task in before]))


def test_the_variants_that_others_use_differ_as_the_docs_say() -> None:
    learned = [1, 2, 3]
    assert mammoth(R[:, :3], learned) == pytest.approx(((70 - 63) + (61 - 61)) / 2)
    assert mammoth(R[:, :3], learned) >= 0 > forgetting(np.array([[1.0], [1.0], [2.0]]), [1])
    assert -bwt(R[:, :3], learned) == pytest.approx(((70 - 63) + (60 - 61)) / 2)  # Avalanche: first minus last
