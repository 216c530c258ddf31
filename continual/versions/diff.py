"""The difference between two versions: in the weights, by group of layers, and in the embeddings."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.progress import SILENT, Progress
from continual.registry import ROOT, Registry, Version

if TYPE_CHECKING:
    from continual.merge.sources import Model

PROBE_TEXTS = 256
"""Number of texts whose embeddings are compared."""

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")


@dataclass(frozen=True)
class GroupDiff:
    """Difference of a group of tensors, such as the attention of layer 3.

    Attributes:
        group: Name of the group.
        first: L2 norm of the first version's task vector (its weights minus those of the root base).
        second: L2 norm of the second version's task vector.
        angle: Angle between the two task vectors, 0 to 180 degrees; None if one of them is zero.
        change: L2 norm of the second version's weights minus the first's.
    """

    group: str
    first: float
    second: float
    angle: float | None
    change: float


@dataclass(frozen=True)
class Drift:
    """Change of the embeddings from the first version to the second.

    Attributes:
        texts: Number of texts compared: queries and documents of the evaluation tasks.
        mean: Mean cosine between the two embeddings of a text.
        low: 5th percentile of these cosines.
        least: Smallest of these cosines.
    """

    texts: int
    mean: float
    low: float
    least: float


@dataclass(frozen=True)
class Diff:
    """Difference between two versions.

    Attributes:
        first: Id of the first version.
        second: Id of the second version.
        groups: Difference of each group of tensors; the last group is the whole model.
        drift: Change of the embeddings; None if there is no local evaluation task to take texts from.
    """

    first: str
    second: str
    groups: list[GroupDiff]
    drift: Drift | None

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return asdict(self)


def diff(
    registry: Registry,
    first: Version,
    second: Version,
    *,
    progress: Progress = SILENT,
    trust_remote_code: bool = False,
) -> Diff:
    """Compare two versions. The caller holds their snapshots and that of the root base."""
    from continual.merge.sources import Model

    root = registry.version(ROOT)
    folders = [registry.path(version.path) for version in (root, first, second)]
    groups = _groups([Model(folder) for folder in folders], progress)
    texts = _probe(registry)
    drift = _drift(folders[1], folders[2], texts, progress, trust_remote_code) if texts else None
    return Diff(first.id, second.id, groups, drift)


def group_of(key: str) -> str:
    """Return the group of a tensor, such as "layer 3 attention", from its name."""
    layer = _LAYER.search(key)
    part = next(
        (name for name, marks in _PARTS.items() if any(mark in key.lower() for mark in marks)),
        "feed-forward" if layer else "other",
    )
    return f"layer {layer[1]} {part}" if layer else part


_PARTS = {"embeddings": ("embed", "wte", "wpe"), "norm": ("norm",), "attention": ("attention", "attn")}


def _groups(models: list[Model], progress: Progress) -> list[GroupDiff]:
    from continual.merge.methods._geometry import gram

    root, first, second = models
    sums: dict[str, list[float]] = {}  # |a|^2, |b|^2, <a, b>, |b - a|^2
    keys = [key for key, entry in root.entries.items() if entry.dtype.is_floating_point]
    progress.start("comparing weights", len(keys), "tensors")
    for key in keys:
        origin = root.read(key).float()
        a, b = first.read(key).float(), second.read(key).float()
        products = gram([a - origin, b - origin, b.sub_(a)])
        terms = [float(products[place]) for place in ((0, 0), (1, 1), (0, 1), (2, 2))]
        for group in (group_of(key), "whole model"):
            sums[group] = [old + new for old, new in zip(sums.get(group, [0.0] * 4), terms, strict=True)]
        progress.advance(1)
    progress.finish()
    whole = sums.pop("whole model")
    return [_group(name, *terms) for name, terms in sorted(sums.items(), key=_in_order)] + [
        _group("whole model", *whole)
    ]


def _group(name: str, aa: float, bb: float, ab: float, moved: float) -> GroupDiff:
    norms = math.sqrt(aa), math.sqrt(bb)
    cosine = ab / (norms[0] * norms[1]) if all(norms) else None
    angle = None if cosine is None else math.degrees(math.acos(max(-1.0, min(1.0, cosine))))
    return GroupDiff(name, *norms, angle, math.sqrt(moved))


def _in_order(item: tuple[str, list[float]]) -> tuple[int, str]:
    """Return a sort key: the embeddings, then the layers by number, then the rest."""
    layer = re.match(r"layer (\d+)", item[0])
    return int(layer[1]) if layer else (-1 if item[0] == "embeddings" else 1_000_000), item[0]


def _probe(registry: Registry) -> list[str]:
    """Return queries and documents of every local task, the same in every call."""
    import pyarrow.parquet as pq

    tasks = [task for task in registry.tasks() if task.mteb is None]  # mteb has the texts of the others
    files = [folder / f"{name}.parquet" for folder in registry.task_folders(tasks) for name in ("queries", "corpus")]
    texts: list[str] = []
    for number, file in enumerate(files):
        share = PROBE_TEXTS * (number + 1) // len(files) - PROBE_TEXTS * number // len(files)
        texts += next(pq.ParquetFile(file).iter_batches(max(share, 1), columns=["text"]))["text"].to_pylist()[:share]
    return texts


def _drift(first: Path, second: Path, texts: list[str], progress: Progress, trust_remote_code: bool) -> Drift:
    import torch

    from continual.models.encoder import load_encoder

    progress.start("comparing embeddings", 2 * len(texts), "texts")
    embeddings = []
    for folder in (first, second):
        model = load_encoder(folder, trust_remote_code=trust_remote_code)
        embeddings.append(model.encode(texts, convert_to_tensor=True, show_progress_bar=False).double().cpu())
        progress.advance(len(texts))
    progress.finish()
    cosines = torch.cosine_similarity(*embeddings)
    return Drift(len(texts), float(cosines.mean()), float(cosines.quantile(0.05)), float(cosines.min()))
