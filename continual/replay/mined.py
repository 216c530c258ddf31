"""The files of mined negatives: one per batch, named by its content.

They are a cache: a file may be deleted, and mined again. Its name holds the SHA-256 of its bytes, so that a damaged one
is noticed without a record in the catalog.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from continual.errors import DataError
from continual.registry import Batch, Registry
from continual.storage.files import remove, replace

FOLDER = "mined"
"""Folder below `.continual/`."""


def publish_mined(registry: Registry, batch: Batch, file: Path) -> None:
    """Move a written file to its place, instead of the files that the batch had."""
    before = _files(registry, batch)
    folder = registry.path(FOLDER)
    folder.mkdir(exist_ok=True)
    target = folder / f"{batch.id}.{_sha256(file)}.parquet"
    replace(file, target)
    for old in before:
        if old != target:
            remove(old)


def find_mined(registry: Registry, batches: Iterable[Batch]) -> dict[str, str]:
    """Return the SHA-256 of the mined negatives of batches, by id; batches without any are left out."""
    found = {batch.id: files[-1] for batch in batches if (files := _files(registry, batch))}
    return {name: file.name.split(".")[1] for name, file in found.items()}


def domains_of(registry: Registry, mined: Mapping[str, str]) -> list[str]:
    """Return the domains that mined negatives may come from, sorted.

    Args:
        mined: As `find_mined` returns it.
    """
    import pyarrow.parquet as pq

    names: set[str] = set()
    for batch, sha256 in mined.items():
        metadata = pq.read_schema(mined_file(registry, batch, sha256)).metadata or {}
        names.update(json.loads(metadata[b"domains"]))
    return sorted(names)


def mined_file(registry: Registry, batch: str, sha256: str) -> Path:
    """Return the file of a batch's mined negatives, checked against its name.

    Raises:
        DataError: It is missing or damaged.
    """
    file = registry.path(f"{FOLDER}/{batch}.{sha256}.parquet")
    try:
        found = _sha256(file)
    except OSError as error:
        raise DataError(f"{file}, the mined negatives of {batch}, cannot be read: {error.strerror}. {_CURE}") from None
    if found != sha256:
        raise DataError(f"{file}, the mined negatives of {batch}, is damaged: its content has another sha256. {_CURE}")
    return file


_CURE = "Delete it, and mine again with `continual mine`."


def _files(registry: Registry, batch: Batch) -> list[Path]:
    """Return the files of a batch, the newest last; more than one only if a mining was killed."""
    found = []
    for file in registry.path(FOLDER).glob(f"{batch.id}.*.parquet"):
        with suppress(FileNotFoundError):  # replaced meanwhile
            found.append((file.stat().st_mtime_ns, file.name, file))
    return [file for *_, file in sorted(found)]


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
