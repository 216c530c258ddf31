"""The scores of every query of a task under many versions, as one array; files that were read once are remembered."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.eval.suites import SCORES
from continual.storage.files import publish

CACHE = "remembered.npz"
"""The file beside the scores that remembers them: opening a thousand small files takes a second, this one nothing."""

Known = tuple[int, int, bytes, NDArray[np.float64]]
"""Time of change and size of a file, the digest of its query ids, and its scores."""


class QueryScores:
    """Reads files of per-query scores below a `.continual` folder, each once for all reports.

    A file is read anew when its size or its time of change is another one.

    Args:
        root: The `.continual` folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._before = _load(root / SCORES / CACHE)
        self._used: dict[str, Known] = {}

    def read(self, path: str) -> tuple[bytes, NDArray[np.float64]] | None:
        """Return the digest of a file's query ids and its scores, 0 to 1; None if it cannot be read."""
        try:
            stat = (self.root / path).stat()
            known = self._used.get(path) or self._before.get(path)
            if known is None or known[:2] != (stat.st_mtime_ns, stat.st_size):
                known = (stat.st_mtime_ns, stat.st_size, *_read(self.root / path))
        except (OSError, ValueError, KeyError):
            return None  # a report is still worth having; `continual compare` says what is wrong with the file
        self._used[path] = known
        return known[2:]

    def remember(self) -> None:
        """Keep what was read for the next time, and forget what was not asked for; where nobody may write, do not."""
        if len(self._used) == len(self._before) and all(
            self._before.get(path) is each for path, each in self._used.items()
        ):
            return
        names, files = list(self._used), list(self._used.values())
        arrays = {
            "paths": np.array(names, dtype=str),
            "stamps": np.array([each[:2] for each in files], np.int64).reshape(-1, 2),
            "digests": np.frombuffer(b"".join(each[2] for each in files), np.uint8).reshape(-1, DIGEST),
            "ends": np.cumsum([len(each[3]) for each in files], dtype=np.int64),
            "scores": np.concatenate([each[3] for each in files]) if files else np.empty(0),
        }
        try:
            with publish(self.root / SCORES / CACHE) as partial, partial.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except OSError:
            return


def aligned(rows: Sequence[tuple[bytes, NDArray[np.float64]] | None]) -> NDArray[np.float64]:
    """Return scores as points in one array, [versions, queries]: NaN for those that are missing or of other queries."""
    first = next((row for row in rows if row is not None), None)
    if first is None:
        return np.empty((len(rows), 0))
    points = np.full((len(rows), len(first[1])), np.nan)
    for place, row in enumerate(rows):
        if row is not None and row[0] == first[0]:
            points[place] = 100.0 * row[1]
    return points


DIGEST = 16
"""Bytes of a digest."""


def _read(path: Path) -> tuple[bytes, NDArray[np.float64]]:
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["query_id", "score"], use_threads=False)
    digest = hashlib.blake2b("\0".join(table["query_id"].to_pylist()).encode(), digest_size=DIGEST).digest()
    # A chunked array's own to_numpy would import pandas, which takes half a second.
    return digest, np.concatenate([np.empty(0), *(np.from_dlpack(chunk) for chunk in table["score"].chunks)])


def _load(path: Path) -> dict[str, Known]:
    """Return what was remembered; nothing, if there is no such file or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("paths", "stamps", "digests", "ends", "scores")}
        parts = np.split(arrays["scores"], arrays["ends"][:-1]) if len(arrays["ends"]) else []
        known = zip(arrays["paths"].tolist(), arrays["stamps"].tolist(), arrays["digests"], parts, strict=True)
        return {name: (stamp[0], stamp[1], digest.tobytes(), scores) for name, stamp, digest, scores in known}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
