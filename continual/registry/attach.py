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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

BLOCK = 16384
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
    def attached(self, path: Path, create: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Attach a file, and give a connection of which it is the default database.

        Args:
            path: The file.
            create: It may be missing, and is made.

        Raises:
            duckdb.Error: It cannot be attached; another process may have it.
        """
        path = path.resolve()
        connection = self._attach(path, create)
        try:
            yield connection
        finally:
            self._release(path, connection)

    def _attach(self, path: Path, create: bool) -> duckdb.DuckDBPyConnection:
        import duckdb

        with self._lock:
            if self._home is None:
                self._home = duckdb.connect(config={"threads": 1})
            known = self._files.get(path)
            if known is None:
                self._names += 1
                known = _Attached(f"catalog{self._names}")
                quoted = str(path).replace("'", "''")
                options = f" (BLOCK_SIZE {BLOCK})" if create else ""
                self._home.execute(f"ATTACH '{quoted}' AS {known.name}{options}")
                self._files[path] = known
            connection = self._home.cursor()
            connection.execute(f"USE {known.name}")
            known.users += 1
            return connection

    def _release(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        import duckdb

        with self._lock:
            known = self._files[path]
            known.users -= 1
            try:
                connection.execute("USE memory")
                connection.close()
                if not known.users:
                    del self._files[path]
                    assert self._home is not None
                    self._home.execute(f"DETACH {known.name}")
            except duckdb.Error:
                # It has failed for good, as with a full disk: what was committed is in the file or its log.
                if not any(each.users for each in self._files.values()):
                    self._files.clear()
                    self._home = None


_engine = Engine()
_inherited: list[Engine] = []


def attached(path: Path, create: bool = False) -> contextlib.AbstractContextManager[duckdb.DuckDBPyConnection]:
    """Attach a file to the engine of this process; see `Engine.attached`."""
    return _engine.attached(path, create)


def _renew() -> None:
    """Start over in a forked process: what it inherited is of its parent, and must not be closed here."""
    global _engine
    _inherited.append(_engine)
    _engine = Engine()


os.register_at_fork(after_in_child=_renew)
