"""Sources of rows: `open_source` knows what a name means, and reads it in bounded pieces.

A piece holds plain Python values rather than Arrow arrays, because a line of JSON may hold anything: a
number where text belongs is a bad row with a reason, not the end of the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from continual.errors import DataError
from continual.stream.schema import Mapping

HUB = "hf:"
PIECE_BYTES = 8 << 20
"""Bytes of text in one piece, about; what bounds the memory of an ingest together with `batch_rows`."""


@dataclass(frozen=True, slots=True)
class Rows:
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

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Rows]:
        """Yield these columns of all rows in order, at most `batch_rows` at a time."""


def open_source(source: str) -> Source:
    """Open a file by its ending, or a data set of the Hugging Face hub.

    Args:
        source: A path that ends in .parquet, .jsonl, .ndjson, .json, .csv or .tsv (the last five also
            with .gz), or `hf:NAME[:CONFIG][:SPLIT]`.

    Raises:
        DataError: It is missing, empty, truncated, or not what its name says.
    """
    from continual.stream import readers_arrow, readers_text

    if source.startswith(HUB):
        return readers_arrow.open_hub(source)
    path = Path(source)
    if path.is_dir():
        raise DataError(f"{source} is a folder. Name a file in it: .parquet, .jsonl or .csv.")
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise DataError(f"{source} does not exist.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{source} cannot be opened: {error}.") from None
    if size == 0:
        raise DataError(f"{source} is empty (0 bytes).")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else "".join(suffixes[-1:])
    if kind == ".parquet" and suffixes[-1] != ".gz":
        return readers_arrow.ParquetSource(source)
    if kind in (".jsonl", ".ndjson", ".json"):
        return readers_text.JsonLinesSource(source)
    if kind in (".csv", ".tsv"):
        return readers_text.CsvSource(source, delimiter="," if kind == ".csv" else "\t")
    raise DataError(
        f"{source} has no known ending. continual reads .parquet, .jsonl, .json, .csv, .tsv (the text ones "
        "also with .gz) and hf:NAME."
    )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_stem(path: Path) -> str:
    """Return a file's name without its endings that say a format: `a.v1.jsonl.gz` -> `a.v1`."""
    name = path.name.removesuffix(path.suffix)
    return Path(name).stem if path.suffix.lower() == ".gz" else name
