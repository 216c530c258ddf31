"""Self Positioning: the mixture of task vectors, and its scale, found by gradient on held-out rows. Knows tensors only.

Reference: https://arxiv.org/abs/2410.15035, used by phased training (COLM 2025). The objective is that of
`continual.merge.search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from continual.errors import InputError, ModelError, NothingToDoError
from continual.merge.methods._geometry import gram
from continual.merge.methods.pairwise_slerp import coefficients
from continual.merge.search import (
    Losses,
    point_at,
    result_of,
)
from continual.progress import SILENT, Progress
from continual.registry.provenance import SearchPoint, SearchResult

Combine = Callable[[Tensor, Tensor], Tensor]

STEPS = 100
"""Of a search; the paper's are about as many."""

LOWEST = 3
"""Steps of a search that are evaluated in full, besides its start and its end."""


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
        self, base: Mapping[str, Tensor], vectors: Mapping[str, Sequence[Tensor]], combine: Combine = coefficients
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
        self._grams = {name: gram([one.detach().cpu() for one in some]) for name, some in self._moved.items()}
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

    def at(self, given: Mapping[str, float]) -> dict[str, Tensor]:
        """Return every tensor of theta by name, for plain coefficients; lambda 0 gives the base itself."""
        if given["lambda"] == 0:
            return dict(self._base)
        *t, scale = torch.tensor([given[name] for name in self.names], dtype=torch.float64)
        return self.parameters(torch.stack(t) if t else torch.zeros(0, dtype=torch.float64), scale)


def gradient_search(
    combination: Combination,
    loss: Callable[[dict[str, Tensor], int], Mapping[str, Tensor]],
    evaluate: Callable[[Mapping[str, float]], Losses],
    *,
    in_service: Mapping[str, float] | None = None,
    steps: int = STEPS,
    learning_rate: float = 0.05,
    start: float = 1.0,
    mu: float = 0.01,
    hinge: float = 30.0,
    floor: float = 0.02,
    lowest: int = LOWEST,
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
        steps: Adam steps, at least 1.
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
    reference = point_at(service, evaluate(service))
    logits = torch.zeros(len(names) - 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits, scale], lr=learning_rate)

    def here() -> dict[str, float]:
        return dict(zip(names, [*torch.sigmoid(logits).tolist(), scale.item()], strict=True))

    curve: list[SearchPoint] = []
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
        curve.append(point_at(here(), losses))
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
    return result_of([point_at(each, evaluate(each)) for each in chosen], curve, reference, floor)
