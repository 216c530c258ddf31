"""Rows of a task's files: Parquet, JSON Lines and TREC or TSV text, plain or compressed, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pyarrow as pa

from continual.errors import DataError
from continual.stream.readers import open_source
from continual.stream.readers.bounds import LINE_BYTES, check_growth
from continual.stream.readers.content import COMPRESSED, check_content, check_regular
from continual.stream.readers.text import CONVERT, LOOK_AHEAD, add_keys, parse_line, repeated_key

FREE_BYTES = 8 << 20
"""Bytes that every file may become."""

ROW_BYTES = 16
"""Bytes that a row counts for besides its texts."""

CHUNK_BYTES = 1 << 20
BATCH_ROWS = 1000

QUERY_IDS = (("query_id", "queryid", "qid", "topic", "topic_id"), ("_id", "id"))
DOCUMENT_IDS = (
    ("doc_id", "docid", "document_id", "docno", "did", "corpus_id", "pid", "passage_id"),
    ("_id", "id"),
)
GRADES = (("score",), ("relevance", "rel", "grade", "label"))

FEW = "Write the query, the document and the grade of each judgement."
SPACES = "Separate them with tabs if ids contain spaces."

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
    check_regular(path)
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".parquet"):
        return _ParquetRows(path)
    check_content(path)
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
            row = parse_line(line)
            if not isinstance(row, dict):
                _check_ends(self._path, number, line)
                raise DataError(
                    f"{self._path}, row {number}: not a JSON object. Write one object per line, as `jq -c` does."
                )
            if (name := repeated_key(row, columns)) is not None:
                raise DataError(f"{self._path}, row {number}, has several values for {name!r}. Fix the row.")
            add_keys(self._seen, row, str(self._path))
            yield number, {name: row.get(name) for name in columns}


class _TextRows:
    """Judgements as text without quotes: with a header, or query, document, grade, or the four columns of TREC.

    The first line decides: fields are separated by tabs if it has one, else by spaces.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        number, line = next(read_lines(path), (0, "\t".join(TRIPLE)))
        self._tabs = "\t" in line
        _check_ends(path, number, line)
        fields = self._split(line)
        self._header = number if _is_header(fields) else 0
        if not self._header and len(fields) not in (len(TRIPLE), len(TREC)):
            raise DataError(
                f"{path}, row {number}, has {len(fields)} {self._kind} fields, but three (query, document, grade) or "
                f"the four of TREC are expected. {FEW if len(fields) < len(TRIPLE) else SPACES}"
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
    """Parquet. A text that is repeated a million times is in memory once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._source = open_source(str(path))
        self.columns = self._source.columns

    def read(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        wanted = [name for name in columns if name in self.columns]
        stored, size = self._path.stat().st_size, ROW_BYTES * (self._source.rows or 0)
        check_growth(self._path, size, stored, FREE_BYTES)
        known: dict[Any, Any] = {}
        for piece in self._source.read(wanted, BATCH_ROWS):
            for place, number in enumerate(piece.numbers):
                row = {name: piece.columns[name][place] if name in piece.columns else None for name in columns}
                size += sum(len(value) for value in row.values() if isinstance(value, (str, bytes, list)))
                check_growth(self._path, size, stored, FREE_BYTES)
                if any(isinstance(value, bytes) for value in row.values()):
                    raise DataError(f"{self._path}, row {number}, holds text that is not UTF-8. Write the file again.")
                shared = {name: known.setdefault(value, value) for name, value in row.items() if isinstance(value, str)}
                yield number, row | shared


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
                check_growth(path, size, file.tell(), FREE_BYTES)
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


def _check_ends(path: Path, number: int, line: str) -> None:
    """Raise `DataError` if the first line holds several lines that end with CR."""
    if number == 1 and "\r" in line:
        raise DataError(f"{path} ends its lines with CR only. {CONVERT}")


def _raise_unreadable(path: Path, error: Exception) -> NoReturn:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise DataError(f"{path} cannot be read: {reason}. Copy or write it again.") from None


def _plain(column: str) -> str:
    return column.strip().lower().replace("-", "_").replace(" ", "_")


def _is_header(fields: Sequence[str]) -> bool:
    plain = {_plain(field) for field in fields}
    return all(any(plain & set(names) for names in ranks) for ranks in (QUERY_IDS, DOCUMENT_IDS, GRADES))
