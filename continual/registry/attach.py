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


@dataclass
class _Attached:
    name: str
    users: int = 0


class Engine:
    """An in-memory DuckDB, shared by the threads of a process, and the files attached to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, _Attached] = {}
        self._home: duckdb.DuckDBPyConnection | None = None
        self._names = 0

    @contextlib.contextmanager
    def attached(self, path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach a file, and yield a connection whose default database it is.

        A transaction that the body does not commit is rolled back. The body must not fork.

        Args:
            path: The file; created if it is missing.

        Raises:
            duckdb.Error: The file cannot be attached, for example because another process has it open.
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
        file = self._files.get(path)
        if file is None:
            self._names += 1
            file = _Attached(f"catalog{self._names}")
            quoted = str(path).replace("'", "''")
            self._home.execute(f"ATTACH '{quoted}' AS {file.name}")
            self._files[path] = file
        connection = self._home.cursor()
        file.users += 1
        try:
            connection.execute(f"USE {file.name}")
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
            for unused in [path for path, file in self._files.items() if not file.users]:
                self._home.execute(f"DETACH {self._files[unused].name}")
                del self._files[unused]
        except duckdb.Error:
            # Committed changes are in the file or its log. If another thread uses the engine, the file stays attached,
            # and that thread detaches it.
            if not any(file.users for file in self._files.values()):
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


def attached(path: Path) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Attach a file to the engine of this process; see `Engine.attached`."""
    return _engine.attached(path)


def _renew() -> None:
    """Give a forked process its own engine. The inherited one belongs to the parent and must not be closed."""
    global _engine
    _inherited.append(_engine)
    _engine = Engine()


os.register_at_fork(after_in_child=_renew)
