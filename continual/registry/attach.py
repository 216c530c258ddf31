"""The DuckDB engine of this process, which attaches a catalog file for each transaction.

Starting DuckDB takes tens of milliseconds, and a command has many transactions. So one engine is started, in memory and
single-threaded. A transaction attaches the file, which is much faster, and detaches it again: other processes can use
the file between transactions.
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
"""Block size of a new file, in bytes. DuckDB's default, 256 KiB, makes a catalog of 60 versions 15 times larger."""

_TAKEN = ("could not set lock", "unique file handle")
"""Parts of DuckDB's messages if another process, or another DuckDB of this process, has the file open."""


@dataclass
class _Attached:
    name: str
    read_only: bool
    users: int = 0


class InUse(Exception):
    """Another process, or another connection of this one, has the file open in a way that excludes this one."""


class Engine:
    """An in-memory DuckDB, shared by the threads of a process, and the files attached to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, _Attached] = {}
        self._home: duckdb.DuckDBPyConnection | None = None
        self._names = 0

    @contextlib.contextmanager
    def attached(self, path: Path, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach a file, and yield a connection whose default database it is.

        Processes that only read can have the file attached at the same time.

        A transaction that the body does not commit is rolled back. The body must not fork.

        Args:
            path: The file; created if it is missing, unless it is only read.
            read_only: Whether the body only reads.

        Raises:
            InUse: Another process has the file open, or another thread reads it and this one writes.
            duckdb.Error: The file cannot be attached.
        """
        path = path.resolve()
        with self._lock:
            connection = self._attach(path, read_only)
        try:
            yield connection
        finally:
            with self._lock:
                self._release(path, connection)

    def _attach(self, path: Path, read_only: bool) -> duckdb.DuckDBPyConnection:
        if self._home is None:
            self._home = _start()
        file = self._files.get(path)
        if file is None:
            self._names += 1
            file = self._files[path] = self._open(path, _Attached(f"catalog{self._names}", read_only))
        elif file.read_only and not read_only:
            raise InUse("another thread of this process reads it")
        connection = self._home.cursor()
        file.users += 1
        try:
            connection.execute(f"USE {file.name}")
        except BaseException:
            self._release(path, connection)
            raise
        return connection

    def _open(self, path: Path, file: _Attached) -> _Attached:
        """Attach a file under its name."""
        import duckdb

        assert self._home is not None
        quoted = str(path).replace("'", "''")
        try:
            self._home.execute(f"ATTACH '{quoted}' AS {file.name}{' (READ_ONLY)' if file.read_only else ''}")
        except BaseException as error:
            if isinstance(error, duckdb.Error) and any(sign in str(error).lower() for sign in _TAKEN):
                raise InUse(str(error)) from None
            if not self._files:  # a damaged file can make DuckDB refuse all further work
                self._abandon()
            raise
        return file

    def _release(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        import duckdb

        assert self._home is not None
        self._files[path].users -= 1
        try:
            connection.close()
            for unused in [path for path, file in self._files.items() if not file.users]:
                self._home.execute(f"DETACH {self._files[unused].name}")
                del self._files[unused]
        except duckdb.Error:
            # Committed changes are in the file or its log. If another thread uses the engine, the file stays attached,
            # and that thread detaches it.
            if not any(file.users for file in self._files.values()):
                self._abandon()

    def _abandon(self) -> None:
        """Close DuckDB. The next transaction starts another one."""
        assert self._home is not None
        self._home.close()
        self._home = None
        self._files.clear()


def _start() -> duckdb.DuckDBPyConnection:
    import duckdb

    settings: dict[str, Any] = {"threads": 1, "default_block_size": BLOCK, "temp_directory": ""}
    try:
        return duckdb.connect(config=settings | {"async_threads": 0})
    except duckdb.InvalidInputException:  # DuckDB 1 does not have this setting
        return duckdb.connect(config=settings)


_engine = Engine()
_inherited: list[Engine] = []


def attached(path: Path, *, read_only: bool = False) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Attach a file to the engine of this process; see `Engine.attached`."""
    return _engine.attached(path, read_only=read_only)


def _renew() -> None:
    """Give a forked process its own engine. The inherited one belongs to the parent and must not be closed."""
    global _engine
    _inherited.append(_engine)
    _engine = Engine()


os.register_at_fork(after_in_child=_renew)
