"""Which rows are near duplicates of a task's texts: a filter over all rows, and an exact count for the few it passes.

A row that is near a text has at least the share `NEAR` of its shingles in common with it. So a row whose shingles the
tasks do not know for the most part is near nothing, and that is nearly every row: it is seen at a bitmap of the tasks'
shingles, of a fixed size whatever they hold. What passes is joined with the tasks in DuckDB. Nothing is
estimated: what is found is what comparing every row with every text would find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from continual.stream.database import literal
from continual.stream.shingles import TEXTS, Shingles, shingles

SHINGLES = "shingles.parquet"
SHINGLES_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), False),
        pa.field("text", pa.int32(), False),
        pa.field("size", pa.int32(), False),
        pa.field("shingle", pa.uint64(), False),
    ]
)
COLUMNS = {"query": "query", "document": "positive"}
"""What a row's text is compared with, and the column that it is in."""

NEAR = {"query": 0.8, "document": 0.9}
"""Jaccard similarity from which on two texts are near duplicates. Many documents are mostly what all pages of a site
have; a question is short, so that one word weighs more."""

SLACK = 1e-9


class Bitmap:
    """A set of shingles in a fixed number of bits; it may take one for known that is not, never the other way.

    Args:
        bits: Its logarithm; 27 are 16 MB, of which ten million shingles set a fourteenth.
    """

    def __init__(self, bits: int = 27) -> None:
        self._mask = np.uint64((1 << bits) - 1)
        self._bytes = np.zeros(1 << (bits - 3), np.uint8)

    def add(self, values: Shingles) -> None:
        """Add shingles."""
        places = values & self._mask
        np.bitwise_or.at(self._bytes, (places >> np.uint64(3)).astype(np.int64), self._bit(places))

    def has(self, values: Shingles) -> npt.NDArray[np.bool_]:
        """Return which shingles are known, of shape `(shingles,)`."""
        places = values & self._mask
        known: npt.NDArray[np.bool_] = (self._bytes[(places >> np.uint64(3)).astype(np.int64)] & self._bit(places)) != 0
        return known

    @staticmethod
    def _bit(places: Shingles) -> npt.NDArray[np.uint8]:
        return np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))


def write_shingles(path: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Write the shingles of a task's texts: `kind`, `text` (its number), `size` (its shingles), `shingle`.

    Args:
        path: The file.
        texts: By kind, "query" and "document".
    """
    with pq.ParquetWriter(path, SHINGLES_SCHEMA, compression="zstd", use_dictionary=["kind", "size"]) as writer:
        for kind, some in texts.items():
            for first in range(0, len(some), TEXTS):
                values, sizes = shingles(some[first : first + TEXTS])
                if len(values):
                    writer.write_table(_table(kind, np.arange(first, first + len(sizes)), sizes, values))


def _table(kind: str, texts: npt.NDArray[Any], sizes: npt.NDArray[np.int64], values: Shingles) -> Any:
    columns = [np.repeat(texts, sizes).astype(np.int32), np.repeat(sizes, sizes).astype(np.int32), values]
    return pa.table([pa.repeat(kind, len(values)), *columns], schema=SHINGLES_SCHEMA)


def find_near(connection: duckdb.DuckDBPyConnection, rows: Iterable[Any], tasks: Sequence[Path]) -> None:
    """Make the table `near`: `place` of a row and `task`, the place of a file in `tasks`, of each near duplicate.

    A row is near a task if its query is near a query of it, or its positive near a document that is relevant in it.

    Args:
        connection: Any database; it gets the tables `postings`, `candidates` and `near`.
        rows: Tables with the columns `place` (int64), `query` and `positive`, read once.
        tasks: Shingles of tasks, as `write_shingles` leaves them.
    """
    scans = [f"SELECT {number} AS task, * FROM read_parquet({literal(file)})" for number, file in enumerate(tasks)]
    none = "SELECT 0 AS task, ''::VARCHAR AS kind, 0 AS text, 0 AS size, 0::UBIGINT AS shingle WHERE false"
    connection.execute(f"CREATE OR REPLACE VIEW postings AS {' UNION ALL '.join(scans) or none}")
    connection.execute("CREATE OR REPLACE TABLE candidates (kind VARCHAR, place BIGINT, size INTEGER, shingle UBIGINT)")
    known = {kind: Bitmap() for kind in COLUMNS}
    for kind, bitmap in known.items():
        for batch in connection.sql(f"SELECT shingle FROM postings WHERE kind = '{kind}'").to_arrow_reader(1 << 20):
            bitmap.add(batch.column(0).to_numpy())
    for table in _pieces(rows):
        for kind, column in COLUMNS.items():
            _keep_candidates(connection, kind, known[kind], table["place"].to_numpy(), table[column].to_pylist())
    _count_exactly(connection)


def _pieces(rows: Iterable[Any]) -> Iterator[Any]:
    for table in rows:
        for first in range(0, table.num_rows, TEXTS):
            yield table.slice(first, TEXTS)


def _keep_candidates(
    connection: duckdb.DuckDBPyConnection, kind: str, known: Bitmap, places: npt.NDArray[np.int64], texts: list[str]
) -> None:
    """Keep the shingles of the texts that the tasks know enough of."""
    values, sizes = shingles(texts)
    owner = np.repeat(np.arange(len(texts)), sizes)
    shared = np.bincount(owner[known.has(values)], minlength=len(texts))
    enough = (sizes > 0) & (shared >= NEAR[kind] * sizes - SLACK)
    if enough.any():
        kept = enough[owner]
        found = pa.table(
            {"place": places[owner[kept]], "size": sizes[owner[kept]].astype(np.int32), "shingle": values[kept]}
        )
        connection.register("found", found)
        connection.execute(f"INSERT INTO candidates SELECT '{kind}', * FROM found")
        connection.unregister("found")


def _count_exactly(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `near` of `candidates` and `postings`.

    Of n shingles the other text must have at least `NEAR` n, so it has one of any n - `NEAR` n + 1. The rarest are
    taken, so that a template's common beginning does not pair all questions with all.
    """
    near = " ".join(f"WHEN '{kind}' THEN {share}" for kind, share in NEAR.items())
    least = f"(CASE kind {near} END)::DOUBLE"
    connection.execute(
        f"""
        CREATE OR REPLACE TABLE near AS
        WITH matching AS (SELECT * FROM postings SEMI JOIN candidates USING (kind, shingle)),
             frequency AS (SELECT kind, shingle, count(*) AS texts FROM matching GROUP BY ALL),
             ranked AS (
                 SELECT kind, place, size, shingle, row_number() OVER (
                     PARTITION BY kind, place ORDER BY coalesce(texts, 0), shingle
                 ) AS number
                 FROM candidates LEFT JOIN frequency USING (kind, shingle)
             ),
             pairs AS (
                 SELECT DISTINCT kind, place, ranked.size AS size, task, text, matching.size AS other
                 FROM ranked JOIN matching USING (kind, shingle)
                 WHERE number <= ranked.size - ceil({least} * ranked.size - {SLACK}) + 1
                   AND matching.size >= {least} * ranked.size - {SLACK}
                   AND ranked.size >= {least} * matching.size - {SLACK}
             ),
             shared AS (
                 SELECT kind, place, task, pairs.size AS size, other, count(*) AS common
                 FROM pairs
                 JOIN candidates USING (kind, place)
                 JOIN matching USING (kind, task, text, shingle)
                 GROUP BY kind, place, task, text, pairs.size, other
             )
        SELECT DISTINCT place, task FROM shared WHERE common >= {least} * (size + other - common) - {SLACK}
        """
    )
