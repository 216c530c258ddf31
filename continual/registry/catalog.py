"""The catalog file: short DuckDB transactions, with retries and numbered migrations.

While one process has a DuckDB file open for writing, no other process can open it, not even for reading. So the file is
attached for one transaction at a time, which takes milliseconds, and a process that finds it in use tries again.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from continual.errors import NotFoundError, SchemaError, WorkspaceBusy
from continual.registry.attach import BLOCK, attached
from continual.registry.migrations import MIGRATIONS

if TYPE_CHECKING:
    import duckdb

_TAKEN = ("could not set lock", "unique file handle")
"""Parts of DuckDB's messages if another process, or another DuckDB of this process, has the file open."""


class Catalog:
    """The DuckDB file that records domains, batches, tasks, versions, scores and alias events.

    Args:
        path: The file; `create` writes it.
        busy_seconds: Longest wait for another process that has it open, in seconds.
    """

    def __init__(self, path: Path, busy_seconds: float = 10.0) -> None:
        self.path = path
        self.busy_seconds = busy_seconds
        self._migrated = False
        self._shared = threading.local()  # a connection belongs to one thread

    def create(self) -> None:
        """Create the file with the newest schema."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(create=True) as connection:
            _migrate(connection, self.path)
        self._migrated = True

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file, run the body as one transaction, commit and close; roll back if the body raises.

        Raises:
            NotFoundError: The file is missing.
            WorkspaceBusy: Another process had it open for `busy_seconds`.
            SchemaError: A newer `continual` wrote it, or it is not a catalog.
        """
        shared = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
            return
        with self._open() as connection:
            if not self._migrated:
                _migrate(connection, self.path)
                self._migrated = True
            connection.execute("BEGIN")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def copy(self, target: Path) -> None:
        """Write the committed state to a new file, as one transaction sees it."""
        with self.transaction() as connection:
            ((name,),) = connection.execute("SELECT current_database()").fetchall()
            connection.execute("COMMIT")  # a transaction writes to one file
            quoted = str(target).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS backup (BLOCK_SIZE {BLOCK})")
            try:
                connection.execute(f"COPY FROM DATABASE {name} TO backup")
            finally:
                connection.execute("DETACH backup")
                connection.execute("BEGIN")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Combine all transactions of the body into one, which sees one state and opens the file once.

        Use it only for reads in quick succession: other processes wait until the body ends.
        """
        with self.transaction() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = None

    @contextmanager
    def _open(self, create: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        if not create and not self.path.exists():
            raise NotFoundError(
                f"{self.path}, the catalog of the workspace, is missing. Restore it from a backup, or create another "
                "workspace with `continual init`."
            )
        deadline = time.monotonic() + self.busy_seconds
        pause = 0.01
        with ExitStack() as stack:
            while True:
                try:
                    connection = stack.enter_context(attached(self.path))
                    break
                except duckdb.Error as error:
                    if not any(sign in str(error).lower() for sign in _TAKEN):
                        if not isinstance(error, duckdb.IOException):
                            raise
                        raise SchemaError(
                            f"{self.path} cannot be opened as a catalog: {error}. Restore it from a backup if it is "
                            "damaged."
                        ) from None
                    if time.monotonic() > deadline:
                        raise WorkspaceBusy(
                            f"{self.path} is in use by another process, or by another DuckDB connection of this one "
                            f"(waited {self.busy_seconds:g} s). Try again when it has ended, or raise "
                            "catalog.busy_seconds in continual.toml."
                        ) from None
                    time.sleep(pause * (0.5 + random.random()))
                    pause = min(2 * pause, 0.5)
            yield connection


def _migrate(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Apply the migrations that the file lacks, each in its own transaction."""
    connection.execute(
        "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, applied_at TIMESTAMP NOT NULL)"
    )
    ((applied,),) = connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchall()
    if applied > len(MIGRATIONS):
        raise SchemaError(
            f"{path} has schema {applied}, but this continual reads schemas up to {len(MIGRATIONS)}. Install the newer "
            "continual that wrote it."
        )
    for number, statements in enumerate(MIGRATIONS[applied:], start=applied + 1):
        connection.execute("BEGIN")
        for statement in statements:
            connection.execute(statement)
        connection.execute("INSERT INTO migrations VALUES (?, ?)", [number, now().replace(tzinfo=None)])
        connection.execute("COMMIT")


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)
