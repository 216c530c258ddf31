"""Write rows in the order of their hash, in bounded memory.

Hashes are uniform, so equal ranges of hashes hold about the same number of rows. The rows are divided into enough
ranges for one to fit in memory, and the ranges are sorted one at a time. DuckDB's own sort of two million rows with
their texts needs more memory than `database` allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.progress import Progress
from continual.stream.ahead import ahead
from continual.stream.hashers import hash_bytes_of, hex_column
from continual.stream.stage import BATCH_SCHEMA, GRADED_SCHEMA, STAGED_SCHEMA

FORMAT: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["doc_id"], "write_statistics": ["row_hash"]}
"""Options of the Parquet writer of stored rows, which are only looked up by their hash."""

GROUP_ROWS = 10_000
"""Rows per row group, the unit in which a replay window is read; fewer if they take more than `RANGE_BYTES`."""
RANGE_BYTES = 32 << 20
"""Approximate bytes of text that are sorted at a time."""
HEX_BYTES = 80
"""Bytes of a row that its hashes take more as hex digits than in the staging file."""
MAX_RANGES = 200
"""Largest number of open files; above `MAX_RANGES * RANGE_BYTES` (6 GB) of text the ranges grow instead."""


def write_rows(
    staged: Path,
    kept: npt.NDArray[np.bool_],
    target: Path,
    work: Path,
    progress: Progress,
    grades: tuple[float, float] | None = None,
) -> None:
    """Write the kept rows of a staging file in the order of their hash: Parquet, zstd, `BATCH_SCHEMA`.

    Args:
        staged: The staging file.
        kept: Which of its rows to write, of shape `(rows,)`.
        target: The file to write.
        work: Folder for temporary files.
        progress: Reports rows written.
        grades: Of graded pairs, the smallest and largest possible score, which are written as 0 and 1; the schema is
            `GRADED_SCHEMA`.
    """
    schema = BATCH_SCHEMA if grades is None else GRADED_SCHEMA
    rows = int(kept.sum())
    progress.start("writing rows", rows, "rows")
    with pq.ParquetFile(staged, buffer_size=1 << 20, pre_buffer=False) as file:
        groups = range(file.num_row_groups)
        size = sum(file.metadata.row_group(group).total_byte_size for group in groups) + len(kept) * HEX_BYTES
    size *= kept.mean()
    group_rows = max(1, min(GROUP_ROWS, int(rows * RANGE_BYTES / size)))
    ranges = min(MAX_RANGES, max(1, math.ceil(size / RANGE_BYTES)))
    with pq.ParquetWriter(target, schema, **FORMAT) as writer:
        rest = schema.empty_table()
        tables = _ranges(ahead(_kept(staged, kept, grades)), _as_staged(schema), work, ranges)
        for table in ahead(map(_sorted, tables)):
            rest = pa.concat_tables([rest, table.cast(schema)])
            whole = rest.num_rows // group_rows * group_rows
            if whole:  # an empty table would add an empty row group
                writer.write_table(rest.slice(0, whole), row_group_size=group_rows)
                rest = rest.slice(whole)
            progress.advance(table.num_rows)
        if rest.num_rows:
            writer.write_table(rest)
    progress.finish()


def _ranges(tables: Iterator[Any], schema: Any, work: Path, ranges: int) -> Iterator[Any]:
    """Yield the rows of tables as one table per range of hashes, in the order of the ranges."""
    if ranges == 1:
        yield pa.concat_tables(tables)
        return
    bounds = np.array([math.ceil(place * 0x10000 / ranges) for place in range(1, ranges)], np.uint64)
    files = [work / f"range-{place}.arrow" for place in range(ranges)]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pa.ipc.new_stream(stack.enter_context(pa.OSFile(str(file), "wb")), schema, options=options)
            )
            for file in files
        ]
        for table in tables:
            places = np.searchsorted(bounds, _leading_bits(table) >> np.uint64(48), side="right").astype(np.uint8)
            table = table.take(pa.array(np.argsort(places, kind="stable")))
            cuts = [0, *np.cumsum(np.bincount(places, minlength=ranges)).tolist()]
            for writer, begin, end in zip(writers, cuts, cuts[1:], strict=False):
                if begin < end:
                    writer.write_table(table.slice(begin, end - begin))
    for path in files:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            table = reader.read_all()
        path.unlink()
        yield table


def _as_staged(schema: Any) -> Any:
    """Return the schema of stored rows with hashes as bytes."""
    return pa.schema([field.with_type(STAGED_SCHEMA.field(field.name).type) for field in schema])


def _sorted(table: Any) -> Any:
    """Return rows in the order of their hash, and with the digits of their hashes."""
    if not table.num_rows:
        return table
    bits = _leading_bits(table)
    order = np.argsort(bits)
    if (bits[order[1:]] == bits[order[:-1]]).any():
        order = pc.sort_indices(table["row_hash"]).to_numpy()
    (batch,) = table.combine_chunks().take(pa.array(order)).to_batches()
    columns = {name: hex_column(batch[name]) if name.endswith("_hash") else batch[name] for name in table.column_names}
    return pa.table(columns)


def _leading_bits(table: Any) -> npt.NDArray[np.uint64]:
    """Return the first 64 bits of the hash of each row."""
    words = np.frombuffer(hash_bytes_of(pa.concat_arrays(table["row_hash"].chunks)), ">u8")
    return words[::2].astype(np.uint64)


def _kept(staged: Path, kept: npt.NDArray[np.bool_], grades: tuple[float, float] | None) -> Iterator[Any]:
    """Yield the kept rows of each row group, with scores between 0 and 1 if they are graded."""
    first, schema = 0, _as_staged(BATCH_SCHEMA if grades is None else GRADED_SCHEMA)
    with pq.ParquetFile(staged, buffer_size=1 << 20, pre_buffer=False) as file:
        # A row group is one piece of the source, so its size in bytes is bounded.
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=schema.names, use_threads=False)
            mask = pa.array(kept[first : first + table.num_rows])
            first += table.num_rows
            table = table.filter(mask)
            if grades is not None:
                shares = pc.divide(pc.subtract(table["score"], grades[0]), grades[1] - grades[0])
                # A limit that was rounded as the column is may be beyond the range by a hair.
                shares = pc.min_element_wise(pc.max_element_wise(shares, 0.0), 1.0)
                table = table.set_column(table.column_names.index("score"), "score", shares)
            yield table.cast(schema)
