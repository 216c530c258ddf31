"""Reading and writing rows of the catalog within a transaction."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from continual.errors import SchemaError
from continual.registry.catalog import now
from continual.registry.provenance import Provenance
from continual.registry.records import Alias, Task
from continual.registry.spec import Spec
from continual.registry.verdict import Verdict

if TYPE_CHECKING:
    import duckdb

Record = TypeVar("Record")

_JSON_COLUMNS = {"batches", "columns", "provenance", "verdict", "details", "spec", "mteb"}
_RECORD_TYPES: dict[str, Any] = {"provenance": Provenance, "verdict": Verdict, "spec": Spec}


def decode_value(column: str, value: Any) -> Any:
    """Return the value of a record's field from that of a catalog column. The catalog's times are UTC, without zone."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC)
    if column not in _JSON_COLUMNS or value is None:
        return value
    data = json.loads(value)
    return _RECORD_TYPES[column].from_json(data) if column in _RECORD_TYPES else data


def encode_value(column: str, value: Any) -> Any:
    """Return the value of a catalog column from that of a record's field: the inverse of `decode_value`."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None)
    if column not in _JSON_COLUMNS or value is None:
        return value
    return json.dumps(value.to_json() if column in _RECORD_TYPES else value)


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
    """Return the position that the next row of a table gets: versions count from 0, other tables from 1."""
    first = 0 if table == "versions" else 1
    ((position,),) = connection.execute(f"SELECT coalesce(max(position) + 1, {first}) FROM {table}").fetchall()
    return int(position)


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


def read_records(
    connection: duckdb.DuckDBPyConnection, record_type: type[Record], query: str, values: Sequence[Any] = ()
) -> list[Record]:
    """Return the rows of a query as records. Columns that the record has no field for are left out.

    Raises:
        SchemaError: A row cannot be read; the message names its record.
    """
    cursor = connection.execute(query, list(values))
    columns = [column[0] for column in cursor.description or []]
    names = {field.name for field in dataclasses.fields(record_type)}  # type: ignore[arg-type]
    used = [(place, column) for place, column in enumerate(columns) if column in names]
    return [_read_record(record_type, used, row) for row in cursor.fetchall()]


def _read_record(record_type: type[Record], used: Sequence[tuple[int, str]], values: Sequence[Any]) -> Record:
    """Return a record from the used columns of a row of the catalog; an error names the version or the run."""
    row = {column: values[place] for place, column in used}
    try:
        return record_type(**{column: decode_value(column, value) for column, value in row.items()})
    except SchemaError as error:
        raise SchemaError(f"{record_type.__name__} {row.get('id')}: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise SchemaError(
            f"{record_type.__name__} {row.get('id', row.get('name', ''))}: the record is damaged: {error}. Restore the "
            "catalog from a backup."
        ) from None
