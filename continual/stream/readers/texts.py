"""The files with the texts of rows that name them by id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from continual.errors import DataError
from continual.stream.database import count
from continual.stream.readers.base import NO_NAME, Source

IDS = ("_id", "id", "doc_id", "corpus_id", "corpus-id", "query_id", "query-id", "docid", "pid", "qid")
TEXT = ("text", "passage", "query", "contents", "body")
MAX_ABSENT = 0.1
"""Largest share of negatives whose id has no text."""
READ_ROWS = 10_000

TEXT_COLUMNS = "(id VARCHAR, start BIGINT, size BIGINT)"
"""The columns of a table of texts."""
_TYPES = {"seq": pa.int64(), "row": pa.int64(), "number": pa.int64(), "place": pa.int64(), "start": pa.int64()}


def load_texts(connection: duckdb.DuckDBPyConnection, table: str, source: Source, file: BinaryIO) -> list[str]:
    """Create a table of the texts of a source: id, start and size in the file of texts. A title comes before its text.

    Returns:
        What was left out of the source, as sentences.

    Raises:
        DataError: The source lacks a column, or repeats an id, or too many of its rows can't be read.
    """
    connection.execute(f"CREATE TABLE {table} {TEXT_COLUMNS}")
    identity, text = (next((name for name in known if name in source.columns), None) for known in (IDS, TEXT))
    if identity is None and source.columns == ["1", "2"]:
        identity, text = source.columns
    if identity is None or text is None:
        raise DataError(
            f"{source.name} has the columns {', '.join(source.columns)}, but an id ({IDS[0]}) and a text are expected."
        )
    title = ["title"] if table == "corpus" and "title" in source.columns else []
    start = file.seek(0, 2)
    rows, faults, first = 0, 0, ""
    for piece in source.read([identity, text, *title], READ_ROWS):
        lines: list[tuple[Any, ...]] = []
        rows += len(piece.numbers)
        faults += len(piece.faults)
        if piece.faults and not first:
            index = min(piece.faults)
            first = f"line {piece.numbers[index]}: {piece.faults[index]}"
        for index, name in enumerate(piece.columns[identity]):
            if index in piece.faults:
                continue
            parts = (piece.columns[column][index] for column in (*title, text))
            joined = " ".join(part for part in parts if isinstance(part, str) and part)
            size = file.write(joined.encode("utf-8", "surrogatepass"))
            lines.append((next(iter(ids_in(name)), None), start, size))
            start += size
        insert(connection, table, ("id", "start", "size"), lines)
    file.flush()
    repeated = count(connection, f"SELECT count(*) - count(DISTINCT id) FROM {table}")
    if repeated:
        raise DataError(f"{source.name} has {repeated:,} rows without an id of their own. Ids must be unique.")
    told = []
    if faults:
        told.append(
            f"{faults:,} of {rows:,} rows of {source.name} can't be read (first {first}), such as a text with a "
            "delimiter in it. Their ids have no text."
        )
        if faults > MAX_ABSENT * rows:
            raise DataError(f"{told[0]} Write them again without it, or in JSONL.")
    if unread := [name or NO_NAME for name in source.columns if name not in (identity, text, *title)]:
        told.append(f"{source.name} has columns that are not read: {', '.join(unread)}.")
    return told


def ids_in(value: Any) -> list[str]:
    """Return the ids in a cell: one, or a list of them, which may be JSON. What can't be an id is left out."""
    if isinstance(value, str) and not value.startswith("["):
        return [text] if (text := value.strip()) else []
    if isinstance(value, str) and value.endswith("]"):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    found = []
    for item in value if isinstance(value, list) else [value]:
        name = int(item) if isinstance(item, float) and item.is_integer() else item
        if isinstance(name, (str, int)) and not isinstance(name, bool) and (text := str(name).strip()):
            found.append(text)
    return found


def insert(
    connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], rows: Iterable[tuple[Any, ...]]
) -> None:
    """Add rows to a table, of which these are the columns."""
    columns = list(zip(*rows, strict=True))
    if not columns:
        return
    types = [_TYPES.get(name, pa.int64() if name == "size" else pa.string()) for name in names]
    arrays = [pa.array(values, kind) for values, kind in zip(columns, types, strict=True)]
    connection.register("piece", pa.table(arrays, names=list(names)))
    connection.execute(f"INSERT INTO {table} SELECT * FROM piece")
    connection.unregister("piece")
