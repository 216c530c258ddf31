"""Which map of query vectors to take: several are fitted, and judged on rows that they were not fitted on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from continual.index.maps import (
    METHODS,
    Matrix,
    QueryMap,
    Texts,
    affine,
    mlp,
    procrustes,
)
from continual.index.result import DEPTH
from continual.progress import SILENT, Progress

LEAST = 50
"""Rows that a map is fitted on, at least: fewer say nothing of which map is better."""

HELD_OUT = 0.2
"""Share of the rows that a map is chosen on."""

RIDGES = (1.0, 0.1, 0.01, 0.001)
"""Strengths of the ridge that are tried, see `affine`; the strongest leaves most as it is."""

RANKS = (16, 64)
"""Ranks of the affine map's change that are tried, beside the full one."""


@dataclass(frozen=True)
class Candidate:
    """A map that was tried.

    Attributes:
        map: It.
        agreement: Mean share of the first ten passages that it finds on the old vectors of those that the new model
            finds on its own, for the queries of the held-out rows; 0 to 1.
        shares: The same per query.
    """

    map: QueryMap
    agreement: float
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """The map that was chosen, with the others that were tried.

    Attributes:
        map: It, fitted on the rows that are not held out.
        candidates: All that were tried, the simplest first.
        rows: Rows it was fitted on.
        held_out: Rows it was chosen on.
    """

    map: QueryMap
    candidates: list[Candidate]
    rows: int
    held_out: int


def fit(texts: Texts, method: str, *, seed: int = 0, progress: Progress = SILENT) -> Fitted:
    """Fit a map, its settings chosen on held-out rows.

    Every fifth row is held out. Of the candidates, the simplest is taken whose agreement is within one standard error
    of the best one's (https://doi.org/10.1201/9781315139470): what helps by luck on learned texts may harm others.

    Args:
        texts: Rows of learned domains, `LEAST` at least.
        method: One of `METHODS`; "auto": all of them; or "linear": all but the hidden layer.
        seed: Of the hidden layer's training.
        progress: Counts the candidates.
    """
    place = np.arange(len(texts)) % round(1 / HELD_OUT) == 0
    seen, held = texts.take(~place), texts.take(place)
    wanted = {"auto": METHODS, "linear": METHODS[:-1]}.get(method, (method,))
    tried: list[Candidate] = []
    progress.start("fitting maps", None, "maps")
    for turn in _maps(seen, held, wanted, seed):
        tried.append(agreement(turn, held, seen))
        progress.advance(1)
    progress.finish()
    return Fitted(choose(tried).map, tried, len(seen), len(held))


def choose(candidates: list[Candidate]) -> Candidate:
    """Return the first candidate whose agreement is within one standard error of the best one's."""
    best = max(candidates, key=lambda each: each.agreement)
    for each in candidates:
        behind = best.shares - each.shares
        if behind.mean() <= behind.std() / np.sqrt(len(behind)):
            return each
    return best


def agreement(turn: QueryMap, held: Texts, seen: Texts) -> Candidate:
    """Return how far a map finds what the new model finds, for held-out queries among all passages."""
    old, new = (np.concatenate([getattr(part, name) for part in (held, seen)]) for name in ("old", "new"))
    found = _nearest(np.asarray(turn(held.queries), np.float64) @ old.T)
    wanted = _nearest(held.queries @ new.T)
    shares = (found[:, :, None] == wanted[:, None, :]).any(axis=1).mean(axis=1)
    return Candidate(turn, float(shares.mean()), shares)


def _nearest(scores: Matrix) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]


def _maps(seen: Texts, held: Texts, wanted: Sequence[str], seed: int) -> Iterator[QueryMap]:
    """Yield the maps to try, the simplest first."""
    for turn in _fitted(seen, held, wanted, seed):
        yield replace(turn, normalise=seen.normalise)


def _fitted(seen: Texts, held: Texts, wanted: Sequence[str], seed: int) -> Iterator[QueryMap]:
    if "identity" in wanted:
        yield QueryMap("identity", {}, ())
    if "procrustes" in wanted:
        for centre in (True, False):
            yield procrustes(seen.old, seen.new, centre=centre)
    if not {"affine", "mlp"}.intersection(wanted):
        return
    size = seen.old.shape[1]
    ranks = [rank for rank in RANKS if rank < size]
    grid = [affine(seen.old, seen.new, ridge=ridge, rank=rank) for rank in [*ranks, None] for ridge in RIDGES]
    if "affine" in wanted:
        yield from grid
    if "mlp" in wanted:
        start = choose([agreement(turn, held, seen) for turn in grid]).map
        yield mlp(seen, start, seed=seed)
