"""Metrics of the R matrix: by hand, against a slow independent reading of the formulae, and as invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.eval.metrics import (
    METRICS,
    acc,
    bwt,
    forgetting,
    fwt,
    intransigence,
    ood_mean,
    retained,
)

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
    assert retained(R, LEARNED) == pytest.approx(100 * ((63 - 50) + (61 - 40)) / ((70 - 50) + (60 - 40)))
    assert retained(R[:3], LEARNED) == pytest.approx(100 * (66 - 50) / (70 - 50))
    joint = np.array([72.0, 66.0, 60.0, NAN])
    assert intransigence(R, LEARNED, joint) == pytest.approx(((72 - 70) + (66 - 60) + (60 - 55)) / 3)
    assert intransigence(R[:2], LEARNED, joint) == pytest.approx(72 - 70)
    assert acc(R[:3], LEARNED) == pytest.approx((66 + 60) / 2)
    assert bwt(R[:3], LEARNED) == pytest.approx(66 - 70)
    assert forgetting(R[:3], LEARNED) == pytest.approx(70 - 66)
    assert fwt(R[:3], LEARNED) == pytest.approx(44 - 40)


def test_undefined_is_not_zero() -> None:
    for rows in (1, 2):
        for metric in (bwt, fwt, forgetting, retained):
            assert math.isnan(metric(R[:rows], LEARNED)), (metric, rows)
    assert math.isnan(acc(R[:1], LEARNED))
    assert acc(R[:2], LEARNED) == 70
    assert math.isnan(ood_mean(R, []))
    assert math.isnan(intransigence(R[:1], LEARNED, R[3]))
    assert math.isnan(intransigence(R, LEARNED, np.full(4, NAN)))
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


def test_what_gained_nothing_has_nothing_to_retain() -> None:
    matrix = np.array([[50.0, 40.0, 30.0], [60.0, 40.0, 30.0], [58.0, 39.0, 31.0], [55.0, 45.0, 35.0]])
    assert retained(matrix, [1, 2, 3]) == pytest.approx(50)  # task 1 fell when it was learned, and is left out
    assert math.isnan(retained(matrix[1:], [1, 2, None]))  # nor did anything gain here
    assert retained(np.array([[50.0, 1.0], [60.0, 1.0], [45.0, 2.0]]), [1, 2]) == pytest.approx(-50)  # below the base
    assert retained(np.array([[50.0, 1.0], [60.0, 1.0], [65.0, 2.0]]), [1, 2]) == pytest.approx(
        150
    )  # later steps added
    # Sums, not shares: the task that gained a tenth of a point does not drown the one that gained ten.
    matrix = np.array([[50.0, 40.0], [60.0, 40.1], [59.0, 39.1]])
    assert retained(matrix, [1, 1]) == pytest.approx(100 * (9 - 0.9) / 10.1)


def brute(matrix: list[list[float]], learned: list[int | None]) -> dict[str, float]:
    """Read the formulae literally, in loops."""
    last = len(matrix) - 1
    sums: dict[str, list[float]] = {name: [] for name in METRICS}
    gains: list[float] = []
    left: list[float] = []
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
            gain = matrix[step][task] - matrix[0][task]
            if gain > 0:
                gains.append(gain)
                left.append(matrix[last][task] - matrix[0][task])
        if step >= 2:
            sums["fwt"].append(matrix[step - 1][task] - matrix[0][task])
    means = {name: sum(values) / len(values) if values else NAN for name, values in sums.items()}
    return means | {"retained": 100 * sum(left) / sum(gains) if gains else NAN}


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
        assert metric(np.array(matrix), learned) == pytest.approx(expected[name], 1e-9, 1e-9, nan_ok=True), name


@given(streams())
def test_relations(stream: tuple[list[list[float]], list[int | None]]) -> None:
    matrix, learned = np.array(stream[0]), stream[1]
    if not math.isnan(bwt(matrix, learned)):
        # The best before is at least what it was right after learning.
        assert forgetting(matrix, learned) >= -bwt(matrix, learned) - 1e-9
    shifted = matrix + 5
    for name, shift in (("acc", 5), ("bwt", 0), ("fwt", 0), ("forgetting", 0)):  # a tiny gain makes retained unsteady
        value = METRICS[name](matrix, learned)
        assert METRICS[name](shifted, learned) == pytest.approx(value + shift, abs=1e-6, nan_ok=True)


def mammoth(matrix: np.ndarray) -> dict[str, float]:
    """Mammoth's figures from its results, a row per task it has trained on: utils/metrics.py, read and written anew.

    `matrix` has the row of the untrained model first; Mammoth calls that its random results.
    """
    results, tasks = matrix[1:], len(matrix) - 1
    return {
        # backward_transfer: accuracy on the last row minus the diagonal, all tasks but the last.
        "bwt": float(np.mean([results[-1, task] - results[task, task] for task in range(tasks - 1)])),
        # forward_transfer: the row before learning minus the random results, all tasks but the first.
        "fwt": float(np.mean([results[task - 1, task] - matrix[0, task] for task in range(1, tasks)])),
        # forgetting: the column's maximum, the last row included, minus the last row.
        "forgetting": float(np.mean([results[:, task].max() - results[-1, task] for task in range(tasks - 1)])),
    }


def avalanche(matrix: np.ndarray) -> dict[str, float]:
    """Avalanche's stream metrics: per experience, the first value after training on it and the last one."""
    results, tasks = matrix[1:], len(matrix) - 1
    first, last = results.diagonal(), results[-1]
    return {
        "forgetting": float(np.mean((first - last)[: tasks - 1])),
        "bwt": float(np.mean((last - first)[: tasks - 1])),
        # Its forward transfer subtracts a model that saw nothing, from the second experience on.
        "fwt": float(np.mean([results[task - 1, task] - matrix[0, task] for task in range(1, tasks)])),
    }


@st.composite
def one_task_a_step(draw: st.DrawFn) -> np.ndarray:
    tasks = draw(st.integers(2, 6))
    row = st.lists(st.floats(0, 100), min_size=tasks, max_size=tasks)
    return np.array(draw(st.lists(row, min_size=tasks + 1, max_size=tasks + 1)))


@given(one_task_a_step())
def test_on_one_task_a_step_the_libraries_agree_where_the_docs_say_so(matrix: np.ndarray) -> None:
    tasks = matrix.shape[1]
    learned = list(range(1, tasks + 1))
    theirs, others = mammoth(matrix), avalanche(matrix)
    for name, metric in (("bwt", bwt), ("fwt", fwt)):
        assert metric(matrix, learned) == pytest.approx(theirs[name], abs=1e-9)
        assert metric(matrix, learned) == pytest.approx(others[name], abs=1e-9)
    assert -bwt(matrix, learned) == pytest.approx(others["forgetting"], abs=1e-9)
    # Ours is Mammoth's where the last row is not the best, with the root base as one more row that may be.
    rooted = np.mean([max(0.0, (matrix[:-1, task] - matrix[-1, task]).max()) for task in range(tasks - 1)])
    clipped = [max(0.0, forgetting(matrix[:, [task, -1]], [learned[task], tasks])) for task in range(tasks - 1)]
    assert np.mean(clipped) == pytest.approx(rooted, abs=1e-9)
    assert rooted >= theirs["forgetting"] - 1e-9 >= others["forgetting"] - 2e-9


def test_the_variants_that_others_use_differ_as_the_docs_say() -> None:
    theirs = mammoth(R[:, :3])
    assert theirs["forgetting"] == pytest.approx(((70 - 63) + (61 - 61)) / 2)
    assert forgetting(R[:, :3], LEARNED[:3]) == pytest.approx(((70 - 63) + (60 - 61)) / 2)
    assert avalanche(R[:, :3])["forgetting"] == pytest.approx(((70 - 63) + (60 - 61)) / 2)
