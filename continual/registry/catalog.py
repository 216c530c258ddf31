"""The catalog file: short DuckDB transactions, with retries and numbered migrations.

While one process has a DuckDB file open for writing, no other process can open it, not even for reading. So the file is
attached for one transaction at a time, which takes milliseconds, and a process that finds it in use tries again. Reads
attach it read-only: they share it, and need no permission to write.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from continual.errors import InputError, NotFoundError, ResourceError, SchemaError, WorkspaceBusy
from continual.registry.attach import BLOCK, InUse, attached
from continual.registry.migrations import MIGRATIONS
from continual.storage.faults import is_interrupt, translate, writable
from continual.storage.files import replace, scratch
from continual.storage.locks import read_only as read_only_error
from continual.storage.locks import steady, writing

if TYPE_CHECKING:
    import duckdb

READ_SECONDS = 1.0
"""Longest wait of a command that only reads. Transactions take milliseconds, so a file that is in use for longer is
held by something else, and its user is told at once."""


class Catalog:
    """The DuckDB file that records domains, batches, tasks, versions, scores and alias events.

    Args:
        path: The file; `create` writes it.
        busy_seconds: Longest wait of a command that writes for another process that has it open, in seconds.
    """

    def __init__(self, path: Path, busy_seconds: float = 60.0) -> None:
        self.path = path
        self.busy_seconds = busy_seconds
        self._current = False
        self._shared = threading.local()  # a connection belongs to one thread

    def create(self) -> None:
        """Create the file with the newest schema."""
        self._check_name()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(), self._open(read_only=False) as connection:
            connection.execute("BEGIN")  # one transaction for all migrations: each takes a flush to disk
            connection.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, applied_at TIMESTAMP NOT NULL)")
            for number, statements in enumerate(MIGRATIONS, start=1):
                _apply(connection, number, statements)
            connection.execute("COMMIT")
        self._current = True

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file, run the body as one transaction, commit and close; roll back if the body raises.

        Raises:
            NotFoundError: The file is missing.
            WorkspaceBusy: Another process had it open for `busy_seconds`.
            SchemaError: A newer `continual` wrote it, or it is damaged.
            ResourceError: It cannot be written, or the disk is full.
        """
        with self._begun(read_only=False) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for a body that only reads. Other processes can read at the same time.

        Raises:
            NotFoundError: The file is missing.
            WorkspaceBusy: Another process wrote it for longer than a command that reads waits.
            SchemaError: A newer `continual` wrote it, or it is damaged; or it is of an older schema and cannot be
                written.
        """
        with self._begun(read_only=True) as connection:
            yield connection

    def copy(self, target: Path) -> None:
        """Write the committed state to a new file, as one transaction sees it."""
        with self.reading() as connection:
            ((name,),) = connection.execute("SELECT current_database()").fetchall()
            connection.execute("COMMIT")  # a transaction writes to one file
            quoted = str(target).replace("'", "''")
            connection.execute(f"ATTACH '{quoted}' AS backup (BLOCK_SIZE {BLOCK})")
            try:
                connection.execute(f"COPY FROM DATABASE {name} TO backup")
            finally:
                connection.execute("DETACH backup")
                connection.execute("BEGIN")

    def rewrite(self) -> None:
        """Replace the file by a copy of its committed state: nothing that was deleted stays in free blocks or the log.

        Readers are not disturbed. The caller lets no other command of its own process write meanwhile.
        """
        log = self.path.with_name(self.path.name + ".wal")
        while True:
            with self._explained(), self._open(read_only=False) as connection:
                connection.execute("CHECKPOINT")  # the log goes into the file
            with self.together():  # nobody can write while this process has the file open
                if not log.exists():
                    # DuckDB keeps a log beside the copy: in a folder, a killed process leaves one thing to remove.
                    with scratch(self.path.parent, self.path.name) as folder:
                        self.copy(folder / self.path.name)
                        with steady(self.path.parent, replacing=True):
                            replace(folder / self.path.name, self.path)
                    return

    def read_in_full(self) -> None:
        """Read every row of every table: DuckDB finds damage only in the blocks that it reads.

        Raises:
            SchemaError: A table is damaged.
        """
        with self.reading() as connection:
            names = "SELECT table_name FROM duckdb_tables() WHERE database_name = current_database()"
            for (name,) in connection.execute(names).fetchall():
                connection.execute(f'SELECT sum(hash(each)) FROM "{name}" AS each').fetchall()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Combine all reads of the body into one transaction, which sees one state and opens the file once."""
        before = getattr(self._shared, "connection", None)
        with self.reading() as connection:
            self._shared.connection = connection
            try:
                yield
            finally:
                self._shared.connection = before

    def require_writable(self, what: str) -> None:
        """Check that a command that writes can write the file.

        Args:
            what: Name of the command.

        Raises:
            ResourceError: It cannot be written.
        """
        if self.path.exists() and not writable(self.path):
            raise read_only_error(f"`continual {what}` writes to the workspace", self.path.parent)

    @contextmanager
    def _begun(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        shared = getattr(self._shared, "connection", None)
        if shared is not None:
            yield shared
            return
        with self._explained():
            self._check()
            if not read_only and not writable(self.path):
                raise ResourceError(
                    f"{self.path} is read-only for you, so nothing can be recorded. Copy the workspace to a folder of "
                    "your own, or ask for permission to write."
                )
            self._update_schema()
            with self._open(read_only=read_only) as connection:
                connection.execute("BEGIN")
                try:
                    yield connection
                except BaseException:
                    _roll_back(connection)
                    raise
                connection.execute("COMMIT")

    def _update_schema(self) -> None:
        """Apply the migrations that the file lacks, if it was not checked before."""
        if self._current:
            return
        with self._open(read_only=True) as connection:
            applied = _applied(connection, self.path)
        if applied < len(MIGRATIONS):
            if not writable(self.path):
                raise SchemaError(
                    f"{self.path} has schema {applied}, and this continual reads schema {len(MIGRATIONS)}. It would be "
                    "updated, but it is read-only for you. Copy the workspace to a folder of your own, or run "
                    "`continual status` once where it can be written."
                )
            with self._open(read_only=False) as connection:
                _migrate(connection, _applied(connection, self.path))
        self._current = True

    def _check(self) -> None:
        """Check that there is a file with something in it: DuckDB makes a new database of an empty one."""
        self._check_name()
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            raise NotFoundError(
                f"{self.path}, the catalog of the workspace, is missing. Restore it from a backup, or create another "
                "workspace with `continual init`."
            ) from None
        if not size:
            raise self._damaged("it is empty")

    def _check_name(self) -> None:
        """Check the path: DuckDB takes what follows a question mark for options, and writes its log elsewhere."""
        if "?" in str(self.path.resolve()):
            raise InputError(
                f"The path of the workspace, {self.path.resolve().parent.parent}, contains a question mark, and "
                "DuckDB, which stores the catalog, cannot write there. Rename the folder, or choose another one."
            )

    @contextmanager
    def _open(self, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        patient = not read_only or writing()
        seconds = self.busy_seconds if patient else min(READ_SECONDS, self.busy_seconds)
        deadline = time.monotonic() + seconds
        pause = 0.005
        with ExitStack() as stack:
            while True:
                try:
                    with steady(self.path.parent, replacing=False):
                        connection = stack.enter_context(attached(self.path, read_only=read_only))
                    break
                except InUse as error:
                    if time.monotonic() > deadline:
                        raise WorkspaceBusy(
                            f"{self.path} is in use by another process, or by another DuckDB connection of this one "
                            f"(waited {seconds:g} s{_process(str(error))}). Try again when it has ended."
                        ) from None
                    time.sleep(pause * random.uniform(0.5, 1.5))
                    pause = min(2 * pause, 0.04)  # longer pauses would serve last who waited longest
            yield connection

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what DuckDB raises in the body into our errors.

        A wrong query or value is a bug of ours, and not explained, unless the file can't be read as a whole.
        """
        import duckdb

        damage = (duckdb.IOException, duckdb.SerializationException, duckdb.FatalException, duckdb.InternalException)
        try:
            yield
        except (duckdb.Error, RuntimeError) as error:
            if is_interrupt(error):
                raise KeyboardInterrupt from error
            if not isinstance(error, duckdb.Error):
                raise
            if fault := translate(error, self.path):
                raise fault from error
            if isinstance(error, damage) or type(error) is duckdb.Error:  # a wrong checksum has no class of its own
                raise self._damaged(str(error)) from error
            raise

    def _damaged(self, problem: str) -> SchemaError:
        """Return the error of a damaged file, with what is left of the workspace."""
        log = self.path.with_name(self.path.name + ".wal")
        pair = f"{self.path.name} and {log.name} together" if log.exists() else self.path.name
        reason = " ".join(problem.split())[:300]
        return SchemaError(
            f"{self.path} cannot be opened as a catalog, because it is damaged: {reason}. "
            f"Restore {pair} from a backup. Without one, the models in versions/, the adapters and the training rows "
            f"in data/ are still good, but their records are lost: make another workspace with `continual init --base "
            f"{self.path.parent / 'versions'}/VERSION`, and ingest the files again."
        )


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    import duckdb

    with suppress(duckdb.Error):  # the first error counts; the transaction ends with the connection
        connection.execute("ROLLBACK")


def _process(message: str) -> str:
    """Return the process that DuckDB's message names; "" if it names none."""
    found = re.search(r"held in (\S+) .*?\(?PID (\d+)", message)
    return f" for process {found[2]}, {found[1]}" if found else ""


def _applied(connection: duckdb.DuckDBPyConnection, path: Path) -> int:
    """Return the schema of a file, as the number of the last migration."""
    ((applied,),) = connection.execute("SELECT coalesce(max(number), 0) FROM migrations").fetchall()
    if applied > len(MIGRATIONS):
        raise SchemaError(
            f"{path} has schema {applied}, but this continual reads schemas up to {len(MIGRATIONS)}. Install the newer "
            "continual that wrote it."
        )
    return int(applied)


def _migrate(connection: duckdb.DuckDBPyConnection, applied: int) -> None:
    """Apply the migrations that the file lacks, each in its own transaction."""
    for number, statements in enumerate(MIGRATIONS[applied:], start=applied + 1):
        connection.execute("BEGIN")
        _apply(connection, number, statements)
        connection.execute("COMMIT")


def _apply(connection: duckdb.DuckDBPyConnection, number: int, statements: Sequence[str]) -> None:
    """Apply a migration within a transaction."""
    for statement in statements:
        connection.execute(statement)
    connection.execute("INSERT INTO migrations VALUES (?, ?)", [number, now().replace(tzinfo=None)])


def now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(UTC)


def utc(moment: datetime) -> str:
    """Return a time for display, such as "2026-03-01 09:30 UTC"."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
