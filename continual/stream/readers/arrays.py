"""Arrow batches as pieces of bounded size: dictionaries are decoded when the sizes of their rows are known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from continual.stream.readers.base import PIECE_BYTES, Piece
from continual.stream.readers.bounds import ROW_BYTES, too_large
from continual.stream.readers.column_types import is_list, is_text


def dense(batches: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield batches with plain columns in place of dictionaries, in parts of at most about `PIECE_BYTES` bytes.

    Raises:
        DataError: The texts of a row take more than `ROW_BYTES`.
    """
    first = 1
    for batch in batches:
        sizes: Any = np.sum([_row_sizes(column) for column in batch.columns], axis=0, dtype=np.int64)
        if batch.num_rows and batch.num_columns and sizes.max() > ROW_BYTES:
            row = int(sizes.argmax())
            raise too_large(name, first + row, int(sizes[row]))
        if not any(_is_coded(column.type) for column in batch.columns):
            yield batch
        else:
            ends, start = np.cumsum(sizes), 0
            while start < len(sizes):
                before = ends[start - 1] if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, before + PIECE_BYTES, side="right")))
                columns = [_plain(column) for column in batch.slice(start, stop - start).columns]
                yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
                start = stop
        first += batch.num_rows


def _is_coded(column_type: Any) -> bool:
    """Return whether a type is a dictionary or a list of dictionary values."""
    return bool(types.is_dictionary(column_type.value_type if is_list(column_type) else column_type))


def _row_sizes(column: Any) -> Any:
    """Return the bytes that each row of a column takes when it is decoded, int64, [rows]; a number counts as 8."""
    if is_list(column.type):
        counts = _counts(column)
        totals = np.append(0, np.cumsum(_row_sizes(column.flatten())))
        ends = np.cumsum(counts)
        return totals[ends] - totals[ends - counts]
    if types.is_dictionary(column.type):
        known = np.append(_row_sizes(column.dictionary), 0)
        return known[pc.fill_null(column.indices, len(column.dictionary)).to_numpy(zero_copy_only=False)]
    if not is_text(column.type):
        return np.full(len(column), 8, np.int64)
    if types.is_string_view(column.type):
        column = column.cast(pa.large_string())  # binary_length takes no views
    return pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _counts(column: Any) -> Any:
    """Return the number of items in each list of a column, int64, [rows]; 0 for a missing list."""
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _plain(column: Any) -> Any:
    """Return a column with its dictionary values decoded; other columns as they are."""
    if not _is_coded(column.type):
        return column
    if not is_list(column.type):
        return column.cast(column.type.value_type)
    items = column.flatten()
    offsets = pa.array(np.append(0, np.cumsum(_counts(column))), pa.int64())
    missing = pc.is_null(column) if column.null_count else None
    return pa.LargeListArray.from_arrays(offsets, items.cast(items.type.value_type), mask=missing)


def pieces(batches: Iterable[Any], batch_rows: int) -> Iterator[Any]:
    """Yield the rows of small batches again, in batches of at most `batch_rows` rows and about `PIECE_BYTES` bytes."""
    waiting: list[Any] = []
    rows = size = 0
    for batch in batches:
        full = rows + batch.num_rows > batch_rows or size + batch.nbytes > PIECE_BYTES
        if waiting and (full or batch.schema != waiting[0].schema):
            yield _joined(waiting)
            waiting, rows, size = [], 0, 0
        if batch.nbytes > PIECE_BYTES and batch.num_rows > 1:
            yield from _halves(batch)
            continue
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[Any]) -> Any:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _halves(batch: Any) -> Iterator[Any]:
    """Yield a batch in parts of at most `PIECE_BYTES` bytes, or of one row."""
    if batch.nbytes <= PIECE_BYTES or batch.num_rows == 1:
        yield batch
        return
    middle = batch.num_rows // 2
    yield from _halves(batch.slice(0, middle))
    yield from _halves(batch.slice(middle))


def to_piece(batch: Any, columns: Sequence[str], first: int) -> Piece:
    """Return these columns of a batch as a piece; `first` is the number of its first row."""
    arrays = {name: batch.column(batch.schema.get_field_index(name)) for name in columns}
    return Piece(range(first, first + batch.num_rows), ArrowColumns(arrays))


class ArrowColumns(Mapping[str, list[Any]]):
    """Columns of Arrow arrays, which become Python values when they are asked for."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = arrays
        self._values: dict[str, list[Any]] = {}

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self._values:
            self._values[name] = _values(self.arrays[name])
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def some_columns(columns: Mapping[str, list[Any]], names: Sequence[str]) -> Mapping[str, list[Any]]:
    """Return some columns of a piece."""
    if isinstance(columns, ArrowColumns):
        return ArrowColumns({name: columns.arrays[name] for name in names})
    return {name: columns[name] for name in names}


def some_rows(piece: Piece, places: Sequence[int]) -> Piece:
    """Return some rows of a piece, by their places in ascending order."""
    columns: Mapping[str, list[Any]]
    try:
        taken = pa.array(places, pa.int64())
        arrays = piece.columns.arrays if isinstance(piece.columns, ArrowColumns) else {}
        columns = ArrowColumns({name: array.take(taken) for name, array in arrays.items()})
    except pa.ArrowNotImplementedError:  # views of texts can't be taken
        columns = {}
    if not columns:
        columns = {name: [values[place] for place in places] for name, values in piece.columns.items()}
    faults = {number: piece.faults[place] for number, place in enumerate(places) if place in piece.faults}
    return Piece([piece.numbers[place] for place in places], columns, faults, piece.file)


def _values(array: Any) -> list[Any]:
    """Return an array as Python values; text that is not valid UTF-8 stays bytes, so that its row is rejected."""
    if is_list(array.type) and is_text(array.type.value_type) and not types.is_fixed_size_list(array.type):
        # A list array's own to_pylist creates a scalar per item and takes several times as long.
        start = array.offsets[0].as_py() if len(array) else 0
        stop = array.offsets[len(array)].as_py() if len(array) else 0
        items = _values(array.values.slice(start, stop - start))
        offsets = array.offsets.to_pylist()
        valid = array.is_valid().to_pylist()
        return [items[offsets[i] - start : offsets[i + 1] - start] if ok else None for i, ok in enumerate(valid)]
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        plain = array.cast(array.type.value_type) if types.is_dictionary(array.type) else array
        raw = plain.view(pa.large_binary() if types.is_large_string(plain.type) else pa.binary()).to_pylist()
        return [_decoded(value) for value in raw]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value
