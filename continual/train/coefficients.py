"""Search the coefficients of a merge after training, on rows that were held out of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Config
from continual.merge.rules import POSITION
from continual.progress import SILENT, Progress
from continual.registry.provenance import Cost, Provenance, SearchResult

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor


@dataclass(frozen=True)
class Coefficients:
    """The merge coefficients that a search found.

    Attributes:
        search: All evaluated points, and the best one.
        cost: Pairs and tokens encoded, and the time, including that of loading the models.
        weight: Weight of the update; None for a merge of several models.
        weights: Weights of several models; empty for one update.
        parameters: Parameters of the merge method that the search found.
    """

    search: SearchResult
    cost: Cost
    weight: float | None = None
    weights: list[float] = field(default_factory=list)
    parameters: dict[str, float] = field(default_factory=dict)

    def decide(self, provenance: Provenance) -> Provenance:
        """Return a copy of a provenance with these coefficients."""
        return replace(
            provenance,
            weight=provenance.weight if self.weight is None else self.weight,
            weights=self.weights or provenance.weights,
            parameters=self.parameters or provenance.parameters,
            search=self.search,
            search_cost=self.cost,
        )


def search(
    rule: str,
    held: pa.Table,
    config: Config,
    *,
    root: Path,
    current: Path,
    update: Path,
    seed: int,
    progress: Progress = SILENT,
) -> Coefficients:
    """Find the best coefficients to merge the current version with an update.

    Args:
        rule: `search` or `self-positioning`.
        held: Rows of every domain of the lineage, including the new one, that the update was not trained on.
        config: The settings of the step.
        root: Folder of the root base.
        current: Folder of the current version.
        update: Folder of the update model.
        seed: Seed of the assignment of rows to batches.

    Raises:
        NothingToDoError: No domain has two held-out rows.
    """
    from continual.train.objective import Objective

    clock, trust = time.monotonic(), config.trust_remote_code
    objective = Objective(current, held, config.train, seed=seed, trust_remote_code=trust, progress=progress)
    models = [objective.parameters(), _parameters(update, config)]
    if rule == POSITION:
        origin, at_current = _parameters(root, config), {"t1": 0.0, "lambda": 1.0}
        result = _search_positions(objective, origin, models, at_current, config.merge.floor, progress)
        best = result.best.coefficients
        return Coefficients(result, _cost(objective, clock), best["t1"], parameters={"lambda": best["lambda"]})
    result = _search_weight(objective, models, config.merge.floor, progress)
    return Coefficients(result, _cost(objective, clock), result.best.coefficients["weight"])


def position(
    held: pa.Table, config: Config, base: Path, members: Sequence[Path], seed: int, progress: Progress = SILENT
) -> Coefficients:
    """Find positions and scale of several models' task vectors by gradient (Self Positioning).

    Args:
        held: Rows that none of the models was trained on.
        config: The settings of the training.
        base: Folder of the model that task vectors are measured from.
        members: Folders of the models, in the order in which they are merged.
        seed: Seed of the assignment of rows to batches.

    Raises:
        NothingToDoError: No domain has two held-out rows.
    """
    from continual.train.objective import Objective

    clock, trust = time.monotonic(), config.trust_remote_code
    objective = Objective(base, held, config.train, seed=seed, trust_remote_code=trust, progress=progress)
    models = [_parameters(folder, config) for folder in members]
    result = _search_positions(objective, objective.parameters(), models, None, config.merge.floor, progress)
    best = result.best.coefficients
    t = [best[f"t{place}"] for place in range(1, len(models))]
    parameters = {"lambda": best["lambda"]}
    return Coefficients(result, _cost(objective, clock), weights=_weights(t), parameters=parameters)


def _cost(objective: Any, began: float) -> Cost:
    effort = objective.effort
    seconds = time.monotonic() - began
    return Cost(effort.pairs, effort.tokens, seconds, effort.forward_pairs, effort.forward_tokens)


def _weights(t: Sequence[float]) -> list[float]:
    """Return the weights, with sum 1, that give these positions: w_{i+1} / (w_1 + ... + w_{i+1}) = t_i."""
    weights = [1.0]
    for share in t:
        weights = [*(weight * (1 - share) for weight in weights), share]
    return weights


def _search_weight(objective: Any, models: list[dict[str, Tensor]], floor: float, progress: Progress) -> SearchResult:
    from continual.merge.search import line_search

    before, after = models

    def losses(weight: float) -> Mapping[str, float]:
        return dict(objective.evaluate({name: before[name].lerp(after[name], weight) for name in before}))

    return line_search(losses, floor=floor, progress=progress)


def _search_positions(
    objective: Any,
    origin: dict[str, Tensor],
    models: list[dict[str, Tensor]],
    current: Mapping[str, float] | None,
    floor: float,
    progress: Progress,
) -> SearchResult:
    """Search the slerp positions and the scale of the models' task vectors, which are measured from `origin`."""
    from continual.merge.positioning import Combination, gradient_search

    vectors = {name: [model[name] - origin[name] for model in models] for name in origin}
    combination = Combination(origin, vectors)
    return gradient_search(
        combination,
        objective.minibatch,
        lambda coefficients: objective.evaluate(combination.at(coefficients)),
        current=current,
        floor=floor,
        progress=progress,
    )


def _parameters(folder: Path, config: Config) -> dict[str, Tensor]:
    from continual.models.encoder import inner_transformer, load_encoder

    inner = inner_transformer(load_encoder(folder, trust_remote_code=config.trust_remote_code))
    return {name: parameter.detach() for name, parameter in inner.named_parameters()}
