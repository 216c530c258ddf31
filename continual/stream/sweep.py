"""The staging folder of an ingest, and the removal of files that the catalog doesn't record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from continual.errors import ContinualError
from continual.registry import Registry
from continual.storage.aside import announced, clear
from continual.storage.files import PRIVATE, SUFFIX, remove
from continual.storage.locks import STAGING

ROWS, NEGATIVES, REJECTS, KEPT, TASK = "rows.parquet", "negatives.parquet", "rejects.jsonl", "kept.parquet", "task"
"""Names in the staging folder: good rows, texts of rows with low scores, bad rows, rows to store, the domain's task."""

ANNOUNCED = "ingest.announced"
"""File below `.continual/` with what an ingest or a task import is about to publish."""

BATCH_FILE = re.compile(r"b\d+\.(parquet|rejects\.jsonl)")


@contextmanager
def staging(registry: Registry) -> Iterator[Path]:
    """Yield an empty folder for one ingest; the caller holds the ingest lock.

    Artifacts are announced, and published before the transaction that records them. If an ingest stops in between, the
    catalog decides what counts: what else was announced is removed, either here or when the next ingest begins.
    """
    with swept(registry):
        folder = registry.root / STAGING
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE)
        yield folder
    remove(folder)


@contextmanager
def swept(registry: Registry) -> Iterator[None]:
    """Clear what the catalog doesn't record: first what earlier commands left, then what the body left if it raises.

    The body can be interrupted after its transaction, so it must not remove published files itself.
    """
    sweep_ingest(registry)
    try:
        yield
    except BaseException:
        with suppress(ContinualError):  # a busy catalog must not hide the original error
            sweep_ingest(registry)
        raise
    remove(registry.root / ANNOUNCED)


def sweep_ingest(registry: Registry) -> None:
    """Remove the staging folder and half-published artifacts, and clear batches and tasks that the catalog lacks."""
    remove(registry.root / STAGING)
    known = announced(registry.root / ANNOUNCED)
    with registry.catalog.together():
        batches, tasks = registry.batches(), registry.tasks()
    recorded = {registry.path(path) for batch in batches for path in (batch.path, batch.rejects_path) if path}
    for path in (registry.root / "data").glob("*/*"):
        if path not in recorded and (BATCH_FILE.fullmatch(path.name) or path.name.endswith(SUFFIX)):
            clear(registry.root, path, known)
    for folder in (registry.root / "data").glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for path in (registry.root / "rejects").glob(f"*{SUFFIX}"):
        remove(path)
    kept = {registry.path(task.path) for task in tasks}
    for path in (registry.root / "tasks").glob("*"):
        if path not in kept:
            clear(registry.root, path, known)
    remove(registry.root / ANNOUNCED)
