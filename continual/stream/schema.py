"""The columns of a file that hold the query, the positive, the negatives and the document id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from continual.errors import DataError, did_you_mean

# The first name of a role wins over its synonyms; without it, only one synonym may occur.
NAMES = {
    "query": ("query", "anchor", "question", "sentence1", "sentence_1", "queries"),
    "positive": ("positive", "document", "passage", "answer", "sentence2", "sentence_2", "pos", "response"),
    "negatives": ("negatives", "negative", "neg", "hard_negatives"),
    "doc_id": ("doc_id", "document_id", "docid", "passage_id", "corpus_id", "corpus-id"),
}
# A "text" column is the query if the file has documents, and the document if the file has queries.
EITHER = "text"
NUMBERED_NEGATIVE = re.compile(r"(?:hard_)?neg(?:ative)?s?[_-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Columns:
    """The column names that the caller asks for; a role that is None is recognised by the common names."""

    query: str | None = None
    positive: str | None = None
    negatives: str | None = None
    doc_id: str | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """The columns of one file. Negatives are in no column, in one list column, or in several text columns."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    doc_id: str | None = None

    @property
    def names(self) -> list[str]:
        """Return the columns to read, without repetitions."""
        doc_id = [self.doc_id] if self.doc_id is not None else []
        return list(dict.fromkeys([self.query, self.positive, *self.negatives, *doc_id]))

    def describe(self) -> dict[str, str]:
        """Return the columns by role, for display; roles without a column are left out."""
        columns = {"query": self.query, "positive": self.positive, "negatives": ", ".join(self.negatives)}
        columns["doc_id"] = self.doc_id or ""
        return {role: column for role, column in columns.items() if column}

    def record(self) -> dict[str, Any]:
        """Return the columns by role, as JSON values for the catalog."""
        return asdict(self) | {"negatives": list(self.negatives)}


def resolve(wanted: Columns, names: Sequence[str], source: str) -> Mapping:
    """Find the columns of a file, by request or by their common names (in upper or lower case).

    A requested name is used as it is. Otherwise `query`, `positive`, `negatives` and `doc_id` win over their common
    synonyms; two synonyms without the proper name are ambiguous. A column `text` is the positive if the query has a
    column, and the query if the positive has one. Columns `negative_1`, `negative_2`, ... are read in the order of
    their numbers.

    Args:
        wanted: The columns that the caller asks for.
        names: The columns of the file.
        source: The file, for messages.

    Raises:
        DataError: A requested column is missing, or the query or the positive has no column or several; the message
            lists the columns and the option to use.
    """
    for role in NAMES:
        name = getattr(wanted, role)
        if name is not None and name not in names:
            raise DataError(f"{source} has no column {name!r} for {_flag(role)}.{did_you_mean(name, names)}")
    if wanted.query is not None and wanted.query == wanted.positive:
        raise DataError(
            f"Column {wanted.query!r} of {source} cannot be both the query and the positive. Choose another column "
            "with --query-column or --positive-column."
        )

    free = [name for name in names if name not in (wanted.query, wanted.positive, wanted.negatives, wanted.doc_id)]
    columns = {role: [getattr(wanted, role)] if getattr(wanted, role) else _named(role, free) for role in NAMES}
    text = next((name for name in free if name.lower() == EITHER), None)
    if text is not None and bool(columns["query"]) != bool(columns["positive"]):
        columns["positive" if columns["query"] else "query"] = [text]
    problems = [
        f"{'no column' if not columns[role] else f'{len(columns[role])} columns ({_list(columns[role])})'} "
        f"for the {role.replace('_', ' ')}: name it with {_flag(role)} C"
        for role in NAMES
        if len(columns[role]) > 1 or (not columns[role] and role in ("query", "positive"))
    ]
    if problems:
        listed = f"the columns {_list(names)}" if names else "no columns"
        raise DataError(f"{source} has {listed}; {'; '.join(problems)}.")
    numbered = [] if columns["negatives"] else _numbered(free)
    return Mapping(
        query=columns["query"][0],
        positive=columns["positive"][0],
        negatives=tuple(columns["negatives"] or numbered),
        doc_id=columns["doc_id"][0] if columns["doc_id"] else None,
    )


def _named(role: str, names: Sequence[str]) -> list[str]:
    proper, *_ = synonyms = NAMES[role]
    exact = [name for name in names if name == proper] or [name for name in names if name.lower() == proper]
    return exact or [name for name in names if name.lower() in synonyms]


def _numbered(names: Sequence[str]) -> list[str]:
    matches = [(int(match[1]), name) for name in names if (match := NUMBERED_NEGATIVE.fullmatch(name))]
    return [name for _, name in sorted(matches)]


def _flag(role: str) -> str:
    return f"--{role.replace('_', '-')}-column"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
