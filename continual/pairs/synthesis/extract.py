"""Queries without a language model: parts of the passage itself. They are weak, and better than nothing.

- `title`: a heading at the top of the passage; the positive is the rest.
- `question`: "What is X?" for what the passage defines in its first sentences (English only).
- `keywords`: the two terms that distinguish the passage most from the others, by tf-idf.
- `cloze`: a sentence of the passage; the positive is the passage without it (the inverse cloze task,
  https://arxiv.org/abs/1906.00300).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from continual.pairs.synthesis.records import Candidate

TITLE_WORDS = 14
SENTENCE_WORDS = (6, 30)
KEYWORDS = 2
COMMON = 0.2
"""Share of the passages above which a term says nothing about one of them, if there are `ENOUGH` passages."""

ENOUGH = 50
SPLIT = 5_000
"""Passages whose terms are weighed at a time."""

_WORD = r"(?u)\b[^\W\d_][\w'-]+\b"
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_TITLE = re.compile(r"^\s*(?:#+\s*)?(?P<title>[^\n]{3,150}?)\s*#*\s*\n+(?P<rest>\S.*)$", re.DOTALL)
_ENDS = ".!?;,:。！？"
_DEFINITION = re.compile(
    r"^(?:(?:The|A|An)\s+)?(?P<term>[A-Z][^.,;:()?!\n]{1,60}?)(?:\s*\([^)\n]{1,40}\))?\s+"
    r"(?P<verb>is|are)\s+(?:an?|the|one|any|caused|used|characterized|characterised|defined)\b"
)
_PRONOUNS = {"it", "this", "that", "these", "those", "there", "he", "she", "they", "we", "you", "what", "here", "i"}


def extract(passages: Sequence[str]) -> Iterator[Candidate]:
    """Yield the queries that passages hold, passage by passage, the best type first.

    Args:
        passages: Distinct passages.
    """
    terms = _terms(passages)
    for index, passage in enumerate(passages):
        sentences = [part.strip() for part in _SENTENCE.split(passage) if part.strip()]
        if (title := _title(passage)) is not None:
            yield Candidate(title[0], index, title[1], "title")
        if (question := _question(sentences)) is not None:
            yield Candidate(question, index, passage, "question")
        keywords = terms(index)
        if len(keywords) == KEYWORDS:
            yield Candidate(" ".join(keywords), index, passage, "keywords")
        if (cloze := _cloze(sentences)) is not None:
            rest = passage.replace(cloze, " ", 1)
            yield Candidate(cloze, index, " ".join(rest.split()), "cloze")


def _title(passage: str) -> tuple[str, str] | None:
    found = _TITLE.match(passage)
    if found is None:
        return None
    title, rest = found["title"].strip(), found["rest"].strip()
    words = len(title.split())
    if words > TITLE_WORDS or title[-1] in _ENDS.replace("?", "") or len(rest.split()) < 2 * words:
        return None
    return title, rest


def _question(sentences: Sequence[str]) -> str | None:
    for sentence in sentences[:3]:
        found = _DEFINITION.match(sentence)
        if found and found["term"].split()[0].lower() not in _PRONOUNS:
            return f"What {found['verb']} {_lower_start(found['term'])}?"
    return None


def _lower_start(term: str) -> str:
    """Return a term as it stands inside a sentence: without the capital of its first word, unless that is a name."""
    first, _, rest = term.partition(" ")
    plain = first[1:].islower() and len(first) > 1 and not rest[:1].isupper()
    return f"{first.lower()} {rest}".strip() if plain else term


def _cloze(sentences: Sequence[str]) -> str | None:
    """Return the sentence nearest to the middle of a passage that is neither short nor long."""
    fit = [
        (abs(place - len(sentences) / 2), place)
        for place, sentence in enumerate(sentences)
        if place and SENTENCE_WORDS[0] <= len(sentence.split()) <= SENTENCE_WORDS[1]
    ]
    return sentences[min(fit)[1]] if fit and len(sentences) >= 3 else None


def _terms(passages: Sequence[str]) -> Any:
    """Return a function from a passage's index to its most distinctive terms, in the order of the passage."""
    import numpy as np
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2),
        token_pattern=_WORD,
        stop_words=sorted(ENGLISH_STOP_WORDS),
        max_df=COMMON if len(passages) >= ENOUGH else 1.0,
        sublinear_tf=True,
        dtype=np.float32,
    )
    try:
        vectorizer.fit(passages)
    except ValueError:  # no term is left
        return lambda index: []
    names = vectorizer.get_feature_names_out()
    held: dict[int, Any] = {}

    def best(index: int) -> list[str]:
        start = index // SPLIT * SPLIT
        if start not in held:
            held.clear()
            held[start] = vectorizer.transform(passages[start : start + SPLIT])
        row = held[start][index - start]
        order = (-row.data).argsort(kind="stable")
        chosen: list[str] = []
        for name in (str(names[place]) for place in row.indices[order]):
            words = set(name.split())
            if not any(words & set(other.split()) for other in chosen):
                chosen.append(name)
            if len(chosen) == KEYWORDS:
                break
        text = passages[index].lower()
        return sorted(chosen, key=lambda name: text.find(name.split()[0]))

    return best
