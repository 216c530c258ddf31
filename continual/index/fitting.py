"""The choice of a query map: several are fitted, and compared on held-out rows."""

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
"""Fewest rows to fit a map on: fewer can't tell which map is better."""

HELD_OUT = 0.2
"""Share of the rows that the maps are compared on."""

RIDGES = (1.0, 0.1, 0.01, 0.001)
"""Ridge strengths to try, see `affine`; the strongest changes least."""

RANKS = (16, 64)
"""Ranks of the affine map's change to try, besides the full rank."""


@dataclass(frozen=True)
class Candidate:
    """A map that was tried.

    Attributes:
        map: The map.
        agreement: Of the first ten passages that the new model finds, the share that the map finds on the old vectors:
            the mean over held-out queries, 0 to 1.
        shares: The same, per query.
    """

    map: QueryMap
    agreement: float
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """The map that was chosen, with the others that were tried.

    Attributes:
        map: The map, fitted on the rows that are not held out.
        candidates: All that were tried, the simplest first.
        rows: Rows that it was fitted on.
        held_out: Rows that it was chosen on.
    """

    map: QueryMap
    candidates: list[Candidate]
    rows: int
    held_out: int


def fit(texts: Texts, method: str, *, seed: int = 0, progress: Progress = SILENT) -> Fitted:
    """Fit a map, and choose its settings on held-out rows.

    Every fifth row is held out. Of the candidates, the simplest is taken whose agreement is within one standard error
    of the best one's (https://doi.org/10.1201/9781315139470): a lucky gain on learned texts may hurt others.

    Args:
        texts: Rows of learned domains, `LEAST` at least.
        method: One of `METHODS`; "auto": all of them; or "linear": all but the hidden layer.
        seed: Of the hidden layer's training.
    """
    place = np.arange(len(texts)) % round(1 / HELD_OUT) == 0
    seen, held = texts.take(~place), texts.take(place)
    wanted = {"auto": METHODS, "linear": METHODS[:-1]}.get(method, (method,))
    tried: list[Candidate] = []
    progress.start("fitting maps", None, "maps")
    for query_map in _maps(seen, held, wanted, seed):
        tried.append(agreement(query_map, held, seen))
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


def agreement(query_map: QueryMap, held: Texts, seen: Texts) -> Candidate:
    """Compare what a map and the new model find, for held-out queries among all passages."""
    old, new = (np.concatenate([getattr(part, name) for part in (held, seen)]) for name in ("old", "new"))
    found = _nearest(np.asarray(query_map(held.queries), np.float64) @ old.T)
    wanted = _nearest(held.queries @ new.T)
    shares = (found[:, :, None] == wanted[:, None, :]).any(axis=1).mean(axis=1)
    return Candidate(query_map, float(shares.mean()), shares)


def _nearest(scores: Matrix) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]


def _maps(seen: Texts, held: Texts, wanted: Sequence[str], seed: int) -> Iterator[QueryMap]:
    """Yield the maps to try, the simplest first."""
    for query_map in _fitted(seen, held, wanted, seed):
        yield replace(query_map, normalise=seen.normalise)


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
        start = choose([agreement(query_map, held, seen) for query_map in grid]).map
        yield mlp(seen, start, seed=seed)
