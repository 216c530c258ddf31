"""Coefficient search: how far to move, and in which mixture, decided on held-out rows. Knows tensors only.

The objective, of both searches: the mean over domains of the mean loss on held-out rows, subject to a floor per
domain. No domain may be worse than under what is in service by more than `floor`, a share of its loss there
(0.02: 2 % worse). A point that breaks the floor is not chosen; only where every candidate breaks it, the one that
breaks it least is, and the result says so (`floor_kept`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from continual.errors import InputError, ModelError, NothingToDoError
from continual.progress import SILENT, Progress

Losses = Mapping[str, float]
Combine = Callable[[Tensor, Tensor], Tensor]

_GOLDEN = (3 - math.sqrt(5)) / 2
_DECIMALS = 6  # of a weight: what a report prints is what was evaluated
_PARALLEL = 0.9995  # absolute cosine above which two vectors are mixed on the straight line
_NOTHING = 1e-60  # product of squared norms below which an angle means nothing
_ROUNDING = 1e-9  # of the floor
_CHUNK = 1 << 20  # elements of a Gram matrix's vectors that are in fp64 at a time


@dataclass(frozen=True)
class Point:
    """Coefficients, and what they came to.

    Attributes:
        coefficients: By name: "weight" of a line search; "t1", "t2", ..., and "lambda" of a gradient search.
        loss: Mean of `losses`.
        losses: Mean loss per domain.
    """

    coefficients: dict[str, float]
    loss: float
    losses: dict[str, float]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        best: The chosen point, one of `candidates`.
        curve: Line search: every point evaluated, by rising weight. Gradient search: a point per step, in order,
            with each domain's loss on the last minibatch that held it.
        reference: What is in service, on all held-out rows.
        candidates: The points that could be chosen, all evaluated on all held-out rows.
        floor: How much worse than `reference` a domain may be, as a share of its loss there.
        floor_kept: Whether `best` keeps the floor; when it does not, no candidate did.
    """

    best: Point
    curve: list[Point]
    reference: Point
    candidates: list[Point]
    floor: float
    floor_kept: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def line_search(
    evaluate: Callable[[float], Losses],
    *,
    low: float = 0.0,
    high: float = 1.0,
    points: int = 6,
    refine: int = 4,
    floor: float = 0.02,
    progress: Progress = SILENT,
) -> SearchResult:
    """Search one weight: an even grid, then golden sections around the best point so far.

    Weight 0 is what is in service and is always evaluated; it can be chosen only when `low` is 0.

    Args:
        evaluate: Maps a weight to the loss per domain. Called once per weight.
        low: Lowest weight, 0 or more.
        high: Highest weight, above `low`.
        points: Points of the grid, both ends included, at least 2.
        refine: Points after the grid, 0 or more.
        floor: See the objective above; 0 or more.
        progress: A bar over the points.

    Raises:
        InputError: An argument is out of its range.
        ModelError: A loss is no finite number.
    """
    if not (0 <= low < high < math.inf and points >= 2 and refine >= 0 and floor >= 0):
        raise InputError(
            "A line search needs 0 <= low < high, points >= 2, refine >= 0 and floor >= 0, not "
            f"low={low}, high={high}, points={points}, refine={refine}, floor={floor}."
        )
    progress.start("searching the weight", points + refine + (low > 0), "points")

    def at(weight: float) -> Point:
        point = _point({"weight": weight}, evaluate(weight))
        progress.advance(1)
        return point

    reference = at(0.0) if low > 0 else None
    known: dict[float, Point] = {}
    for place in range(points):
        weight = round(low + (high - low) * place / (points - 1), _DECIMALS)
        known[weight] = known[weight] if weight in known else at(weight)
    reference = reference or known[0.0]
    for _ in range(refine):
        weights = sorted(known)
        best = min(weights, key=lambda weight: _rank(known[weight], reference, floor))
        place = weights.index(best)
        left, right = best - weights[max(place - 1, 0)], weights[min(place + 1, len(weights) - 1)] - best
        weight = round(best + _GOLDEN * right if right >= left else best - _GOLDEN * left, _DECIMALS)
        if weight in known:  # finer than a weight is stated
            break
        known[weight] = at(weight)
    progress.finish()
    candidates = [known[weight] for weight in sorted(known)]
    return _result(candidates, candidates if low == 0 else [reference, *candidates], reference, floor)


def pairwise_slerp(gram: Tensor, t: Tensor) -> Tensor:
    """Return the coefficients of vectors that are joined one after the other by SLERP.

    f(v, w) = sin((1 - t) a) / sin(a) v + sin(t a) / sin(a) w with a the angle between v and w; (1 - t) v + t w where
    they are nearly parallel or opposite. 0 is at right angles to all. Differentiable, without NaN in the gradient.

    Args:
        gram: Inner products of the vectors, [n, n], fp64.
        t: Share of vector 2, 3, ... when it joins, [n - 1], 0 to 1.

    Returns:
        Factor of each vector, [n].

    Reference: phased training, COLM 2025.
    """
    rows = torch.eye(len(gram), dtype=gram.dtype)
    total = rows[0]
    for share, row in zip(t, rows[1:], strict=True):
        norms = (total @ gram @ total) * (row @ gram @ row)
        some = norms > _NOTHING
        cosine = torch.where(some, total @ gram @ row, 0.0) / torch.where(some, norms, 1.0).sqrt()
        curved = cosine.abs() <= _PARALLEL
        angle = torch.where(curved, cosine, 0.0).acos()  # a right angle where it is not used: no gradient is NaN
        keep = torch.where(curved, ((1 - share) * angle).sin() / angle.sin(), 1 - share)
        take = torch.where(curved, (share * angle).sin() / angle.sin(), share)
        total = keep * total + take * row
    return total


class Combination:
    """theta(t, lambda) = base + lambda V(t), where V combines task vectors tensor by tensor.

    Args:
        base: theta_0 by tensor name; kept, not copied.
        vectors: By name, the n task vectors' tensors, each of the base tensor's shape and on its device; n is
            the same for all. Names that are left out, and tensors in which every vector is 0, do not move.
        combine: Maps a Gram matrix [n, n] in fp64 and t [n - 1] to n factors; differentiable in t.

    Attributes:
        names: Names of the coefficients: "t1" to "t{n - 1}", then "lambda".

    Raises:
        ModelError: A task vector does not fit the base; the tensor is named.
        NothingToDoError: No tensor differs.
    """

    def __init__(
        self, base: Mapping[str, Tensor], vectors: Mapping[str, Sequence[Tensor]], combine: Combine = pairwise_slerp
    ) -> None:
        count = max(map(len, vectors.values()), default=0)
        for name, some in vectors.items():
            if name not in base or len(some) != count or any(one.shape != base[name].shape for one in some):
                shape = tuple(base[name].shape) if name in base else "missing"
                raise ModelError(
                    f"{name}: {count} task vectors of the base's shape ({shape}) are needed, not "
                    f"{[tuple(one.shape) for one in some]}. Merge models of one architecture."
                )
        self._base, self._combine = dict(base), combine
        self._moved = {name: some for name, some in vectors.items() if any(bool(one.any()) for one in some)}
        if not self._moved:
            raise NothingToDoError("No task vector differs from 0, so there are no coefficients to search.")
        self._grams = {name: _gram(some) for name, some in self._moved.items()}
        self.names = (*(f"t{place}" for place in range(1, count)), "lambda")

    def parameters(self, t: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """Return every tensor of theta by name, differentiable in t [n - 1] and in the scalar lambda."""
        found = dict(self._base)
        for name, vectors in self._moved.items():
            factors = scale * self._combine(self._grams[name], t)
            tensor = found[name]
            for factor, vector in zip(factors, vectors, strict=True):
                tensor = tensor + factor.to(tensor) * vector
            found[name] = tensor
        return found

    def at(self, coefficients: Mapping[str, float]) -> dict[str, Tensor]:
        """Return every tensor of theta by name, for plain coefficients; lambda 0 gives the base itself."""
        if coefficients["lambda"] == 0:
            return dict(self._base)
        *t, scale = torch.tensor([coefficients[name] for name in self.names], dtype=torch.float64)
        return self.parameters(torch.stack(t) if t else torch.zeros(0, dtype=torch.float64), scale)


def gradient_search(
    combination: Combination,
    loss: Callable[[dict[str, Tensor], int], Mapping[str, Tensor]],
    evaluate: Callable[[Mapping[str, float]], Losses],
    *,
    in_service: Mapping[str, float] | None = None,
    steps: int = 100,
    learning_rate: float = 0.05,
    start: float = 1.0,
    mu: float = 0.01,
    hinge: float = 30.0,
    floor: float = 0.02,
    lowest: int = 3,
    progress: Progress = SILENT,
) -> SearchResult:
    """Search t and lambda by Adam: Self Positioning, as phased training uses it.

    Minimised is the mean loss of a minibatch + mu lambda + hinge times the mean share by which its domains exceed
    the floor, measured against what is in service on the same minibatch. The learning rate falls to 0. Chosen is by
    the objective above, without mu, among the start, the end, and the steps whose minibatches gained most, the hinge
    counted in.

    Args:
        combination: The models to choose from.
        loss: Maps all tensors by name, and the step's number, to the differentiable loss per domain of that step's
            minibatch; a minibatch need not hold every domain.
        evaluate: Maps coefficients to the loss per domain on all held-out rows.
        in_service: Coefficients of what is in service; None: the base, lambda = 0.
        steps: Adam steps, at least 1; the paper's are about 100.
        learning_rate: At the first step, of lambda and of the logits of t.
        start: lambda at the start, 0 or more; t starts at 0.5.
        mu: Price of lambda, in loss; the papers do not state theirs.
        hinge: Price of exceeding the floor by the whole of a domain's loss.
        floor: See the objective above; 0 or more.
        lowest: Steps evaluated in full besides the start and the end.
        progress: A bar over the steps.

    Raises:
        InputError: An argument is out of its range.
        ModelError: A loss is no finite number.

    Reference: https://arxiv.org/abs/2410.15035
    """
    if not (steps >= 1 and learning_rate > 0 and start >= 0 and hinge >= 0 and floor >= 0 and lowest >= 0):
        raise InputError(
            "A gradient search needs steps >= 1, learning_rate > 0, and start, hinge, floor, lowest >= 0, not "
            f"steps={steps}, learning_rate={learning_rate}, start={start}, hinge={hinge}, floor={floor}, "
            f"lowest={lowest}."
        )
    names = combination.names
    service = dict(in_service) if in_service is not None else dict.fromkeys(names, 0.5) | {"lambda": 0.0}
    reference = _point(service, evaluate(service))
    logits = torch.zeros(len(names) - 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits, scale], lr=learning_rate)

    def here() -> dict[str, float]:
        return dict(zip(names, [*torch.sigmoid(logits).tolist(), scale.item()], strict=True))

    curve: list[Point] = []
    losses: dict[str, float] = {}
    gains: dict[str, float] = {}
    gained: list[float] = []
    progress.start("searching the coefficients", steps, "steps")
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        with torch.no_grad():
            before = {name: float(value) for name, value in loss(combination.at(service), step).items()}
        found = loss(combination.parameters(torch.sigmoid(logits), scale), step)
        values = torch.stack([value.double().cpu() for value in found.values()])
        limits = torch.tensor([before[name] + floor * abs(before[name]) for name in found], dtype=torch.float64)
        sizes = torch.tensor([max(abs(before[name]), 1e-12) for name in found], dtype=torch.float64)
        excess = (values - limits).clamp(min=0) / sizes
        losses |= dict(zip(found, values.tolist(), strict=True))
        curve.append(_point(here(), losses))
        prices = (hinge * excess).tolist()
        gains |= {name: losses[name] - before[name] + price for name, price in zip(found, prices, strict=True)}
        gained.append(sum(gains.values()) / len(gains) if gains.keys() >= reference.losses.keys() else math.inf)
        optimizer.zero_grad()
        (values.mean() + mu * scale + hinge * excess.mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(min=0)
        progress.advance(1)
    progress.finish()
    order = sorted((step for step in range(1, steps) if gained[step] < math.inf), key=lambda step: gained[step])
    chosen = [curve[0].coefficients, here(), *(curve[step].coefficients for step in order[:lowest])]
    return _result([_point(each, evaluate(each)) for each in chosen], curve, reference, floor)


def _gram(vectors: Sequence[Tensor]) -> Tensor:
    """Return the inner products of some tensors, [n, n], fp64 on the CPU."""
    total = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for pieces in zip(*(torch.split(vector.detach().reshape(-1), _CHUNK) for vector in vectors), strict=True):
        rows = torch.stack(pieces).to("cpu", torch.float64)  # [n, elements]
        total += rows @ rows.T
    return total


def _point(coefficients: Mapping[str, float], losses: Losses) -> Point:
    wrong = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if wrong or not losses:
        what = f"the loss is {wrong}" if wrong else "no domain has a loss"
        raise ModelError(f"At {dict(coefficients)} {what}. Check the models and the held-out rows.")
    plain = {name: float(value) for name, value in losses.items()}
    return Point(dict(coefficients), math.fsum(plain.values()) / len(plain), plain)


def _rank(point: Point, reference: Point, floor: float) -> tuple[bool, float]:
    """Return a key that puts points that keep the floor first, by loss, and the others after them, by breach."""
    worst = max((point.losses[name] - old) / max(abs(old), 1e-12) for name, old in reference.losses.items())
    return (True, worst) if worst > floor + _ROUNDING else (False, point.loss)


def _result(candidates: list[Point], curve: list[Point], reference: Point, floor: float) -> SearchResult:
    best = min(candidates, key=lambda point: _rank(point, reference, floor))
    kept = not _rank(best, reference, floor)[0]
    return SearchResult(best, curve, reference, candidates, floor, kept)
