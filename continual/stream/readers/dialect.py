"""How a text file is written: its encoding, and for CSV and TSV the delimiter, quotes and header."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from continual.errors import InputError

UTF8 = "utf-8"
DELIMITERS = {".csv": ",", ".tsv": "\t"}
QUOTED = (".csv",)
"""Formats whose cells may be quoted. TSV isn't one: TREC, MS MARCO and BEIR write its quotes as part of the text."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the caller says about a text file; None leaves it to the suffix.

    Attributes:
        quote: Whether a cell that begins with a double quote is quoted as in RFC 4180; by default in CSV, not in TSV.
        delimiter: The character between cells; by default a comma in CSV, a tab in TSV.
        header: Whether the first line names the columns. Without it they are called 1, 2, ...
        encoding: Name of the encoding as Python knows it; by default UTF-8.
    """

    quote: bool | None = None
    delimiter: str | None = None
    header: bool = True
    encoding: str | None = None

    @property
    def of_cells(self) -> bool:
        """Whether anything is said that only CSV and TSV files have."""
        return self.quote is not None or self.delimiter is not None or not self.header


@dataclass(frozen=True, slots=True)
class Layout:
    """How a CSV or TSV file is read, with nothing left open."""

    quote: bool
    delimiter: str
    header: bool


def check_dialect(dialect: Dialect) -> Dialect:
    r"""Return the dialect with `\t` spelled as a tab.

    Raises:
        InputError: The delimiter is not one character, or there is no such encoding.
    """
    delimiter = "\t" if dialect.delimiter in ("\\t", "tab") else dialect.delimiter
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise InputError(f"--delimiter takes one character, such as ';' or '\\t', not {dialect.delimiter!r}.")
    if dialect.encoding is not None:
        try:
            "".encode(dialect.encoding)
        except (LookupError, ValueError):
            raise InputError(
                f"--encoding takes the name of an encoding, such as utf-8, utf-16, latin-1 or cp1252, not "
                f"{dialect.encoding!r}."
            ) from None
    return replace(dialect, delimiter=delimiter)


def layout_of(dialect: Dialect, suffix: str) -> Layout:
    """Return how a file with the suffix .csv or .tsv is read."""
    return Layout(
        quote=suffix in QUOTED if dialect.quote is None else dialect.quote,
        delimiter=DELIMITERS[suffix] if dialect.delimiter is None else dialect.delimiter,
        header=dialect.header,
    )


def record_dialect(dialect: Dialect, suffix: str) -> dict[str, Any]:
    """Return how a file is read where that differs from quoted UTF-8 with a header, as JSON values for the catalog.

    Batches from before there were dialects were read so, TSV included.
    """
    record: dict[str, Any] = {}
    if dialect.encoding is not None and dialect.encoding.lower().replace("_", "-") not in (UTF8, "utf8"):
        record["encoding"] = dialect.encoding
    if suffix in DELIMITERS:
        layout = layout_of(dialect, suffix)
        if not layout.quote:
            record["quote"] = False
        if layout.delimiter != DELIMITERS[suffix]:
            record["delimiter"] = layout.delimiter
        if not layout.header:
            record["header"] = False
    return record
