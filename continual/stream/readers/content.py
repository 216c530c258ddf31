"""What a file is by its first bytes and its kind, so that a wrong suffix or a pipe is named as such."""

from __future__ import annotations

import stat
from pathlib import Path

from continual.errors import DataError

STARTS = {
    b"\x1f\x8b": ("gzip data", ".gz"),
    b"\x28\xb5\x2f\xfd": ("zstd data", ".zst"),
    b"PK\x03\x04": ("a zip archive, as Excel workbooks are", ""),
    b"PAR1\x15": ("Parquet", ".parquet"),
}
"""First bytes of formats, with their names and their suffixes."""
PRINTABLE = frozenset(b"\t\r\n") | frozenset(range(32, 127))
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
"""Names of compressions by suffix, as pyarrow has them."""


def check_regular(path: Path) -> None:
    """Check that a path is a file, and not a pipe, a socket or a device, whose reading may never end.

    Raises:
        DataError: It is something else.
        OSError: There is nothing, or it can't be accessed.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISCHR, "a device"))
        kind = next((name for check, name in kinds if check(mode)), "a device")
        raise DataError(
            f"{path} is {kind}, and only files can be read, since they are read twice. Save its content to a file "
            "first."
        )


def check_content(path: Path) -> None:
    """Check that a text file, plain or compressed, begins as its suffix says.

    Raises:
        DataError: It is compressed and has another suffix, or it has the suffix of a compression and is plain.
    """
    with path.open("rb") as file:
        head = file.read(max(map(len, STARTS)))
    suffix = path.suffix.lower()
    name, right = next((found for start, found in STARTS.items() if head.startswith(start)), ("", ""))
    if suffix in COMPRESSED:
        if name and right != suffix:
            advice = _advice(path.with_suffix(""), right)
            raise DataError(f"{path} holds {name}, but its suffix says {COMPRESSED[suffix]}. {advice}.")
        plain = head.removeprefix(b"\xef\xbb\xbf")
        if plain and all(byte in PRINTABLE for byte in plain):
            raise DataError(
                f"{path} holds no compressed data, but its suffix says {COMPRESSED[suffix]}. Rename it to {path.stem}."
            )
        return
    if name:
        raise DataError(f"{path} holds {name}, but its suffix says text. {_advice(path, right)}.")


def _advice(path: Path, right: str) -> str:
    if not right:
        return "Unpack it, or save the workbook as CSV"
    return f"Rename it to {path.with_suffix(right).name if right == '.parquet' else path.name + right}"
