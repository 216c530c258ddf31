"""What a workspace records and holds, read without the code that is tested."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import duckdb

State = dict[str, set[str]]
"""By table of the catalog, or "out" for files that a command makes elsewhere: rows as text."""

VOLATILE = {"created", "seconds", "cost", "search_cost", "peak_memory", "training"}
"""Columns and keys that hold times and the like, which differ each time."""


def state(room: Path) -> State:
    """Return what the catalog records, without times, and the files that were made beside the workspace."""
    found = catalog(room / "w") if (room / "w/.continual/catalog.duckdb").exists() else {}
    if (room / "out/.continual/catalog.duckdb").exists():
        found |= {f"out {table}": rows for table, rows in catalog(room / "out").items()}
    else:
        files = [file for name in ("out", "out.html") for file in [room / name, *(room / name).rglob("*")]]
        found["out"] = {f"{file.relative_to(room)} {_content(file, room)}" for file in files if file.is_file()}
    return found


def _content(file: Path, room: Path) -> str:
    """Return the digest of a file; only its kind if its content tells the time."""
    if file.suffix in (".html", ".png", ".svg", ".md"):
        return file.suffix
    if file.suffix == ".json":
        text = json.dumps(_steady(json.loads(file.read_bytes()))).replace(str(room), "ROOM")
        return hashlib.sha256(text.encode()).hexdigest()
    return hashlib.sha256(file.read_bytes()).hexdigest()


def catalog(workspace: Path) -> State:
    """Return the rows of every table. The file is copied first: DuckDB would recover it."""
    try:
        return _tables(workspace)
    except duckdb.Error as error:
        return {"unreadable": {str(error)}}


def _tables(workspace: Path) -> State:
    source = workspace / ".continual" / "catalog.duckdb"
    room = str(workspace.parent.resolve())
    copy = workspace.parent / ".read.duckdb"
    for suffix in ("", ".wal"):
        if (log := source.with_name(source.name + suffix)).exists():
            copy.with_name(copy.name + suffix).write_bytes(log.read_bytes())
    found: State = {}
    with duckdb.connect(str(copy), config={"threads": 1}) as connection:
        for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
            columns = [
                name
                for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()
                if kind != "TIMESTAMP" and name not in VOLATILE
            ]
            names = ", ".join(f'"{name}"' for name in columns)
            rows = connection.execute(f"SELECT {names} FROM {table}").fetchall()
            found[table] = {
                json.dumps([_steady(value) for value in row], sort_keys=True, default=str).replace(room, "ROOM")
                for row in rows
            }
    for suffix in ("", ".wal"):
        copy.with_name(copy.name + suffix).unlink(missing_ok=True)
    return found


def _steady(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in "[{":
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in VOLATILE}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def difference(first: State, second: State) -> str:
    """Return where two states differ, in a few words; "" if they don't."""
    parts = []
    for table in sorted(first.keys() | second.keys()):
        one, other = first.get(table, set()), second.get(table, set())
        if one != other:
            example = next(iter(sorted(one ^ other)))
            parts.append(f"{table}: {len(one - other)} gone, {len(other - one)} new, such as {example[:300]}")
    return "; ".join(parts)


def lost(before: State, after: State, tables: tuple[str, ...] = ("batches", "versions", "tasks", "domains")) -> str:
    """Return what was registered and isn't any more; "" if nothing."""
    gone = {table: sorted(_ids(before, table) - _ids(after, table)) for table in tables}
    return "; ".join(f"{table}: {names}" for table, names in gone.items() if names)


def _ids(found: State, table: str) -> set[str]:
    return {json.loads(row)[0] for row in found.get(table, set())}


def junk(room: Path) -> list[str]:
    """Return the files that no whole command leaves, in the workspace and beside it."""
    names = [path.relative_to(room) for path in room.rglob("*")]
    return sorted(
        str(name)
        for name in names
        if name.suffix == ".tmp"
        or any(sign in name.name for sign in (".partial", ".replaced", ".gone"))
        or name.name == "staging"
    )
