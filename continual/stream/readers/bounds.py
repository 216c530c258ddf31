"""Bounds of what is read of one file, so that a small or an odd one can't fill the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from continual.errors import DataError

LINE_BYTES = 16 << 20
"""Largest line or CSV cell in bytes, so that a file without line ends is rejected and not read into memory."""
ROW_BYTES = 64 << 20
"""Most bytes of texts of a row; a Parquet file can hold one text and refer to it any number of times."""
MAX_COLUMNS = 10_000
"""Most columns of a file, or keys of JSON Lines."""
MAX_GROWTH = 100
"""Most bytes that a byte of a file may become in memory. Text is seldom compressed to less than a twentieth."""


def check_names(names: Iterable[str], source: str, hint: str = "") -> list[str]:
    """Return the names of a file's columns.

    Args:
        names: The names.
        source: The file, for messages.
        hint: What else to do about a name that is repeated, as a sentence.

    Raises:
        DataError: There are more than `MAX_COLUMNS`, or one occurs twice.
    """
    listed = list(names)
    if len(listed) > MAX_COLUMNS:
        raise DataError(
            f"{source} has {len(listed):,} columns, and at most {MAX_COLUMNS:,} are read. Write a file with the "
            "columns that are needed."
        )
    repeated = sorted(name for name, times in Counter(listed).items() if times > 1)
    if repeated:
        raise DataError(f"{source} has more than one column {repeated[0]!r}. Rename one of them{hint}.")
    return listed


def check_growth(source: Path, size: int, stored: int, free: int) -> None:
    """Check how many bytes a file, or a part of it, becomes in memory.

    Args:
        source: The file, for the message.
        size: Bytes in memory.
        stored: Bytes in the file.
        free: Bytes that are allowed whatever is stored.

    Raises:
        DataError: They are more than `MAX_GROWTH` times the stored ones.
    """
    if size > max(free, MAX_GROWTH * stored):
        raise DataError(
            f"{source} grows to more than {MAX_GROWTH} times its size when it is read, so it could fill the memory. "
            "Write it as plain text, such as .jsonl, if this is what you want."
        )


def too_large(name: str, row: int, size: int) -> DataError:
    """Return the error for a row, counted from 1, whose texts take more than `ROW_BYTES`."""
    return DataError(
        f"{name}, row {row}: its texts take {size / 1e6:,.0f} MB, and at most {ROW_BYTES / 1e6:,.0f} MB are read. "
        "Split it into several rows, or remove it."
    )
