"""Maps from the space of a new model to that of an old one, for queries against an index that the old one filled.

What must be kept is what the new model finds: for a query q and documents D, the scores q D_new^T of full
re-embedding. A map M of queries keeps them on the old vectors if M(q) D_old^T is near q D_new^T, up to a constant per
query, which ranks nothing otherwise. For a linear M(q) = B q that is a regression of new document vectors on old
ones, D_old B near D_new: B is fitted on documents, and applied to queries. A bias would be that constant. (A map
fitted the other way, new vectors to old ones of the same texts, makes of a new query the old one, and can find no
more than the old model did.)

Methods, the simplest first: `identity`; `procrustes`, B orthogonal; `affine`, B = I + a ridge regression cut to a low
rank; `mlp`, an affine map plus a small hidden layer, trained on the scores. Reference: Drift-Adapter
(https://arxiv.org/abs/2509.23471).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from continual.eval.compat import DEPTH
from continual.progress import SILENT, Progress

Matrix = NDArray[np.float64]
Method = Literal["identity", "procrustes", "affine", "mlp"]
METHODS: tuple[Method, ...] = ("identity", "procrustes", "affine", "mlp")

HELD_OUT = 0.2
"""Share of the rows that a map is chosen on."""

RIDGES = (0.001, 0.01, 0.1, 1.0)
"""Strengths of the ridge that are tried, as shares of the mean variance of a coordinate, times the number of rows."""

RANKS = (16, 64)
"""Ranks of the affine map's change that are tried, beside the full one."""


@dataclass(frozen=True)
class Texts:
    """The same rows under both models, float64; see `texts_of`.

    Attributes:
        queries: New vectors of the queries, [rows, dimensions].
        old: Old vectors of the passages, [rows, dimensions].
        new: New vectors of the same passages.
        normalise: Whether vectors are compared by cosine, and have the norm 1 here; else by dot product.
    """

    queries: Matrix
    old: Matrix
    new: Matrix
    normalise: bool = True

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, rows: NDArray[Any]) -> Texts:
        """Return some of the rows."""
        return Texts(self.queries[rows], self.old[rows], self.new[rows], self.normalise)


def texts_of(queries: NDArray[Any], old: NDArray[Any], new: NDArray[Any], *, normalise: bool) -> Texts:
    """Return the rows that maps are fitted on, from embeddings of any type and norm.

    Args:
        queries: New vectors of the queries, [rows, dimensions].
        old: Old vectors of the passages, [rows, dimensions].
        new: New vectors of the same passages.
        normalise: Whether the models compare by cosine; else they do by dot product.
    """
    first, second, third = (np.asarray(part, np.float64) for part in (queries, old, new))
    if normalise:
        first, second, third = (_unit(part) for part in (first, second, third))
    return Texts(first, second, third, normalise)


@dataclass(frozen=True)
class Layer:
    """x -> W x + b, then ReLU or nothing.

    Attributes:
        weight: [outputs, inputs].
        bias: [outputs], or None.
        relu: Whether negative outputs become 0.
    """

    weight: Matrix
    bias: Matrix | None = None
    relu: bool = False


@dataclass(frozen=True)
class QueryMap:
    """A map of query vectors.

    Attributes:
        method: Its name.
        settings: What it was fitted with.
        layers: Applied one after the other; none leaves the vectors as they are.
        normalise: Whether vectors are given the norm 1 before and after: where they are compared by cosine.
    """

    method: Method
    settings: dict[str, float]
    layers: tuple[Layer, ...]
    normalise: bool = True

    def __call__(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """Return the vectors in the old space, float32, [queries, dimensions]."""
        values = np.asarray(vectors, np.float64)
        if self.normalise:
            values = _unit(values)
        for layer in self.layers:
            values = values @ layer.weight.T
            if layer.bias is not None:
                values = values + layer.bias
            if layer.relu:
                values = np.maximum(values, 0.0)
        return (_unit(values) if self.normalise else values).astype(np.float32)


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


def procrustes(old: Matrix, new: Matrix, *, centre: bool = True) -> QueryMap:
    """Return the orthogonal B with the least |new - old B|, of document vectors.

    Args:
        old: [documents, dimensions].
        new: The same documents, [documents, dimensions].
        centre: Take the means off first: a shift of all documents alike ranks nothing otherwise.

    Reference: Schoenemann 1966, https://doi.org/10.1007/BF02289451
    """
    if centre:
        old, new = old - old.mean(axis=0), new - new.mean(axis=0)
    left, _, right = np.linalg.svd(old.T @ new)
    return QueryMap("procrustes", {"centre": float(centre)}, (Layer(left @ right),))


def affine(old: Matrix, new: Matrix, *, ridge: float, rank: int | None = None) -> QueryMap:
    """Return B = I + A with the least |new - old - old A|^2 + penalty |A|^2, of centred document vectors.

    A is cut to a rank in the directions in which it explains most (reduced-rank regression).

    Args:
        old: [documents, dimensions].
        new: The same documents, [documents, dimensions].
        ridge: The penalty as a share of the mean squared norm of a coordinate: 0 is plain least squares, and a large
            one leaves the identity.
        rank: Of A; None: full.
    """
    old, new = old - old.mean(axis=0), new - new.mean(axis=0)
    gram = old.T @ old
    size = len(gram)
    penalty = ridge * np.trace(gram) / size
    change = np.linalg.solve(gram + penalty * np.eye(size), old.T @ (new - old))
    if rank is not None and rank < size:
        _, vectors = np.linalg.eigh(change.T @ (gram + penalty * np.eye(size)) @ change)
        top = vectors[:, -rank:]  # eigenvalues come in ascending order
        change = change @ top @ top.T
    settings = {"ridge": ridge, "rank": float(size if rank is None else min(rank, size))}
    return QueryMap("affine", settings, (Layer(np.eye(size) + change),))


def mlp(texts: Texts, start: QueryMap, *, hidden: int = 256, steps: int = 400, seed: int = 0) -> QueryMap:
    """Return a linear map plus W2 relu(W1 q + b), trained so that M(q) D_old^T ranks as q D_new^T does.

    The loss is the Kullback-Leibler divergence of the two softmaxes over a draw of passages. Passages serve as
    queries too. It is written as two plain layers: relu(q) - relu(-q) = q carries the linear part.

    Args:
        texts: Rows to fit on.
        start: A linear map, which it is until it is trained.
        hidden: Width of the hidden layer.
        steps: Of AdamW.
        seed: Of the draws and of W1.
    """
    import torch
    from torch.nn.functional import kl_div, log_softmax, normalize

    generator = torch.Generator().manual_seed(seed)
    queries, old, new = (torch.from_numpy(part).float() for part in (texts.queries, texts.old, texts.new))
    asked = torch.cat([queries, new])
    size = old.shape[1]
    # 0.05 where vectors have the norm 1; else as much of what scores are.
    temperature = 0.05 * float(old.norm(dim=1).mean() * queries.norm(dim=1).mean())
    linear = torch.from_numpy(start.layers[0].weight if start.layers else np.eye(size)).float()
    first = (torch.randn(hidden, size, generator=generator) / size**0.5).requires_grad_()
    bias, second = torch.zeros(hidden, requires_grad=True), torch.zeros(size, hidden, requires_grad=True)
    optimizer = torch.optim.AdamW([first, bias, second], lr=2e-3, weight_decay=0.1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        some = torch.randint(len(asked), (256,), generator=generator)
        among = torch.randint(len(old), (512,), generator=generator)
        query = asked[some]
        mapped = query @ linear.T + torch.relu(query @ first.T + bias) @ second.T
        if texts.normalise:
            mapped = normalize(mapped, dim=-1)
        scores, wanted = mapped @ old[among].T / temperature, query @ new[among].T / temperature
        loss = kl_div(log_softmax(scores, -1), log_softmax(wanted, -1), log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    w1, b1, w2 = (part.detach().double().numpy() for part in (first, bias, second))
    same, base = np.eye(size), linear.double().numpy()
    layers = (
        Layer(np.vstack([w1, same, -same]), np.concatenate([b1, np.zeros(2 * size)]), relu=True),
        Layer(np.hstack([w2, base, -base])),
    )
    return QueryMap("mlp", {"hidden": float(hidden), "steps": float(steps), **start.settings}, layers)


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


LEAST = 50
"""Rows that a map is fitted on, at least: fewer say nothing of which map is better."""


def _nearest(scores: Matrix) -> NDArray[np.int64]:
    return np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]


def _maps(seen: Texts, held: Texts, wanted: Sequence[str], seed: int) -> Iterator[QueryMap]:
    """Yield the maps to try, the simplest first."""
    for turn in _fitted(seen, held, wanted, seed):
        yield replace(turn, normalise=seen.normalise)


def _unit(values: Matrix) -> Matrix:
    norms: Matrix = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(norms, 1e-12)


def _fitted(seen: Texts, held: Texts, wanted: Sequence[str], seed: int) -> Iterator[QueryMap]:
    if "identity" in wanted:
        yield QueryMap("identity", {}, ())
    if "procrustes" in wanted:
        for centre in (True, False):
            yield procrustes(seen.old, seen.new, centre=centre)
    size = seen.old.shape[1]
    ranks = [rank for rank in RANKS if rank < size]
    grid = [affine(seen.old, seen.new, ridge=ridge, rank=rank) for rank in [*ranks, None] for ridge in RIDGES]
    if "affine" in wanted:
        yield from grid
    if "mlp" in wanted:
        start = choose([agreement(turn, held, seen) for turn in grid]).map
        yield mlp(seen, start, seed=seed)
