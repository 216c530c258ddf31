"""Text files read line by line, plain or compressed, and JSON Lines among them."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from continual.errors import DataError
from continual.stream.readers.base import PIECE_BYTES, Piece, file_sha256, file_stem
from continual.stream.readers.bounds import LINE_BYTES, MAX_COLUMNS
from continual.stream.readers.dialect import Dialect, record_dialect
from continual.stream.schema import Mapping as ColumnMapping

CONVERT = r"Lines end with LF or CR LF: convert the file, for example with `tr '\r' '\n' < FILE > NEW`."
"""What to do about line ends of old programs of the Macintosh."""
LOOK_AHEAD = 100
"""Rows of a JSON Lines file, from the first, whose keys are its columns until it is read."""


class TextFile:
    """A text file, plain or compressed, read line by line."""

    def __init__(self, name: str, encoding: str | None = None) -> None:
        self.name = name
        self.path = Path(name)
        self.stem = file_stem(self.path)
        self.encoding = encoding
        self.rows: int | None = None
        self.columns: list[str] = []
        self.dialect: dict[str, Any] = {}
        self.warnings: list[str] = []

    def sha256(self) -> str:
        """Return the SHA-256 of the file."""
        return file_sha256(self.path)

    def check(self, mapping: ColumnMapping) -> None:
        """Do nothing: columns have no type, and every value is checked when it is read."""

    def _open(self) -> BinaryIO:
        suffix = self.path.suffix.lower()
        if suffix == ".gz":
            return cast(BinaryIO, gzip.open(self.path, "rb"))
        if suffix == ".zst":
            return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(self.path)), "zstd"))
        return self.path.open("rb")

    def _lines(self) -> Iterator[str]:
        """Yield the lines without a byte order mark; errors of decompression and of the disk become `DataError`."""
        try:
            with self._open() as file:
                if self.encoding is None:
                    yield from self._utf8_lines(file)
                else:
                    yield from self._encoded_lines(file, self.encoding)
        except EOFError:
            raise DataError(f"{self.name} is truncated: its gzip stream has no end. Copy it again.") from None
        except (gzip.BadGzipFile, zlib.error, OSError) as error:
            if "Truncated" in str(error):
                raise DataError(f"{self.name} is truncated: its zstd stream has no end. Copy it again.") from None
            raise DataError(f"{self.name} cannot be read: {error}. Copy it again.") from None

    def _utf8_lines(self, file: BinaryIO) -> Iterator[str]:
        number = 0
        while line := file.readline(LINE_BYTES + 1):
            number += 1
            if len(line) > LINE_BYTES:
                raise self._long(number)
            try:
                yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{self.name} is not UTF-8 text: line {number} has the byte 0x{error.object[error.start]:02x}. "
                    "Name its encoding with --encoding, such as latin-1 or utf-16, or convert it with iconv."
                ) from None

    def _encoded_lines(self, file: BinaryIO, encoding: str) -> Iterator[str]:
        number = 0
        with io.TextIOWrapper(file, encoding=encoding, newline="\n") as text:
            try:
                while line := text.readline(LINE_BYTES + 1):
                    number += 1
                    if len(line) > LINE_BYTES:
                        raise self._long(number)
                    yield line.removeprefix("\ufeff") if number == 1 else line
            except UnicodeError as error:
                raise DataError(
                    f"{self.name} is not {encoding} text ({error}), some lines after line {number}. Name its encoding "
                    "with --encoding."
                ) from None

    def _check_ends(self, line: str, number: int) -> None:
        """Raise `DataError` if the first line holds several lines that end with CR."""
        if number == 1 and "\r" in line.rstrip("\r\n"):
            raise DataError(f"{self.name} ends its lines with CR only. {CONVERT}")

    def _long(self, number: int) -> DataError:
        return DataError(f"{self.name}, line {number}, is longer than {LINE_BYTES >> 20} MiB. Write one row per line.")


SEVERAL = ": several values in one row"
"""Follows the name of a column in the fault of a row that has two of it."""


class Row(dict[str, Any]):
    """An object of JSON Lines that has some keys several times with different values."""

    repeated: frozenset[str] = frozenset()


def parse_line(text: str) -> Any:
    """Return the value of a line of JSON; None if it is not JSON.

    An object of which a key has several values is a `Row`, with the last ones.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or nested too deeply
        return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    row = Row(found)
    row.repeated = frozenset(name for name, value in pairs if value != found[name])
    return row


def repeated_key(value: Mapping[str, Any], columns: Sequence[str]) -> str | None:
    """Return the first of some columns that has several values in an object of `parse_line`."""
    return next((name for name in columns if name in value.repeated), None) if isinstance(value, Row) else None


def add_keys(known: dict[str, None], row: Mapping[str, Any], source: str) -> None:
    """Add the keys of an object to those that are known.

    Raises:
        DataError: There are more than `MAX_COLUMNS`.
    """
    if not row.keys() <= known.keys():
        known.update(dict.fromkeys(row))
        if len(known) > MAX_COLUMNS:
            raise DataError(
                f"{source} has more than {MAX_COLUMNS:,} different keys, so they seem to be data. Write rows with the "
                "same keys."
            )


class JsonLinesSource(TextFile):
    """One JSON object per line; blank lines are not counted."""

    def __init__(self, name: str, encoding: str | None = None) -> None:
        super().__init__(name, encoding)
        self.dialect = record_dialect(Dialect(encoding=encoding), ".jsonl")
        objects = islice(self._objects(), LOOK_AHEAD)
        first = next(objects, None)
        if first is None:
            raise DataError(f"{name} has no rows. Write one JSON object per line.")
        if not isinstance(first[1], dict):
            hint = (
                "It holds one array: write one object per line, as `jq -c '.[]'` does."
                if first[2]
                else "Write one JSON object per line."
            )
            raise DataError(f"{name} is not JSON Lines: line {first[0]} is not a JSON object. {hint}")
        known: dict[str, None] = {}
        for value in (first[1], *(value for _, value, _ in objects if isinstance(value, dict))):
            add_keys(known, value, name)
        self.columns = list(known)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order; a line that is not a JSON object is a fault.

        Keys that no earlier row has are added to `columns`.
        """
        known = dict.fromkeys(self.columns)
        numbers: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in columns}
        faults: dict[int, str] = {}
        size = 0
        for number, value, length in self._objects():
            if not isinstance(value, dict):
                faults[len(numbers)] = "not a JSON object"
                value = {}
            elif (name := repeated_key(value, columns)) is not None:
                faults[len(numbers)] = name + SEVERAL
                value = {**value, name: None}
            add_keys(known, value, self.name)
            if len(known) > len(self.columns):
                self.columns = list(known)
            numbers.append(number)
            for name in columns:
                values[name].append(value.get(name))
            size += length
            if len(numbers) >= batch_rows or size >= PIECE_BYTES:
                yield Piece(numbers, values, faults)
                numbers, values, faults, size = [], {name: [] for name in columns}, {}, 0
        if numbers:
            yield Piece(numbers, values, faults)

    def _objects(self) -> Iterator[tuple[int, Any, int]]:
        """Yield (line number, value, bytes); the value is None if the line is not JSON.

        Bytes is 0 if the line holds neither an object nor the beginning of an array.
        """
        for number, line in enumerate(self._lines(), start=1):
            text = line.strip()
            if not text:
                continue
            value = parse_line(text)
            if value is None:
                self._check_ends(line, number)
            if value is None and not line.endswith("\n") and number > 1 and text != "null":
                raise DataError(f"{self.name} is truncated: its last line, {number}, is incomplete. Copy it again.")
            yield number, value, len(line) if isinstance(value, dict) or text.startswith("[") else 0
