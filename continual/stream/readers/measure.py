"""The size of the largest row of a Parquet file, found without decoding its texts.

Arrow decodes rows whatever memory they take. DuckDB refers to the texts of dictionaries, and stops at a limit.
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


def largest_row(path: Path, texts: Sequence[str], lists: Sequence[str]) -> int:
    """Return the bytes of the largest row of some columns; `ROW_BYTES` if it is not known.

    Args:
        path: The file.
        texts: Names of columns of texts. If they can't be measured, rows can still be read one by one.
        lists: Names of columns of lists of texts.

    Raises:
        DataError: A row takes more than `ROW_BYTES`, or the lists can't be measured.
    """
    parts = [f"coalesce(strlen({_quoted(name)}), 0)" for name in texts]
    parts += [f"coalesce(list_sum([strlen(text) for text in {_quoted(name)}]), 0)" for name in lists]
    if not parts:
        return 0
    rows = f"SELECT {' + '.join(parts)} AS size, file_row_number AS row FROM read_parquet({literal(path)}, "
    query = f"SELECT max(size), arg_max(row, size) FROM ({rows} file_row_number = true))"
    try:
        with duckdb.connect(config={"memory_limit": MEMORY, "threads": 1}) as connection:
            connection.execute("SET enable_progress_bar = false")
            size, row = connection.execute(query).fetchall()[0]
    except duckdb.Error as error:  # too little memory, or text that is not UTF-8
        if not lists:
            return ROW_BYTES
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path}: its lists of texts can't be read within {MEMORY} of memory ({reason}). Split the rows or write "
            "the file again, for example as .jsonl."
        ) from None
    if size > ROW_BYTES:
        raise too_large(str(path), int(row) + 1, int(size))
    return int(size)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
