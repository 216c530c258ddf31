"""A version as others get it: the model folder, its card, and its scores as mteb keeps them."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.errors import InputError
from continual.export.card import CARD, model_card
from continual.progress import SILENT, Progress
from continual.registry import Registry, Version
from continual.storage.files import empty_folder, publish, remove
from continual.versions.build import kept

RESULTS = "mteb"
"""The folder with mteb's result files; `mteb.ResultCache` reads it."""


def export(registry: Registry, version: Version, snapshot: Path, target: Path) -> None:
    """Publish a copy of a version with a card of its own instead of the base's.

    Args:
        registry: The workspace's registry.
        version: The version.
        snapshot: Its model folder.
        target: The folder to make.
    """
    scored = any(owner == version.id for owner, _ in registry.scores())
    with publish(target) as partial:
        shutil.copytree(snapshot, partial, symlinks=False)
        (partial / CARD).write_text(model_card(registry, version, snapshot), encoding="utf-8")
        remove(partial / RESULTS)  # of a base that was an export itself
        if scored:
            from continual.export.mteb_results import write_results

            write_results(registry, [version], partial / RESULTS)


@dataclass(frozen=True)
class Exported:
    """A version that was copied out.

    Attributes:
        version: Its id.
        sha256: Of its weights.
        directory: The folder; `SentenceTransformer` loads it.
    """

    version: str
    sha256: str
    directory: Path

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self) | {"directory": str(self.directory)}


def export_version(registry: Registry, name: str, out: str | Path, progress: Progress = SILENT) -> Exported:
    """Copy a version to a new folder; see `Workspace.export`."""
    target, version = empty_folder(out), registry.version(name)
    try:
        with kept(registry, version.id, progress=progress) as (folder,):
            export(registry, version, folder, target)
    except OSError as error:
        raise InputError(f"{name} cannot be exported to {target}: {error.strerror or error}.") from None
    return Exported(version.id, version.sha256, target)


def export_scores(registry: Registry, directory: str | Path) -> Path:
    """Write the scores of every version as mteb's result files; see `Workspace.export_scores`."""
    from continual.export.mteb_results import write_results

    target = Path(directory).expanduser().resolve()
    try:
        write_results(registry, registry.versions(), target)
    except OSError as error:
        raise InputError(f"The scores cannot be written to {target}: {error.strerror or error}.") from None
    return target
