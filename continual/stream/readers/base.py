"""What every source of rows can do: say its columns, and give its rows in bounded pieces.

A piece holds plain Python values rather than Arrow arrays, because a line of JSON may hold anything: a
number where text belongs is a bad row with a reason, not the end of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from continual.stream.schema import Mapping

HUB = "hf:"
PIECE_BYTES = 8 << 20
"""Bytes of text in one piece, about; what bounds the memory of an ingest together with `batch_rows`."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a source.

    `numbers` are the rows' numbers in the source from 1 (of JSON Lines: the line numbers), `columns` the
    values by column name, one per row, and `faults` says by position which rows could not be read and why.
    """

    numbers: Sequence[int]
    columns: dict[str, list[Any]]
    faults: dict[int, str] = field(default_factory=dict)


class Source(Protocol):
    """One table of rows that can be read more than once.

    Attributes:
        name: What the caller called it.
        stem: The domain's name if the caller gives none.
        columns: Its column names.
        rows: How many rows it has; None when that takes reading it.
        text_only: Cells hold text and nothing else (CSV), so a list is written as JSON.
    """

    name: str
    stem: str
    columns: list[str]
    rows: int | None
    text_only: bool

    def sha256(self) -> str:
        """Return the sha256 of its content, as hex."""

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if a column cannot hold what the mapping takes from it."""

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows in order, at most `batch_rows` at a time."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stem(path: Path) -> str:
    """Return a file's name without its endings that say a format: `a.v1.jsonl.gz` -> `a.v1`."""
    name = path.name.removesuffix(path.suffix)
    return Path(name).stem if path.suffix.lower() == ".gz" else name
