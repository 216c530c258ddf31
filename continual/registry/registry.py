"""The registry of a workspace: reads and writes records. Every call is one short transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

from pydantic_core import from_json

from continual.errors import DataError, NotFoundError, SchemaError, did_you_mean
from continual.registry.artifacts import (
    Artifact,
    adapter_of,
    files_of,
    folder_of,
    queries_of,
    rejects_of,
    rows_of,
    snapshot_of,
)
from continual.registry.catalog import Catalog, now
from continual.registry.comparable import comparable
from continual.registry.digests import Digests, insert_digests
from continual.registry.records import (
    CURRENT,
    FORGOTTEN,
    RETRIEVAL,
    Alias,
    Batch,
    Domain,
    Leak,
    Run,
    Score,
    Task,
    Version,
    VersionEntry,
)
from continual.registry.rows import (
    alias_target,
    append_alias,
    encode_value,
    insert_compatibility,
    insert_record,
    insert_task,
    next_position,
    read_outlines,
    read_records,
)
from continual.storage.locks import exclusive

Record = TypeVar("Record")

_SETTINGS = "(task, settings) IN (SELECT unnest($1::VARCHAR[]), unnest($2::VARCHAR[]))"
"""Condition on scores: those with the settings of their task."""


class Registry:
    """The records of a workspace.

    Args:
        root: The `.continual` folder.
        busy_seconds: Longest wait of a command that writes for another process, in seconds.
    """

    def __init__(self, root: Path, busy_seconds: float = 60.0) -> None:
        self.root = root
        self.catalog = Catalog(root / "catalog.duckdb", busy_seconds)
        self.digests = Digests(root, self.catalog)

    def path(self, relative: str) -> Path:
        """Return the absolute path of an artifact. Records hold paths relative to `root`."""
        return self.root / relative

    def lock(self, name: str, what: str) -> AbstractContextManager[None]:
        """Return a lock on a part of the workspace, for a command that writes; see `exclusive`.

        Args:
            name: Name of the lock file.
            what: Name of the command.
        """
        return exclusive(self.root / name, what, seconds=self.catalog.busy_seconds)

    def artifacts(self) -> list[Artifact]:
        """Return what the records own on disk. A dropped snapshot is left out."""
        with self.catalog.together():
            versions, batches, tasks, scores = self.versions(), self.batches(), self.tasks(), self.all_scores()
        found = [
            *(snapshot_of(version) for version in versions if self.path(version.path).is_dir() or not version.parent),
            *map(adapter_of, versions),
            *map(rows_of, batches),
            *map(rejects_of, batches),
            *map(folder_of, tasks),
            *map(queries_of, scores),
        ]
        return [artifact for artifact in found if artifact is not None]

    # Domains and batches.

    def domains(self) -> list[Domain]:
        """Return the domains in the order of the stream."""
        return self._select(Domain, "SELECT * FROM domains ORDER BY position")

    def domain_names(self, wanted: Iterable[str] | None = None) -> list[str]:
        """Return the names of the wanted domains, by default of all, in the order of the stream.

        Raises:
            NotFoundError: A wanted domain does not exist; the message names a similar one.
        """
        existing = [domain.name for domain in self.domains()]
        chosen = set(existing) if wanted is None else set(wanted)
        for name in sorted(chosen.difference(existing)):
            raise NotFoundError(f"There is no domain {name!r}.{did_you_mean(name, existing)}")
        return [name for name in existing if name in chosen]

    def instructions(self, batches: Collection[str] | None = None) -> dict[str, str]:
        """Return instructions by domain. Domains without an instruction are left out.

        Args:
            batches: Ids of batches, to return only the instructions of their domains; None returns all.
        """
        instructions = {domain.name: domain.instruction for domain in self.domains() if domain.instruction}
        if batches is None:
            return instructions
        domains = {batch.domain for batch in self.batches() if batch.id in batches}
        return {domain: text for domain, text in instructions.items() if domain in domains}

    def batches(self, domain: str | None = None) -> list[Batch]:
        """Return the batches of one domain, by default of all, in the order they were ingested."""
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
        """Record a batch; also its domain if that is new, a task held out of it, and leaks into that task.

        Args:
            batch: The batch; its id is that of `next_batch_id`.
            task: The task held out of the domain; None if this batch makes none.
            leaks: Leaks of earlier batches into the task.
            kind: Kind of the domain; ignored if the domain exists.
            instruction: Instruction of the domain; ignored if the domain exists.
        """
        files = self.digests.measure(batch.path, batch.rejects_path, None if task is None else task.path)
        with self.catalog.transaction() as connection:
            position = next_position(connection, "batches")
            assert batch.id == f"b{position}", "only an ingest adds batches, and it holds the ingest lock"
            exists = connection.execute("SELECT 1 FROM domains WHERE name = ?", [batch.domain]).fetchall()
            if not exists:
                domain_position = next_position(connection, "domains")
                domain = Domain(batch.domain, domain_position, batch.created_at, kind, instruction)
                insert_record(connection, "domains", domain)
            insert_record(connection, "batches", batch, position=position)
            if task is not None:
                insert_task(connection, task)
            for leak in leaks:
                insert_record(connection, "leaks", leak)
            insert_digests(connection, files)
        return batch

    def next_batch_id(self) -> str:
        """Return the id of the next batch. The caller holds the ingest lock."""
        with self.catalog.reading() as connection:
            return f"b{next_position(connection, 'batches')}"

    def set_license(self, batch: str, license: str) -> None:
        """Record the licence of a batch's data."""
        with self.catalog.transaction() as connection:
            connection.execute("UPDATE batches SET license = ? WHERE id = ?", [license, batch])

    # Evaluation tasks.

    def tasks(self) -> list[Task]:
        """Return the evaluation tasks in the order they were registered."""
        return self._select(Task, "SELECT * FROM tasks ORDER BY position")

    def add_task(self, *tasks: Task, leaks: Iterable[Leak] = ()) -> None:
        """Record tasks and leaks into them, in one transaction. A task gets the instruction of its domain."""
        files = self.digests.measure(*(task.path for task in tasks))
        with self.catalog.transaction() as connection:
            for task in tasks:
                insert_task(connection, task)
            for leak in leaks:
                insert_record(connection, "leaks", leak)
            insert_digests(connection, files)

    def leaks(self) -> list[Leak]:
        """Return the leaks of batches into tasks that were registered after them."""
        return self._select(Leak, "SELECT * FROM leaks ORDER BY task, batch")

    def set_leaks(self, task: str, leaks: Iterable[Leak]) -> None:
        """Replace the leaks into a task, and the digests of its files."""
        files = self.digests.measure(*(known.path for known in self.tasks() if known.name == task))
        with self.catalog.transaction() as connection:
            connection.execute("DELETE FROM leaks WHERE task = ?", [task])
            for leak in leaks:
                insert_record(connection, "leaks", leak)
            insert_digests(connection, files)

    def rows_file(self, batch: Batch) -> Path:
        """Return the Parquet file with the rows of a batch; see `rows_files`."""
        return self.rows_files([batch])[0]

    def rows_files(self, batches: Sequence[Batch], *, full: bool = False) -> list[Path]:
        """Return the Parquet files with the rows of batches, checked against their digests.

        Args:
            full: As in `Digests.check`.

        Raises:
            DataError: A file is missing or damaged.
        """
        files = [self.path(batch.path) for batch in batches]
        for file, batch in zip(files, batches, strict=True):
            if not file.is_file():
                self.digests.require_settled(rows_of(batch), changed=batch not in self.batches())
                raise DataError(
                    f"{file} is missing; it holds the rows of the domain {batch.domain} from {batch.source}. Restore "
                    "it from a backup."
                )
        self.digests.check(*map(rows_of, batches), full=full)
        return files

    def lost_files(self, task: Task) -> list[Path]:
        """Return the files of a task that are missing or damaged."""
        damaged = [self.path(damage.path) for damage in self.digests.find_damage([folder_of(task)], full=True)]
        return list(dict.fromkeys([*self._missing_files(task), *damaged]))

    def task_folder(self, task: Task) -> Path:
        """Return the folder of a task; see `task_folders`."""
        return self.task_folders([task])[0]

    def task_folders(
        self, tasks: Sequence[Task], *, full: bool = False, names: Collection[str] | None = None
    ) -> list[Path]:
        """Return the folders of tasks, with their files checked against their digests.

        Args:
            full: As in `Digests.check`.
            names: As in `Digests.check`.

        Raises:
            DataError: A file of a task is missing or damaged.
        """
        for task in tasks:
            if missing := self._missing_files(task):
                self.digests.require_settled(folder_of(task), changed=task not in self.tasks())
                raise DataError(f"{missing[0]}, a file of the task {task.name}, is missing. {folder_of(task).cure}")
        self.digests.check(*map(folder_of, tasks), full=full, names=names)
        return [self.path(task.path) for task in tasks]

    def _missing_files(self, task: Task) -> list[Path]:
        return [file for file in files_of(self.path(task.path), task) if not file.is_file()]

    # Versions and their lineage.

    def versions(self) -> list[Version]:
        """Return all versions, the root base first."""
        return self._select(Version, "SELECT * FROM versions ORDER BY position")

    def entries(self) -> list[VersionEntry]:
        """Return the entries of all versions, the root base first."""
        return self._select(VersionEntry, f"SELECT {_columns(VersionEntry)} FROM versions ORDER BY position")

    def outlines(self) -> list[Version]:
        """Return all versions without their verdicts, and with only recipe, phase, base and cost of their provenances.

        These suffice for figures over many versions, and don't grow with the number of domains and tasks.
        """
        with self.catalog.reading() as connection:
            return read_outlines(connection)

    def guarded(self, versions: Sequence[str]) -> dict[str, list[str] | None]:
        """Return the tasks that were registered when a version drew its rows, by version; None if not recorded.

        Args:
            versions: Ids of the versions.
        """
        query = "SELECT id, provenance->'$.guarded' FROM versions WHERE id IN (SELECT unnest(?::VARCHAR[]))"
        with self.catalog.reading() as connection:
            rows = connection.execute(query, [list(versions)]).fetchall()
        return {name: None if stored is None else json.loads(stored) for name, stored in rows}

    def version(self, name: str) -> Version:
        """Return a version by its id or by an alias such as "current".

        Raises:
            NotFoundError: There is no version of this id or alias; the message names a similar one.
        """
        with self.catalog.together():
            return self._versions([self.entry(name).id])[0]

    def entry(self, name: str) -> VersionEntry:
        """Return the entry of a version by its id or by an alias; see `version`."""
        query = f"SELECT {_columns(VersionEntry)} FROM versions WHERE id = ?"
        with self.catalog.reading() as connection:
            target = alias_target(connection, name) or name
            found = read_records(connection, VersionEntry, query, [target])
            names = "SELECT id FROM versions UNION ALL SELECT DISTINCT alias FROM alias_events"
            known = [] if found else [known for (known,) in connection.execute(names).fetchall()]
        if not found:
            folder = " It is a folder; name a version of this workspace." if Path(name).is_dir() else ""
            raise NotFoundError(f"There is no version {name!r}.{folder}{did_you_mean(name, known)}")
        return found[0]

    def lineage(self, version: Version) -> list[Version]:
        """Return the lineage of a version: the root base first, the version last."""
        with self.catalog.together():
            return self._versions([entry.id for entry in self.ancestry(version.id)])

    def _versions(self, names: Sequence[str]) -> list[Version]:
        """Return versions by their ids, in the given order."""
        query = "SELECT * FROM versions WHERE id IN (SELECT unnest(?::VARCHAR[]))"
        found = {version.id: version for version in self._select(Version, query, [list(names)])}
        return [found[name] for name in names]

    def ancestry(self, name: str) -> list[VersionEntry]:
        """Return the entries of a version's lineage: the root base first, the version last.

        Args:
            name: Id of the version.
        """
        versions = {entry.id: entry for entry in self.entries()}
        newest_first = [versions[name]]
        while (parent := newest_first[-1].parent) is not None:
            if parent not in versions or len(newest_first) > len(versions):
                raise SchemaError(
                    f"The catalog is damaged: {newest_first[-1].id} was made from {parent}, which has no record. "
                    "Restore it from a backup."
                )
            newest_first.append(versions[parent])
        return newest_first[::-1]

    def learned(self, version: Version | VersionEntry) -> set[str]:
        """Return the ids of the batches that a version or an ancestor of it has learned."""
        return {batch for ancestor in self.ancestry(version.id) for batch in ancestor.batches}

    def next_version_id(self) -> str:
        """Return the id of the next version or run. An id is never used twice."""
        with self.catalog.reading() as connection:
            used = connection.execute("SELECT id FROM versions UNION SELECT id FROM runs").fetchall()
        return f"v{1 + max((int(name[1:]) for (name,) in used), default=-1)}"

    def add_version(
        self,
        version: Version,
        scores: Iterable[Score] = (),
        promote: str | None = None,
        compatibility: Mapping[str, Any] | None = None,
    ) -> Version:
        """Record a version with its scores, and end its run, in one transaction.

        Args:
            version: The version.
            scores: Scores of the version.
            promote: Reason to record for moving `current` to the version; None leaves `current` alone. `current` is
                also left alone if it no longer names the version's parent, because another command moved it.
            compatibility: Measured compatibility with the parent's index, as JSON data; None if it was not measured.
        """
        scores = list(scores)
        files = self.digests.measure(version.path, version.adapter, *(score.path for score in scores))
        with self.catalog.transaction() as connection:
            insert_record(connection, "versions", version, position=next_position(connection, "versions"))
            for score in scores:
                insert_record(connection, "scores", score, created_at=now())
            if compatibility is not None:
                insert_compatibility(connection, compatibility)
            connection.execute(
                "UPDATE runs SET state = 'done', ended_at = ? WHERE id = ?", [encode_value("", now()), version.id]
            )
            if promote is not None and alias_target(connection, CURRENT) == version.parent:
                append_alias(connection, CURRENT, version.id, promote)
            insert_digests(connection, files)
        return version

    def pin(self, version: str, pinned: bool) -> None:
        """Protect the snapshot of a version from `continual gc`, or end its protection."""
        with self.catalog.transaction() as connection:
            connection.execute("UPDATE versions SET pinned = ? WHERE id = ?", [pinned, version])

    # Scores.

    def scores(
        self, settings: Mapping[str, str] | None = None, version: str | None = None
    ) -> dict[tuple[str, str], Score]:
        """Return comparable scores by (version, task): all scores of a task have the same settings.

        Args:
            settings: Settings by task; tasks not in it are left out. None takes the settings of the newest version's
                score on each task; if that version has several scores on a task, the settings of most versions. It
                leaves out probes.
            version: With `settings`, the id of the version whose scores are read; by default all.
        """
        if settings is None:
            with self.catalog.together():
                return comparable(self.all_scores(), self._positions())
        values: list[Any] = [[*settings], [*settings.values()]]
        query = f"SELECT {_columns(Score)} FROM scores WHERE {_SETTINGS}"
        if version is not None:
            query, values = f"{query} AND version = $3", [*values, version]
        scores = self._select(Score, f"{query} ORDER BY created_at, version, task", values)
        return {(score.version, score.task): score for score in scores}

    def last_scores(self, settings: Mapping[str, str], versions: Sequence[str]) -> dict[str, Score]:
        """Return, by task, the score of the last of some versions that has one with the settings.

        Args:
            settings: Settings by task; tasks not in it are left out.
            versions: Ids, in their order.
        """
        query = (
            f"SELECT {_columns(Score)} FROM scores WHERE {_SETTINGS} AND list_contains($3, version) "
            "QUALIFY row_number() OVER (PARTITION BY task ORDER BY list_position($3, version) DESC) = 1 ORDER BY task"
        )
        values = [[*settings], [*settings.values()], [*versions]]
        return {score.task: score for score in self._select(Score, query, values)}

    def all_scores(self) -> list[Score]:
        """Return the scores with any settings, in the order they were recorded."""
        return self._select(Score, f"SELECT {_columns(Score)} FROM scores ORDER BY created_at, version, task, settings")

    def add_scores(self, scores: Iterable[Score]) -> None:
        """Record scores of recorded versions. A score replaces one of the same version, task and settings."""
        scores = list(scores)
        files = self.digests.measure(*(score.path for score in scores))
        with self.catalog.transaction() as connection:
            insert_digests(connection, files)
            for score in scores:
                connection.execute(
                    "DELETE FROM scores WHERE version = ? AND task = ? AND settings = ?",
                    [score.version, score.task, score.settings],
                )
                insert_record(connection, "scores", score, created_at=now())

    def drop_scores(self, path: str) -> list[Score]:
        """Drop the scores whose scores per query are in a file, with its digest; return them."""
        dropped = [score for score in self.all_scores() if score.path == path]
        with self.catalog.transaction() as connection:
            connection.execute("DELETE FROM scores WHERE path = ?", [path])
            connection.execute("DELETE FROM files WHERE artifact = ?", [path])
        return dropped

    # Compatibility of a version with the index of another version.

    def compatibility(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the measured compatibility, as JSON data, by (old version, new version)."""
        with self.catalog.reading() as connection:
            rows = connection.execute("SELECT old, new, result FROM compatibility ORDER BY created_at").fetchall()
        return {(old, new): from_json(result) for old, new, result in rows}

    def add_compatibility(self, result: Mapping[str, Any]) -> None:
        """Record a measured compatibility. It replaces an earlier result of the same two versions."""
        with self.catalog.transaction() as connection:
            insert_compatibility(connection, result)

    # Aliases: an append-only log.

    def alias_events(self) -> list[Alias]:
        """Return every alias event, oldest first."""
        return self._select(Alias, "SELECT * FROM alias_events ORDER BY position")

    def alias(self, name: str) -> Alias | None:
        """Return the newest event of an alias, or None if it was never set."""
        query = "SELECT * FROM alias_events WHERE alias = ? ORDER BY position DESC LIMIT 1"
        return next(iter(self._select(Alias, query, [name])), None)

    def before(self, name: str) -> str | None:
        """Return the version that an alias goes back to in a rollback; None if it has always named the same one.

        Versions that were rolled back are left out: after v1, v2, v3 and a rollback to v2 the result is v1. So repeated
        rollbacks end at the first version. Versions whose models were removed by `continual forget` are left out too.
        """
        forgotten = {version.id for version in self.versions() if version.status == FORGOTTEN}
        served: list[str] = []
        for event in self.alias_events():
            if event.alias == name and event.version not in {*forgotten, *served[-1:]}:
                is_rollback = served[-2:-1] == [event.version]
                served = served[:-1] if is_rollback else [*served, event.version]
        return served[-2] if len(served) > 1 else None

    def set_alias(self, name: str, version: str, reason: str) -> Alias:
        """Append an event that sets an alias to a version."""
        with self.catalog.transaction() as connection:
            return append_alias(connection, name, version, reason)

    # Runs.

    def runs(self) -> list[Run]:
        """Return every run, oldest first."""
        return self._select(Run, "SELECT * FROM runs ORDER BY started_at")

    def interrupted(self) -> Run | None:
        """Return the run that neither ended nor was discarded, or None."""
        running = self._select(Run, "SELECT * FROM runs WHERE state = 'running' ORDER BY started_at")
        return running[0] if running else None

    def begin_run(self, run: Run) -> None:
        """Record a run. A run still marked as running is discarded: there can be only one."""
        with self.catalog.transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = 'discarded', ended_at = ? WHERE state = 'running'", [encode_value("", now())]
            )
            insert_record(connection, "runs", run)

    def discard_run(self, name: str) -> None:
        """Mark a run as discarded, so that it cannot be resumed."""
        with self.catalog.transaction() as connection:
            connection.execute(
                "UPDATE runs SET state = 'discarded', ended_at = ? WHERE id = ?", [encode_value("", now()), name]
            )

    def _positions(self) -> dict[str, int]:
        """Return the position of each version by id, without reading the long provenances."""
        with self.catalog.reading() as connection:
            return dict(connection.execute("SELECT id, position FROM versions").fetchall())

    def _select(self, record_type: type[Record], query: str, values: Sequence[Any] = ()) -> list[Record]:
        with self.catalog.reading() as connection:
            return read_records(connection, record_type, query, values)


def _columns(record_type: Any) -> str:
    """Return the columns of a record's fields, so that a query reads no others."""
    return ", ".join(f'"{field.name}"' for field in dataclasses.fields(record_type))
