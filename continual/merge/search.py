"""Coefficient search on held-out rows: the objective, and the line search for one weight.

The line search and the gradient search of `continual.merge.positioning` minimise the same objective: the mean over
domains of the mean loss on held-out rows, subject to a floor per domain. No domain's loss may exceed its loss under
the current version by more than `floor`, a share of that loss (0.02: 2 %). The result is the best point that keeps the
floor. If no candidate keeps it, the result is the point that breaks it least, with `floor_kept` false.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from continual.errors import InputError, ModelError
from continual.progress import SILENT, Progress
from continual.registry.provenance import SearchPoint, SearchResult

Losses = Mapping[str, float]

_GOLDEN = (3 - math.sqrt(5)) / 2
_DECIMALS = 6  # weights are rounded before they are evaluated, so that the report shows the evaluated weight
_ROUNDING = 1e-9  # tolerance of the floor


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

    Weight 0 is the current version and is always evaluated. It can be chosen only if `low` is 0.

    Args:
        evaluate: Maps a weight to the loss per domain. Called once per weight.
        low: Lowest weight, 0 or more.
        high: Highest weight, above `low`.
        points: Points of the grid, both ends included, at least 2.
        refine: Points after the grid, 0 or more.
        floor: Allowed rise of a domain's loss, as a share of it, 0 or more; see the objective above.

    Raises:
        InputError: An argument is out of its range.
        ModelError: A loss is not finite.
    """
    if not (0 <= low < high < math.inf and points >= 2 and refine >= 0 and floor >= 0):
        raise InputError(
            "A line search needs 0 <= low < high, points >= 2, refine >= 0 and floor >= 0, but got "
            f"low={low}, high={high}, points={points}, refine={refine}, floor={floor}."
        )
    progress.start("searching for the weight", points + refine + (low > 0), "weights")

    def evaluate_point(weight: float) -> SearchPoint:
        point = search_point({"weight": weight}, evaluate(weight))
        progress.advance(1)
        return point

    reference = evaluate_point(0.0) if low > 0 else None
    evaluated: dict[float, SearchPoint] = {}
    for place in range(points):
        weight = round(low + (high - low) * place / (points - 1), _DECIMALS)
        evaluated[weight] = evaluated[weight] if weight in evaluated else evaluate_point(weight)
    reference = reference or evaluated[0.0]
    for _ in range(refine):
        weights = sorted(evaluated)
        best = min(weights, key=lambda weight: objective_key(evaluated[weight], reference, floor))
        place = weights.index(best)
        left, right = best - weights[max(place - 1, 0)], weights[min(place + 1, len(weights) - 1)] - best
        weight = round(best + _GOLDEN * right if right >= left else best - _GOLDEN * left, _DECIMALS)
        if weight in evaluated:  # the interval is smaller than the rounding of weights
            break
        evaluated[weight] = evaluate_point(weight)
    progress.finish()
    candidates = [evaluated[weight] for weight in sorted(evaluated)]
    return search_result(candidates, candidates if low == 0 else [reference, *candidates], reference, floor)


def search_point(coefficients: Mapping[str, float], losses: Losses) -> SearchPoint:
    """Return the coefficients with the loss of each domain and the mean over domains.

    Raises:
        ModelError: There is no loss, or a loss is not finite.
    """
    not_finite = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if not_finite or not losses:
        problem = "no domain has a loss"
        if not_finite:
            problem = ", ".join(f"the loss of {domain} is {value}" for domain, value in not_finite.items())
        place = ", ".join(f"{name} {value:.4g}" for name, value in coefficients.items())
        raise ModelError(
            f"At {place}, {problem}, so these coefficients can't be compared with others. Check the models and the "
            "held-out rows."
        )
    plain = {name: float(value) for name, value in losses.items()}
    return SearchPoint(dict(coefficients), math.fsum(plain.values()) / len(plain), plain)


def objective_key(point: SearchPoint, reference: SearchPoint, floor: float) -> tuple[bool, float]:
    """Return a sort key: points that keep the floor come first, by loss; the others follow, by breach."""
    worst = max((point.losses[name] - old) / max(abs(old), 1e-12) for name, old in reference.losses.items())
    return (True, worst) if worst > floor + _ROUNDING else (False, point.loss)


def search_result(
    candidates: list[SearchPoint], curve: list[SearchPoint], reference: SearchPoint, floor: float
) -> SearchResult:
    """Return the best candidate by the objective, with the points of the curve."""
    best = min(candidates, key=lambda point: objective_key(point, reference, floor))
    kept = not objective_key(best, reference, floor)[0]
    return SearchResult(best, curve, reference, candidates, floor, kept)
