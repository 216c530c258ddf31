"""The sizes of rows of Parquet that Arrow can only read as plain texts, measured without decoding them in memory.

Arrow decodes whole rows, whatever memory they take. DuckDB stops at a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from continual.errors import DataError
from continual.stream.database import literal
from continual.stream.readers.bounds import ROW_BYTES, too_large

MEMORY = "1GB"
"""Most memory for a measurement, in which some thousand rows are decoded at a time."""


def largest_row(path: Path, columns: Sequence[str], first: int, rows: int) -> int:
    """Return the bytes of the largest row of some columns that hold lists of texts.

    Args:
        path: The file.
        columns: Names of the columns.
        first: First row to measure, from 0.
        rows: How many.

    Raises:
        DataError: A row takes more than `ROW_BYTES`, or the rows take more memory than there is for them.
    """
    quoted = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in columns]
    size = " + ".join(f"coalesce(list_sum([strlen(text) for text in {name}]), 0)" for name in quoted)
    query = f"""
        SELECT max(size), arg_max(row, size) FROM (
            SELECT {size} AS size, file_row_number AS row FROM read_parquet({literal(path)}, file_row_number = true)
        ) WHERE row BETWEEN {first} AND {first + rows - 1}
    """
    try:
        with duckdb.connect(config={"memory_limit": MEMORY, "threads": 1}) as connection:
            found, row = connection.execute(query).fetchall()[0]
    except duckdb.OutOfMemoryException:
        raise DataError(
            f"{path}: reading the lists of texts in {', '.join(columns)} takes more than {MEMORY} of memory. Split "
            "their rows, or write the file as .jsonl."
        ) from None
    except duckdb.Error as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} cannot be read as Parquet: {reason}. Copy or write it again.") from None
    if (found or 0) > ROW_BYTES:
        raise too_large(str(path), int(row) + 1, int(found))
    return int(found or 0)
