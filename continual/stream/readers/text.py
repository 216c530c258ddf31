"""Text files read line by line, plain or compressed, and JSON Lines among them."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from continual.errors import DataError
from continual.stream.readers.base import PIECE_BYTES, Piece, file_sha256, file_stem
from continual.stream.readers.bounds import LINE_BYTES
from continual.stream.readers.dialect import Dialect, record_dialect
from continual.stream.schema import Mapping

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

    def check(self, mapping: Mapping) -> None:
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

    def _long(self, number: int) -> DataError:
        return DataError(f"{self.name}, line {number}, is longer than {LINE_BYTES >> 20} MiB. Write one row per line.")


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
        objects_read = [first[1], *(value for _, value, _ in objects if isinstance(value, dict))]
        self.columns = list(dict.fromkeys(key for value in objects_read for key in value))

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order; a line that is not a JSON object is a fault.

        Keys that no earlier row has are added to `columns`.
        """
        known = set(self.columns)
        numbers: list[int] = []
        values: dict[str, list[Any]] = {name: [] for name in columns}
        faults: dict[int, str] = {}
        size = 0
        for number, value, length in self._objects():
            if not isinstance(value, dict):
                faults[len(numbers)] = "not a JSON object"
                value = {}
            if not value.keys() <= known:
                self.columns += [key for key in value if key not in known]
                known.update(value)
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
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                if not line.endswith("\n") and number > 1:
                    raise DataError(
                        f"{self.name} is truncated: its last line, {number}, is incomplete. Copy it again."
                    ) from None
                value = None
            yield number, value, len(line) if isinstance(value, dict) or text.startswith("[") else 0
