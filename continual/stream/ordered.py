"""Write rows in the order of their hash, in bounded memory.

Hashes are uniform, so equal ranges of hashes hold about the same number of rows. The rows are divided into enough
ranges for one to fit in memory, and the ranges are sorted one at a time. DuckDB's own sort of two million rows with
their texts needs more memory than `database` allows.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from continual.progress import Progress
from continual.stream.stage import BATCH_SCHEMA

GROUP_ROWS = 10_000
"""Rows per row group, the unit in which a replay window is read; fewer if they take more than `RANGE_BYTES`."""
RANGE_BYTES = 32 << 20
"""Approximate bytes of text that are sorted at a time."""
MAX_RANGES = 200
"""Largest number of open files; above `MAX_RANGES * RANGE_BYTES` (6 GB) of text the ranges grow instead."""


def write_rows(staged: Path, kept: npt.NDArray[np.bool_], target: Path, work: Path, progress: Progress) -> None:
    """Write the kept rows of a staging file in the order of their hash: Parquet, zstd, `BATCH_SCHEMA`.

    Args:
        staged: The staging file.
        kept: Which of its rows to write, of shape `(rows,)`.
        target: The file to write.
        work: Folder for temporary files.
        progress: Reports rows written.
    """
    rows = int(kept.sum())
    progress.start("writing rows", rows, "rows")
    with pq.ParquetFile(staged, buffer_size=1 << 20, pre_buffer=False) as file:
        groups = range(file.num_row_groups)
        size = sum(file.metadata.row_group(group).total_byte_size for group in groups) * kept.mean()
    group_rows = max(1, min(GROUP_ROWS, int(rows * RANGE_BYTES / size)))
    ranges = min(MAX_RANGES, max(1, math.ceil(size / RANGE_BYTES)))
    with pq.ParquetWriter(target, BATCH_SCHEMA, compression="zstd", use_dictionary=["doc_id"]) as writer:
        rest = BATCH_SCHEMA.empty_table()
        for table in _ranges(staged, kept, work, ranges):
            rest = pa.concat_tables([rest, table.sort_by("row_hash")])
            whole = rest.num_rows // group_rows * group_rows
            if whole:  # an empty table would add an empty row group
                writer.write_table(rest.slice(0, whole), row_group_size=group_rows)
                rest = rest.slice(whole)
            progress.advance(table.num_rows)
        if rest.num_rows:
            writer.write_table(rest)
    progress.finish()


def _ranges(staged: Path, kept: npt.NDArray[np.bool_], work: Path, ranges: int) -> Iterator[Any]:
    """Yield the kept rows as one table per range of hashes, in the order of the ranges."""
    if ranges == 1:
        yield pa.concat_tables(_kept(staged, kept))
        return
    bounds = [f"{math.ceil(place * 0x10000 / ranges):04x}" for place in range(1, ranges)]
    files = [work / f"range-{place}.arrow" for place in range(ranges)]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pa.ipc.new_stream(stack.enter_context(pa.OSFile(str(file), "wb")), BATCH_SCHEMA, options=options)
            )
            for file in files
        ]
        for table in _kept(staged, kept):
            table = table.sort_by("row_hash")
            hashes = table.column(0).to_pylist()
            cuts = [0, *(bisect_left(hashes, bound) for bound in bounds), len(hashes)]
            for writer, begin, end in zip(writers, cuts, cuts[1:], strict=False):
                if begin < end:
                    writer.write_table(table.slice(begin, end - begin))
    for path in files:
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as reader:
            table = reader.read_all()
        path.unlink()
        yield table


def _kept(staged: Path, kept: npt.NDArray[np.bool_]) -> Iterator[Any]:
    first = 0
    with pq.ParquetFile(staged, buffer_size=1 << 20, pre_buffer=False) as file:
        # A row group is one piece of the source, so its size in bytes is bounded.
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=BATCH_SCHEMA.names, use_threads=False)
            mask = pa.array(kept[first : first + table.num_rows])
            first += table.num_rows
            yield table.filter(mask).cast(BATCH_SCHEMA)
