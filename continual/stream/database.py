"""A temporary in-memory DuckDB for work on rows: bounded, and spilling to a folder of the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

MEMORY = "640MB"
THREADS = 2


@contextmanager
def database(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database that takes at most `MEMORY` and spills to the folder `spill`.

    It is separate from the catalog and is discarded on exit.
    """
    settings: dict[str, Any] = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": str(spill)}
    connection = duckdb.connect(config=settings)
    try:
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def scan(files: Sequence[Path], columns: str) -> str:
    """Return a subquery over Parquet files; without files, one that selects no rows.

    Args:
        files: Files that all have these columns.
        columns: What to select, such as "row_hash, query_hash", without commas inside an expression.
    """
    if not files:
        names = [column.split(" AS ")[-1].strip() for column in columns.split(",")]
        return f"(SELECT {', '.join(f'NULL::VARCHAR AS {name}' for name in names)} WHERE false)"
    return f"(SELECT {columns} FROM read_parquet([{', '.join(literal(file) for file in files)}]))"


def literal(path: Path) -> str:
    """Return a path as an SQL literal that matches only this path."""
    # read_parquet treats *, ? and [ anywhere in a name as a pattern; in brackets they stand for themselves.
    plain = re.sub(r"([*?\[])", r"[\1]", str(path))
    return "'" + plain.replace("'", "''") + "'"


def count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the first value of the first row."""
    # fetchall, because DuckDB 2 rejects other work on a connection whose last result has unread rows.
    return int(connection.execute(query).fetchall()[0][0])
