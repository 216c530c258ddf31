"""A source that also looks at the columns that are not read, because a label may be among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pyarrow import types

from continual.stream.labels import Values, hints
from continual.stream.readers.arrays import some_columns
from continual.stream.readers.base import Piece, Source, schema_of
from continual.stream.readers.text import SEVERAL
from continual.stream.schema import Mapping


class WatchedSource:
    """The rows of another source. Columns that are not asked for are read with the others, for `suspects`.

    Attributes:
        source: The other source.
    """

    def __init__(self, source: Source) -> None:
        self.name, self.stem, self.rows, self.dialect = source.name, source.stem, source.rows, source.dialect
        self.columns, self.warnings = source.columns, source.warnings
        self.source = source
        self._read: set[str] = set()
        self._values: dict[str, Values] = {}

    @property
    def schema(self) -> Any:
        """Return the Arrow schema of the source; None if its values have no types."""
        return schema_of(self.source)

    def sha256(self) -> str:
        """Return the SHA-256 of the content."""
        return self.source.sha256()

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if the type of a column rules out its role in the mapping."""
        self.source.check(mapping)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order."""
        self._read, self._values = set(columns), {}
        yield from self._look(columns, batch_rows)

    def suspects(self) -> dict[str, str]:
        """Return the unread columns that may be labels or scores, with some of their values, after a `read`.

        Columns that first occur late in a file of JSON Lines are read now.
        """
        if any(name not in self._read | self._values.keys() for name in self._simple()):
            for _ in self._look([], batch_rows=10_000):
                pass
        found = {name: values.suspect() for name, values in self._values.items()}
        return {name: shown for name, shown in found.items() if shown is not None}

    def _look(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns, and note the values of those that are neither read nor noted yet."""
        known = self._read | self._values.keys()
        fresh = {name: Values(name) for name in self._simple() if name not in known}
        self._values |= fresh
        for piece in self.source.read([*columns, *fresh], batch_rows):
            for name, values in fresh.items():
                if not values.ruled_out:
                    values.add([value for i, value in enumerate(piece.columns[name]) if i not in piece.faults])
            kept = some_columns(piece.columns, columns)
            repeated = {name + SEVERAL for name in fresh}  # a fault of a column that is not asked for is none
            faults = {place: fault for place, fault in piece.faults.items() if fault not in repeated}
            yield Piece(piece.numbers, kept, faults, piece.file)
        self.columns, self.warnings = self.source.columns, self.source.warnings

    def _simple(self) -> list[str]:
        """Return the columns whose type can hold labels and scores."""
        schema = self.schema
        return [name for name in self.columns if schema is None or _is_simple(name, schema.field(name).type)]


def _is_simple(name: str, column_type: Any) -> bool:
    """Return whether a typed column can hold labels. Texts can be long, so their column's name must hint at labels."""
    value = column_type.value_type if types.is_dictionary(column_type) else column_type
    text = types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
    number = types.is_integer(value) or types.is_floating(value) or types.is_decimal(value)
    return bool((text and (hints(name) or value != column_type)) or number or types.is_boolean(value))
