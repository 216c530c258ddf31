"""Columns that may say that a pair is not a positive, recognised by their names and by their values.

A name alone is enough if it is that of a score. Other names need values that look like a label or a score; which ones
depends on whether the name hints at a label, at something else such as an id or a length, or at nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A column of one of these names is never ignored without being asked for.
SCORES = (
    *("score", "scores", "label", "labels", "similarity", "similarity_score", "relevance", "relevance_score"),
    *("relevance_label", "rating", "grade", "gold_label", "gold_score", "is_duplicate", "is_relevant", "is_positive"),
)
# So is a column whose name ends in one of these words, such as human_score or pos_scores.
SCORE_ENDINGS = ("score", "scores", "similarity", "similarities", "relevance", "rating", "ratings", "grade", "grades")
# A name with one of these words hints at a label or a score: any numbers, booleans or label words make it one.
HINTS = _words(
    "label labels labelled match matches matched duplicate duplicates dup relevant irrelevant relevancy rel qrel "
    "correct incorrect positive negative pos neg target sim cos cosine distance dist judgment judgement judgments "
    "judgements entailment entails gold score scores similarity relevance relatedness related rating ratings grade "
    "grades rank ranking quality good bad valid helpful useful stars click clicked confidence prob probability logit "
    "paraphrase same equivalent hit answerable acceptable accepted agreement y"
)
# A name with one of these words is about something else, such as a topic_id, a word_count or the year.
OTHERS = _words(
    "id ids idx index row rows number num no nr n year month day week hour date time timestamp created updated length "
    "len count counts size total tokens words chars characters price cost page pages line offset start end position "
    "version part chunk shard fold split seed hash"
)
LABEL_WORDS = _words(
    "true false yes no y n t f entailment entailed neutral contradiction not_entailment positive negative relevant "
    "irrelevant not_relevant duplicate not_duplicate match mismatch no_match correct incorrect good bad pos neg"
)
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LISTED = 4
"""Most different values that are remembered of a column, to be named in a message."""


def plain_name(name: str) -> str:
    """Return a column's name as names are compared: `isDuplicate`, `Is-Duplicate ` and `is_duplicate` are the same."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s\-.]+", "_", words).lower()


def is_score_name(name: str) -> bool:
    """Return whether a column is taken for a score or a label whatever its values are."""
    plain = plain_name(name).rstrip("0123456789").rstrip("_")
    return plain in SCORES or plain.split("_")[-1] in SCORE_ENDINGS


def hints(name: str) -> bool:
    """Return whether a word of a column's name hints at a label or a score."""
    return bool(set(re.split(r"[_0-9]+", plain_name(name))) & HINTS)


class Values:
    """The values of a column that is not read, as far as they tell whether it is a label or a score.

    The column is one if every value is a number, a boolean or a label word such as "entailment", and if

    - its name hints at a label and at nothing else; or
    - its name doesn't say that it is an id, a length, a year or the like, or hints at a label too, and there are
      several values: booleans, label words, only -1, 0 and 1 (of which one occurs twice, unlike in row numbers), or
      numbers from -1 to 1 with a fraction.

    Attributes:
        ruled_out: Whether no further value can make the column one.
    """

    def __init__(self, name: str) -> None:
        words = set(re.split(r"[_0-9]+", plain_name(name)))
        self._hint, other = bool(words & HINTS), bool(words & OTHERS)
        self._any_number = self._hint and not other
        self.ruled_out = other and not self._hint
        self._found: set[float | str] = set()
        self._rows = 0
        self._fractions = self._sure = False

    def add(self, values: Sequence[Any]) -> None:
        """Take further values into account; missing ones don't count."""
        for value in values:
            if self.ruled_out:
                return
            if value is None or value == "" or value != value:
                continue
            self._add(value)

    def _add(self, value: Any) -> None:
        label = _label(value)
        number = None if isinstance(label, str) else label
        if label is None or (number is not None and not self._any_number and not -1 <= number <= 1):
            self.ruled_out = True
            return
        self._rows += 1
        self._sure = self._sure or number is None or isinstance(value, bool)
        self._fractions = self._fractions or (number is not None and not number.is_integer())
        if len(self._found) < LISTED:
            self._found.add(label)

    def suspect(self) -> str | None:
        """Return the values of a label or a score in words, such as "0, 1"; None if it is neither."""
        if self.ruled_out or not self._found:
            return None
        several = len(self._found) > 1
        repeated = self._rows > len(self._found)
        if not (self._any_number or (several and (self._sure or self._fractions or repeated))):
            return None
        shown = [f"{value:g}" if isinstance(value, float) else value for value in sorted(self._found, key=str)]
        return ", ".join(shown) + (", ..." if len(shown) == LISTED else "")


def _label(value: Any) -> float | str | None:
    """Return a value that a label or a score can have, as a number or as a word; None if it is something else."""
    if isinstance(value, str):
        text = value.strip()
        word = re.sub(r"[\s\-]+", "_", text.lower()) if len(text) <= max(map(len, LABEL_WORDS)) else ""
        if word in LABEL_WORDS:
            return word
        value = float(text) if len(text) <= 30 and NUMBER.fullmatch(text) else None
    if not isinstance(value, (bool, int, float, Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
