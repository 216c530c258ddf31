"""Coefficient search on held-out rows: what a search found, and the search for one weight.

The objective, of both searches: the mean over domains of the mean loss on held-out rows, subject to a floor per
domain. No domain may be worse than under what is in service by more than `floor`, a share of its loss there
(0.02: 2 % worse). A point that breaks the floor is not chosen; only where every candidate breaks it, the one that
breaks it least is, and the result says so (`floor_kept`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from continual.errors import InputError, ModelError
from continual.progress import SILENT, Progress
from continual.registry.provenance import SearchPoint, SearchResult

Losses = Mapping[str, float]

_GOLDEN = (3 - math.sqrt(5)) / 2
_DECIMALS = 6  # of a weight: what a report prints is what was evaluated
_ROUNDING = 1e-9  # of the floor


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
    progress.start("searching the weight", points + refine + (low > 0), "weights")

    def at(weight: float) -> SearchPoint:
        point = point_at({"weight": weight}, evaluate(weight))
        progress.advance(1)
        return point

    reference = at(0.0) if low > 0 else None
    known: dict[float, SearchPoint] = {}
    for place in range(points):
        weight = round(low + (high - low) * place / (points - 1), _DECIMALS)
        known[weight] = known[weight] if weight in known else at(weight)
    reference = reference or known[0.0]
    for _ in range(refine):
        weights = sorted(known)
        best = min(weights, key=lambda weight: rank(known[weight], reference, floor))
        place = weights.index(best)
        left, right = best - weights[max(place - 1, 0)], weights[min(place + 1, len(weights) - 1)] - best
        weight = round(best + _GOLDEN * right if right >= left else best - _GOLDEN * left, _DECIMALS)
        if weight in known:  # finer than a weight is stated
            break
        known[weight] = at(weight)
    progress.finish()
    candidates = [known[weight] for weight in sorted(known)]
    return result_of(candidates, candidates if low == 0 else [reference, *candidates], reference, floor)


def point_at(coefficients: Mapping[str, float], losses: Losses) -> SearchPoint:
    """Return what coefficients came to.

    Raises:
        ModelError: There is no loss, or one is no finite number.
    """
    wrong = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if wrong or not losses:
        what = f"the loss is {wrong}" if wrong else "no domain has a loss"
        raise ModelError(f"At {dict(coefficients)} {what}. Check the models and the held-out rows.")
    plain = {name: float(value) for name, value in losses.items()}
    return SearchPoint(dict(coefficients), math.fsum(plain.values()) / len(plain), plain)


def rank(point: SearchPoint, reference: SearchPoint, floor: float) -> tuple[bool, float]:
    """Return a key that puts points that keep the floor first, by loss, and the others after them, by breach."""
    worst = max((point.losses[name] - old) / max(abs(old), 1e-12) for name, old in reference.losses.items())
    return (True, worst) if worst > floor + _ROUNDING else (False, point.loss)


def result_of(
    candidates: list[SearchPoint], curve: list[SearchPoint], reference: SearchPoint, floor: float
) -> SearchResult:
    """Choose among candidates by the objective."""
    best = min(candidates, key=lambda point: rank(point, reference, floor))
    kept = not rank(best, reference, floor)[0]
    return SearchResult(best, curve, reference, candidates, floor, kept)
