"""The coefficients of self-positioning: their combination, and the gradient search of planted ones."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from continual.errors import InputError, ModelError, NothingToDoError
from continual.merge.methods.pairwise_slerp import pairwise_slerp_coefficients as pairwise_slerp
from continual.merge.positioning import Combination, gradient_search
from continual.merge.search import SearchResult
from tests.progress import Count

# --- The combination


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def test_coefficients_are_those_of_slerp_one_after_the_other() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 7))
    t = [0.3, 0.8, 0.45]
    expected = vectors[0]
    for share, vector in zip(t, vectors[1:], strict=True):
        expected = slerp(expected, vector, share)
    factors = pairwise_slerp(torch.from_numpy(vectors @ vectors.T), torch.tensor(t, dtype=torch.float64))
    np.testing.assert_allclose(factors.numpy() @ vectors, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "vectors", [[[1, 0], [2, 0]], [[1, 0], [-1, 0]], [[0, 0], [1, 1]], [[0, 0], [0, 0]], [[1, 0], [1, 1e-9]]]
)
def test_vectors_without_an_angle_have_coefficients_and_gradients(vectors: list[list[float]]) -> None:
    given = torch.tensor(vectors, dtype=torch.float64)
    t = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    factors = pairwise_slerp(given @ given.T, t)
    factors.sum().backward()
    assert torch.isfinite(factors).all()
    assert torch.isfinite(t.grad).all()
    if given.prod() == 0 and given[0].any() and given[0, 1] == 0 == given[1, 1]:
        assert factors.tolist() == pytest.approx([0.75, 0.25])  # parallel, or opposite: the straight line


def test_gradients_of_the_coefficients_are_right() -> None:
    vectors = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: pairwise_slerp(vectors @ vectors.T, t), t)


def test_a_combination_moves_only_what_differs() -> None:
    base = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    vectors = {"a": [torch.tensor([1.0, 0]), torch.tensor([0, 2.0])], "b": [torch.zeros(3), torch.zeros(3)]}
    found = Combination(base, vectors)
    assert found.names == ("t1", "lambda")
    moved = found.at({"t1": 0.5, "lambda": 2.0})
    half = math.sqrt(0.5)  # sin(pi / 4) / sin(pi / 2)
    assert moved["a"].tolist() == pytest.approx([1 + 2 * half, 1 + 4 * half])
    assert moved["b"] is base["b"]
    assert moved["c"] is base["c"]
    assert found.at({"t1": 0.5, "lambda": 0.0})["a"] is base["a"]
    assert found.at({"t1": 1.0, "lambda": 1.0})["a"].tolist() == pytest.approx([1, 3])


def test_vectors_that_do_not_fit_are_refused() -> None:
    base = {"a": torch.ones(2)}
    with pytest.raises(ModelError, match="a: 1 task vectors"):
        Combination(base, {"a": [torch.ones(3)]})
    with pytest.raises(ModelError, match=r"x: 1 task vectors.*missing"):
        Combination(base, {"x": [torch.ones(2)]})
    with pytest.raises(ModelError, match="a: 2 task vectors"):
        Combination(base | {"b": torch.ones(2)}, {"a": [torch.ones(2)], "b": [torch.ones(2)] * 2})
    with pytest.raises(NothingToDoError):
        Combination(base, {"a": [torch.zeros(2)]})


# --- The gradient


def planted(t: float = 0.3, scale: float = 0.7, domains: int = 1):
    """Return a combination, and the squared distance of a model from the one with the planted coefficients."""
    generator = torch.Generator().manual_seed(1)
    base = {name: torch.randn(6, generator=generator) for name in "abc"}
    vectors = {name: [torch.randn(6, generator=generator) for _ in range(2)] for name in "ab"}
    combination = Combination(base, vectors)
    target = combination.at({"t1": t, "lambda": scale})

    def distance(parameters: dict[str, torch.Tensor], step: int = 0) -> dict[str, torch.Tensor]:
        total = sum(((parameters[name] - target[name]) ** 2).sum() for name in target)
        return {f"d{step % domains}": 1 + total}

    def evaluate(coefficients) -> dict[str, float]:
        loss = float(distance(combination.at(coefficients))["d0"])
        return {f"d{place}": loss for place in range(domains)}

    return combination, distance, evaluate


@pytest.mark.parametrize("domains", [1, 3])
def test_a_gradient_search_finds_planted_coefficients(domains: int) -> None:
    bar = Count()
    found = gradient_search(*planted(domains=domains), mu=0, steps=150, progress=bar)
    assert found.best.coefficients == pytest.approx({"t1": 0.3, "lambda": 0.7}, abs=0.02)
    assert found.best.loss == pytest.approx(1, abs=1e-3)
    assert found.floor_kept
    assert len(found.curve) == 150 == bar.done
    assert found.curve[0].coefficients == {"t1": 0.5, "lambda": 1.0}
    assert found.curve[-1].loss < found.curve[0].loss
    assert len(found.candidates) == 5
    assert found.best in found.candidates
    assert found.reference.coefficients["lambda"] == 0
    assert set(found.curve[-1].losses) == {f"d{place}" for place in range(domains)}
    json.dumps(asdict(found))


def test_a_gradient_search_repeats_itself() -> None:
    first, second = (gradient_search(*planted(), steps=20) for _ in range(2))
    assert isinstance(first, SearchResult)
    assert first == second


def test_mu_makes_lambda_smaller_by_what_the_quadratic_says() -> None:
    base, vector = {"a": torch.zeros(1)}, {"a": [torch.ones(1)]}  # loss 1 + (lambda - 1)^2: lambda = 1 - mu / 2
    combination = Combination(base, vector)

    def loss(parameters: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return {"a": 1 + ((parameters["a"] - 1) ** 2).sum()}

    found = gradient_search(combination, loss, lambda c: {"a": 1 + (c["lambda"] - 1) ** 2}, mu=0.4, lowest=0, steps=200)
    assert combination.names == ("lambda",)
    assert found.candidates[1].coefficients["lambda"] == pytest.approx(0.8, abs=0.01)
    assert found.best == found.candidates[0]  # the choice is by the loss alone: lambda 1, where it started


@pytest.mark.parametrize("current", [None, {"lambda": 0.2}])
def test_the_hinge_keeps_the_floor_against_what_is_current(current: dict[str, float] | None) -> None:
    combination = Combination({"a": torch.zeros(1)}, {"a": [torch.ones(1)]})

    def losses(weight):  # old allows (0.05 above its current loss) another 0.5 or 0.51; new wants all
        return {"old": 1 + 0.1 * weight, "new": 2 - weight}

    def evaluate(coefficients) -> dict[str, float]:
        return losses(coefficients["lambda"])

    def loss(parameters: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return losses(parameters["a"].sum())

    found = gradient_search(combination, loss, evaluate, current=current, floor=0.05, mu=0, start=0.5, steps=200)
    limit = 0.5 if current is None else (1.02 * 1.05 - 1) / 0.1
    assert found.reference.coefficients == (current or {"lambda": 0.0})
    assert found.floor_kept
    assert limit - 0.05 <= found.best.coefficients["lambda"] <= limit + 1e-9
    assert found.curve[-1].coefficients["lambda"] == pytest.approx(limit, abs=0.03)


def test_lambda_does_not_fall_below_0_and_t_stays_a_share() -> None:
    combination, _, _ = planted()

    def away(parameters: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return {"a": 10 + sum((tensor**2).sum() for tensor in parameters.values())}

    found = gradient_search(combination, away, lambda c: {"a": 1 + c["lambda"]}, mu=5, learning_rate=0.5, steps=40)
    assert all(point.coefficients["lambda"] >= 0 for point in found.curve)
    assert all(0 <= point.coefficients["t1"] <= 1 for point in found.curve)


def test_a_gradient_search_refuses_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match="gradient search needs"):
        gradient_search(*planted(), steps=0)
    combination, _, evaluate = planted()
    with pytest.raises(ModelError, match="nan"):
        gradient_search(combination, lambda p, step: {"d0": p["a"].sum() * math.nan}, evaluate, steps=1)
