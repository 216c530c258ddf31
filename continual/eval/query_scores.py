"""Read the per-query scores of many versions, with a cache file that makes later reads fast."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.errors import DataError
from continual.eval.suites import SCORES
from continual.storage.files import publish

CACHE = "remembered.npz"
"""Name of the cache file beside the scores. Opening a thousand small Parquet files instead takes a second."""

CachedScores = tuple[int, int, bytes, NDArray[np.float64]]
"""A file's modification time (ns) and size (bytes), the digest of its query ids, and its scores."""


class QueryScores:
    """Reader of the per-query score files below a `.continual` folder, which reads each file only once.

    A file is read again if its size or modification time has changed.

    Args:
        root: The `.continual` folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._cached = _load(root / SCORES / CACHE)
        self._used: dict[str, CachedScores] = {}

    def read(self, path: str) -> tuple[bytes, NDArray[np.float64]] | None:
        """Return the digest of a file's query ids and its scores, 0 to 1; None if the file can't be read."""
        try:
            stat = (self.root / path).stat()
            entry = self._used.get(path) or self._cached.get(path)
            if entry is None or entry[:2] != (stat.st_mtime_ns, stat.st_size):
                entry = (stat.st_mtime_ns, stat.st_size, *_read(self.root / path))
        except (OSError, ValueError, KeyError):
            return None  # a report is useful without these intervals; `continual compare` shows the error
        self._used[path] = entry
        return entry[2:]

    def remember(self) -> None:
        """Write the files read so far to the cache and drop all others; do nothing if the folder is read-only."""
        if len(self._used) == len(self._cached) and all(
            self._cached.get(path) is entry for path, entry in self._used.items()
        ):
            return
        paths, entries = list(self._used), list(self._used.values())
        arrays = {
            "paths": np.array(paths, dtype=str),
            "stamps": np.array([entry[:2] for entry in entries], np.int64).reshape(-1, 2),
            "digests": np.frombuffer(b"".join(entry[2] for entry in entries), np.uint8).reshape(-1, DIGEST),
            "ends": np.cumsum([len(entry[3]) for entry in entries], dtype=np.int64),
            "scores": np.concatenate([entry[3] for entry in entries]) if entries else np.empty(0),
        }
        try:
            with publish(self.root / SCORES / CACHE) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except OSError:
            return


def aligned(rows: Sequence[tuple[bytes, NDArray[np.float64]] | None]) -> NDArray[np.float64]:
    """Return scores as points, of shape [versions, queries]; NaN for versions without scores or with other queries.

    Args:
        rows: For each version, the result of `QueryScores.read`. The first one that isn't None fixes the queries.
    """
    first = next((row for row in rows if row is not None), None)
    if first is None:
        return np.empty((len(rows), 0))
    points = np.full((len(rows), len(first[1])), np.nan)
    for version, row in enumerate(rows):
        if row is not None and row[0] == first[0]:
            points[version] = 100.0 * row[1]
    return points


def read_rankings(path: Path) -> dict[str, list[str]] | None:
    """Return the ids of the first documents of each query, best first; None if the file has no rankings.

    Raises:
        DataError: The file can't be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            if "documents" not in file.schema_arrow.names:
                return None
            columns = file.read(columns=["query_id", "documents"]).to_pydict()
    except (OSError, ValueError) as error:
        raise DataError(f"Rankings cannot be read from {path}: {error}. Restore the file from a backup.") from None
    return dict(zip(columns["query_id"], columns["documents"], strict=True))


DIGEST = 16
"""Length of a digest, in bytes."""


def _read(path: Path) -> tuple[bytes, NDArray[np.float64]]:
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["query_id", "score"], use_threads=False)
    digest = hashlib.blake2b("\0".join(table["query_id"].to_pylist()).encode(), digest_size=DIGEST).digest()
    # ChunkedArray.to_numpy would import pandas, which takes half a second.
    return digest, np.concatenate([np.empty(0), *(np.from_dlpack(chunk) for chunk in table["score"].chunks)])


def _load(path: Path) -> dict[str, CachedScores]:
    """Return the content of the cache file; empty if it is missing or damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("paths", "stamps", "digests", "ends", "scores")}
        parts = np.split(arrays["scores"], arrays["ends"][:-1]) if len(arrays["ends"]) else []
        rows = zip(arrays["paths"].tolist(), arrays["stamps"].tolist(), arrays["digests"], parts, strict=True)
        return {name: (stamp[0], stamp[1], digest.tobytes(), scores) for name, stamp, digest, scores in rows}
    except Exception:  # zipfile raises RuntimeError, zlib.error, struct.error and others; the cache is made again
        return {}
