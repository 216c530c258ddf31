"""A synthetic query, and what becomes of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """A query for a passage.

    Attributes:
        query: The query.
        passage: Index of the passage.
        positive: The text that it is paired with: the passage, without a part that is the query itself.
        type: What kind of query it is, such as "keywords" or "question".
        traits: What a language model was asked for: persona, difficulty, length, language.
    """

    query: str
    passage: int
    positive: str
    type: str
    traits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """Queries that a filter left out.

    Attributes:
        count: Their number.
        examples: Some of them, each with the beginning of its passage.
    """

    count: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class Kind:
    """Queries of one type, difficulty or language.

    Attributes:
        written: Number of candidates.
        kept: Number that passed all filters.
        query_words: Mean number of words of the kept queries.
        rank: Mean rank of the source passage among all passages, of the candidates that were ranked; None if none was.
    """

    written: int
    kept: int
    query_words: float
    rank: float | None


@dataclass(frozen=True)
class Spent:
    """What a language model used for a file, with what was answered in earlier calls.

    Attributes:
        requests: Answered requests.
        tokens: Tokens of requests and of answers.
        cost: Money; None without prices.
    """

    requests: int = 0
    tokens: tuple[int, int] = (0, 0)
    cost: float | None = None


@dataclass(frozen=True)
class Synthesis:
    """What was made of some passages.

    Attributes:
        method: "extract" or "llm".
        version: The version that ranked the passages.
        passages: Passages that were read, without repetitions and without those that a task holds.
        held: Passages left out because a task holds them.
        covered: Passages with at least one query that was kept.
        written: Number of candidates.
        kept: Number of pairs in the file.
        rejected: What the filters left out, by filter, in their order.
        types: Figures by type of query.
        traits: Figures by trait and its value, such as traits["difficulty"]["high"].
        missing: Passages without a candidate, by reason; only of a language model.
        spent: What a language model used; None without one.
        passage_words: Mean number of words of a passage.
        file: The Parquet file that was written.
    """

    method: str
    version: str
    passages: int
    held: int
    covered: int
    written: int
    kept: int
    rejected: dict[str, Rejected]
    types: dict[str, Kind]
    traits: dict[str, dict[str, Kind]]
    missing: dict[str, int]
    spent: Spent | None
    passage_words: float
    file: str

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)
