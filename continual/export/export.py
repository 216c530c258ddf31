"""Export a version: its model folder, a model card, and its scores in mteb's format."""

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
"""Name of the folder with mteb's result files, readable by `mteb.ResultCache`."""


def write_export(registry: Registry, version: Version, snapshot: Path, target: Path) -> None:
    """Copy a version to a new folder, with its own model card instead of the base's.

    Args:
        snapshot: The version's model folder.
        target: The folder to create.
    """
    scored = any(owner == version.id for owner, _ in registry.scores())
    with publish(target) as partial:
        shutil.copytree(snapshot, partial, symlinks=False)
        (partial / CARD).write_text(model_card(registry, version, snapshot), encoding="utf-8")
        remove(partial / RESULTS)  # present if the base is itself an export
        if scored:
            from continual.export.mteb_results import write_results

            write_results(registry, [version], partial / RESULTS)


@dataclass(frozen=True)
class Exported:
    """An exported version.

    Attributes:
        version: Id of the version.
        sha256: Digest of its weights.
        directory: The folder, which `SentenceTransformer` loads.
    """

    version: str
    sha256: str
    directory: Path

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as plain data."""
        return asdict(self) | {"directory": str(self.directory)}


def export_version(registry: Registry, name: str, out: str | Path, progress: Progress = SILENT) -> Exported:
    """Copy a version to a new folder; see `Workspace.export`."""
    target, version = empty_folder(out), registry.version(name)
    try:
        with kept(registry, version.id, progress=progress) as (folder,):
            write_export(registry, version, folder, target)
    except OSError as error:
        raise InputError(
            f"{name} cannot be exported to {target}: {error.strerror or error}. Name another folder."
        ) from None
    return Exported(version.id, version.sha256, target)


def export_scores(registry: Registry, directory: str | Path) -> Path:
    """Write the scores of every version as mteb's result files; see `Workspace.export_scores`."""
    from continual.export.mteb_results import write_results

    target = Path(directory).expanduser().resolve()
    try:
        write_results(registry, registry.versions(), target)
    except OSError as error:
        raise InputError(
            f"The scores cannot be written to {target}: {error.strerror or error}. Name another folder."
        ) from None
    return target
