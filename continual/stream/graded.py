"""The negatives of rows: positives of the same query are left out, and texts of rows with a low score are added."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from continual.stream.database import count, database, literal
from continual.stream.readers.base import PIECE_BYTES
from continual.stream.stage import STAGED_FORMAT, STAGED_SCHEMA

MAX_NEGATIVES = 32
"""Most negatives that a row gets from rows with a low score, the first by hash; training uses few of them."""
SLICE_ROWS = 1000


def add_negatives(rows: Path, negatives: Path, spill: Path) -> int:
    """Add to each good row the negatives of its query, and return how many different pairs of both there are.

    A text that is a positive of the query anywhere in the file is none of its negatives. Which negatives a row gets
    depends on their content and not on the order of the file.

    Args:
        rows: The staging file of the good rows; it is replaced.
        negatives: The file of the negatives; see `continual.stream.stage.NEGATIVES_SCHEMA`.
        spill: Folder for temporary files.
    """
    with database(spill) as connection:
        _choose(connection, rows, negatives)
        used = count(connection, "SELECT count(*) FROM chosen")
        if used:
            _rewrite(rows, lambda table, writer: _write_added(connection, table, writer))
    return used


def drop_positives(rows: Path, spill: Path) -> int:
    """Remove the negatives of good rows that are positives of the same query in the file, and return their number.

    Args:
        rows: The staging file of the good rows; it is replaced.
        spill: Folder for temporary files.
    """
    with database(spill) as connection:
        staged = f"read_parquet({literal(rows)})"
        connection.execute(
            f"""
            CREATE TABLE dropped AS
            WITH given AS (
                SELECT seq, query_hash::UUID AS query, unnest(negative_hashes)::UUID AS hash,
                    unnest(range(len(negative_hashes))) AS place
                FROM {staged}
            )
            SELECT seq, place FROM given
            SEMI JOIN (SELECT query_hash::UUID AS query, positive_hash::UUID AS hash FROM {staged}) USING (query, hash)
            """
        )
        dropped = count(connection, "SELECT count(*) FROM dropped")
        if dropped:
            _rewrite(rows, lambda table, writer: _write_dropped(connection, table, writer))
    return dropped


def _rewrite(rows: Path, write: Callable[[Any, Any], None]) -> None:
    """Replace the staging file by what `write` makes of its tables, each of bounded size."""
    target = rows.with_suffix(".partial")
    with (
        pq.ParquetFile(rows, buffer_size=1 << 20, pre_buffer=False) as file,
        pq.ParquetWriter(target, STAGED_SCHEMA, **STAGED_FORMAT) as writer,
    ):
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, use_threads=False)
            for first in range(0, table.num_rows, SLICE_ROWS):
                write(table.slice(first, SLICE_ROWS), writer)
    target.replace(rows)


def _write_dropped(connection: duckdb.DuckDBPyConnection, table: Any, writer: Any) -> None:
    """Write rows without the negatives in `dropped`."""
    numbers = table["seq"].to_pylist()
    found = connection.execute(
        "SELECT seq, list(place) FROM dropped WHERE seq BETWEEN ? AND ? GROUP BY seq", [numbers[0], numbers[-1]]
    ).fetchall()
    places: dict[int, list[int]] = dict(found)
    for name in ("negatives", "negative_hashes") if places else ():
        lists = [
            [item for place, item in enumerate(items) if place not in places.get(seq, ())]
            for seq, items in zip(numbers, table[name].to_pylist(), strict=True)
        ]
        field = STAGED_SCHEMA.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(lists, field.type))
    writer.write_table(table.cast(STAGED_SCHEMA))


def _choose(connection: duckdb.DuckDBPyConnection, rows: Path, negatives: Path) -> None:
    """Create `chosen`: at most `MAX_NEGATIVES` texts per query, each with its `query` and `hash`.

    Texts are left out of all but the last statement, so that it needs little memory.
    """
    staged, low = f"read_parquet({literal(rows)})", f"read_parquet({literal(negatives)})"
    connection.execute(
        f"CREATE TABLE pairs AS SELECT query_hash::UUID AS query, positive_hash::UUID AS hash FROM {staged}"
    )
    connection.execute(
        f"""
        CREATE TABLE places AS
        WITH fresh AS (
            SELECT query, hash, arg_min(seq, rank) AS seq
            FROM (SELECT query_hash::UUID AS query, text_hash::UUID AS hash, seq, rank FROM {low})
            SEMI JOIN pairs USING (query) ANTI JOIN pairs USING (query, hash)
            GROUP BY query, hash
        )
        SELECT query, hash, seq FROM fresh
        QUALIFY row_number() OVER (PARTITION BY query ORDER BY hash) <= {MAX_NEGATIVES}
        """
    )
    connection.execute(
        f"CREATE TABLE chosen AS SELECT query, hash, text FROM places JOIN (SELECT seq, text FROM {low}) USING (seq)"
    )


def _write_added(connection: duckdb.DuckDBPyConnection, table: Any, writer: Any) -> None:
    """Write rows with their negatives, in pieces of bounded size."""
    connection.register("slice_rows", table.select(["query_hash"]))
    found = connection.execute(
        """
        SELECT replace(query::VARCHAR, '-', ''), list(text ORDER BY hash)
        FROM chosen SEMI JOIN (SELECT query_hash::UUID AS query FROM slice_rows) USING (query) GROUP BY query
        """
    ).fetchall()
    connection.unregister("slice_rows")
    texts: dict[str, list[str]] = dict(found)
    place, lists = table.schema.get_field_index("negatives"), []
    first = size = 0
    for end, (query, own) in enumerate(
        zip(table["query_hash"].to_pylist(), table["negatives"].to_pylist(), strict=True), start=1
    ):
        lists.append(own + [text for text in texts.get(query.hex(), []) if text not in own])
        size += sum(map(len, lists[-1]))
        if size >= PIECE_BYTES or end == table.num_rows:
            column = pa.array(lists, STAGED_SCHEMA.field("negatives").type)
            part = table.slice(first, end - first).set_column(place, STAGED_SCHEMA.field("negatives"), column)
            writer.write_table(part.cast(STAGED_SCHEMA))
            lists, first, size = [], end, 0
