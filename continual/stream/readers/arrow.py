"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.errors import DataError
from continual.stream.readers.arrays import dense, pieces, to_piece
from continual.stream.readers.base import PIECE_BYTES, Piece, file_sha256, file_stem
from continual.stream.readers.bounds import check_growth, check_names
from continual.stream.readers.column_types import check_types, is_list, is_text
from continual.stream.readers.measure import largest_row
from continual.stream.schema import Mapping

MAGIC = b"PAR1"
READ_BUFFER = 1 << 20
FREE_BYTES = 256 << 20
"""Bytes that a column of a row group may take whatever is stored; its pages are decompressed as a whole."""


class ParquetSource:
    """A Parquet file, read page by page so that a single huge row group takes no more memory than many small ones."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dialect: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.path = Path(name)
        self.stem = file_stem(self.path)
        with self.path.open("rb") as file:
            head = file.read(len(MAGIC))
            file.seek(-min(len(MAGIC), self.path.stat().st_size), 2)
            tail = file.read()
        if head != MAGIC:
            raise DataError(
                f"{name} is not a Parquet file: it does not begin with {MAGIC.decode()}. Rename it if it has another "
                "format, or write it again."
            )
        if tail != MAGIC:
            raise DataError(f"{name} is truncated: it begins as Parquet but its end is missing. Copy it again.")
        try:
            with pq.ParquetFile(self.path) as file:
                self.schema = file.schema_arrow
                self.rows: int | None = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(name, error) from None
        if not self.rows:
            raise DataError(f"{name} has no rows. Write it again with its rows.")
        self.columns = check_names(self.schema.names, name)

    def sha256(self) -> str:
        """Return the SHA-256 of the file."""
        return file_sha256(self.path)

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if a column's type cannot hold what the mapping takes from it."""
        check_types(self.schema, mapping, self.name)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order."""
        first = 1
        try:
            for batch in pieces(dense(self._batches(list(columns), batch_rows), self.name), batch_rows):
                yield to_piece(batch, columns, first)
                first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.name, error) from None

    def _batches(self, columns: list[str], batch_rows: int) -> Iterator[Any]:
        """Yield all rows, so many at a time that they take about `PIECE_BYTES`.

        Batches end with their row group: Arrow can't join the dictionaries of two in a list.
        """
        rows = min(batch_rows, self._rows_at_once(columns))
        # Without pre-buffering, a column chunk is streamed through a small buffer, not read whole.
        with pq.ParquetFile(self.path, buffer_size=READ_BUFFER, pre_buffer=False) as file:
            for number in range(file.num_row_groups):
                self._check_group(file.metadata, number, columns)
                yield from file.iter_batches(batch_size=rows, row_groups=[number], columns=columns, use_threads=False)

    def _rows_at_once(self, columns: Sequence[str]) -> int:
        """Return how many rows to decode at a time, by the size of the largest one.

        A file can be much smaller than its texts: by dictionaries, and by encodings that refer to the text before.

        Raises:
            DataError: The texts of a row take more than `ROW_BYTES`, or can't be measured.
        """
        kinds = {name: self.schema.field(name).type for name in columns}
        texts = [name for name, kind in kinds.items() if is_text(kind)]
        lists = [name for name, kind in kinds.items() if is_list(kind) and is_text(kind.value_type)]
        return max(1, PIECE_BYTES // max(1, largest_row(self.path, texts, lists)))

    def _check_group(self, metadata: Any, number: int, columns: Sequence[str]) -> None:
        """Raise `DataError` if a column of a row group may fill the memory while it is decompressed."""
        group = metadata.row_group(number)
        for place in range(metadata.num_columns):
            leaf, chunk = metadata.schema.column(place), group.column(place)
            if any(f"{leaf.path}.".startswith(f"{name}.") for name in columns):
                size = chunk.total_uncompressed_size + (8 * chunk.num_values if leaf.max_repetition_level else 0)
                check_growth(self.path, size, chunk.total_compressed_size, FREE_BYTES)


def _unreadable(name: str, error: Exception) -> DataError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(f"{name} is damaged and cannot be read as Parquet: {lines[0]}. Copy or write it again.")
