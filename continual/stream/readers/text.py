"""Untyped sources: JSON Lines and CSV, plain or gzipped, read line by line."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from continual.errors import DataError
from continual.stream.readers.base import (
    PIECE_BYTES,
    Piece,
    file_sha256,
    file_stem,
)
from continual.stream.schema import Mapping

LINE_BYTES = 16 << 20
"""Largest line or CSV field in bytes, so that a file without line ends is rejected and not read into memory."""
LOOK_AHEAD = 100
"""Rows of a JSON Lines file, from the first, whose keys are its columns."""


class _TextFile:
    """A text file, plain or gzipped, read line by line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = Path(name)
        self.stem = file_stem(self.path)
        self.rows: int | None = None
        self.columns: list[str] = []

    def sha256(self) -> str:
        """Return the SHA-256 of the file."""
        return file_sha256(self.path)

    def check(self, mapping: Mapping) -> None:
        """Do nothing: columns have no type, and every value is checked when it is read."""

    def _open(self) -> BinaryIO:
        if self.path.suffix.lower() == ".gz":
            return cast(BinaryIO, gzip.open(self.path, "rb"))
        return self.path.open("rb")

    def _lines(self) -> Iterator[bytes]:
        """Yield the lines without a byte order mark; errors of gzip and of the disk become `DataError`."""
        try:
            with self._open() as file:
                number = 0
                while line := file.readline(LINE_BYTES + 1):
                    number += 1
                    if len(line) > LINE_BYTES:
                        raise DataError(
                            f"{self.name}, line {number}, is longer than {LINE_BYTES >> 20} MiB. Write one row per "
                            "line."
                        )
                    yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        except EOFError:
            raise DataError(f"{self.name} is truncated: its gzip stream has no end. Copy it again.") from None
        except (gzip.BadGzipFile, zlib.error, OSError) as error:
            raise DataError(f"{self.name} cannot be read: {error}. Copy it again.") from None

    def _decode(self, line: bytes, number: int) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.name} is not UTF-8 text: line {number} has the byte 0x{line[error.start]:02x}. "
                "Convert it, for example with iconv."
            ) from None


class JsonLinesSource(_TextFile):
    """One JSON object per line; blank lines are not counted."""

    text_only = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
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
        objects_read = [first[1], *(value for _, value, _ in objects if isinstance(value, dict))]
        self.columns = list(dict.fromkeys(key for value in objects_read for key in value))

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order; a line that is not a JSON object is a fault."""
        numbers: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in columns}
        faults: dict[int, str] = {}
        size = 0
        for number, value, length in self._objects():
            if not isinstance(value, dict):
                faults[len(numbers)] = "not a JSON object"
                value = {}
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
            text = self._decode(line, number).strip()
            if not text:
                continue
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                if not line.endswith(b"\n") and number > 1:
                    raise DataError(
                        f"{self.name} is truncated: its last line, {number}, is incomplete. Copy it again."
                    ) from None
                value = None
            yield number, value, len(line) if isinstance(value, dict) or text.startswith("[") else 0


class CsvSource(_TextFile):
    """Comma- or tab-separated values with a header line, quoted as in RFC 4180."""

    text_only = True

    def __init__(self, name: str, delimiter: str = ",") -> None:
        super().__init__(name)
        self.delimiter = delimiter
        records = self._records()
        header = next(records, None)
        if header is None or next(records, None) is None:
            raise DataError(f"{name} has no rows below its header line. Write it again with its rows.")
        self.columns = [column.strip() for column in header]
        repeated = sorted({column for column in self.columns if self.columns.count(column) > 1})
        if repeated:
            raise DataError(f"{name} has more than one column {repeated[0]!r}. Rename one of them.")

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order; a row with too many or too few fields is a fault."""
        places = [self.columns.index(name) for name in columns]
        width = len(self.columns)
        records = islice(self._records(), 1, None)
        first = 1
        while True:
            piece, size = [], 0
            for record in records:
                piece.append(record)
                size += sum(map(len, record))
                if len(piece) >= batch_rows or size >= PIECE_BYTES:
                    break
            if not piece:
                return
            faults = {
                i: f"{len(record)} fields instead of {width}" for i, record in enumerate(piece) if len(record) != width
            }
            values = {
                name: [record[place] if place < len(record) else None for record in piece]
                for name, place in zip(columns, places, strict=True)
            }
            yield Piece(range(first, first + len(piece)), values, faults)
            first += len(piece)

    def _records(self) -> Iterator[list[str]]:
        # The limit is global to the csv module, so it is only raised.
        csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))
        lines = (self._decode(line, number) for number, line in enumerate(self._lines(), start=1))
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            try:
                record = next(reader, None)
            except csv.Error as error:
                problem = (
                    "is truncated: a quote is not closed" if "end of data" in str(error) else f"is not CSV: {error}"
                )
                raise DataError(f"{self.name} {problem} (line {reader.line_num}). Fix it or copy it again.") from None
            if record is None:
                return
            if record:  # blank lines give empty records
                yield record
