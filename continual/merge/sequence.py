"""Merging in sequence: what is in service and one more update, for rules whose result depends on the order.

One method needs a second look at the whole model: OPCM (https://arxiv.org/abs/2501.09522) rescales the merged task
vector of the whole model to the mean norm of all updates so far. Its state is lambda and these norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from continual.merge.engine import (
    matching,
    merge_models,
    rewrite,
    types,
)
from continual.merge.methods import Method
from continual.merge.methods._geometry import gram
from continual.merge.sources import Model
from continual.progress import SILENT, Progress
from continual.storage.files import remove, scratch


def merge_next(
    current: Model,
    update: Model,
    root: Model,
    method: Method,
    out: Path,
    *,
    weight: float,
    parameters: Mapping[str, float],
    state: Mapping[str, Any],
    seed: int | str,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Publish the merge of what is in service (weight 1 - w) with an update (weight w).

    Args:
        current: What is in service.
        update: The update model; tokenizer, pooling and prompts of the result are its.
        root: The root base, from which task vectors are measured.
        method: How.
        out: Folder to publish; replaced if it is there.
        weight: w, 0 to 1.
        parameters: Of the method.
        state: What the merge before left.
        seed: Of the method's random numbers.
        progress: Shows how far it is.

    Returns:
        The state for the next merge.
    """
    if method.rescaled:
        return _merge_rescaled(current, update, root, method, out, parameters, state, progress)
    merge_models(
        [current, update],
        method,
        out,
        weights=[1 - weight, weight],
        base=root if method.base in ("needed", "optional") else None,
        parameters=parameters,
        seed=seed,
        layout=update,
        progress=progress,
    )
    return dict(state)


def merge_sequence(
    models: Sequence[Model],
    base: Model,
    method: Method,
    out: Path,
    *,
    parameters: Mapping[str, float],
    dtype: torch.dtype | None = None,
    progress: Progress = SILENT,
) -> None:
    """Publish the merge of models in their order by a method that keeps a state: the same as step by step."""
    with scratch(out.parent, out.name) as folder:
        merged, state = base, dict[str, Any]()
        for number, model in enumerate(models, start=1):
            last = number == len(models)
            target = out if last else folder / str(number)
            state = _merge_rescaled(
                merged,
                model,
                base,
                method,
                target,
                parameters,
                state,
                progress,
                dtype if last else torch.float32,
                models[0],
            )
            if merged is not base:
                remove(merged.folder)
            merged = Model(target)


def _merge_rescaled(
    current: Model,
    update: Model,
    root: Model,
    method: Method,
    out: Path,
    parameters: Mapping[str, float],
    state: Mapping[str, Any],
    progress: Progress,
    dtype: torch.dtype | None = None,
    layout: Model | None = None,
) -> dict[str, Any]:
    layout = layout or update
    keys = matching([update, current, root])
    floats = [key for key in keys if update.entries[key].dtype.is_floating_point]
    settings = method.resolve(parameters) | {"previous": float(state.get("lambda", 1.0))}
    squares: dict[str, tuple[float, float]] = {}  # of the update's task vector, and of the merged one

    def join(key: str) -> Tensor:
        origin = root.read(key).float()
        before, new = current.read(key).float().sub_(origin), update.read(key).float().sub_(origin)
        merged = method([before, new], [1.0, 1.0], **settings)
        squares[key] = _square(new), _square(merged)
        return merged

    with scratch(out.parent, out.name) as folder:
        vectors_of = dict.fromkeys(floats, torch.float32)
        rewrite(layout, folder / "vectors", join, vectors_of, None, progress, models=3)
        vectors = Model(folder / "vectors")
        norms = [*state.get("norms", []), sum(squares[key][0] for key in floats) ** 0.5]
        length = sum(squares[key][1] for key in floats) ** 0.5
        mean = sum(norms) / len(norms)
        scale = mean / length if length else 1.0

        def rescale(key: str) -> Tensor:
            if key not in squares:
                return update.read(key)
            return vectors.read(key).mul_(scale).add_(root.read(key).float())

        rewrite(layout, out, rescale, types([update, current], keys, dtype), None, progress, models=2)
    return {"lambda": 1.0 / scale, "norms": norms}


def _square(tensor: Tensor) -> float:
    return float(gram([tensor])[0, 0])
