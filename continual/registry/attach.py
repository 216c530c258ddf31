"""The DuckDB of this process, to which a catalog's file is attached while it is used.

To start a DuckDB takes tens of milliseconds, and a command has many transactions. So one is started, in memory and
without threads of its own, and a transaction attaches the file, which takes a fraction of that, and detaches it: in
between the file is free for other processes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

BLOCK = "16384"
"""Bytes of a block of a new file. With DuckDB's default, 256 KiB, sixty versions take fifteen times more."""


@dataclass
class _Attached:
    name: str
    users: int = 0


class Engine:
    """A DuckDB in memory; the threads of a process share it, and the files that are attached to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, _Attached] = {}
        self._home: duckdb.DuckDBPyConnection | None = None
        self._names = 0

    @contextlib.contextmanager
    def attached(self, path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach a file, and give a connection of which it is the default database.

        What the body has begun and not committed is rolled back. The body must not fork.

        Args:
            path: The file; it is made if it is missing.

        Raises:
            duckdb.Error: It cannot be attached; another process may have it.
        """
        path = path.resolve()
        with self._lock:
            connection = self._attach(path)
        try:
            yield connection
        finally:
            with self._lock:
                self._release(path, connection)

    def _attach(self, path: Path) -> duckdb.DuckDBPyConnection:
        if self._home is None:
            self._home = _start()
        known = self._files.get(path)
        if known is None:
            self._names += 1
            known = _Attached(f"catalog{self._names}")
            quoted = str(path).replace("'", "''")
            self._home.execute(f"ATTACH '{quoted}' AS {known.name}")
            self._files[path] = known
        connection = self._home.cursor()
        known.users += 1
        try:
            connection.execute(f"USE {known.name}")
        except BaseException:
            self._release(path, connection)
            raise
        return connection

    def _release(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        import duckdb

        assert self._home is not None
        self._files[path].users -= 1
        try:
            connection.close()
            for unused in [each for each, known in self._files.items() if not known.users]:
                self._home.execute(f"DETACH {self._files[unused].name}")
                del self._files[unused]
        except duckdb.Error:
            # What was committed is in the file or its log. While others use the engine, the file stays attached, and
            # the next of them to end tries again.
            if not any(each.users for each in self._files.values()):
                self._home.close()
                self._home = None
                self._files.clear()


def _start() -> duckdb.DuckDBPyConnection:
    import duckdb

    settings: dict[str, Any] = {"threads": 1, "default_block_size": BLOCK, "temp_directory": ""}
    try:
        return duckdb.connect(config=settings | {"async_threads": 0})
    except duckdb.InvalidInputException:  # before DuckDB 2 there are none
        return duckdb.connect(config=settings)


_engine = Engine()
_inherited: list[Engine] = []


def attached(path: Path) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Attach a file to the engine of this process; see `Engine.attached`."""
    return _engine.attached(path)


def _renew() -> None:
    """Start over in a forked process: what it inherited is of its parent, and must not be closed here."""
    global _engine
    _inherited.append(_engine)
    _engine = Engine()


os.register_at_fork(after_in_child=_renew)
