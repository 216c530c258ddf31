"""From the cells of a row to texts, ids and scores, or to the reason why the row is bad."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from continual.registry.text import clean, fault, normalise

SHOWN_CHARS = 200
SHOWN_ITEMS = 5
SHOWN_DEPTH = 3
MAX_TEXTS = 10_000
"""Most positives or negatives of a row, which bounds the memory that one row needs."""
QUOTED_LIST = re.compile(r"""\[\s*["']""")
"""The beginning of a list of texts as Python or numpy write it."""
WORDS = {"true": 1, "false": 0}
NULLS = ("\\N", "NULL", "null", "NaN", "nan", "None", "NA", "<NA>", "N/A", "#N/A")
"""Cells of CSV and TSV files that databases, pandas and spreadsheets write for a missing value."""


class BadRow(Exception):
    """A row cannot be stored; the message is the reason."""


def read_query(value: object, max_chars: int) -> tuple[str, str]:
    """Return a query as it is stored and as it is compared."""
    if isinstance(value, str) and (texts := _list_in(value, "query")) is not None:
        value = texts
    if isinstance(value, list):
        raise BadRow("query: not one text but a list")
    return _text("query", value, max_chars)


def read_positives(value: object, max_chars: int) -> list[tuple[str, str]]:
    """Return the positives of a cell, each as it is stored and as it is compared: one text, or a list of texts."""
    if isinstance(value, str) and (texts := _list_in(value, "positive")) is not None:
        value = texts
    if not isinstance(value, list):
        return [_text("positive", value, max_chars)]
    if not value:
        raise BadRow("positive: missing")
    return [_text("positive", item, max_chars) for item in _few(value, "positive")]


def read_negatives(value: object, max_chars: int) -> list[str]:
    """Return the texts of a negatives cell, which holds a list, one text or nothing; empty items are left out."""
    if _missing(value):
        return []
    if isinstance(value, str):
        texts = _list_in(value, "negatives")
        value = [value] if texts is None else texts
    if not isinstance(value, list):
        raise BadRow(f"negatives: {_not_text(value)}")
    given = []
    for item in _few(value, "negatives"):
        if item is None or item == "":
            continue
        if not isinstance(item, str):
            raise BadRow(f"negatives: {_not_text(item)}")
        text = clean(item)
        reason = fault(text, max_chars)
        if reason and reason != "empty":
            raise BadRow(f"negatives: {reason}")
        if text:
            given.append(text)
    return given


def read_id(value: object, max_chars: int) -> str | None:
    """Return a document id as text, with whole numbers written as integers; None if it is missing."""
    if _missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadRow(f"doc_id: not an id but {_type_name(value)}")
    text = clean(str(value))
    reason = fault(text, max_chars)
    if reason and reason != "empty":
        raise BadRow(f"doc_id: {reason}")
    return text or None


def read_score(value: object) -> float:
    """Return a score: a number, true or false, or one of these as text."""
    if isinstance(value, str):
        word = value.strip().lower()
        try:
            value = WORDS[word] if word in WORDS else float(word) if word else None
            if "_" in word:
                raise ValueError(word)  # Python's own spelling of numbers
        except ValueError:
            raise BadRow("score: not a number but text") from None
    if _missing(value):
        raise BadRow("score: missing")
    if not isinstance(value, (int, float)):
        raise BadRow(f"score: not a number but {_type_name(value)}")
    try:
        score = float(value)
    except OverflowError:
        score = math.inf
    if not math.isfinite(score):
        raise BadRow("score: out of range")
    return score


def check_grade(score: float, limits: tuple[float, float] | None) -> None:
    """Check that the score of a graded pair is within its range, if there is one."""
    if limits is not None and not limits[0] <= score <= limits[1]:
        raise BadRow(f"score: not from {limits[0]:g} to {limits[1]:g}")


def _text(role: str, value: object, max_chars: int) -> tuple[str, str]:
    """Return a text as it is stored and as it is compared."""
    if not isinstance(value, str):
        raise BadRow(f"{role}: {_not_text(value)}")
    text = clean(value)
    reason = fault(text, max_chars)
    if reason:
        raise BadRow(f"{role}: {reason}")
    return text, normalise(text)


def _list_in(cell: str, role: str) -> list[Any] | None:
    """Return the list that a cell holds as JSON; None if it holds plain text, such as "[1]" in place of a passage.

    Raises:
        BadRow: The cell holds a list in another notation, whose texts can only be guessed.
    """
    if not cell.startswith("[") and not cell[:1].isspace():
        return None
    stripped = cell.strip()
    if not (stripped.startswith("[") and stripped.endswith("]")):
        return None
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        if QUOTED_LIST.match(stripped):
            raise BadRow(f"{role}: a list of texts that is not JSON") from None
        return None
    numbers = bool(value) and all(isinstance(item, (int, float)) for item in value)
    return None if numbers and role != "negatives" else list(value)


def _few(texts: list[Any], role: str) -> list[Any]:
    if len(texts) > MAX_TEXTS:
        raise BadRow(f"{role}: over {MAX_TEXTS} texts")
    return texts


def _missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _not_text(value: object) -> str:
    if _missing(value):
        return "missing"
    if isinstance(value, bytes):
        return "not valid UTF-8"
    return f"not text but {_type_name(value)}"


def _type_name(value: object) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float)):
        return "a number"
    return "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else type(value).__name__


def shown(value: object, depth: int = 0) -> object:
    """Return a value shortened for a reject file, so that it is valid JSON."""
    if isinstance(value, str):
        return value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}... ({len(value)} characters)"
    if isinstance(value, (list, dict)) and depth == SHOWN_DEPTH:
        return f"... ({_type_name(value)})"
    if isinstance(value, list):
        more = [f"... ({len(value)} items)"] if len(value) > SHOWN_ITEMS else []
        return [shown(item, depth + 1) for item in value[:SHOWN_ITEMS]] + more
    if isinstance(value, dict):
        return {str(key)[:SHOWN_CHARS]: shown(value[key], depth + 1) for key in list(value)[:SHOWN_ITEMS]}
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    text = repr(value)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
