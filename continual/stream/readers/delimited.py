"""CSV and TSV files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from continual.errors import DataError
from continual.stream.cells import NULLS
from continual.stream.readers.base import PIECE_BYTES, Piece
from continual.stream.readers.bounds import LINE_BYTES, check_names
from continual.stream.readers.dialect import Dialect, layout_of, record_dialect
from continual.stream.readers.text import CONVERT, TextFile

CANDIDATES = (";", "\t", "|", ",")
"""Characters that cells may be separated by, in a file with another suffix."""
SHOWN_CHARS = 100
EXCEL = re.compile('"?sep=(.)"?')
"""The line with which Excel is told the delimiter."""
LONG_CELL = 20
"""Lines of a quoted cell above which the quote may not have been meant as one."""


class DelimitedSource(TextFile):
    """Cells separated by a delimiter, with or without quotes, below a header line or without one."""

    def __init__(self, name: str, suffix: str, dialect: Dialect) -> None:
        super().__init__(name, dialect.encoding)
        self.dialect: dict[str, Any] = record_dialect(dialect, suffix)
        self.layout = layout_of(dialect, suffix)
        self._guessed = dialect.quote is None
        records = self._records()
        number, first = next(records, (0, None))
        if first is not None:
            self._check_first(number, first)
        if first is None or (self.layout.header and next(records, None) is None):
            raise DataError(
                f"{name} has no rows below its header line. Write it again with its rows, or use --no-header if its "
                "first line is a row."
            )
        if self.layout.header:
            self.columns = [column.strip() for column in first]
        else:
            self.columns = [str(number) for number in range(1, len(first) + 1)]
        check_names(self.columns, name, ", or use --no-header if its first line is a row")

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order; a row with too many or too few cells is a fault."""
        places = [self.columns.index(name) for name in columns]
        width = len(self.columns)
        records = islice(self._records(), 1 if self.layout.header else 0, None)
        unusual = _Unusual(self.layout.delimiter, width)
        while True:
            numbers, piece, size = [], [], 0
            for number, record in records:
                numbers.append(number)
                piece.append(record)
                unusual.count(number, record, self.layout.quote)
                size += sum(map(len, record))
                if len(piece) >= batch_rows or size >= PIECE_BYTES:
                    break
            if not piece:
                break
            faults = {
                i: f"{_times([len(record)], 'field', 'fields')} instead of {width}"
                for i, record in enumerate(piece)
                if len(record) != width
            }
            values = {
                name: [
                    record[place] if place < len(record) and record[place] not in NULLS else None for record in piece
                ]
                for name, place in zip(columns, places, strict=True)
            }
            yield Piece(numbers, values, faults)
        self.warnings = unusual.warnings(self._guessed)

    def _check_first(self, number: int, cells: Sequence[str]) -> None:
        """Raise `DataError` if the first line says that cells or lines end with other characters."""
        line = self.layout.delimiter.join(cells)
        if not self.layout.quote:
            self._check_ends(line, number)
        excel = EXCEL.fullmatch(line)
        if excel is not None:
            raise DataError(
                f"{self.name} begins with the line {line!r}, which is for Excel. Remove it, and use --delimiter "
                f"{_shown(excel[1])} if cells are separated so."
            )
        other = next((char for char in CANDIDATES if char in line), None) if len(cells) == 1 else None
        if self.layout.header and other is not None:
            shown = repr(line if len(line) <= SHOWN_CHARS else f"{line[:SHOWN_CHARS]}...")
            raise DataError(
                f"{self.name} has one column, {shown}, as cells are separated by {_shown(self.layout.delimiter)}. If "
                f"they are separated by {_shown(other)}, use --delimiter {_shown(other)}."
            )

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the cells of each record and the number of its first line, without blank lines."""
        if not self.layout.quote:
            for number, line in enumerate(self._lines(), start=1):
                if text := line.rstrip("\r\n"):
                    yield number, text.split(self.layout.delimiter)
            return
        # The limit is global to the csv module, so it is only raised.
        csv.field_size_limit(max(csv.field_size_limit(), LINE_BYTES))
        reader = csv.reader(self._lines(), delimiter=self.layout.delimiter, strict=True)
        while True:
            first = reader.line_num + 1
            try:
                record = next(reader, None)
            except csv.Error as error:
                raise self._broken(str(error), first, reader.line_num) from None
            if record is None:
                return
            if record:  # blank lines give empty records
                yield first, record

    def _broken(self, error: str, first: int, last: int) -> DataError:
        if "new-line character" in error:
            return DataError(
                f"{self.name}: the row that begins in line {first} has a CR in it without a quote. {CONVERT}"
            )
        problem = f"is not CSV: {error} (line {last})"
        if "end of data" in error:
            problem = f"has a quote in it that is not closed: the file ends in its cell (line {last})"
        elif "field larger" in error:
            problem = f"has a cell of more than {LINE_BYTES >> 20} MiB; its quote may not be closed (line {last})"
        return DataError(
            f"{self.name}: the row that begins in line {first} {problem}. Fix it, or use --no-quote if quotes are part "
            "of the text."
        )


class _Unusual:
    """Counts cells that may have been read wrongly: quotes taken as text, and text taken as quotes."""

    def __init__(self, delimiter: str, width: int) -> None:
        self.delimiter = delimiter
        self.width = width
        self.quoted: list[int] = []
        self.long: list[int] = []
        self.glued: list[int] = []

    def count(self, number: int, record: Sequence[str], quote: bool) -> None:
        """Count a record that begins in line `number`."""
        for cell in record:
            if not quote:
                if len(cell) > 1 and cell[0] == cell[-1] == '"':
                    _add(self.quoted, number)
            elif "\n" in cell:
                lines = cell.split("\n")
                inner = [line.count(self.delimiter) + 1 == self.width for line in lines[1:-1]]
                if len(lines) > LONG_CELL:
                    _add(self.long, number)
                elif self.width > 1 and len(inner) > 1 and all(inner):
                    _add(self.glued, number)

    def warnings(self, guessed: bool) -> list[str]:
        """Return what was counted, as sentences; `guessed` if the caller didn't say whether cells are quoted."""
        found = []
        if self.quoted and guessed:
            found.append(
                f"{_times(self.quoted, 'cell has', 'cells have')} a double quote at both ends, read as part of the text"
                f" (first in line {self.quoted[1]}). Use --quote if cells are quoted."
            )
        if self.long:
            found.append(
                f"{_times(self.long, 'quoted cell has', 'quoted cells have')} more than {LONG_CELL} lines (first in "
                f"line {self.long[1]}). If a quote is part of the text there, use --no-quote."
            )
        if self.glued:
            found.append(
                f"{_times(self.glued, 'quoted cell seems', 'quoted cells seem')} to hold whole rows (first in line "
                f"{self.glued[1]}). If a quote is part of the text there, use --no-quote."
            )
        return found


def _add(counted: list[int], number: int) -> None:
    """Count a line in `[count, first line]`."""
    if counted:
        counted[0] += 1
    else:
        counted.extend((1, number))


def _shown(char: str) -> str:
    """Return a delimiter as it is typed in a shell."""
    return "'\\t'" if char == "\t" else f"'{char}'"


def _times(counted: Sequence[int], one: str, more: str) -> str:
    return f"{counted[0]:,} {one if counted[0] == 1 else more}"
