"""Rows that are near duplicates of a task's texts: a filter over all rows, then an exact count for the few that pass.

A near duplicate shares at least the fraction `NEAR` of its shingles with the other text. Most rows share far fewer with
any task, and a bitmap of the tasks' shingles, of a fixed size, filters them out. Rows that pass are joined with the
tasks in DuckDB. The result is exact: the same as from comparing every row with every text.
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

from continual.stream.ahead import mapped
from continual.stream.database import literal
from continual.stream.shingles import TEXTS, Indices, Shingles, first_shingles, shingles

SHINGLES = "shingles.parquet"
SHINGLES_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), False),
        pa.field("text", pa.int32(), False),
        pa.field("size", pa.int32(), False),
        pa.field("shingle", pa.uint64(), False),
    ]
)
COLUMNS = ("query", "positive")
"""The columns of a row that are compared with the queries and the documents of a task."""
KINDS = ("query", "document")

NEAR = {"query": 0.8, "document": 0.9}
"""Lowest Jaccard similarity of near duplicates. It is higher for documents, because many share most of their text with
all pages of a site, and lower for queries, because they are short and a single word weighs more."""

SLACK = 1e-9
"""Tolerance for rounding when a similarity is compared with its limit."""


class Bitmap:
    """A set of shingles in a fixed number of bits, with false positives but no false negatives.

    Args:
        bits: Base-2 logarithm of the number of bits; 27 takes 16 MB, and ten million shingles set a fourteenth of it.
    """

    def __init__(self, bits: int = 27) -> None:
        self._mask = np.uint64((1 << bits) - 1)
        self._bytes = np.zeros(1 << (bits - 3), np.uint8)

    def add(self, values: Shingles) -> None:
        """Add shingles to the set."""
        places = values & self._mask
        np.bitwise_or.at(self._bytes, (places >> np.uint64(3)).astype(np.int64), self._bit(places))

    def has(self, values: Shingles) -> npt.NDArray[np.bool_]:
        """Return which shingles are in the set, of shape `(shingles,)`."""
        places = values & self._mask
        inside: npt.NDArray[np.bool_] = (
            self._bytes[(places >> np.uint64(3)).astype(np.int64)] & self._bit(places)
        ) != 0
        return inside

    @staticmethod
    def _bit(places: Shingles) -> npt.NDArray[np.uint8]:
        return np.left_shift(np.uint8(1), (places & np.uint64(7)).astype(np.uint8))


def write_shingles(path: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Write the shingles of a task's texts.

    The columns are `kind` ("query" or "document"), `text` (its number), `size` (its number of shingles) and `shingle`.

    Args:
        path: The file to write.
        texts: Lists of texts by kind, "query" and "document".
    """
    with pq.ParquetWriter(path, SHINGLES_SCHEMA, compression="zstd", use_dictionary=["kind", "size"]) as writer:
        for text_kind, of_kind in texts.items():
            for first in range(0, len(of_kind), TEXTS):
                values, sizes = shingles(of_kind[first : first + TEXTS])
                if len(values):
                    writer.write_table(_table(text_kind, np.arange(first, first + len(sizes)), sizes, values))


def _table(text_kind: str, texts: npt.NDArray[Any], sizes: npt.NDArray[np.int64], values: Shingles) -> Any:
    columns = [np.repeat(texts, sizes).astype(np.int32), np.repeat(sizes, sizes).astype(np.int32), values]
    return pa.table([pa.repeat(text_kind, len(values)), *columns], schema=SHINGLES_SCHEMA)


def find_near(connection: duckdb.DuckDBPyConnection, rows: Iterable[Any], tasks: Sequence[Path]) -> None:
    """Create the table `near`: one row per near duplicate, with its `place` and `task`, an index into `tasks`.

    A row is near a task if its query or its positive is near a query of the task, or near a document that is relevant
    in it: of pairs that mean the same, either text can be the query.

    Args:
        connection: Any database; it gets the view `postings` and the tables `candidates` and `near`.
        rows: Tables with the columns `place` (int64), `query` and `positive`; iterated once.
        tasks: Files written by `write_shingles`.
    """
    scans = [f"SELECT {number} AS task, * FROM read_parquet({literal(file)})" for number, file in enumerate(tasks)]
    none = "SELECT 0 AS task, ''::VARCHAR AS kind, 0 AS text, 0 AS size, 0::UBIGINT AS shingle WHERE false"
    connection.execute(f"CREATE OR REPLACE VIEW postings AS {' UNION ALL '.join(scans) or none}")
    connection.execute("CREATE OR REPLACE TABLE candidates (kind VARCHAR, place BIGINT, size INTEGER, shingle UBIGINT)")
    bitmaps = {text_kind: Bitmap() for text_kind in KINDS}
    for text_kind, bitmap in bitmaps.items():
        query = f"SELECT shingle FROM postings WHERE kind = '{text_kind}'"
        for batch in connection.sql(query).to_arrow_reader(1 << 20):
            bitmap.add(batch.column(0).to_numpy())
    for table, chosen in mapped(lambda table: (table, _possible(table, bitmaps)), _pieces(rows)):
        for number, column in enumerate(COLUMNS):
            if not len(chosen[column]):
                continue
            places = table["place"].to_numpy()[chosen[column]] * len(COLUMNS) + number  # a number for each text
            values, sizes = shingles(table[column].take(pa.array(chosen[column])).to_pylist())
            for text_kind, bitmap in bitmaps.items():
                _keep_candidates(connection, text_kind, bitmap, places, values, sizes)
    _count_exactly(connection)


def _pieces(rows: Iterable[Any]) -> Iterator[Any]:
    for table in rows:
        for first in range(0, table.num_rows, TEXTS):
            yield table.slice(first, TEXTS)


def _possible(table: Any, bitmaps: Mapping[str, Bitmap]) -> dict[str, Indices]:
    """Return which texts of each column may be near duplicates, by the shingles at their beginning.

    Of a near duplicate's shingles, all but the share `NEAR` can be others than the task's. A text that has more of them
    at its beginning alone is none, whatever follows.
    """
    possible = {}
    for column in COLUMNS:
        texts = pa.concat_arrays(table[column].cast(pa.string()).chunks)
        values, owner, most = first_shingles(texts, 1 - min(NEAR.values()))
        kept = np.zeros(len(texts), np.bool_)
        for text_kind, bitmap in bitmaps.items():
            others = np.bincount(owner[~bitmap.has(values)], minlength=len(texts))
            kept |= (most > 0) & (others <= (1 - NEAR[text_kind]) * most + SLACK)
        possible[column] = np.flatnonzero(kept)
    return possible


def _keep_candidates(
    connection: duckdb.DuckDBPyConnection,
    text_kind: str,
    task_shingles: Bitmap,
    places: npt.NDArray[np.int64],
    values: Shingles,
    sizes: npt.NDArray[np.int64],
) -> None:
    """Add to `candidates` the shingles of texts that share enough of them with the tasks."""
    owner = np.repeat(np.arange(len(sizes)), sizes)
    shared = np.bincount(owner[task_shingles.has(values)], minlength=len(sizes))
    enough = (sizes > 0) & (shared >= NEAR[text_kind] * sizes - SLACK)
    if enough.any():
        kept = enough[owner]
        rows = pa.table(
            {"place": places[owner[kept]], "size": sizes[owner[kept]].astype(np.int32), "shingle": values[kept]}
        )
        connection.register("new_candidates", rows)
        connection.execute(f"INSERT INTO candidates SELECT '{text_kind}', * FROM new_candidates")
        connection.unregister("new_candidates")


def _count_exactly(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `near` from `candidates` and `postings`.

    A near duplicate of a text with n shingles has at least `NEAR` n of them, so it has at least one of any
    n - `NEAR` n + 1. The pairs to compare are those that share one of a text's rarest n - `NEAR` n + 1 shingles: common
    ones, such as the beginning of a template, would pair every question with every other.
    """
    near = " ".join(f"WHEN '{text_kind}' THEN {share}" for text_kind, share in NEAR.items())
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
        SELECT DISTINCT place // {len(COLUMNS)} AS place, task FROM shared
        WHERE common >= {least} * (size + other - common) - {SLACK}
        """
    )
