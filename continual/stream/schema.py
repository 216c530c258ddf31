"""The columns of a file that hold the query, the positive, the negatives, the document id and the score."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from continual.errors import DataError, InputError, did_you_mean
from continual.stream.labels import is_score_name, plain_name

# The first name of a role wins over its synonyms; without it, only one synonym may occur.
NAMES = {
    "query": ("query", "anchor", "question", "sentence1", "sentence_1", "queries"),
    "positive": ("positive", "document", "passage", "answer", "sentence2", "sentence_2", "pos", "response"),
    "negatives": ("negatives", "negative", "neg", "hard_negatives"),
    "doc_id": ("doc_id", "document_id", "docid", "passage_id", "corpus_id"),
}
# A "text" column is the query if the file has documents, and the document if the file has queries.
EITHER = "text"
GIVE_TEXTS = (
    "Give the files with the texts, such as --corpus collection.tsv --queries queries.tsv, or name the columns that "
    "hold texts with --query-column and --positive-column."
)
NO_SCORE = "none"
"""What `Columns.score` is if no column is about the pair."""
# Names of columns with ids, whose texts are in files of their own. Those of texts are recognised too.
ID_NAMES = {
    "query": ("query_id", "qid", "queryid", "topic_id"),
    "positive": (
        *("positive_id", "positive_ids", "positive_pid", "positive_pids", "positive_doc_id", "positive_doc_ids"),
        *("positive_passage_id", "positive_passage_ids", "pos_id", "pos_ids", "pos_pid", "pos_pids"),
        *("corpus_id", "doc_id", "docid", "document_id", "passage_id", "pid"),
    ),
    "negatives": (
        *("negative_ids", "negative_id", "negative_pid", "negative_pids", "negative_doc_id", "negative_doc_ids"),
        *("negative_passage_id", "negative_passage_ids", "neg_id", "neg_ids", "neg_pid", "neg_pids"),
        "hard_negative_ids",
    ),
}
NUMBERED_ID = re.compile(r"(?:hard_)?neg(?:ative)?s?(?:_[a-z]*ids?)?_?(\d+)(?:_ids?)?")
NUMBERED_NEGATIVE = re.compile(r"(?:hard_)?neg(?:ative)?s?_?(\d+)")


@dataclass(frozen=True, slots=True)
class Columns:
    """How the caller wants the columns to be read; a role that is None is recognised by the common names.

    Attributes:
        query: Column of the query.
        positive: Column of the positive, or of a list of positives.
        negatives: Column of the negatives.
        doc_id: Column of the document id.
        score: Column of a score or label of the pair, or "none" if no column is about the pair.
        positive_at: Least score of a positive pair. A file with a score column needs it.
        negative_at: Largest score of a pair whose positive is a hard negative of its query, below `positive_at`; None:
            rows below `positive_at` are only left out.
        score_range: Smallest and largest possible score of a graded domain; None: that of the domain's last file, or
            else of the scores in the file.
    """

    query: str | None = None
    positive: str | None = None
    negatives: str | None = None
    doc_id: str | None = None
    score: str | None = None
    positive_at: float | None = None
    negative_at: float | None = None
    score_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """A column with a score per pair, and what the scores mean; see `Columns`."""

    name: str
    positive_at: float
    negative_at: float | None = None


@dataclass(frozen=True, slots=True)
class Grades:
    """A column with the score of a graded pair, and the range that is stored as 0 to 1; None until it is known."""

    name: str
    range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Mapping:
    """The columns of one file. Negatives are in no column, in one list column, or in several text columns."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    doc_id: str | None = None
    score: ScoreColumn | None = None
    grades: Grades | None = None

    @property
    def score_name(self) -> str | None:
        """Return the column of the scores, if there is one."""
        column = self.score or self.grades
        return column.name if column else None

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Return the range of the scores of graded pairs; None if it is not known, or if there are none."""
        return self.grades.range if self.grades else None

    @property
    def names(self) -> list[str]:
        """Return the columns to read, without repetitions."""
        others = [self.doc_id, self.score_name]
        return list(dict.fromkeys([self.query, self.positive, *self.negatives, *(name for name in others if name)]))

    def rounded(self, to: Callable[[float], float]) -> Mapping:
        """Return the mapping with its limits rounded by a function, as the column of the scores rounds them."""
        if self.score is not None:
            low = self.score.negative_at
            score = replace(
                self.score, positive_at=to(self.score.positive_at), negative_at=None if low is None else to(low)
            )
            return replace(self, score=score)
        if self.grades is not None and self.grades.range is not None:
            low, high = self.grades.range
            return replace(self, grades=replace(self.grades, range=(to(low), to(high))))
        return self

    def describe(self) -> dict[str, str]:
        """Return the columns by role, for display; roles without a column are left out."""
        columns = {"query": self.query, "positive": self.positive, "negatives": ", ".join(self.negatives)}
        columns |= {"doc_id": self.doc_id or "", "score": self.score_name or ""}
        return {role: column for role, column in columns.items() if column}

    def record(self) -> dict[str, Any]:
        """Return the columns by role, as JSON values for the catalog."""
        record = asdict(self) | {"negatives": list(self.negatives)}
        if self.grades is not None:
            record["grades"]["range"] = list(self.grades.range or ())
        for role in ("score", "grades"):
            if record[role] is None:
                del record[role]  # as in records from before scores were read
        return record


def resolve(wanted: Columns, names: Sequence[str], source: str, *, graded: bool = False) -> Mapping:
    """Find the columns of a file, by request or by their common names as `plain_name` compares them.

    A requested name is used as it is. Otherwise `query`, `positive`, `negatives` and `doc_id` win over their common
    synonyms; two synonyms without the proper name are ambiguous. A column `text` is the positive if the query has a
    column, and the query if the positive has one. Columns `negative_1`, `negative_2`, ... are read in the order of
    their numbers. A column with the name of a score must be asked for, or declared to be not about the pair; the values
    of other columns are looked at while the file is read, see `continual.stream.labels.Values`.

    Args:
        wanted: The columns that the caller asks for.
        names: The columns of the file.
        source: The file, for messages.
        graded: The file's rows are graded pairs, so it must have a score column, and negatives are not read.

    Raises:
        DataError: A requested column is missing; the query or the positive has no column or several; or there is a
            score column, and nothing says what its scores mean. The message lists the columns and the option to use.
        InputError: The scores asked for contradict each other.
    """
    check_scores(wanted, graded=graded)
    for role in (*NAMES, *(["score"] if wanted.score != NO_SCORE else [])):
        name = getattr(wanted, role)
        if name is not None and name not in names:
            raise DataError(f"{source} has no column {name!r} for {_flag(role)}.{did_you_mean(name, names)}")
    if wanted.query is not None and wanted.query == wanted.positive:
        raise DataError(
            f"Column {wanted.query!r} of {source} cannot be both the query and the positive. Choose another column "
            "with --query-column or --positive-column."
        )

    free = [name for name in names if name not in (wanted.query, wanted.positive, wanted.negatives, wanted.doc_id)]
    # A score column that is asked for has no other role.
    free = [name for name in free if name != wanted.score]
    columns = {role: [getattr(wanted, role)] if getattr(wanted, role) else _named(role, free) for role in NAMES}
    texts = [name for name in free if plain_name(name) == EITHER]
    if texts and bool(columns["query"]) != bool(columns["positive"]):
        columns["positive" if columns["query"] else "query"] = texts
    _check_texts(columns, free, source)
    problems = [
        f"{'no column' if not columns[role] else f'{len(columns[role])} columns ({_list(columns[role])})'} "
        f"for the {role.replace('_', ' ')}: name it with {_flag(role)} C"
        for role in NAMES
        if len(columns[role]) > 1 or (not columns[role] and role in ("query", "positive"))
    ]
    if problems:
        listed = f"the columns {_list(names)}" if names else "no columns"
        raise DataError(f"{source} has {listed}; {'; '.join(problems)}.")
    negatives = columns["negatives"] or _numbered(free)
    return Mapping(
        query=columns["query"][0],
        positive=columns["positive"][0],
        negatives=() if graded else tuple(negatives),
        doc_id=columns["doc_id"][0] if columns["doc_id"] else None,
        score=None if graded else _score(wanted, free, source),
        grades=_grades(wanted, free, source) if graded else None,
    )


def _check_texts(columns: dict[str, list[str]], names: Sequence[str], source: str) -> None:
    """Raise `DataError` if the query or the positive has no column with texts, but one with ids."""
    found = [name for role in ("query", "positive") if not columns[role] for name in _id_names(role, names)]
    bare = len(names) > 1 and all(name.isdecimal() for name in names) and not (columns["query"] or columns["positive"])
    if (found and not all(columns[role] for role in ("query", "positive"))) or bare:
        shown = f"in the columns {_list(found)}" if found else f"in its first line, {' '.join(names[:5])}"
        raise DataError(f"{source} has ids and no texts {shown}. {GIVE_TEXTS}")


def id_column(role: str, wanted: str | None, names: Sequence[str], source: str) -> str:
    """Return the column with the ids of a role, asked for or recognised by its name.

    Raises:
        DataError: There is none, or there are several.
    """
    if wanted is not None:
        if wanted not in names:
            raise DataError(f"{source} has no column {wanted!r} for {_flag(role)}.{did_you_mean(wanted, names)}")
        return wanted
    found = _id_names(role, names) or _named(role, names)
    if len(found) != 1:
        problem = f"{len(found)} columns ({_list(found)})" if found else f"the columns {_list(names)} and none"
        raise DataError(f"{source} has {problem} for the id of the {role}: name it with {_flag(role)} C.")
    return found[0]


def id_columns(wanted: str | None, names: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the columns with the ids of negatives, as `id_column` does; none if there is none."""
    numbered = [(int(match[1]), name) for name in names if (match := NUMBERED_ID.fullmatch(plain_name(name)))]
    found = _id_names("negatives", names) or _named("negatives", names)
    if wanted is None and not found:
        return tuple(name for _, name in sorted(numbered))
    return (id_column("negatives", wanted, names, source),)


def _id_names(role: str, names: Sequence[str]) -> list[str]:
    """Return the columns with the name of an id of a role; the names of the role itself win over general ones."""
    known = [name for name in names if plain_name(name) in ID_NAMES[role]]
    own = [name for name in known if plain_name(name).startswith(role[:3])]
    return own or known


def check_scores(wanted: Columns, *, graded: bool = False) -> None:
    """Check that what is asked about scores makes sense before a file is opened.

    Raises:
        InputError: A threshold is not a number, the thresholds overlap, or one is missing or not needed.
    """
    limits = (wanted.positive_at, wanted.negative_at)
    if graded:
        _check_graded(wanted)
        return
    if wanted.score_range is not None:
        raise InputError(
            "--score-range is the range of the scores of graded pairs. Add --kind graded to train on the scores "
            "themselves, or leave it out."
        )
    if any(limit is not None and not math.isfinite(limit) for limit in limits):
        raise InputError("--positive-at and --negative-at take a number, such as --positive-at 0.7 --negative-at 0.3.")
    if wanted.score == NO_SCORE and limits != (None, None):
        raise InputError("--score-column none reads no scores. Leave it out, or --positive-at and --negative-at.")
    if wanted.positive_at is None and (wanted.negative_at is not None or wanted.score not in (None, NO_SCORE)):
        raise InputError(
            "--score-column and --negative-at need --positive-at, the least score of a positive pair. To train on the "
            "scores themselves, use --kind graded."
        )
    if wanted.positive_at is not None and wanted.negative_at is not None and wanted.negative_at >= wanted.positive_at:
        raise InputError(
            f"--negative-at is {wanted.negative_at:g}, but it must be below --positive-at, {wanted.positive_at:g}."
        )


def _score(wanted: Columns, free: Sequence[str], source: str) -> ScoreColumn | None:
    """Return the score column, asked for or recognised by its name; None if there is none or it is not wanted."""
    if wanted.score == NO_SCORE:
        return None
    found = [name for name in free if is_score_name(name)] if wanted.score is None else [wanted.score]
    if wanted.positive_at is None:
        if not found:
            return None
        subject = f"the column {found[0]!r}" if len(found) == 1 else f"the columns {_list(found)}"
        raise unknown_score(source, subject, found[0])
    if len(found) != 1:
        problem = f"{len(found)} columns ({_list(found)})" if found else "no column"
        raise DataError(f"{source} has {problem} for the score: name it with --score-column C.")
    return ScoreColumn(found[0], float(wanted.positive_at), wanted.negative_at)


def unknown_score(source: str, subject: str, column: str) -> DataError:
    """Return the error for a file with a column that may be a score or a label, if nothing says what it means.

    Args:
        source: The file.
        subject: What may be one, such as "the column 'label'".
        column: Its name.
    """
    return DataError(
        f"{source} has {subject}, which may say that a pair is not a positive, and ingest would train on every "
        f"row. Give the least score of a positive pair with --score-column {shlex.quote(column)} --positive-at X (and "
        "the largest score of a negative pair with --negative-at Y); train on the scores themselves with --kind "
        "graded; or use --score-column none if no column is about the pair."
    )


def check_unread(source: str, suspects: dict[str, str]) -> None:
    """Check that no column that is not read has the values of a label or a score.

    Args:
        source: The file.
        suspects: Some of their values, by the names of the columns that have such values.

    Raises:
        DataError: There is one.
    """
    if suspects:
        found = [f"{name!r} with the values {values}" for name, values in suspects.items()]
        subject = f"the column{'s' if len(found) > 1 else ''} {', '.join(found)}"
        raise unknown_score(source, subject, next(iter(suspects)))


def _check_graded(wanted: Columns) -> None:
    if wanted.positive_at is not None or wanted.negative_at is not None or wanted.score == NO_SCORE:
        raise InputError(
            "In a domain of kind graded, every pair is kept with its score. Leave out --positive-at, --negative-at and "
            "--score-column none, or give these rows a --domain of another --kind."
        )
    if wanted.negatives is not None:
        raise InputError("Rows of a domain of kind graded have no negatives. Leave --negatives-column out.")
    low, high = wanted.score_range or (0.0, 1.0)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"--score-range takes the smallest and the largest possible score, such as 0 5, not {low:g} {high:g}."
        )


def _grades(wanted: Columns, free: Sequence[str], source: str) -> Grades:
    """Return the column with the scores of graded pairs, asked for or recognised by its name."""
    found = [name for name in free if is_score_name(name)] if wanted.score is None else [wanted.score]
    if len(found) != 1:
        problem = f"{len(found)} columns ({_list(found)})" if found else "no column"
        raise DataError(
            f"{source} has {problem} for the score, and every row of a domain of kind graded needs one: name it with "
            "--score-column C."
        )
    return Grades(found[0], wanted.score_range)


def _named(role: str, names: Sequence[str]) -> list[str]:
    proper, *_ = synonyms = NAMES[role]
    exact = [name for name in names if plain_name(name) == proper]
    return exact or [name for name in names if plain_name(name) in synonyms]


def _numbered(names: Sequence[str]) -> list[str]:
    matches = [(int(match[1]), name) for name in names if (match := NUMBERED_NEGATIVE.fullmatch(plain_name(name)))]
    return [name for _, name in sorted(matches)]


def _flag(role: str) -> str:
    return f"--{role.replace('_', '-')}-column"


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown
