"""Self Positioning: find the mixture of task vectors and its scale by gradient on held-out rows. Knows tensors only.

Reference: https://arxiv.org/abs/2410.15035, used by phased training (COLM 2025). The objective is in
`continual.merge.search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from continual.errors import InputError, ModelError, NothingToDoError
from continual.merge.methods._geometry import gram
from continual.merge.methods.pairwise_slerp import pairwise_slerp_coefficients
from continual.merge.search import (
    Losses,
    search_point,
    search_result,
)
from continual.progress import SILENT, Progress
from continual.registry.provenance import SearchPoint, SearchResult

Combine = Callable[[Tensor, Tensor], Tensor]

STEPS = 100
"""Adam steps of a search, about as many as in the paper."""

LOWEST = 3
"""Number of steps that a search evaluates on all rows, besides start and end: those with the lowest minibatch loss."""


class Combination:
    """theta(t, lambda) = base + lambda V(t), where V combines task vectors tensor by tensor.

    Args:
        base: theta_0 by tensor name; kept, not copied.
        vectors: The n task vectors of each tensor by name, with the base tensor's shape and device; n is the same for
            all. Tensors without an entry, or whose vectors are all 0, stay at the base.
        combine: Maps a Gram matrix [n, n] in fp64 and t [n - 1] to n factors; differentiable in t.

    Attributes:
        names: Names of the coefficients: "t1" to "t{n - 1}", then "lambda".

    Raises:
        ModelError: A task vector does not fit the base; the message names the tensor.
        NothingToDoError: All task vectors are 0.
    """

    def __init__(
        self,
        base: Mapping[str, Tensor],
        vectors: Mapping[str, Sequence[Tensor]],
        combine: Combine = pairwise_slerp_coefficients,
    ) -> None:
        count = max(map(len, vectors.values()), default=0)
        for name, tensors in vectors.items():
            fits = name in base and len(tensors) == count
            if not fits or any(vector.shape != base[name].shape for vector in tensors):
                shape = tuple(base[name].shape) if name in base else "missing"
                raise ModelError(
                    f"{name}: {count} task vectors of the base's shape ({shape}) are needed, but they have the shapes "
                    f"{[tuple(vector.shape) for vector in tensors]}. Merge models of one architecture."
                )
        self._base, self._combine = dict(base), combine
        self._moved = {
            name: tensors for name, tensors in vectors.items() if any(bool(vector.any()) for vector in tensors)
        }
        if not self._moved:
            raise NothingToDoError(
                "All task vectors are 0, so there are no coefficients to search. Check that the models to merge were "
                "trained."
            )
        self._grams = {
            name: gram([vector.detach().cpu() for vector in tensors]) for name, tensors in self._moved.items()
        }
        self.names = (*(f"t{place}" for place in range(1, count)), "lambda")

    def parameters(self, t: Tensor, scale: Tensor) -> dict[str, Tensor]:
        """Return all tensors of theta by name, differentiable in t [n - 1] and in the scalar lambda."""
        theta = dict(self._base)
        for name, vectors in self._moved.items():
            factors = scale * self._combine(self._grams[name], t)
            tensor = theta[name]
            for factor, vector in zip(factors, vectors, strict=True):
                tensor = tensor + factor.to(tensor) * vector
            theta[name] = tensor
        return theta

    def at(self, coefficients: Mapping[str, float]) -> dict[str, Tensor]:
        """Return all tensors of theta by name, for coefficients given as floats; lambda 0 gives the base itself."""
        if coefficients["lambda"] == 0:
            return dict(self._base)
        *t, scale = torch.tensor([coefficients[name] for name in self.names], dtype=torch.float64)
        return self.parameters(torch.stack(t) if t else torch.zeros(0, dtype=torch.float64), scale)


def gradient_search(
    combination: Combination,
    loss: Callable[[dict[str, Tensor], int], Mapping[str, Tensor]],
    evaluate: Callable[[Mapping[str, float]], Losses],
    *,
    current: Mapping[str, float] | None = None,
    steps: int = STEPS,
    learning_rate: float = 0.05,
    start: float = 1.0,
    mu: float = 0.01,
    hinge: float = 30.0,
    floor: float = 0.02,
    lowest: int = LOWEST,
    progress: Progress = SILENT,
) -> SearchResult:
    """Search t and lambda with Adam: Self Positioning, as phased training uses it.

    Each step minimises, on a minibatch, mean loss + mu lambda + hinge e, where e is the mean share by which the loss
    of its domains exceeds the floor relative to the current version on the same minibatch. The learning rate falls
    linearly to 0. The result is the best point by the objective of `continual.merge.search`, without mu, among the
    start, the end, and the `lowest` steps with the lowest loss relative to the current version, hinge included.

    Args:
        combination: The task vectors to combine.
        loss: Maps all tensors by name, and the number of the step, to the differentiable loss per domain of that
            step's minibatch; a minibatch need not hold every domain.
        evaluate: Maps coefficients to the loss per domain on all held-out rows.
        current: Coefficients of the current version; None: the base, lambda = 0.
        steps: Adam steps, at least 1.
        learning_rate: Learning rate of lambda and of the logits of t at the first step, above 0.
        start: lambda at the start, 0 or more; t starts at 0.5.
        mu: Weight of lambda in the minimised loss; the papers do not state theirs.
        hinge: Weight of the excess over the floor, 0 or more.
        floor: Allowed rise of a domain's loss, as a share of it, 0 or more.
        lowest: Number of steps that are evaluated on all held-out rows, besides the start and the end.

    Raises:
        InputError: An argument is out of its range.
        ModelError: A loss is not finite.

    Reference: https://arxiv.org/abs/2410.15035
    """
    if not (steps >= 1 and learning_rate > 0 and start >= 0 and hinge >= 0 and floor >= 0 and lowest >= 0):
        raise InputError(
            "A gradient search needs steps >= 1, learning_rate > 0, and start, hinge, floor, lowest >= 0, but got "
            f"steps={steps}, learning_rate={learning_rate}, start={start}, hinge={hinge}, floor={floor}, "
            f"lowest={lowest}."
        )
    names = combination.names
    current = dict(current) if current is not None else dict.fromkeys(names, 0.5) | {"lambda": 0.0}
    reference = search_point(current, evaluate(current))
    logits = torch.zeros(len(names) - 1, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits, scale], lr=learning_rate)

    def coefficients_now() -> dict[str, float]:
        return dict(zip(names, [*torch.sigmoid(logits).tolist(), scale.item()], strict=True))

    # Minibatches need not hold every domain: `losses` and `changes` keep a domain's last values.
    curve: list[SearchPoint] = []
    losses: dict[str, float] = {}
    changes: dict[str, float] = {}  # by domain: loss relative to the current version, hinge included
    mean_changes: list[float] = []  # by step
    progress.start("searching for coefficients", steps, "steps")
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / steps)
        with torch.no_grad():
            before = {name: float(value) for name, value in loss(combination.at(current), step).items()}
        batch_losses = loss(combination.parameters(torch.sigmoid(logits), scale), step)
        values = torch.stack([value.double().cpu() for value in batch_losses.values()])
        limits = torch.tensor([before[name] + floor * abs(before[name]) for name in batch_losses], dtype=torch.float64)
        sizes = torch.tensor([max(abs(before[name]), 1e-12) for name in batch_losses], dtype=torch.float64)
        excess = (values - limits).clamp(min=0) / sizes
        losses |= dict(zip(batch_losses, values.tolist(), strict=True))
        curve.append(search_point(coefficients_now(), losses))
        penalties = (hinge * excess).tolist()
        changes |= {
            name: losses[name] - before[name] + penalty for name, penalty in zip(batch_losses, penalties, strict=True)
        }
        complete = changes.keys() >= reference.losses.keys()
        mean_changes.append(sum(changes.values()) / len(changes) if complete else math.inf)
        optimizer.zero_grad()
        (values.mean() + mu * scale + hinge * excess.mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(min=0)
        progress.advance(1)
    progress.finish()
    complete_steps = [step for step in range(1, steps) if mean_changes[step] < math.inf]
    order = sorted(complete_steps, key=lambda step: mean_changes[step])
    chosen = [curve[0].coefficients, coefficients_now(), *(curve[step].coefficients for step in order[:lowest])]
    candidates = [search_point(coefficients, evaluate(coefficients)) for coefficients in chosen]
    return search_result(candidates, curve, reference, floor)
