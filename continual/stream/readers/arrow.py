"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.errors import DataError
from continual.stream.readers.arrays import dense, pieces, to_piece
from continual.stream.readers.base import PIECE_BYTES, Piece, file_sha256, file_stem
from continual.stream.readers.bounds import check_growth, check_names
from continual.stream.readers.column_types import check_types
from continual.stream.readers.measure import largest_row
from continual.stream.schema import Mapping

MAGIC = b"PAR1"
READ_BUFFER = 1 << 20
SKEW = 4
"""How many times larger than the mean the rows that are decoded together may be without being more than a piece."""
FREE_BYTES = 256 << 20
"""Bytes that the texts of a column in a row group may take whatever is stored; pages are decompressed as a whole."""
UNCODED = {"DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"}
"""Encodings that Arrow can't read as dictionaries."""
PREFIXED = "DELTA_BYTE_ARRAY"
"""The encoding in which a text can be the one before it, without taking any bytes."""


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
        """Yield all rows with texts as dictionaries, or as plain texts where Arrow can't read them so.

        A dictionary is decoded when the sizes of its rows are known; plain texts that Arrow decodes can fill the
        memory, so their rows are measured before.
        """
        # Without pre-buffering, a column chunk is streamed through a small buffer, not read whole.
        options: dict[str, Any] = {"buffer_size": READ_BUFFER, "pre_buffer": False}
        with pq.ParquetFile(self.path, **options) as plain:
            leaves = _leaves(plain.metadata, columns)
            coded_leaves = [leaf.path for leaf in leaves if leaf.text and not leaf.encodings & UNCODED]
            with pq.ParquetFile(self.path, **options, read_dictionary=coded_leaves) as coded:
                first = 0
                for number in range(plain.num_row_groups):
                    group = plain.metadata.row_group(number)
                    rows = min(batch_rows, self._group_rows(group, leaves, first))
                    part = {"row_groups": [number], "columns": columns, "use_threads": False}
                    done = 0
                    try:
                        for batch in coded.iter_batches(batch_size=rows, **part):
                            yield batch
                            done += batch.num_rows
                    except pa.ArrowNotImplementedError:  # a list with values of a dictionary, and plain ones after them
                        lists = [leaf.column for leaf in leaves if leaf.text and leaf.repeated]
                        rows = min(rows, self._measured(lists, first, group.num_rows))
                        for batch in plain.iter_batches(batch_size=rows, **part):
                            yield batch.slice(min(done, batch.num_rows))
                            done -= min(done, batch.num_rows)
                    first += group.num_rows

    def _group_rows(self, group: Any, leaves: Sequence[_Leaf], first: int) -> int:
        """Return how many rows of a row group to decode at a time.

        Raises:
            DataError: A column takes too much memory.
        """
        size = 0
        for leaf in leaves:
            chunk = group.column(leaf.place)
            decoded = max(chunk.total_uncompressed_size, chunk.total_compressed_size)
            decoded += 8 * chunk.num_values if leaf.repeated else 0
            check_growth(self.path, decoded, chunk.total_compressed_size, FREE_BYTES)
            size += decoded
        rows: int = max(1, PIECE_BYTES * group.num_rows // (SKEW * max(1, size)))
        uncoded = [leaf for leaf in leaves if leaf.text and leaf.encodings & UNCODED]
        if any(PREFIXED in leaf.encodings and not leaf.repeated for leaf in uncoded):
            return 1
        lists = [leaf.column for leaf in uncoded if leaf.repeated]
        return min(rows, self._measured(lists, first, group.num_rows)) if lists else rows

    def _measured(self, lists: Sequence[str], first: int, rows: int) -> int:
        """Return how many rows of a row group to decode at a time by their measured sizes."""
        return max(1, PIECE_BYTES // max(1, largest_row(self.path, lists, first, rows)))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A column of values in a Parquet file.

    Attributes:
        place: Position among the columns of values.
        path: Its path, such as "negatives.list.element".
        column: The column that it belongs to.
        repeated: Whether it is in a list.
        text: Whether its values are texts, or other bytes.
        encodings: Names of the encodings of its pages.
    """

    place: int
    path: str
    column: str
    repeated: bool
    text: bool
    encodings: frozenset[str]


def _leaves(metadata: Any, columns: Sequence[str]) -> list[_Leaf]:
    """Return the columns of values that belong to some columns."""
    found = []
    for place in range(metadata.num_columns):
        leaf = metadata.schema.column(place)
        column = next((name for name in columns if f"{leaf.path}.".startswith(f"{name}.")), None)
        if column is not None:
            chunks = (metadata.row_group(group).column(place) for group in range(metadata.num_row_groups))
            encodings = frozenset(encoding for chunk in chunks for encoding in chunk.encodings)
            repeated, text = bool(leaf.max_repetition_level), leaf.physical_type == "BYTE_ARRAY"
            found.append(_Leaf(place, leaf.path, column, repeated, text, encodings))
    return found


def _unreadable(name: str, error: Exception) -> DataError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(f"{name} is damaged and cannot be read as Parquet: {lines[0]}. Copy or write it again.")
