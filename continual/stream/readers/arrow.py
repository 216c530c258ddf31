"""Typed sources: Parquet files, and data sets loaded by the `datasets` library."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from continual.errors import DataError
from continual.stream.readers.base import (
    HUB,
    PIECE_BYTES,
    Piece,
    file_sha256,
    file_stem,
)
from continual.stream.schema import Mapping

MAGIC = b"PAR1"
READ_BUFFER = 1 << 20
FEW_ROWS = 16
"""Rows that are decoded at a time whatever their size."""
ROW_BYTES = 64 << 20
"""Most bytes of texts of a row; a file can hold one text and refer to it any number of times."""


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
                self._batch_rows = _batch_rows(file.metadata, self.schema)
                self._coded = _coded_lists(file.metadata)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(name, error) from None
        if not self.rows:
            raise DataError(f"{name} has no rows. Write it again with its rows.")
        self.columns = _columns(self.schema, name)

    def sha256(self) -> str:
        """Return the SHA-256 of the file."""
        return file_sha256(self.path)

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if a column's type cannot hold what the mapping takes from it."""
        check_types(self.schema, mapping, self.name)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order."""
        size = min(batch_rows, self._batch_rows)
        first = 1
        try:
            for batch in _pieces(_dense(self._batches(list(columns), size), self.name), batch_rows):
                yield _piece(batch, columns, first)
                first += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.name, error) from None

    def _batches(self, columns: list[str], size: int) -> Iterator[Any]:
        """Yield all rows with lists of texts as dictionaries, or as plain lists where Arrow can't read them so.

        A batch with the dictionaries of two row groups is one that it can't read, so groups are read one by one.
        """
        # Without pre-buffering, a column chunk is streamed through a small buffer, not read whole.
        options: dict[str, Any] = {"buffer_size": READ_BUFFER, "pre_buffer": False}
        with (
            pq.ParquetFile(self.path, **options, read_dictionary=self._coded) as coded,
            pq.ParquetFile(self.path, **options) as plain,
        ):
            for group in range(plain.num_row_groups):
                part: dict[str, Any] = {"batch_size": size, "row_groups": [group], "columns": columns}
                done = 0
                try:
                    for batch in coded.iter_batches(**part, use_threads=False):
                        yield batch
                        done += batch.num_rows
                except pa.ArrowNotImplementedError:
                    for batch in plain.iter_batches(**part, use_threads=False):
                        yield batch.slice(min(done, batch.num_rows))
                        done -= min(done, batch.num_rows)


def _batch_rows(metadata: Any, schema: Any) -> int:
    """Return how many rows to decode at a time.

    A dictionary-encoded file can be much smaller than its texts: each row may hold the longest value of a column. One
    value is never larger than what its column takes uncompressed. Columns that are dictionaries in Arrow too stay so
    until `_dense`; each batch holds their whole dictionary, so there must be few batches.
    """
    groups = [metadata.row_group(place) for place in range(metadata.num_row_groups)]
    sizes: list[int] = [group.total_byte_size for group in groups]
    if any(types.is_dictionary(column.type) for column in schema):
        rows: int = metadata.num_rows
        return max(1, PIECE_BYTES * rows // max(1, sum(sizes)))
    return max(FEW_ROWS, PIECE_BYTES // max([1, *sizes]))


def _coded_lists(metadata: Any) -> list[str]:
    """Return the columns of lists of texts to read as dictionaries, which are decoded when their sizes are known.

    Arrow can't read a column so if a part of it is encoded as DELTA_BYTE_ARRAY.
    """
    found = []
    for place in range(metadata.num_columns):
        leaf = metadata.schema.column(place)
        chunks = [metadata.row_group(group).column(place) for group in range(metadata.num_row_groups)]
        encodings = {encoding for chunk in chunks for encoding in chunk.encodings}
        if leaf.max_repetition_level and leaf.physical_type == "BYTE_ARRAY" and "DELTA_BYTE_ARRAY" not in encodings:
            found.append(leaf.path)
    return found


def _dense(batches: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield batches with plain columns in place of dictionaries, in parts of at most about `PIECE_BYTES` bytes.

    Raises:
        DataError: The texts of a row take more than `ROW_BYTES`.
    """
    first = 1
    for batch in batches:
        coded = [column for column in batch.columns if _is_coded(column.type)]
        if not coded:
            yield batch
        else:
            sizes = np.sum([_row_sizes(column) for column in coded], axis=0)
            if len(sizes) and sizes.max() > ROW_BYTES:
                row = int(sizes.argmax())
                raise DataError(
                    f"{name}, row {first + row}: its texts take {sizes[row] / 1e6:,.0f} MB, and at most "
                    f"{ROW_BYTES / 1e6:,.0f} MB are read. Split it into several rows, or remove it."
                )
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
    return bool(types.is_dictionary(column_type.value_type if _is_list(column_type) else column_type))


def _row_sizes(column: Any) -> Any:
    """Return the bytes that each row of a coded column takes when it is decoded, int64, [rows]."""
    if not _is_list(column.type):
        values = column.dictionary
        lengths = pc.binary_length(values) if is_text(values.type) else pa.array([8] * len(values))
        known = np.append(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64), 0)
        return known[pc.fill_null(column.indices, len(values)).to_numpy(zero_copy_only=False)]
    counts = _counts(column)
    totals = np.append(0, np.cumsum(_row_sizes(column.flatten())))
    ends = np.cumsum(counts)
    return totals[ends] - totals[ends - counts]


def _counts(column: Any) -> Any:
    """Return the number of items in each list of a column, int64, [rows]; 0 for a missing list."""
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _plain(column: Any) -> Any:
    """Return a column with its dictionary values decoded; other columns as they are."""
    if not _is_coded(column.type):
        return column
    if not _is_list(column.type):
        return column.cast(column.type.value_type)
    items = column.flatten()
    offsets = pa.array(np.append(0, np.cumsum(_counts(column))), pa.int64())
    missing = pc.is_null(column) if column.null_count else None
    return pa.LargeListArray.from_arrays(offsets, items.cast(items.type.value_type), mask=missing)


def _pieces(batches: Iterable[Any], batch_rows: int) -> Iterator[Any]:
    """Yield the rows of small batches again, in batches of at most `batch_rows` rows and about `PIECE_BYTES` bytes."""
    waiting: list[Any] = []
    rows = size = 0
    for batch in batches:
        if waiting and (rows + batch.num_rows > batch_rows or size + batch.nbytes > PIECE_BYTES):
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


class HubSource:
    """A split loaded by the `datasets` library: Arrow files in its cache, mapped into memory.

    It is not streamed over the network, because the content is read twice (fingerprint, rows) and an interrupted
    download would start again.
    """

    def __init__(self, name: str, stem: str, dataset: Any) -> None:
        self.name = name
        self.dialect: dict[str, Any] = {}
        self.warnings: list[str] = []
        self.stem = stem
        self.rows: int | None = len(dataset)
        self._dataset = dataset
        self.schema: pa.Schema = dataset.features.arrow_schema
        self.columns = _columns(self.schema, name)
        if not self.rows:
            raise DataError(f"{name} has no rows. Choose another split with hf:NAME:SPLIT.")

    def sha256(self) -> str:
        """Return the SHA-256 over the rows; the library's own fingerprint depends on paths and versions."""
        plain = [field.name for field in self.schema if is_text(field.type) or _is_list(field.type) or _is_id(field)]
        result = hashlib.sha256(json.dumps(plain).encode())
        for piece in self.read(plain, 1000):
            for row in zip(*piece.columns.values(), strict=True):
                result.update(json.dumps(row, default=repr).encode() + b"\n")
        return result.hexdigest()

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if a column's type cannot hold what the mapping takes from it."""
        check_types(self.schema, mapping, self.name)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order."""
        first = 1
        selected = self._dataset.select_columns(list(columns)).with_format("arrow")
        for table in selected.iter(batch_size=min(batch_rows, 1000)):
            for batch in _pieces(_dense(table.combine_chunks().to_batches(), self.name), batch_rows):
                yield _piece(batch, columns, first)
                first += batch.num_rows


def open_hub(source: str) -> HubSource:
    """Load `hf:NAME[:CONFIG][:SPLIT]` with `datasets`.

    A single part after the name is a configuration if the data set has one of this name, and a split otherwise. The
    split defaults to "train", or to the only one.

    Raises:
        DataError: The data set doesn't exist or cannot be downloaded, or its configuration or split must be named.
    """
    import datasets

    name, *parts = source.removeprefix(HUB).split(":")
    if not name or len(parts) > 2 or not all(parts):
        raise DataError(
            f"{source!r} is not of the form hf:NAME[:CONFIG][:SPLIT]. An example is hf:sentence-transformers/gooaq."
        )
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        configs = datasets.get_dataset_config_names(name)
        config = parts[0] if parts and (len(parts) == 2 or parts[0] in configs) else None
        split = parts[-1] if len(parts) == 2 or (parts and config is None) else None
        if config is not None and config not in configs:
            raise DataError(f"{name} has no configuration {config!r}. Choose one of {', '.join(configs)}.")
        if config is None and len(configs) > 1 and "default" not in configs:
            raise DataError(f"{name} has the configurations {', '.join(configs)}. Choose one with hf:{name}:CONFIG.")
        splits = datasets.get_dataset_split_names(name, config)
        if split is None:
            split = "train" if "train" in splits else splits[0] if len(splits) == 1 else None
        if split not in splits:
            missing = f"no {split!r}" if split else "no 'train'"
            raise DataError(
                f"{name} has the splits {', '.join(splits)} and {missing}. Choose one with hf:{name}:...:SPLIT."
            )
        loaded = datasets.load_dataset(name, config, split=split)
    except DataError:
        raise
    except Exception as error:  # the library passes on any exception of its file systems and parsers
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{source} could not be loaded by the datasets library ({type(error).__name__}: {first_line}). "
            "Check the name and the network, or download the data and give the file."
        ) from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    return HubSource(source, name.rstrip("/").rsplit("/", 1)[-1], loaded)


def is_text(column_type: Any) -> bool:
    """Return whether an Arrow type holds text."""
    value = column_type.value_type if types.is_dictionary(column_type) else column_type
    return bool(types.is_string(value) or types.is_large_string(value) or types.is_string_view(value))


def check_types(schema: Any, mapping: Mapping, source: str) -> None:
    """Check that no column has a type that rules out all rows.

    Raises:
        DataError: A column has such a type.
    """
    for role, name, flag in (
        ("query", mapping.query, "query"),
        ("positive", mapping.positive, "positive"),
        *(("negative", name, "negatives") for name in mapping.negatives),
    ):
        column_type = schema.field(name).type
        inner = column_type.value_type if _is_list(column_type) and role != "query" else column_type
        if not (is_text(inner) or (types.is_null(inner) and role == "negative")):
            wanted = "text" if role == "query" else "texts or lists of texts"
            raise DataError(
                f"Column {name!r} of {source} holds {column_type}, not {wanted}. "
                f"Name the column of the {role} texts with --{flag}-column C."
            )
    if mapping.score_name is not None:
        column_type = schema.field(mapping.score_name).type
        number = types.is_integer(column_type) or types.is_floating(column_type) or types.is_boolean(column_type)
        if not (number or is_text(column_type)):
            raise DataError(
                f"Column {mapping.score_name!r} of {source} holds {column_type}, which cannot be a score. Name the "
                "column of the scores with --score-column C, or use --score-column none."
            )
    if mapping.doc_id is not None and not _is_id(schema.field(mapping.doc_id)):
        raise DataError(
            f"Column {mapping.doc_id!r} of {source} holds {schema.field(mapping.doc_id).type}, which cannot be a "
            "document id. Name the column of the ids with --doc-id-column C."
        )


def _is_list(column_type: Any) -> bool:
    return bool(types.is_list(column_type) or types.is_large_list(column_type) or types.is_fixed_size_list(column_type))


def _is_id(field: Any) -> bool:
    column_type = field.type
    is_number = types.is_integer(column_type) or types.is_floating(column_type)
    return is_text(column_type) or bool(is_number or types.is_null(column_type))


def _columns(schema: Any, name: str) -> list[str]:
    columns = list(schema.names)
    repeated = sorted({column for column in columns if columns.count(column) > 1})
    if repeated:
        raise DataError(f"{name} has more than one column {repeated[0]!r}. Rename one of them.")
    return columns


def _piece(batch: Any, columns: Sequence[str], first: int) -> Piece:
    values = {name: _values(batch.column(batch.schema.get_field_index(name))) for name in columns}
    return Piece(range(first, first + batch.num_rows), values)


def _values(array: Any) -> list[Any]:
    """Return an array as Python values; text that is not valid UTF-8 stays bytes, so that its row is rejected."""
    if _is_list(array.type) and is_text(array.type.value_type) and not types.is_fixed_size_list(array.type):
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


def _unreadable(name: str, error: Exception) -> DataError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return DataError(f"{name} is damaged and cannot be read as Parquet: {lines[0]}. Copy or write it again.")
