"""Query maps: from the space of a new model to that of an old one, whose index the queries search.

A map should keep what the new model finds: for a query q and documents D, the scores q D_new^T of full
re-embedding. A map M of queries keeps them on the old vectors if M(q) D_old^T is near q D_new^T, up to a constant per
query, which changes no ranking. For a linear M(q) = B q that is a regression of new document vectors on old
ones, D_old B near D_new: B is fitted on documents, and applied to queries. A bias would be that constant. (A map
fitted the other way, new vectors to old ones of the same texts, makes of a new query the old one, and can find no
more than the old model did.)

Methods, the simplest first: `identity`; `procrustes`, B orthogonal; `affine`, B = I + a ridge regression cut to a low
rank; `mlp`, an affine map plus a small hidden layer, trained on the scores. Reference: Drift-Adapter
(https://arxiv.org/abs/2509.23471).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Method = Literal["identity", "procrustes", "affine", "mlp"]
METHODS: tuple[Method, ...] = ("identity", "procrustes", "affine", "mlp")


@dataclass(frozen=True)
class Texts:
    """The same rows under both models, float64; see `texts_of`.

    Attributes:
        queries: New vectors of the queries, [rows, dimensions].
        old: Old vectors of the passages, [rows, dimensions].
        new: New vectors of the same passages.
        normalise: Whether vectors are compared by cosine, and have norm 1 here; else by dot product.
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
        normalise: Whether the models compare by cosine; else by dot product.
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
        method: One of `METHODS`.
        settings: What it was fitted with.
        layers: Applied one after the other; without any, vectors stay as they are.
        normalise: Whether vectors get norm 1 before and after, as cosine needs.
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


def procrustes(old: Matrix, new: Matrix, *, centre: bool = True) -> QueryMap:
    """Return the orthogonal B with the least |new - old B|, of document vectors.

    Args:
        old: [documents, dimensions].
        new: The same documents, [documents, dimensions].
        centre: Take the means off first: shifting all documents alike changes no ranking.

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
        rank: Of A; None for full rank.
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
        start: The linear map to start from.
        hidden: Width of the hidden layer.
        steps: AdamW steps.
        seed: Of the draws and of W1.
    """
    import torch
    from torch.nn.functional import kl_div, log_softmax, normalize

    generator = torch.Generator().manual_seed(seed)
    queries, old, new = (torch.from_numpy(part).float() for part in (texts.queries, texts.old, texts.new))
    asked = torch.cat([queries, new])
    size = old.shape[1]
    # 0.05 for vectors of norm 1; else in proportion to the scores.
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


def _unit(values: Matrix) -> Matrix:
    norms: Matrix = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.maximum(norms, 1e-12)
