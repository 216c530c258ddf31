"""What `continual forget` changes in the catalog: one transaction, which can be repeated after a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from continual.registry.catalog import Catalog, now
from continual.registry.digests import FileDigest, insert_digests
from continual.registry.records import CURRENT, FORGOTTEN, Leak
from continual.registry.rows import alias_target, append_alias, encode_value, insert_record, keep_position
from continual.storage.locks import FORGETTING

if TYPE_CHECKING:
    import duckdb

__all__ = ["FORGETTING", "FORGOTTEN", "INCOMPLETE", "Erasure", "erase"]

INCOMPLETE = ""
"""`source_sha256` of a batch that no longer has, or never had, all rows of its file that it would have now."""


@dataclass(frozen=True)
class Erasure:
    """Changes of records. All values are absolute, so that applying them twice is the same as once.

    Attributes:
        batches: New values of columns, by id of the batch.
        tasks: New values of columns, by name of the task.
        leaks: New leaks into all tasks, by task; a task that is not in it keeps its own.
        trained: Number of forgotten rows that a version's own training drew, by id.
        dropped_domains: Domains whose records are dropped.
        dropped_batches: Ids of batches whose records are dropped.
        dropped_tasks: Names of tasks whose records are dropped.
        dropped_scores: Names of tasks whose scores are dropped: the task changed.
        dropped_versions: Versions whose models are removed; their records stay, without adapter and windows.
        dropped_artifacts: Artifacts whose digests are dropped.
        digests: Digests of files that were written again, all of their artifacts' ones.
        current: The new current version; None leaves the alias alone.
        discarded: The interrupted run that is discarded.
    """

    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    leaks: dict[str, list[Leak]] = field(default_factory=dict)
    trained: dict[str, int] = field(default_factory=dict)
    dropped_domains: list[str] = field(default_factory=list)
    dropped_batches: list[str] = field(default_factory=list)
    dropped_tasks: list[str] = field(default_factory=list)
    dropped_scores: list[str] = field(default_factory=list)
    dropped_versions: list[str] = field(default_factory=list)
    dropped_artifacts: list[str] = field(default_factory=list)
    digests: list[FileDigest] = field(default_factory=list)
    current: str | None = None
    discarded: str | None = None


def erase(catalog: Catalog, changes: Erasure, place: Callable[[], None] = lambda: None) -> None:
    """Apply changes in one transaction.

    Args:
        place: Puts the new files into their places; called just before the commit, while no other process can open the
            catalog. So who reads records and files sees old ones or new ones.
    """
    with catalog.transaction() as connection:
        if changes.dropped_batches:
            keep_position(connection, "batches")
        for table, key, rows in (("batches", "id", changes.batches), ("tasks", "name", changes.tasks)):
            for name, values in rows.items():
                columns = ", ".join(f'"{column}" = ?' for column in values)
                connection.execute(f"UPDATE {table} SET {columns} WHERE {key} = ?", [*values.values(), name])
        for task, leaks in changes.leaks.items():
            connection.execute("DELETE FROM leaks WHERE task = ?", [task])
            for leak in leaks:
                insert_record(connection, "leaks", leak)
        for table, column, names in (
            ("domains", "name", changes.dropped_domains),
            ("batches", "id", changes.dropped_batches),
            ("leaks", "batch", changes.dropped_batches),
            ("tasks", "name", changes.dropped_tasks),
            ("leaks", "task", changes.dropped_tasks),
            ("scores", "task", [*changes.dropped_tasks, *changes.dropped_scores]),
            ("scores", "version", changes.dropped_versions),
            ("compatibility", "old", changes.dropped_versions),
            ("compatibility", "new", changes.dropped_versions),
            ("files", "artifact", changes.dropped_artifacts),
        ):
            _delete(connection, table, column, names)
        _drop_compatibility(connection, set(changes.dropped_tasks))
        _change_versions(connection, changes)
        insert_digests(connection, changes.digests)
        if changes.discarded is not None:
            connection.execute(
                "UPDATE runs SET state = 'discarded', ended_at = ? WHERE id = ? AND state = 'running'",
                [encode_value("", now()), changes.discarded],
            )
        if changes.current is not None and alias_target(connection, CURRENT) != changes.current:
            append_alias(connection, CURRENT, changes.current, "the lineage was rebuilt without forgotten rows")
        place()


def _delete(connection: duckdb.DuckDBPyConnection, table: str, column: str, names: Sequence[str]) -> None:
    if names:
        connection.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT unnest(?::VARCHAR[]))", [list(names)])


def _drop_compatibility(connection: duckdb.DuckDBPyConnection, tasks: set[str]) -> None:
    """Drop the index comparisons that were measured on one of these tasks."""
    rows = connection.execute("SELECT old, new, result FROM compatibility").fetchall() if tasks else []
    for old, new, result in rows:
        if tasks & {str(task.get("task")) for task in json.loads(result).get("tasks", [])}:
            connection.execute("DELETE FROM compatibility WHERE old = ? AND new = ?", [old, new])


def _change_versions(connection: duckdb.DuckDBPyConnection, changes: Erasure) -> None:
    """Take dropped batches and tasks out of the versions' records, and note which were trained on forgotten rows."""
    rows = connection.execute("SELECT id, batches, provenance, status, adapter FROM versions").fetchall()
    for name, stored_batches, stored_provenance, status, adapter in rows:
        batches = [batch for batch in json.loads(stored_batches) if batch not in changes.dropped_batches]
        provenance = json.loads(stored_provenance)
        if provenance.get("guarded"):
            provenance["guarded"] = [task for task in provenance["guarded"] if task not in changes.dropped_tasks]
        if name in changes.trained:
            provenance["forgotten"] = changes.trained[name]
        if name in changes.dropped_versions:
            status, adapter = FORGOTTEN, None
            provenance |= {"new": [], "replay": [], "held": [], "cursors": {}, "instructions": {}}
        values = [json.dumps(batches), json.dumps(provenance), status, adapter]
        if values != [stored_batches, stored_provenance, status, adapter]:
            connection.execute(
                "UPDATE versions SET batches = ?, provenance = ?, status = ?, adapter = ? WHERE id = ?", [*values, name]
            )
