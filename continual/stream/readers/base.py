"""The interface of a source of rows: its columns, and its rows in pieces of bounded size.

A piece gives plain Python values, because a line of JSON can hold anything: a number instead of text makes one bad row
and must not stop the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from continual.stream.readers.content import COMPRESSED
from continual.stream.schema import Mapping

HUB = "hf:"
NO_NAME = "(no name)"
"""How a column with an empty name is called in messages, such as the row numbers that pandas writes."""
PIECE_BYTES = 8 << 20
"""Approximate bytes of text in a piece; together with `batch_rows` it bounds the memory of an ingest."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of a source.

    Attributes:
        numbers: Number of each row in the source, from 1; for text, the number of the line where it begins.
        columns: Values by column name, one per row; of typed columns an `ArrowColumns`, which also has the arrays.
        faults: Reasons why rows could not be read, by position in the piece.
        file: The file that the numbers count in; None if the source is one file.
    """

    numbers: Sequence[int]
    columns: AnyMapping[str, list[Any]]
    faults: dict[int, str] = field(default_factory=dict)
    file: str | None = None


class Source(Protocol):
    """One table of rows that can be read more than once.

    Attributes:
        name: The name that the caller gave.
        stem: Name of the domain if the caller gives none.
        columns: Column names. Reading JSON Lines adds those that first occur later in the file.
        rows: Number of rows; None if counting them means reading the source.
        dialect: How the text was read, if not as its suffix has always meant; part of the identity of a batch.
        warnings: What the last `read` met that may be wrong, as sentences.
    """

    name: str
    stem: str
    columns: list[str]
    rows: int | None
    dialect: dict[str, Any]
    warnings: list[str]

    def sha256(self) -> str:
        """Return the SHA-256 of the content, as hex digits."""

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if the type of a column rules out its role in the mapping."""

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order, at most `batch_rows` rows at a time."""


def schema_of(source: Source) -> Any:
    """Return the Arrow schema of a source of typed columns; None if its values have no types, as in text files."""
    return getattr(source, "schema", None)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stem(path: Path) -> str:
    """Return a file's name without the suffixes of its format: `a.v1.jsonl.gz` -> `a.v1`."""
    name = path.name.removesuffix(path.suffix)
    return Path(name).stem if path.suffix.lower() in COMPRESSED else name
