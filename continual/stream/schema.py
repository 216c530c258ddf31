"""Which column of a file is the query, the positive, the negatives and the document id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from continual.errors import DataError, did_you_mean

# The first name of each is our own and wins over the others; of the others there must be only one.
NAMES = {
    "query": ("query", "anchor", "question", "sentence1", "sentence_1", "queries"),
    "positive": ("positive", "document", "passage", "answer", "sentence2", "sentence_2", "pos", "response"),
    "negatives": ("negatives", "negative", "neg", "hard_negatives"),
    "doc_id": ("doc_id", "document_id", "docid", "passage_id", "corpus_id", "corpus-id"),
}
# A "text" is the query beside a document, and the document beside a query.
EITHER = "text"
NUMBERED_NEGATIVE = re.compile(r"(?:hard_)?neg(?:ative)?s?[_-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Columns:
    """The column names that the caller asks for; None: recognise it."""

    query: str | None = None
    positive: str | None = None
    negatives: str | None = None
    doc_id: str | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """The columns of one file: negatives may be none, one list column, or several text columns."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    doc_id: str | None = None

    @property
    def names(self) -> list[str]:
        """Return every column to read, each once."""
        doc_id = [self.doc_id] if self.doc_id is not None else []
        return list(dict.fromkeys([self.query, self.positive, *self.negatives, *doc_id]))

    def describe(self) -> dict[str, str]:
        """Return the columns by role, as people read them."""
        found = {"query": self.query, "positive": self.positive, "negatives": ", ".join(self.negatives)}
        found["doc_id"] = self.doc_id or ""
        return {role: column for role, column in found.items() if column}

    def record(self) -> dict[str, Any]:
        """Return the mapping as the catalog keeps it: plain JSON values by role."""
        return asdict(self) | {"negatives": list(self.negatives)}


def resolve(wanted: Columns, names: Sequence[str], source: str) -> Mapping:
    """Find the columns of a file, by request or by their common names (in any case).

    A requested name is taken as it is. Otherwise `query`, `positive`, `negatives` and `doc_id` win over their
    common synonyms; two synonyms and no proper name are ambiguous. A column `text` is the positive if the
    query is known, and the query if the positive is. Columns `negative_1`, `negative_2`, ... are taken in
    the order of their numbers.

    Args:
        wanted: What the caller asks for.
        names: The columns of the file.
        source: The file, for messages.

    Raises:
        DataError: A requested column is missing, or query or positive is unknown or ambiguous; the message
            lists the columns and the flag to use.
    """
    for role in NAMES:
        name = getattr(wanted, role)
        if name is not None and name not in names:
            raise DataError(f"{source} has no column {name!r} for {_flag(role)}.{did_you_mean(name, names)}")
    if wanted.query is not None and wanted.query == wanted.positive:
        raise DataError(f"Column {wanted.query!r} of {source} cannot be both the query and the positive.")

    free = [name for name in names if name not in (wanted.query, wanted.positive, wanted.negatives, wanted.doc_id)]
    found = {role: [getattr(wanted, role)] if getattr(wanted, role) else _named(role, free) for role in NAMES}
    text = next((name for name in free if name.lower() == EITHER), None)
    if text is not None and bool(found["query"]) != bool(found["positive"]):
        found["positive" if found["query"] else "query"] = [text]
    asks = [
        f"{'no column' if not found[role] else f'{len(found[role])} columns ({_list(found[role])})'} "
        f"for the {role.replace('_', ' ')}: name it with {_flag(role)} C"
        for role in NAMES
        if len(found[role]) > 1 or (not found[role] and role in ("query", "positive"))
    ]
    if asks:
        columns = f"the columns {_list(names)}" if names else "no columns"
        raise DataError(f"{source} has {columns}; {'; '.join(asks)}.")
    numbered = [] if found["negatives"] else _numbered(free)
    return Mapping(
        query=found["query"][0],
        positive=found["positive"][0],
        negatives=tuple(found["negatives"] or numbered),
        doc_id=found["doc_id"][0] if found["doc_id"] else None,
    )


def _named(role: str, names: Sequence[str]) -> list[str]:
    proper, *_ = known = NAMES[role]
    exact = [name for name in names if name == proper] or [name for name in names if name.lower() == proper]
    return exact or [name for name in names if name.lower() in known]


def _numbered(names: Sequence[str]) -> list[str]:
    matches = [(int(match[1]), name) for name in names if (match := NUMBERED_NEGATIVE.fullmatch(name))]
    return [name for _, name in sorted(matches)]


def _flag(role: str) -> str:
    return f"--{role.replace('_', '-')}-column"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
