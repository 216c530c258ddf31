"""Filters of synthetic queries that look at one query and its positive."""

from __future__ import annotations

import unicodedata
from collections import Counter

from continual.pairs.synthesis.records import Candidate
from continual.registry.text import fault
from continual.stream.shingles import words

MOST_CHARS = 400
COPIED_WORDS = 8
"""A run of this many words that query and positive share is copied."""

FORMAT, LANGUAGE, COPIED = "format", "language", "copied"


def reason(candidate: Candidate, *, any_language: bool = False) -> str | None:
    """Return the filter that leaves a query out because of its text, or None.

    Args:
        any_language: Whether queries may be in another script than their passages.
    """
    query = candidate.query
    if fault(query) or len(query) > MOST_CHARS or not words(query) or not words(candidate.positive) or "\n" in query:
        return FORMAT
    if not any_language and script(query) not in ("", script(candidate.positive)):
        return LANGUAGE
    return COPIED if copied(query, candidate.positive) else None


def copied(query: str, positive: str) -> bool:
    """Return whether a query repeats a long run of words of its positive."""
    asked, told = words(query), words(positive)
    if len(asked) < COPIED_WORDS:
        return False
    runs = {tuple(told[place : place + COPIED_WORDS]) for place in range(len(told) - COPIED_WORDS + 1)}
    return any(tuple(asked[place : place + COPIED_WORDS]) in runs for place in range(len(asked) - COPIED_WORDS + 1))


def script(text: str) -> str:
    """Return the script that most letters of a text are of, such as "LATIN" or "CJK"; "" for a text without letters.

    >>> script("Wie geht es?"), script("元気ですか"), script("12")
    ('LATIN', 'CJK', '')
    """
    letters = Counter(unicodedata.name(each, "").split(" ")[0] for each in text if each.isalpha())
    if not letters:
        return ""
    name = letters.most_common(1)[0][0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name
