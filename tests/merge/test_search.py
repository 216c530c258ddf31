"""The line search of a coefficient, on curves whose minimum is known."""

from __future__ import annotations

import math

import pytest
import torch

from continual.errors import InputError, ModelError
from continual.merge.search import line_search
from tests.progress import Count

CPU = torch.device("cpu")


def bowls(**centres: float):
    """Return losses 1 + (w - centre)^2 per domain."""
    return lambda weight: {name: 1 + (weight - centre) ** 2 for name, centre in centres.items()}


@pytest.mark.parametrize("centre", [0.0, 0.13, 0.5, 0.62, 0.97, 1.0])
def test_a_line_search_finds_the_minimum(centre: float) -> None:
    found = line_search(bowls(a=centre), refine=8)
    assert found.best.coefficients["weight"] == pytest.approx(centre, abs=0.03)
    assert found.floor_kept


def test_the_objective_is_the_mean_over_domains() -> None:
    found = line_search(bowls(a=0.4, b=0.8), refine=12, floor=1.0)
    assert found.best.coefficients["weight"] == pytest.approx(0.6, abs=0.01)
    assert found.best.loss == pytest.approx(sum(found.best.losses.values()) / 2)
    assert found.reference.losses == pytest.approx({"a": 1.16, "b": 1.64})


def test_a_curve_is_sorted_and_complete() -> None:
    asked: list[float] = []
    bar = Count()

    def evaluate(weight: float) -> dict[str, float]:
        asked.append(weight)
        return bowls(a=0.3)(weight)

    found = line_search(evaluate, points=5, refine=3, progress=bar)
    weights = [point.coefficients["weight"] for point in found.curve]
    assert weights == sorted(asked)
    assert len(set(asked)) == len(asked) == 8
    assert {0.0, 0.25, 0.5, 0.75, 1.0} <= set(weights)
    assert found.best in found.curve
    assert found.reference == found.curve[0]
    assert bar.bars == [["searching for the weight", 8, "weights"]]
    assert bar.done == 8


def test_the_floor_binds() -> None:
    def evaluate(weight: float) -> dict[str, float]:
        return {"old": 1 + 0.1 * weight, "new": 2 - weight}  # the mean falls all the way; old allows weight 0.5

    found = line_search(evaluate, refine=14, floor=0.05)
    assert found.floor_kept
    assert 0.48 <= found.best.coefficients["weight"] <= 0.5
    assert line_search(evaluate, floor=0.2).best.coefficients["weight"] == 1


def test_the_least_breach_is_chosen_and_said_when_the_floor_cannot_be_kept() -> None:
    found = line_search(lambda weight: {"old": 1 + weight, "new": 2 - 2 * weight}, low=0.4, points=4, floor=0.02)
    assert not found.floor_kept
    assert found.best.coefficients == {"weight": 0.4}
    assert [point.coefficients["weight"] for point in found.curve][:2] == [0.0, 0.4]
    assert found.reference.coefficients == {"weight": 0.0}
    assert found.reference not in found.candidates
    assert not found.floor_kept


def test_equal_points_give_the_smaller_weight() -> None:
    assert line_search(lambda weight: {"a": 1.0}).best.coefficients["weight"] == 0


def test_a_search_stops_where_weights_are_no_longer_told_apart() -> None:
    assert len(line_search(bowls(a=0.3), refine=500).curve) < 100


def test_what_cannot_be_searched_is_refused() -> None:
    for wrong in ({"points": 1}, {"low": 0.5, "high": 0.5}, {"low": -0.1}, {"refine": -1}, {"floor": -0.1}):
        with pytest.raises(InputError, match="line search needs"):
            line_search(bowls(a=0.1), **wrong)
    with pytest.raises(ModelError, match=r"weight.*0\.5.*nan"):
        line_search(lambda weight: {"a": math.nan if weight == 0.5 else 1.0}, points=3)
    with pytest.raises(ModelError, match="no domain"):
        line_search(lambda weight: {})
