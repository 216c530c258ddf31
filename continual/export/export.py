"""A version as others get it: the model folder, its card, and its scores as mteb keeps them."""

from __future__ import annotations

import shutil
from pathlib import Path

from continual.export.card import CARD, model_card
from continual.registry import Registry, Version
from continual.storage.files import publish, remove

RESULTS = "mteb"
"""The folder with mteb's result files; `mteb.ResultCache` reads it."""


def export_version(registry: Registry, version: Version, snapshot: Path, target: Path) -> None:
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
