"""Judgements of a task: which documents are relevant to which queries."""

from __future__ import annotations

import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

from continual.errors import DataError
from continual.registry.text import fault
from continual.stream.task_rows import DOCUMENT_IDS, GRADES, QUERY_IDS, choose_column, open_rows

MAX_GRADE = 2**31 - 1

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,3})?")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


@dataclass(frozen=True, slots=True)
class Judgements:
    """The judgements of a file.

    Attributes:
        grades: Grade by query and document, 0 or more; above 0 if the document is relevant.
        repeated: Rows that repeat a judgement.
        negative: Rows with a grade below 0, which counts as 0.
        cut: Rows with a grade whose fraction was cut off.
        unread: Columns that were not read.
    """

    grades: dict[tuple[str, str], int]
    repeated: int
    negative: int
    cut: int
    unread: list[str]


def read_judgements(path: Path) -> Judgements:
    """Read a file of judgements.

    Grades are read as trec_eval does: the fraction of a grade is cut off, and a negative grade counts as 0.

    Raises:
        DataError: The file can't be read, an id or a grade can't be used, or two rows contradict each other.
    """
    rows = open_rows(path)
    # The general names "_id" and "id" could be either.
    names = [choose_column(path, rows.columns, ranks) for ranks in (QUERY_IDS[:1], DOCUMENT_IDS[:1], GRADES)]
    grades: dict[tuple[str, str], int] = {}
    repeated = negative = cut = 0
    for number, row in rows.read(names):
        place = f"{path}, row {number}"
        query, document, value = (row[name] for name in names)
        pair = (identity(query, place), identity(document, place))
        given = _grade(value, place)
        grade = max(0, int(given))
        if grades.get(pair, grade) != grade:
            raise DataError(
                f"{place}, judges {shorten(pair)} as {grade}, but a row before it says {grades[pair]}. Remove one of "
                "the judgements."
            )
        repeated += pair in grades
        negative += given < 0
        cut += given != int(given)
        grades[pair] = grade
    return Judgements(grades, repeated, negative, cut, [name for name in rows.columns if name not in names])


def identity(value: object, place: str) -> str:
    """Return an id as text: text as it is, a whole number as its digits.

    Raises:
        DataError: The value is something else, or a text that can't be stored; `place` says where.
    """
    name = value if isinstance(value, str) else str(value) if type(value) is int else ""
    reason = fault(name)
    if reason:
        raise DataError(
            f"{place}, has an id that cannot be used ({shorten(value)}): "
            f"{reason if isinstance(value, str) else 'not text or a whole number'}. Fix the row."
        )
    return name


def shorten(value: object) -> str:
    """Return a value as Python writes it, cut to a length that fits in a message."""
    return _SHORT.repr(value)


def _grade(value: object, place: str) -> int | float:
    number = value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    if isinstance(number, (int, float)) and not isinstance(number, bool) and abs(number) <= MAX_GRADE:
        return number  # neither infinite nor NaN
    raise DataError(
        f"{place}, has the grade {shorten(value)}, but a grade is a number of at most {MAX_GRADE:,}. Fix the row; if "
        "it is a header, name its columns query-id, corpus-id and score."
    )
