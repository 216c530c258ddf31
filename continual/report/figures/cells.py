"""CSV whose cells a spreadsheet shows and doesn't run."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from continual.storage.terminal import harmless

_FORMULA = re.compile(r"[=+\-@\t\n]")
_NUMBER = re.compile(r"[+-]?[0-9.,]+([eE][+-]?[0-9]+)?")


def to_csv(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV. None is an empty cell.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a line feed could be run as a formula, so it gets a quote mark
    before it, as OWASP advises. Control characters are shown as escapes, as in a terminal. Numbers stay numbers.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = harmless(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
