"""The two models of a comparison, and the vectors that are kept between updates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import Config
from continual.progress import Progress
from continual.registry import Registry, Version
from continual.storage.files import remove
from continual.versions.build import kept

if TYPE_CHECKING:
    from continual.eval.encoder import OnceEncoder
    from continual.index.cross import Side

FOLDER = "vectors"
"""The folder below `.continual/` with vectors of the current version and its parent, so that they are encoded once."""


@dataclass(frozen=True)
class Pair:
    """The encoders of both models, the old one first, and the workspace they belong to."""

    registry: Registry
    config: Config
    old: OnceEncoder
    new: OnceEncoder
    progress: Progress


def vectors_file(registry: Registry, version: str) -> Path:
    """Return where the vectors of a version are kept while it, or a child of it, is the current version."""
    return registry.path(f"{FOLDER}/{version}.safetensors")


def drop_vectors(registry: Registry, current: Version) -> None:
    """Remove the vectors of all versions but the current one and its parent."""
    for file in registry.path(FOLDER).glob("*.safetensors"):
        if file.stem not in (current.id, current.parent):
            remove(file)


def open_pair(registry: Registry, config: Config, old: Version, new: Version, progress: Progress) -> Pair:
    """Load two versions; their folders may be dropped afterwards."""
    from continual.index.cross import Side

    with kept(registry, old.id, new.id, progress=progress) as folders:
        first, second = (
            Side(version.id, version.sha256, folder, vectors_file(registry, version.id))
            for version, folder in zip((old, new), folders, strict=True)
        )
        return pair_of(registry, config, first, second, progress)


def pair_of(registry: Registry, config: Config, old: Side, new: Side, progress: Progress) -> Pair:
    """Return the encoders of two models."""
    first, second = (
        side.encoder(
            config.eval,
            trust_remote_code=config.trust_remote_code,
            instructed=registry.instructions(),
            progress=progress,
        )
        for side in (old, new)
    )
    return Pair(registry, config, first, second, progress)
