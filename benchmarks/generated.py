"""Files of generated rows for the benchmarks of data: pairs to ingest, and rows as a workspace stores them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.registry import Batch, Registry
from continual.registry.catalog import now

VOCABULARY = 20_000
PIECE_ROWS = 50_000
REPEATED = 0.01
ROW_GROUP = 10_240
"""Rows per row group of stored rows; DuckDB writes multiples of 2,048, and an ingest writes 10,000."""


def write_pairs(path: Path, rows: int, group_rows: int, *, negatives: bool, seed: int = 0) -> None:
    """Write pairs of random words: queries of 5 to 15 words (35 to 105 characters), positives of 7 to 57 (50 to 400).

    One row in a hundred repeats an earlier one, and every two rows share a document id. With `negatives`, each row has
    one, as long as a positive.
    """
    rng = np.random.default_rng(seed)
    letters = rng.integers(ord("a"), ord("z") + 1, (VOCABULARY, 9), np.uint8)
    words = pa.array([bytes(row[: 3 + n % 7]).decode() for n, row in enumerate(letters)])
    writer = None
    for first in range(0, rows, PIECE_ROWS):
        count = min(PIECE_ROWS, rows - first)
        columns = {"query": _texts(rng, words, count, 5, 15), "positive": _texts(rng, words, count, 7, 57)}
        if negatives:
            ends = pa.array(np.arange(count + 1, dtype=np.int32))
            columns["negatives"] = pa.ListArray.from_arrays(ends, _texts(rng, words, count, 7, 57))
        columns["doc_id"] = pc.binary_join_element_wise(
            "d", pa.array(np.arange(first, first + count) // 2).cast("string"), ""
        )
        places = np.arange(count)
        again = rng.random(count) < REPEATED
        places[again] = rng.integers(0, count, int(again.sum()))
        table = pa.table(columns).take(pa.array(places))
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=group_rows)
    assert writer is not None
    writer.close()


def _texts(rng: np.random.Generator, words: pa.Array, count: int, least: int, most: int) -> pa.Array:
    lengths = rng.integers(least, most + 1, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    chosen = words.take(pa.array(rng.integers(0, len(words), offsets[-1])))
    return pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), chosen), " ")


def make_store(root: Path, rows: int, words: int) -> None:
    """Make the `.continual` folder of a workspace whose one domain, "bench", holds generated rows; see `add_stored`."""
    root.mkdir(parents=True)
    registry = Registry(root)
    registry.catalog.create()
    add_stored(registry, "bench", rows, words)


def add_stored(registry: Registry, domain: str, rows: int, words: int) -> Batch:
    """Add a batch of stored rows to a workspace without ingesting them.

    DuckDB writes the file, with the columns, order, compression and nearly the row groups of those that an ingest
    writes. Its hashes are evenly spaced and are not those of its texts; rows have no negatives and no document ids.

    Args:
        registry: Registry of the workspace.
        domain: Name of the domain.
        rows: Number of rows.
        words: Words of a positive, of 16 letters and digits each; a query has one.
    """
    identity = registry.next_batch_id()
    path = registry.path(f"data/{domain}/{identity}.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    step = (1 << 64) // rows
    positive = " || ' ' || ".join(f"to_hex(hash(i + {1000 * number}))" for number in range(1, words + 1))
    with duckdb.connect(config={"memory_limit": "1GB"}) as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.execute(
            f"""
            COPY (
                SELECT printf('%016x', i::UBIGINT * {step}) || md5(i::VARCHAR)[:16] AS row_hash,
                    to_hex(hash(i)) AS query, {positive} AS positive,
                    []::VARCHAR[] AS negatives, NULL::VARCHAR AS doc_id,
                    md5('q' || i) AS query_hash, md5('p' || i) AS positive_hash
                FROM range({rows}) AS numbers(i)
            ) TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})
            """
        )
    batch = Batch(
        id=identity,
        domain=domain,
        source="generated",
        source_sha256="0" * 64,
        path=f"data/{domain}/{identity}.parquet",
        rows_in=rows,
        kept=rows,
        duplicates=0,
        leaked=0,
        rejected=0,
        held_out=0,
        rejects_path=None,
        columns={},
        created_at=now(),
        license=None,
    )
    return registry.add_batch(batch)
