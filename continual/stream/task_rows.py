"""Rows of a task's files: Parquet, JSON Lines and TREC or TSV text, plain or compressed, with bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.errors import DataError
from continual.stream.readers import open_source
from continual.stream.readers.bounds import LINE_BYTES
from continual.stream.readers.column_types import is_text
from continual.stream.readers.text import LOOK_AHEAD

COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
"""pyarrow's name of a compression, by the ending of a file."""

MAX_GROWTH = 100
"""Most bytes that a byte of a file may become when it is read. Text is seldom compressed to less than a twentieth."""

FREE_BYTES = 8 << 20
"""Bytes that every file may become."""

ROW_BYTES = 16
"""Bytes that a row counts for besides its texts."""

CHUNK_BYTES = 1 << 20
BATCH_ROWS = 1000
MAX_COLUMNS = 1000
"""Most columns that are remembered of JSON Lines."""

QUERY_IDS = (("query_id", "queryid", "qid", "topic", "topic_id"), ("_id", "id"))
DOCUMENT_IDS = (
    ("doc_id", "docid", "document_id", "docno", "did", "corpus_id", "pid", "passage_id"),
    ("_id", "id"),
)
GRADES = (("score",), ("relevance", "rel", "grade", "label"))

TRIPLE = ("query_id", "doc_id", "score")
TREC = ("query_id", "", "doc_id", "score")
"""Columns of judgements without a header; nothing reads the second column of TREC."""


class Rows(Protocol):
    """The rows of a file."""

    @property
    def columns(self) -> list[str]:
        """The names of the columns; those of JSON Lines grow while it is read."""

    def read(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of each row, from 1, and its values of these columns; None where it has none."""


def open_rows(path: Path) -> Rows:
    """Open a file by its ending: Parquet, JSON Lines, or else the text form of judgements.

    Raises:
        DataError: The file can't be read.
    """
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        return _ParquetRows(path)
    return _JsonRows(path) if name.endswith(".jsonl") else _TextRows(path)


def choose_column(path: Path, columns: Sequence[str], ranks: Sequence[Sequence[str]]) -> str:
    """Return the column that has one of the names, in any case, with "-" or " " for "_".

    Args:
        path: The file, for the message.
        columns: Its columns.
        ranks: Names; those of an earlier rank win.

    Raises:
        DataError: There is none, or a rank has more than one.
    """
    for names in ranks:
        found = [column for column in columns if _plain(column) in names]
        if len(found) > 1:
            raise DataError(f"{path} has the columns {' and '.join(found)}, which mean the same. Remove all but one.")
        if found:
            return found[0]
    listed = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    wanted = ", ".join(name for names in ranks for name in names)
    raise DataError(f"{path} has the columns {listed}, but none of {wanted}. Rename a column.")


class _JsonRows:
    """JSON Lines: one object per line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: dict[str, None] = {}
        if not sum(1 for _ in islice(self.read(()), LOOK_AHEAD)):
            raise DataError(f"{path} has no rows. Write one JSON object per line.")

    @property
    def columns(self) -> list[str]:
        return list(self._seen)

    def read(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, line in read_lines(self._path):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested too deeply
                row = None
            if not isinstance(row, dict):
                raise DataError(
                    f"{self._path}, row {number}: not a JSON object. Write one object per line, as `jq -c` does."
                )
            if len(self._seen) < MAX_COLUMNS:
                self._seen.update(dict.fromkeys(row))
            yield number, {name: row.get(name) for name in columns}


class _TextRows:
    """Judgements as text without quotes: with a header, or query, document, grade, or the four columns of TREC.

    The first line decides: fields are separated by tabs if it has one, else by spaces.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        number, line = next(read_lines(path), (0, "\t".join(TRIPLE)))
        self._tabs = "\t" in line
        fields = self._split(line)
        self._header = number if _is_header(fields) else 0
        if not self._header and len(fields) not in (len(TRIPLE), len(TREC)):
            raise DataError(
                f"{path}, row {number}, has {len(fields)} {self._kind} fields, but three (query, document, grade) or "
                "the four of TREC are expected. Separate them with tabs if ids contain spaces."
            )
        self._fields = fields if self._header else list(TRIPLE if len(fields) == len(TRIPLE) else TREC)
        self.columns = [name for name in self._fields if name]

    def read(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        places = {name: self._fields.index(name) for name in columns}
        for number, line in read_lines(self._path):
            if number == self._header:
                continue
            fields = self._split(line)
            if len(fields) != len(self._fields):
                raise DataError(
                    f"{self._path}, row {number}, has {len(fields)} {self._kind} fields, but the first row has "
                    f"{len(self._fields)}. Fix the row, or separate the fields with tabs if ids contain spaces."
                )
            yield number, {name: fields[place] for name, place in places.items()}

    @property
    def _kind(self) -> str:
        return "tab-separated" if self._tabs else "space-separated"

    def _split(self, line: str) -> list[str]:
        return line.split("\t") if self._tabs else line.split()


class _ParquetRows:
    """Parquet. Texts are read as dictionaries, so that a text that is repeated a million times is in memory once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.columns = open_source(str(path)).columns

    def read(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        stored, size, number = self._path.stat().st_size, 0, 0
        schema = pq.read_schema(self._path)
        wanted = [name for name in columns if name in self.columns]
        texts = [name for name in wanted if is_text(schema.field(name).type)]
        try:
            with pq.ParquetFile(self._path, read_dictionary=texts, buffer_size=CHUNK_BYTES, pre_buffer=False) as file:
                _check_growth(self._path, _declared_bytes(file.metadata, wanted), stored)
                for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted, use_threads=False):
                    size += ROW_BYTES * batch.num_rows + sum(map(_decoded_bytes, batch.columns))
                    _check_growth(self._path, size, stored)
                    values = {name: _values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
                    for place in range(batch.num_rows):
                        number += 1
                        yield number, {name: values[name][place] if name in values else None for name in columns}
        except UnicodeDecodeError:
            raise DataError(
                f"{self._path}, rows {number + 1} to {number + BATCH_ROWS}, hold text that is not UTF-8. Write the "
                "file again."
            ) from None
        except (pa.ArrowException, OSError) as error:
            _raise_unreadable(self._path, error)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number, from 1, and the text of each line that is not blank, without its end and byte order mark.

    Raises:
        DataError: The file can't be read or decompressed, is not UTF-8, or has a line over `LINE_BYTES`.
    """
    number, rest = 0, b""
    for chunk in _chunks(path):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number += 1
            if line and line != b"\r":
                yield number, _decode(path, number, line)
        if len(rest) > LINE_BYTES:
            raise DataError(f"{path}, row {number + 1}, is longer than {LINE_BYTES >> 20} MiB. Write one row per line.")
    if rest.strip():
        yield number + 1, _decode(path, number + 1, rest)


def _chunks(path: Path) -> Iterator[bytes]:
    size = 0
    compression = COMPRESSED.get(path.suffix.lower())
    try:
        with ExitStack() as stack:
            file = stream = stack.enter_context(path.open("rb"))
            if compression is not None:
                stream = stack.enter_context(pa.CompressedInputStream(file, compression))
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                _check_growth(path, size, file.tell())
                yield chunk
    except (pa.ArrowException, OSError) as error:
        _raise_unreadable(path, error)


def _decode(path: Path, number: int, line: bytes) -> str:
    try:
        return line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: row {number} has the byte 0x{line[error.start]:02x}. Convert it, for example "
            "with iconv."
        ) from None


def _check_growth(path: Path, size: int, stored: int) -> None:
    if size > max(FREE_BYTES, MAX_GROWTH * stored):
        raise DataError(
            f"{path} grows to more than {MAX_GROWTH} times its size when it is read, so it could fill the memory. "
            "Write it as plain text (.jsonl, or .tsv for qrels) if this is what you want."
        )


def _raise_unreadable(path: Path, error: Exception) -> NoReturn:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise DataError(f"{path} cannot be read: {reason}. Copy or write it again.") from None


def _declared_bytes(metadata: Any, columns: Sequence[str]) -> int:
    """Return how many bytes these columns take by the file's own account, before dictionaries are looked up."""
    total: int = ROW_BYTES * metadata.num_rows
    for group in range(metadata.num_row_groups):
        chunks = (metadata.row_group(group).column(place) for place in range(metadata.num_columns))
        total += sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)
    return total


def _decoded_bytes(array: Any) -> int:
    if not pa.types.is_dictionary(array.type) or not is_text(array.type):
        return int(array.nbytes)
    lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
    return int(pc.sum(lengths).as_py() or 0)


def _values(array: Any) -> list[Any]:
    """Return an array as Python values; equal texts are one object."""
    if not pa.types.is_dictionary(array.type):
        return list(array.to_pylist())
    places = array.indices.to_pylist()
    used = sorted({place for place in places if place is not None})
    known = dict(zip(used, array.dictionary.take(pa.array(used, pa.int64())).to_pylist(), strict=True))
    return [None if place is None else known[place] for place in places]


def _plain(column: str) -> str:
    return column.strip().lower().replace("-", "_").replace(" ", "_")


def _is_header(fields: Sequence[str]) -> bool:
    plain = {_plain(field) for field in fields}
    return all(any(plain & set(names) for names in ranks) for ranks in (QUERY_IDS, DOCUMENT_IDS, GRADES))
