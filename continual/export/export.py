"""Export a version: its model folder, a model card, and its scores in mteb's format."""

from __future__ import annotations

import shutil
from pathlib import Path

from continual.export.card import CARD, model_card
from continual.registry import Registry, Version
from continual.storage.files import publish, remove

RESULTS = "mteb"
"""Name of the folder with mteb's result files, readable by `mteb.ResultCache`."""


def export_version(registry: Registry, version: Version, snapshot: Path, target: Path) -> None:
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
