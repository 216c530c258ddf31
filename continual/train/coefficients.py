"""The coefficients of a merge, searched after training on rows that were held out of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Config
from continual.merge.rules import POSITION
from continual.progress import SILENT, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from continual.merge.search import SearchResult


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
) -> dict[str, Any]:
    """Find how what is in service and an update are joined best.

    Args:
        rule: `search` or `self-positioning`.
        held: Rows of every domain of the lineage, the new one's too, that the update was not trained on.
        config: The settings of the step.
        root: Folder of the root base.
        current: Folder of what is in service.
        update: Folder of the update model.
        seed: Of which rows share a batch.
        progress: Shows how far it is.

    Returns:
        The recipe's `weight`, `parameters` and `search`, the last with the curve that the report draws; and
        `search_cost`, as `position` has it.

    Raises:
        NothingToDoError: No domain has two held-out rows.
    """
    from continual.train.objective import Objective

    clock, trust = time.monotonic(), config.trust_remote_code
    objective = Objective(current, held, config.train, seed=seed, trust_remote_code=trust, progress=progress)
    models = [objective.parameters(), _parameters(update, config)]
    if rule == POSITION:
        found = _position(objective, _parameters(root, config), models, config.merge.floor, progress)
    else:
        found = _weigh(objective, models, config.merge.floor, progress)
    return found | _cost(objective, clock)


def position(
    held: pa.Table, config: Config, base: Path, members: Sequence[Path], seed: int, progress: Progress = SILENT
) -> dict[str, Any]:
    """Find positions and scale of several models' task vectors by gradient (Self Positioning).

    Args:
        held: Rows that none of them was trained on.
        config: The settings of the training.
        base: Folder of the model that task vectors are measured from.
        members: Folders of the models, in the order in which they are joined.
        seed: Of which rows share a batch.
        progress: Shows how far it is.

    Returns:
        Of the recipe of a `pairwise_slerp`: `weights`, `parameters`, `search`, and as `search_cost` what was encoded
        (see `continual.train.objective.Effort`) and the `seconds` of all of it, the loading of the models too.

    Raises:
        NothingToDoError: No domain has two held-out rows.
    """
    from continual.train.objective import Objective

    clock, trust = time.monotonic(), config.trust_remote_code
    objective = Objective(base, held, config.train, seed=seed, trust_remote_code=trust, progress=progress)
    models = [_parameters(folder, config) for folder in members]
    found = _slerped(objective, objective.parameters(), models, None, config.merge.floor, progress)
    best = found.best.coefficients
    t = [best[f"t{place}"] for place in range(1, len(models))]
    return {
        "weights": _weights(t),
        "parameters": {"lambda": best["lambda"]},
        "search": found.to_json(),
    } | _cost(objective, clock)


def _cost(objective: Any, began: float) -> dict[str, Any]:
    return {"search_cost": asdict(objective.effort) | {"seconds": time.monotonic() - began}}


def _weights(t: Sequence[float]) -> list[float]:
    """Return the weights, with sum 1, that give these positions: w_{i+1} / (w_1 + ... + w_{i+1}) = t_i."""
    weights = [1.0]
    for share in t:
        weights = [*(weight * (1 - share) for weight in weights), share]
    return weights


def _weigh(objective: Any, models: list[dict[str, Tensor]], floor: float, progress: Progress) -> dict[str, Any]:
    from continual.merge.search import line_search

    before, after = models

    def losses(weight: float) -> Mapping[str, float]:
        return dict(objective.evaluate({name: before[name].lerp(after[name], weight) for name in before}))

    found = line_search(losses, floor=floor, progress=progress)
    return {"weight": found.best.coefficients["weight"], "search": found.to_json()}


def _position(
    objective: Any, root: dict[str, Tensor], models: list[dict[str, Tensor]], floor: float, progress: Progress
) -> dict[str, Any]:
    found = _slerped(objective, root, models, {"t1": 0.0, "lambda": 1.0}, floor, progress)
    best = found.best.coefficients
    return {"weight": best["t1"], "parameters": {"lambda": best["lambda"]}, "search": found.to_json()}


def _slerped(
    objective: Any,
    origin: dict[str, Tensor],
    models: list[dict[str, Tensor]],
    in_service: Mapping[str, float] | None,
    floor: float,
    progress: Progress,
) -> SearchResult:
    """Search where models' task vectors, measured from an origin, are joined best by slerp, and how far they go."""
    from continual.merge.positioning import Combination, gradient_search

    vectors = {name: [model[name] - origin[name] for model in models] for name in origin}
    mixture = Combination(origin, vectors)
    return gradient_search(
        mixture,
        objective.minibatch,
        lambda point: objective.evaluate(mixture.at(point)),
        in_service=in_service,
        floor=floor,
        progress=progress,
    )


def _parameters(folder: Path, config: Config) -> dict[str, Tensor]:
    from continual.models.encoder import inner_transformer, load_encoder

    inner = inner_transformer(load_encoder(folder, trust_remote_code=config.trust_remote_code))
    return {name: parameter.detach() for name, parameter in inner.named_parameters()}
