"""A DuckDB of our own for work on rows: in memory, bounded, and spilling into the workspace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

MEMORY = "256MB"
THREADS = 2


@contextmanager
def database(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty database that takes at most `MEMORY` and spills to the folder `spill`.

    It is no catalog: what it holds is gone at the end.
    """
    settings: dict[str, Any] = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": str(spill)}
    connection = duckdb.connect(config=settings)
    try:
        connection.execute("SET enable_progress_bar = false")
        yield connection
    finally:
        connection.close()


def scan(files: Sequence[Path], columns: str) -> str:
    """Return a subquery over Parquet files; with no file, an empty one.

    Args:
        files: The files, which share the columns.
        columns: What to select, such as "row_hash, query_hash", with no commas inside an expression.
    """
    if not files:
        names = [column.split(" AS ")[-1].strip() for column in columns.split(",")]
        return f"(SELECT {', '.join(f'NULL::VARCHAR AS {name}' for name in names)} WHERE false)"
    return f"(SELECT {columns} FROM read_parquet([{', '.join(literal(file) for file in files)}]))"


def literal(path: Path) -> str:
    """Return a path as SQL, to be read as it is."""
    # read_parquet takes a name with any of *?[ as a pattern, wherever it is; brackets make them plain.
    plain = re.sub(r"([*?\[])", r"[\1]", str(path))
    return "'" + plain.replace("'", "''") + "'"


def count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """Return the first value of the first row."""
    # All rows are fetched: DuckDB 2 refuses other work on a connection whose last result is not at its end.
    return int(connection.execute(query).fetchall()[0][0])
