"""Hash the columns of a file in several processes: Python's hash functions keep a process to one core."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from struct import pack
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from continual.stream import digests
from continual.stream.digests import DIGEST_BYTES

START_ROWS = 50_000
"""Rows that are hashed in this process before others are started."""
MAX_PROCESSES = 4
"""Most processes; the thread that reads the file can't feed more."""


@dataclass(frozen=True, slots=True)
class Hashes:
    """Digests, one after the other: those of rows, queries, positives and single texts."""

    rows: bytes
    queries: bytes
    positives: bytes
    texts: bytes


class Hashers:
    """Processes that hash texts. Without a second core, or until there is much to hash, it is done here.

    Use it as a context manager. A process that dies costs time, since its rows are hashed here.
    """

    def __init__(self) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._most = min(cores, MAX_PROCESSES) if cores > 1 else 0
        self._rows = 0
        self._pool: ThreadPoolExecutor | None = None
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._all if kind else ():
            process.kill()  # nobody waits for its answer
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for process in self._all:
            with suppress(OSError), process:  # it was killed before it read all
                pass

    @property
    def waiting(self) -> int:
        """Return how many requests to keep under way, so that no process idles."""
        return 2 * len(self._all)

    def submit(self, queries: Any, positives: Any, texts: Any) -> Future[Hashes]:
        """Begin to hash rows, and single texts.

        Args:
            queries: Normalised queries of the rows, an Arrow array of strings.
            positives: Normalised positives of the rows.
            texts: Other texts, any number.
        """
        pairs, columns = len(queries), [offsets_and_bytes(column) for column in (queries, positives, texts)]
        self._rows += pairs
        if self._most and self._pool is None and self._rows > START_ROWS:
            self._start()
        if self._pool is None:
            done: Future[Hashes] = Future()
            done.set_result(_split(digests.answer(_request(pairs, columns)), pairs))
            return done
        return self._pool.submit(self._ask, pairs, columns)

    def _start(self) -> None:
        for _ in range(self._most):
            # Isolated, and without site-packages: it needs neither.
            command = [sys.executable, "-I", "-S", digests.__file__]
            try:
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError:  # too many processes, or too little memory
                break
            self._all.append(process)
            self._idle.put(process)
        self._most = len(self._all)
        if self._all:
            self._pool = ThreadPoolExecutor(self._most)

    def _ask(self, pairs: int, columns: Sequence[tuple[npt.NDArray[np.int32], bytes]]) -> Hashes:
        request = _request(pairs, columns)
        size = DIGEST_BYTES * (3 * pairs + len(columns[2][0]) - 1)
        process = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(pack("<Q", len(request)))
            process.stdin.write(request)
            process.stdin.flush()
            answer = process.stdout.read(size)
        except (OSError, ValueError):  # it was killed
            answer = b""
        self._idle.put(process)
        return _split(answer if len(answer) == size else digests.answer(request), pairs)


def offsets_and_bytes(column: Any) -> tuple[npt.NDArray[np.int32], bytes]:
    """Return the offsets, from 0, of the texts of an Arrow array of strings, and its bytes as one object."""
    offsets, data = text_buffers(column)
    return offsets, data.tobytes()


def text_buffers(column: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Return the offsets, from 0, of the texts of an Arrow array of strings, and its bytes.

    A missing text may have any length.
    """
    if not len(column):
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    _, ends, texts = column.buffers()
    offsets = np.frombuffer(ends, np.int32, len(column) + 1, 4 * column.offset)
    data = np.frombuffer(texts, np.uint8) if texts is not None else np.zeros(0, np.uint8)
    return offsets - offsets[0], data[offsets[0] : offsets[-1]]


def hash_column(joined: bytes) -> Any:
    """Return digests as an Arrow array of bytes."""
    count = len(joined) // DIGEST_BYTES
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), count, [None, pa.py_buffer(joined)])


def hex_column(hashes: Any) -> Any:
    """Return digests as hex digits, from an Arrow array of bytes to one of strings."""
    width, texts = 2 * DIGEST_BYTES, hash_bytes_of(hashes).hex().encode()
    count = len(texts) // width
    ends = np.arange(0, len(texts) + 1, width, dtype=np.int32)
    return pa.StringArray.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(texts))


def hash_bytes_of(hashes: Any) -> bytes:
    """Return digests as joined bytes, from an Arrow array."""
    begin = hashes.offset * DIGEST_BYTES
    return memoryview(hashes.buffers()[1])[begin : begin + len(hashes) * DIGEST_BYTES].tobytes()


def _request(pairs: int, columns: Sequence[tuple[npt.NDArray[np.int32], bytes]]) -> bytes:
    header = digests.HEADER.pack(pairs, len(columns[2][0]) - 1, *(len(texts) for _, texts in columns))
    return b"".join((header, *(ends.tobytes() for ends, _ in columns), *(texts for _, texts in columns)))


def _split(joined: bytes, pairs: int) -> Hashes:
    size = DIGEST_BYTES * pairs
    return Hashes(joined[:size], joined[size : 2 * size], joined[2 * size : 3 * size], joined[3 * size :])
