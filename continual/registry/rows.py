"""Reading and writing rows of the catalog within a transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import from_json

from continual.errors import SchemaError
from continual.registry.catalog import now
from continual.registry.provenance import SCHEMA as PROVENANCE
from continual.registry.provenance import Provenance
from continual.registry.records import Alias, Task, Version, VersionEntry
from continual.registry.spec import Spec
from continual.registry.verdict import Verdict

if TYPE_CHECKING:
    import duckdb

Record = TypeVar("Record")

_JSON_COLUMNS = {"batches", "columns", "provenance", "verdict", "details", "spec", "mteb"}
_FROM_TEXT: dict[str, Callable[[str], Any]] = {
    "provenance": Provenance.from_json,
    "verdict": Verdict.from_json,
    "spec": lambda text: Spec.from_json(json.loads(text)),
}


def _decoder(column: str, kind: str) -> Callable[[Any], Any] | None:
    """Return what turns a catalog column's values into those of a record's field; None if they are the same."""
    if kind == "TIMESTAMP":
        return lambda moment: moment.replace(tzinfo=UTC)  # the catalog's times are UTC, without zone
    return _FROM_TEXT.get(column, from_json) if column in _JSON_COLUMNS else None


def encode_value(column: str, value: Any) -> Any:
    """Return the value of a catalog column from that of a record's field: the inverse of reading."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if column not in _JSON_COLUMNS or value is None:
        return value
    return json.dumps(value.to_json() if column in _FROM_TEXT else value)


def insert_record(connection: duckdb.DuckDBPyConnection, table: str, record: Any, **more: Any) -> None:
    """Insert a record into a table.

    Args:
        **more: Values of columns that the record has no field for.
    """
    row = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)} | more
    columns = ", ".join(f'"{column}"' for column in row)
    marks = ", ".join("?" for _ in row)
    connection.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({marks})",
        [encode_value(column, value) for column, value in row.items()],
    )


def next_position(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Return the position that the next row of a table gets: versions count from 0, other tables from 1.

    The position of a deleted row is not given out again; see `keep_position`.
    """
    first = 0 if table == "versions" else 1
    ((position,),) = connection.execute(
        f"SELECT greatest(coalesce(max(position) + 1, {first}), (SELECT coalesce(max(last) + 1, 0) FROM counters "
        f"WHERE name = '{table}')) FROM {table}"
    ).fetchall()
    return int(position)


def keep_position(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Remember the highest position of a table before rows are deleted: ids have it, and name one record for ever."""
    last = next_position(connection, table) - 1
    connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", [table, last])


def insert_task(connection: duckdb.DuckDBPyConnection, task: Task) -> None:
    """Insert a task with the instruction of its domain."""
    rows = connection.execute("SELECT instruction FROM domains WHERE name = ?", [task.domain]).fetchall()
    instruction = rows[0][0] if rows else None
    insert_record(
        connection,
        "tasks",
        dataclasses.replace(task, instruction=instruction),
        position=next_position(connection, "tasks"),
    )


def insert_compatibility(connection: duckdb.DuckDBPyConnection, result: Mapping[str, Any]) -> None:
    """Insert a measured compatibility, or replace that of the same two versions."""
    connection.execute(
        "INSERT OR REPLACE INTO compatibility (old, new, result, created_at) VALUES (?, ?, ?, ?)",
        [result["old"], result["new"], json.dumps(result), encode_value("", now())],
    )


def alias_target(connection: duckdb.DuckDBPyConnection, name: str) -> str | None:
    """Return the version that an alias names; None if the alias was never set."""
    events = connection.execute(
        "SELECT version FROM alias_events WHERE alias = ? ORDER BY position DESC LIMIT 1", [name]
    ).fetchall()
    return str(events[0][0]) if events else None


def append_alias(connection: duckdb.DuckDBPyConnection, name: str, version: str, reason: str) -> Alias:
    """Append an event that sets an alias to a version."""
    previous = alias_target(connection, name)
    event = Alias(next_position(connection, "alias_events"), name, version, previous, now(), reason)
    insert_record(connection, "alias_events", event)
    return event


OUTLINE = ("base", "recipe", "phase", "cost")
"""Keys of a provenance that figures over many versions need."""


def read_outlines(connection: duckdb.DuckDBPyConnection) -> list[Version]:
    """Return all versions without their verdicts, and with only the keys `OUTLINE` of their provenances."""
    entries = read_records(connection, VersionEntry, "SELECT * EXCLUDE (provenance, verdict) FROM versions")
    query = "SELECT id, json_extract(provenance, ?) FROM versions ORDER BY position"
    rows = connection.execute(query, [[f"$.{key}" for key in OUTLINE]]).fetchall()
    entry_of = {entry.id: entry for entry in entries}
    versions = []
    for name, values in rows:
        found = {key: from_json(text) for key, text in zip(OUTLINE, values, strict=True) if text is not None}
        made = Provenance.from_json({"schema": PROVENANCE} | found)
        fields = {field.name: getattr(entry_of[name], field.name) for field in dataclasses.fields(VersionEntry)}
        versions.append(Version(**fields, provenance=made, verdict=None))
    return versions


def read_records(
    connection: duckdb.DuckDBPyConnection, record_type: type[Record], query: str, values: Sequence[Any] = ()
) -> list[Record]:
    """Return the rows of a query as records. Columns that the record has no field for are left out.

    Raises:
        SchemaError: A row cannot be read; the message names its record.
    """
    cursor = connection.execute(query, list(values))
    names = {field.name for field in dataclasses.fields(record_type)}  # type: ignore[arg-type]
    used = [
        (place, column, _decoder(column, str(kind)))
        for place, (column, kind, *_) in enumerate(cursor.description or [])
        if column in names
    ]
    return [_read_record(record_type, used, row) for row in cursor.fetchall()]


def _read_record(
    record_type: type[Record], used: Sequence[tuple[int, str, Callable[[Any], Any] | None]], values: Sequence[Any]
) -> Record:
    """Return a record from a row of the catalog; an error names the version or the run.

    Args:
        used: Place, column and decoder of the record's fields.
    """
    try:
        return record_type(
            **{
                column: values[place] if decode is None or values[place] is None else decode(values[place])
                for place, column, decode in used
            }
        )
    except SchemaError as error:
        row = {column: values[place] for place, column, _ in used}
        raise SchemaError(f"{record_type.__name__} {row.get('id')}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        row = {column: values[place] for place, column, _ in used}
        raise SchemaError(
            f"{record_type.__name__} {row.get('id', row.get('name', ''))}: the record is damaged: {error}. Restore the "
            "catalog from a backup."
        ) from None
