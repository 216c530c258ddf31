"""The registry of one workspace: records in, records out; every call is one short transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from continual.errors import DataError, NotFoundError, did_you_mean
from continual.registry.catalog import Catalog, now
from continual.registry.provenance import Provenance
from continual.registry.records import (
    RETRIEVAL,
    Alias,
    Batch,
    Domain,
    Leak,
    Run,
    Score,
    Task,
    Version,
)
from continual.registry.spec import Spec
from continual.registry.verdict import Verdict

TASK_FILES = ("corpus", "queries", "qrels", "keys")
"""Parquet files in the folder of a local task."""

KEYS_ONLY = ("keys", "shingles")
"""Those in the folder of a task of mteb. Shingles of a local task are made again where they are missing."""

CURRENT = "current"
ROOT = "v0"

Record = TypeVar("Record")


class Registry:
    """What a workspace knows, below its `.continual` folder.

    Args:
        root: The `.continual` folder.
        busy_seconds: How long a transaction waits for another process.
    """

    def __init__(self, root: Path, busy_seconds: float = 10.0) -> None:
        self.root = root
        self.catalog = Catalog(root / "catalog.duckdb", busy_seconds)

    def path(self, relative: str) -> Path:
        """Return the absolute path of an artifact that a record names."""
        return self.root / relative

    # Domains and batches: the stream.

    def domains(self) -> list[Domain]:
        """Return the domains in the order of the stream."""
        return self._select(Domain, "SELECT * FROM domains ORDER BY position")

    def domain_names(self, wanted: Iterable[str] | None = None) -> list[str]:
        """Return the names of all domains in the order of the stream, or of those that are wanted.

        Raises:
            NotFoundError: There is no domain of a wanted name; the message names the nearest.
        """
        known = [domain.name for domain in self.domains()]
        chosen = set(known) if wanted is None else set(wanted)
        for name in sorted(chosen.difference(known)):
            raise NotFoundError(f"There is no domain {name!r}.{did_you_mean(name, known)}")
        return [name for name in known if name in chosen]

    def instructions(self, batches: Collection[str] | None = None) -> dict[str, str]:
        """Return the instructions of the domains that have one, by domain.

        Args:
            batches: Ids of batches; only their domains are returned. None means all domains.
        """
        found = {domain.name: domain.instruction for domain in self.domains() if domain.instruction}
        if batches is None:
            return found
        domains = {batch.domain for batch in self.batches() if batch.id in batches}
        return {domain: text for domain, text in found.items() if domain in domains}

    def batches(self, domain: str | None = None) -> list[Batch]:
        """Return all batches in the order they came, or those of one domain."""
        where, values = ("WHERE domain = ?", [domain]) if domain else ("", [])
        return self._select(Batch, f"SELECT * FROM batches {where} ORDER BY position", values)

    def add_batch(
        self,
        batch: Batch,
        task: Task | None = None,
        leaks: Iterable[Leak] = (),
        *,
        kind: str = RETRIEVAL,
        instruction: str | None = None,
    ) -> Batch:
        """Record a batch, its domain if it is the domain's first, the task held out of it, and what leaks into that.

        Args:
            batch: The batch, with the id that `next_batch_id` gave.
            task: The task held out of the domain, if this batch makes it.
            leaks: Rows of earlier batches that leak into the task.
            kind: Kind of a new domain; ignored if the domain is known.
            instruction: Instruction of a new domain; likewise.
        """
        with self.catalog.transaction() as connection:
            position = _next(connection, "batches")
            assert batch.id == f"b{position}", "only an ingest adds batches, and it holds the ingest lock"
            known = connection.execute("SELECT 1 FROM domains WHERE name = ?", [batch.domain]).fetchall()
            if not known:
                place = _next(connection, "domains")
                domain = Domain(batch.domain, place, batch.created_at, kind, instruction)
                _insert(connection, "domains", domain)
            _insert(connection, "batches", batch, position=position)
            if task is not None:
                _insert_task(connection, task)
            for leak in leaks:
                _insert(connection, "leaks", leak)
        return batch

    def next_batch_id(self) -> str:
        """Return the id that the next batch will have; the caller holds the ingest lock."""
        return f"b{1 + len(self.batches())}"

    def set_license(self, batch: str, license: str) -> None:
        """Record under which licence the data of a known batch may be used."""
        with self.catalog.transaction() as connection:
            connection.execute("UPDATE batches SET license = ? WHERE id = ?", [license, batch])

    # Evaluation tasks.

    def tasks(self) -> list[Task]:
        """Return the evaluation tasks in the order they were registered."""
        return self._select(Task, "SELECT * FROM tasks ORDER BY position")

    def add_task(self, *tasks: Task, leaks: Iterable[Leak] = ()) -> None:
        """Record tasks and the rows that leak into them, all or none.

        A task has the instruction of its domain.
        """
        with self.catalog.transaction() as connection:
            for task in tasks:
                _insert_task(connection, task)
            for leak in leaks:
                _insert(connection, "leaks", leak)

    def leaks(self) -> list[Leak]:
        """Return the rows of batches that leak into tasks which were registered after them."""
        return self._select(Leak, "SELECT * FROM leaks ORDER BY task, batch")

    def set_leaks(self, task: str, leaks: Iterable[Leak]) -> None:
        """Record anew which rows leak into a known task."""
        with self.catalog.transaction() as connection:
            connection.execute("DELETE FROM leaks WHERE task = ?", [task])
            for leak in leaks:
                _insert(connection, "leaks", leak)

    def rows_file(self, batch: Batch) -> Path:
        """Return the file of a batch's rows.

        Raises:
            DataError: It is gone.
        """
        file = self.path(batch.path)
        if not file.is_file():
            raise DataError(
                f"{file}, the rows of the domain {batch.domain} from {batch.source}, is gone. Put it back from a "
                "backup."
            )
        return file

    def lost_files(self, task: Task) -> list[Path]:
        """Return the files of a task that are not where they were written."""
        names = TASK_FILES if task.mteb is None else KEYS_ONLY
        files = [self.path(task.path) / f"{name}.parquet" for name in names]
        return [file for file in files if not file.is_file()]

    def task_folder(self, task: Task) -> Path:
        """Return the folder of a task.

        Raises:
            DataError: One of its files is gone.
        """
        lost = self.lost_files(task)
        if lost:
            origin = "a backup" if task.origin == "holdout" else f"{task.origin} with `continual task add {task.name}`"
            raise DataError(f"{lost[0]}, a file of the task {task.name}, is gone. Put it back from {origin}.")
        return self.path(task.path)

    # Versions and their lineage.

    def versions(self) -> list[Version]:
        """Return all versions, the root base first."""
        return self._select(Version, "SELECT * FROM versions ORDER BY position")

    def version(self, name: str) -> Version:
        """Return a version by its id or by an alias such as "current".

        Raises:
            NotFoundError: Neither is known; the message names the nearest.
        """
        versions = {version.id: version for version in self.versions()}
        alias = self.alias(name)
        found = versions.get(alias.version if alias else name)
        if found is None:
            known = [*versions, *{event.alias for event in self.alias_events()}]
            raise NotFoundError(f"There is no version {name!r}.{did_you_mean(name, known)}")
        return found

    def lineage(self, version: Version) -> list[Version]:
        """Return the versions from the root base to this one, both included."""
        versions = {each.id: each for each in self.versions()}
        line = [version]
        while line[-1].parent is not None:
            line.append(versions[line[-1].parent])
        return line[::-1]

    def learned(self, version: Version) -> set[str]:
        """Return the ids of the batches that a version or any of its ancestors has learned."""
        return {batch for each in self.lineage(version) for batch in each.batches}

    def next_version_id(self) -> str:
        """Return the id that the next version or run will have; ids are never used twice."""
        used = [version.id for version in self.versions()] + [run.id for run in self.runs()]
        return f"v{1 + max((int(name[1:]) for name in used), default=-1)}"

    def add_version(
        self,
        version: Version,
        scores: Iterable[Score] = (),
        promote: str | None = None,
        compatibility: Mapping[str, Any] | None = None,
    ) -> Version:
        """Record a version with its scores, close its run, and move `current` to it if told to.

        Args:
            version: The version.
            scores: Its scores.
            promote: The reason to record when `current` moves to it; None leaves `current` where it is. So does
                a `current` that is no longer the version's parent: somebody moved it while the version was made.
            compatibility: What it does to the index of its parent, if that was measured.
        """
        with self.catalog.transaction() as connection:
            _insert(connection, "versions", version, position=_next(connection, "versions"))
            for score in scores:
                _insert(connection, "scores", score, created_at=now())
            if compatibility is not None:
                _keep_compatibility(connection, compatibility)
            connection.execute(
                "UPDATE runs SET state = 'done', ended_at = ? WHERE id = ?", [_encode("", now()), version.id]
            )
            if promote is not None and _alias_target(connection, CURRENT) == version.parent:
                _append_alias(connection, CURRENT, version.id, promote)
        return version

    def pin(self, version: str, pinned: bool) -> None:
        """Keep the snapshot of a version for good, or let it be dropped again."""
        with self.catalog.transaction() as connection:
            connection.execute("UPDATE versions SET pinned = ? WHERE id = ?", [pinned, version])

    # Scores.

    def scores(self, settings: Mapping[str, str] | None = None) -> dict[tuple[str, str], Score]:
        """Return scores by (version, task), of one task all with the same settings, so that they can be compared.

        Args:
            settings: The settings by task; a task that is not in it is left out. None takes, for each task, those
                that the newest version scored on it has; of several, those that most versions have.
        """
        records = self.all_scores()
        if settings is None:
            settings = _common_settings(records, self._positions())
        return {(score.version, score.task): score for score in records if settings.get(score.task) == score.settings}

    def all_scores(self) -> list[Score]:
        """Return every score, whatever its settings, in the order they were made."""
        columns = ", ".join(field.name for field in dataclasses.fields(Score))
        return self._select(Score, f"SELECT {columns} FROM scores ORDER BY created_at, version, task, settings")

    def add_scores(self, scores: Iterable[Score]) -> None:
        """Record scores of a version that is already known; one of the same task and settings is replaced."""
        with self.catalog.transaction() as connection:
            for score in scores:
                connection.execute(
                    "DELETE FROM scores WHERE version = ? AND task = ? AND settings = ?",
                    [score.version, score.task, score.settings],
                )
                _insert(connection, "scores", score, created_at=now())

    # Compatibility of a version with the index of another.

    def compatibility(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return what was measured, by (old version, new version)."""
        with self.catalog.transaction() as connection:
            rows = connection.execute("SELECT old, new, result FROM compatibility ORDER BY created_at").fetchall()
        return {(old, new): json.loads(result) for old, new, result in rows}

    def add_compatibility(self, result: Mapping[str, Any]) -> None:
        """Record what was measured, in place of an earlier result of the same two versions."""
        with self.catalog.transaction() as connection:
            _keep_compatibility(connection, result)

    # Aliases: an append-only log.

    def alias_events(self) -> list[Alias]:
        """Return every alias event, oldest first."""
        return self._select(Alias, "SELECT * FROM alias_events ORDER BY position")

    def alias(self, name: str) -> Alias | None:
        """Return the newest event of an alias, or None if it was never set."""
        return next((event for event in reversed(self.alias_events()) if event.alias == name), None)

    def before(self, name: str) -> str | None:
        """Return what an alias named before what it names now; what was gone back from is not counted.

        After v1, v2, v3 and back to v2 it is v1, so that going back again and again ends at the first.
        """
        served: list[str] = []
        for event in self.alias_events():
            if event.alias == name:
                back = served[-2:-1] == [event.version]
                served = served[:-1] if back else [*served, event.version]
        return served[-2] if len(served) > 1 else None

    def set_alias(self, name: str, version: str, reason: str) -> Alias:
        """Append an event that points an alias to a version."""
        with self.catalog.transaction() as connection:
            return _append_alias(connection, name, version, reason)

    # Runs: updates that have begun.

    def runs(self) -> list[Run]:
        """Return every run, oldest first."""
        return self._select(Run, "SELECT * FROM runs ORDER BY started_at")

    def interrupted(self) -> Run | None:
        """Return the run that began and neither ended nor was discarded, if there is one."""
        return next((run for run in self.runs() if run.state == "running"), None)

    def begin_run(self, run: Run) -> None:
        """Record a run; one that is still marked running is discarded, since only one can be."""
        with self.catalog.transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = 'discarded', ended_at = ? WHERE state = 'running'", [_encode("", now())]
            )
            _insert(connection, "runs", run)

    def discard_run(self, name: str) -> None:
        """Mark a run as discarded: it will not be resumed."""
        with self.catalog.transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = 'discarded', ended_at = ? WHERE id = ?", [_encode("", now()), name]
            )

    def _positions(self) -> dict[str, int]:
        """Return the place of each version in the order they were made; their recipes are long, and not read."""
        with self.catalog.transaction() as connection:
            return dict(connection.execute("SELECT id, position FROM versions").fetchall())

    def _select(self, kind: type[Record], query: str, values: list[Any] | None = None) -> list[Record]:
        with self.catalog.transaction() as connection:
            cursor = connection.execute(query, values or [])
            columns = [column[0] for column in cursor.description or []]
            rows = cursor.fetchall()
        known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        decoded = (zip(columns, map(_decode, columns, row), strict=True) for row in rows)
        return [kind(**{name: value for name, value in row if name in known}) for row in decoded]


def _common_settings(scores: Iterable[Score], positions: Mapping[str, int]) -> dict[str, str]:
    """Return, by task, the settings of the newest version's score; of several, those that most versions have."""
    newest: dict[str, int] = {}
    counts: dict[tuple[str, str], int] = {}
    scores = list(scores)
    for score in scores:
        newest[score.task] = max(newest.get(score.task, -1), positions.get(score.version, -1))
        counts[score.task, score.settings] = counts.get((score.task, score.settings), 0) + 1
    chosen: dict[str, str] = {}
    for score in scores:
        if positions.get(score.version, -1) == newest[score.task]:
            best = chosen.setdefault(score.task, score.settings)
            if counts[score.task, score.settings] >= counts[score.task, best]:
                chosen[score.task] = score.settings
    return chosen


_JSON = {"batches", "columns", "provenance", "verdict", "details", "spec", "mteb"}
_TYPED: dict[str, Any] = {"provenance": Provenance, "verdict": Verdict, "spec": Spec}


def _decode(column: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if column not in _JSON or value is None:
        return value
    data = json.loads(value)
    return _TYPED[column].from_json(data) if column in _TYPED else data


def _encode(column: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if column not in _JSON or value is None:
        return value
    return json.dumps(value.to_json() if column in _TYPED else value)


def _insert(connection: duckdb.DuckDBPyConnection, table: str, record: Any, **more: Any) -> None:
    row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)} | more
    columns = ", ".join(f'"{column}"' for column in row)
    marks = ", ".join("?" for _ in row)
    connection.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({marks})",
        [_encode(column, value) for column, value in row.items()],
    )


def _insert_task(connection: duckdb.DuckDBPyConnection, task: Task) -> None:
    found = connection.execute("SELECT instruction FROM domains WHERE name = ?", [task.domain]).fetchall()
    instruction = found[0][0] if found else None
    _insert(
        connection, "tasks", dataclasses.replace(task, instruction=instruction), position=_next(connection, "tasks")
    )


def _keep_compatibility(connection: duckdb.DuckDBPyConnection, result: Mapping[str, Any]) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO compatibility (old, new, result, created_at) VALUES (?, ?, ?, ?)",
        [result["old"], result["new"], json.dumps(result), _encode("", now())],
    )


def _next(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    first = 0 if table == "versions" else 1
    ((position,),) = connection.execute(f"SELECT coalesce(max(position) + 1, {first}) FROM {table}").fetchall()
    return int(position)


def _alias_target(connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
    events = connection.execute(
        "SELECT version FROM alias_events WHERE alias = ? ORDER BY position DESC LIMIT 1", [name]
    ).fetchall()
    return str(events[0][0]) if events else None


def _append_alias(connection: duckdb.DuckDBPyConnection, name: str, version: str, reason: str) -> Alias:
    previous = _alias_target(connection, name)
    event = Alias(_next(connection, "alias_events"), name, version, previous, now(), reason)
    _insert(connection, "alias_events", event)
    return event


def utc(moment: datetime) -> str:
    """Return a time as people read it: `2026-03-01 09:30 UTC`."""
    return moment.strftime("%Y-%m-%d %H:%M UTC")
