"""Removal of the files that killed or discarded steps leave behind."""

from __future__ import annotations

from contextlib import suppress

from continual.errors import ContinualError
from continual.registry import Registry, Run
from continual.storage.aside import announced, clear
from continual.storage.files import remove, sweep_dead, sweep_unfinished
from continual.storage.locks import INGEST_LOCK, STAGING, exclusive, held


def sweep_killed(registry: Registry) -> None:
    """Remove what killed processes of this machine left unfinished. Every command calls it.

    Files of processes that may be alive, of other machines, and those that only the catalog can tell are left.
    """
    sweep_dead(registry.root)
    staging = registry.root / STAGING
    if staging.exists() and not held(registry.root / INGEST_LOCK):
        with suppress(ContinualError, OSError), exclusive(registry.root / INGEST_LOCK, "ingest"):
            remove(staging)


ANNOUNCED = "update.announced"
"""File below `.continual/` with the adapters and snapshots that a recipe is about to write."""


def discard_run(registry: Registry, run: Run) -> None:
    """Discard an interrupted run and remove its files. Its record stays, so that its id is not used again."""
    registry.discard_run(run.id)
    for folder in ("runs", "adapters", "versions", "scores"):
        remove(registry.path(f"{folder}/{run.id}"))


def sweep_steps(registry: Registry) -> None:
    """Remove the files of killed steps and phases, except those of a run that can be resumed.

    What nothing accounts for is moved aside: the catalog may be older than the files. The caller holds the update lock.
    """
    run = registry.interrupted()
    for folder in ("versions", "adapters", "scores", "vectors"):
        sweep_unfinished(registry.path(folder))
    for path in [*registry.path("scores").glob("v*"), *registry.path("scores").glob("v*/*/")]:
        sweep_unfinished(path)
    folders, runs = ("versions", "adapters", "scores"), registry.runs()
    known = announced(registry.root / ANNOUNCED)
    known |= {f"{folder}/{each.id}" for folder in folders for each in runs if each.state == "discarded"}
    recorded = {version.id for version in registry.versions()} | ({run.id} if run is not None else set())
    for folder in folders:
        for path in registry.path(folder).glob("v*"):
            if path.name not in recorded:
                clear(registry.root, path, known)
    ended = {f"runs/{each.id}" for each in runs}
    for path in registry.path("runs").glob("v*"):
        if run is None or path.name != run.id:
            clear(registry.root, path, ended)
    remove(registry.root / ANNOUNCED)
