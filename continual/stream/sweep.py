"""What a killed ingest can leave behind, and its removal: files that the catalog does not know."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors import ContinualError
from continual.registry import Registry
from continual.storage.files import SUFFIX, remove

STAGING = "staging"
BATCH_FILE = re.compile(r"b\d+\.(parquet|rejects\.jsonl)")


@contextmanager
def staging(registry: Registry) -> Iterator[Path]:
    """Yield an empty folder for the work of one ingest, and leave nothing unrecorded behind, now or from before.

    Artifacts are published before the transaction that records them. Whatever stops an ingest in between,
    the catalog says what counts: the rest is removed, here or when the next ingest begins. The caller holds
    the ingest lock.
    """
    sweep_ingest(registry)
    folder = registry.root / STAGING
    folder.mkdir(parents=True)
    with swept(registry):
        yield folder
    remove(folder)


@contextmanager
def swept(registry: Registry) -> Iterator[None]:
    """Sweep if the body raises: what the catalog did not come to know goes, what it knows stays.

    The body may be stopped after its transaction, so whoever publishes must not remove it on his own.
    """
    try:
        yield
    except BaseException:
        with suppress(ContinualError):  # a busy catalog must not hide what went wrong
            sweep_ingest(registry)
        raise


def sweep_ingest(registry: Registry) -> None:
    """Remove the staging folder, half-published artifacts, and batches and tasks that the catalog lacks."""
    remove(registry.root / STAGING)
    batches = registry.batches()
    known = {registry.path(path) for batch in batches for path in (batch.path, batch.rejects_path) if path}
    for path in (registry.root / "data").glob("*/*"):
        if path not in known and (BATCH_FILE.fullmatch(path.name) or path.name.endswith(SUFFIX)):
            remove(path)
    for folder in (registry.root / "data").glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for path in (registry.root / "rejects").glob(f"*{SUFFIX}"):
        remove(path)
    tasks = {registry.path(task.path) for task in registry.tasks()}
    for path in (registry.root / "tasks").glob("*"):
        if path not in tasks:
            remove(path)
