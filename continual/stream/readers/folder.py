"""A folder of files with the same columns, such as the shards of a data set, read as one source."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from continual.errors import DataError
from continual.stream.readers.base import Piece, Source, schema_of
from continual.stream.schema import Mapping

SPLIT = re.compile(r"(?:^|[-_.])(train|test|validation|valid|val|dev|eval)(?=[-_.]|$)", re.IGNORECASE)
"""The name of a split in the name of a file."""


class FolderSource:
    """Files of one format, in the order of their names."""

    def __init__(self, name: str, files: Sequence[Path], sources: Sequence[Source], others: Sequence[str]) -> None:
        """Combine the files of a folder.

        Args:
            name: The folder.
            files: The files to read.
            sources: Each of them, opened.
            others: Names in the folder that are not read.

        Raises:
            DataError: The files belong to several splits, or differ in their columns.
        """
        self.name = name
        self.stem = Path(name).resolve().name
        self.rows: int | None = None
        if all(source.rows is not None for source in sources):
            self.rows = sum(source.rows or 0 for source in sources)
        self.dialect: dict[str, Any] = sources[0].dialect
        self._others = _others(others)
        self.warnings: list[str] = list(self._others)
        self._sources = dict(zip((file.name for file in files), sources, strict=True))
        _check_splits(name, files)
        self.columns = self._all_columns()

    @property
    def schema(self) -> Any:
        """Return the Arrow schema of the files; None if their values have no types."""
        return schema_of(next(iter(self._sources.values())))

    def sha256(self) -> str:
        """Return a SHA-256 of the contents of the files, which doesn't depend on their names."""
        digests = sorted(source.sha256() for source in self._sources.values())
        return hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def check(self, mapping: Mapping) -> None:
        """Raise `DataError` if a file lacks a column of the mapping or has it with another kind of values."""
        for source in self._sources.values():
            source.check(mapping)

    def read(self, columns: Sequence[str], batch_rows: int) -> Iterator[Piece]:
        """Yield these columns of all rows, file by file."""
        self.warnings = list(self._others)
        for file, source in self._sources.items():
            for piece in source.read(columns, batch_rows):
                yield replace(piece, file=file)
            self.warnings += [f"{file}: {warning}" for warning in source.warnings]
        self.columns = self._all_columns()

    def _all_columns(self) -> list[str]:
        return list(dict.fromkeys(column for source in self._sources.values() for column in source.columns))


def check_columns(name: str, sources: Sequence[Source]) -> None:
    """Check that files whose columns are fixed, all but JSON Lines, have the same ones.

    Raises:
        DataError: Two files differ.
    """
    first = sources[0]
    for source in sources[1:]:
        differing = sorted(set(first.columns) ^ set(source.columns))
        if differing:
            raise DataError(
                f"{name} holds files with different columns: only one of {first.name} and {source.name} has "
                f"{differing[0]!r}. Ingest them one by one with the same --domain."
            )


def _check_splits(name: str, files: Sequence[Path]) -> None:
    splits = sorted({match[1].lower() for file in files if (match := SPLIT.search(file.name))})
    if len(splits) > 1 or (splits and splits != ["train"] and any(not SPLIT.search(file.name) for file in files)):
        own = [file for file in files if (match := SPLIT.search(file.name)) is None or match[1].lower() == "train"]
        example = f", such as {own[0]}," if own else ""
        raise DataError(
            f"{name} holds files of different splits by their names ({', '.join(splits)}), and ingest would train on "
            f"all of them. Name the files to read{example} with --domain."
        )


def _others(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return [f"The folder also holds {shown}, which {'is' if len(names) == 1 else 'are'} not read."]
