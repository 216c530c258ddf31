"""Read an evaluation task from a folder in the layout of BEIR."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from continual.errors import DataError
from continual.registry.text import clean, fault
from continual.stream.readers.content import COMPRESSED, check_regular
from continual.stream.task_qrels import Judgements, identity, read_judgements, shorten
from continual.stream.task_rows import DOCUMENT_IDS, QUERY_IDS, choose_column, open_rows
from continual.stream.task_tables import (
    CORPUS_SCHEMA,
    QRELS_SCHEMA,
    QUERIES_SCHEMA,
    TaskReading,
    TaskTables,
    task_tables,
)

MAX_ABSENT = 0.1
"""Largest share of the judgements above 0 whose query or document may be missing or without text."""

QUERY_TEXTS = (("text",), ("query", "question"))
DOCUMENT_TEXTS = (("text",), ("passage", "contents"))
ENDINGS = (".parquet", *(f".jsonl{end}" for end in ("", *COMPRESSED)))
QRELS_ENDINGS = (*ENDINGS, *(f"{kind}{end}" for kind in (".tsv", ".txt", ".trec") for end in ("", *COMPRESSED)))
SPLIT = "test"
TRAIN = "train"


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts of a file by id, and what was left out of it.

    Attributes:
        texts: Texts by id, the title first.
        bare: Texts of relevant documents with a title without that title.
        empty: Ids without text.
        repeated: Rows that repeat an id and its text.
        unread: Columns that were not read.
    """

    texts: dict[str, str]
    bare: dict[str, str]
    empty: set[str]
    repeated: int
    unread: list[str]


def read_task(source: Path) -> TaskTables:
    """Read and check a folder in the layout of BEIR.

    corpus and queries are .parquet or .jsonl files with an id and `text`; the corpus can have a `title`, which is put
    before the text. The judgements are a file `qrels` or `qrels/SPLIT`: .parquet or .jsonl, or text without quotes
    (.tsv, .txt, .trec) with or without a header, or in the four columns of TREC. All but .parquet can be compressed as
    .gz or .zst. Of several splits, `test` is read. What can't be used is left out and counted in the `reading` of the
    result, such as the queries of other splits, which BEIR keeps in the same file.

    Args:
        source: The folder, or the file of its judgements to read.

    Raises:
        DataError: A file is missing, unreadable, or one of several; an id has two texts; a text can't be stored; more
            than `MAX_ABSENT` of the judgements above 0 can't be used; or no query has a relevant document.
    """
    folder, qrels, corpus_file, queries_file = _locate(source)
    judged = read_judgements(qrels)
    relevant = {document for (_, document), grade in judged.grades.items() if grade > 0}
    if not relevant:
        raise DataError(
            f"{qrels} has no judgement with a grade above 0 (a fraction such as 0.5 counts as 0), so no query has a "
            "relevant document to be scored on. Use other judgements."
        )
    corpus = _read_texts(corpus_file, DOCUMENT_IDS, DOCUMENT_TEXTS, relevant)
    queries = _read_texts(queries_file, QUERY_IDS, QUERY_TEXTS)
    usable = {pair: grade for pair, grade in judged.grades.items() if _lacking(pair, queries, corpus) is None}
    example = _check_absent(qrels, judged, usable, queries, corpus)
    used = {query for (query, _), grade in usable.items() if grade > 0}
    asked = {query for query, _ in judged.grades}
    files = [file.relative_to(folder).as_posix() for file in (qrels, corpus_file, queries_file)]
    unread = dict(zip(files, (judged.unread, corpus.unread, queries.unread), strict=True))
    reading = TaskReading(
        qrels=files[0],
        dropped_judgements=len(judged.grades) - len(usable),
        dropped_example=example,
        unjudged_queries=len(queries.texts.keys() - asked),
        irrelevant_queries=len((queries.texts.keys() & asked) - used),
        empty_queries=len(queries.empty),
        empty_documents=len(corpus.empty),
        repeated_rows=corpus.repeated + queries.repeated,
        repeated_judgements=judged.repeated,
        negative_grades=judged.negative,
        cut_grades=judged.cut,
        unread_columns={file: columns for file, columns in unread.items() if columns},
        unread_files=_unread_files(folder, files),
    )
    return task_tables(
        _table(corpus.texts.items(), CORPUS_SCHEMA),
        _table([(name, text) for name, text in queries.texts.items() if name in used], QUERIES_SCHEMA),
        _table(sorted((*pair, grade) for pair, grade in usable.items() if pair[0] in used), QRELS_SCHEMA),
        bare=corpus.bare,
        reading=reading,
    )


def _locate(source: Path) -> tuple[Path, Path, Path, Path]:
    """Return the folder of a task, and the files of its judgements, corpus and queries."""
    try:
        folder, qrels = _locate_qrels(source)
        return folder, qrels, _find(folder, "corpus", ENDINGS), _find(folder, "queries", ENDINGS)
    except OSError as error:
        raise DataError(f"{source} cannot be opened: {error.strerror}. Check the path and its permissions.") from None


def _locate_qrels(source: Path) -> tuple[Path, Path]:
    if source.is_file() and (source.parent.name == "qrels" or source.name.startswith("qrels")):
        if not source.name.endswith(QRELS_ENDINGS):
            raise DataError(f"{source} has another ending than judgements can have: {', '.join(QRELS_ENDINGS)}.")
        return source.parent.parent if source.parent.name == "qrels" else source.parent, source
    if not source.is_dir():
        if source.exists():
            check_regular(source)
        state = "is a file" if source.exists() else "does not exist"
        raise DataError(f"{source} {state}. Give the folder of a task, with its corpus, queries and qrels.")
    single, split = list(_existing(source, "qrels", QRELS_ENDINGS)), list(_splits(source))
    if single and split:
        raise _several(source, [*single, *split], f"Name one: `continual task add NAME {single[0]}`, for example.")
    tests = [file for file in split if _stem(file) == SPLIT]
    found = single or tests or split
    if not found:
        names = [f"{name}{end}" for end in QRELS_ENDINGS for name in ("qrels", f"qrels/{SPLIT}")]
        raise DataError(f"{source} is not an evaluation task: it has none of the files {', '.join(names)}. Add one.")
    if len(found) > 1:
        raise _several(source, found, f"Name one: `continual task add NAME {found[0]}`, for example.")
    if _stem(found[0]) == TRAIN:
        raise DataError(
            f"{source} has judgements for training only, {found[0].relative_to(source).as_posix()}, and an evaluation "
            f"task needs others. If nothing is trained on them, name the file: `continual task add NAME {found[0]}`."
        )
    return source, found[0]


def _find(folder: Path, name: str, endings: Sequence[str]) -> Path:
    found = list(_existing(folder, name, endings))
    if not found:
        names = ", ".join(f"{name}{end}" for end in endings)
        raise DataError(f"{folder} is not an evaluation task: it has none of the files {names}. Add one.")
    if len(found) > 1:
        raise _several(folder, found, "Remove or rename all but one.")
    return found[0]


def _several(folder: Path, found: Sequence[Path], advice: str) -> DataError:
    names = ", ".join(file.relative_to(folder).as_posix() for file in found[:10])
    return DataError(f"{folder} has several files of the same kind, and only one can be read: {names}. {advice}")


def _existing(folder: Path, name: str, endings: Sequence[str]) -> Iterator[Path]:
    return (folder / f"{name}{end}" for end in endings if (folder / f"{name}{end}").is_file())


def _splits(folder: Path) -> Iterator[Path]:
    if (folder / "qrels").is_dir():
        for file in sorted((folder / "qrels").iterdir()):
            if file.is_file() and file.name.endswith(QRELS_ENDINGS) and not file.name.startswith("."):
                yield file


def _stem(file: Path) -> str:
    return min((file.name.removesuffix(end) for end in QRELS_ENDINGS if file.name.endswith(end)), key=len)


def _unread_files(folder: Path, read: Collection[str]) -> tuple[str, ...]:
    files = [file for file in folder.iterdir() if file != folder / "qrels" or file.is_file()]
    files += (folder / "qrels").iterdir() if (folder / "qrels").is_dir() else []
    names = {f"{file.relative_to(folder).as_posix()}{'/' if file.is_dir() else ''}": file.name for file in files}
    return tuple(sorted(path for path, name in names.items() if path not in read and not name.startswith(".")))


def _read_texts(
    path: Path,
    ids: Sequence[Sequence[str]],
    names: Sequence[Sequence[str]],
    relevant: AbstractSet[str] | None = None,
) -> _Texts:
    """Return the texts of a file.

    Args:
        path: The file.
        ids: Possible names of the id column, see `choose_column`.
        names: Possible names of the text column.
        relevant: Ids of the relevant documents if the file is a corpus, whose texts can have a title; None if the file
            holds queries.
    """
    rows = open_rows(path)
    key, text = choose_column(path, rows.columns, ids), choose_column(path, rows.columns, names)
    title = "title" if relevant is not None else None
    wanted = [key, text, *([title] if title else [])]
    texts: dict[str, str] = {}
    bare: dict[str, str] = {}
    repeated = 0
    for number, row in rows.read(wanted):
        name = identity(row[key], f"{path}, row {number}")
        value = _join([row[column] for column in (title, text) if column], f"{path}, row {number}, id {shorten(name)}")
        repeated += name in texts
        if texts.setdefault(name, value) != value:
            raise DataError(
                f"{path}, row {number}, repeats the id {shorten(name)} with another text, but ids must be unique. "
                "Remove one of the rows."
            )
        if title and relevant and name in relevant:
            untitled = clean(row[text] or "")
            if untitled and untitled != value:
                bare[name] = untitled
    empty = {name for name, value in texts.items() if not value}
    kept = {name: value for name, value in texts.items() if value}
    return _Texts(kept, bare, empty, repeated, [column for column in rows.columns if column not in wanted])


def _join(parts: Sequence[object], place: str) -> str:
    """Return title and text as one text in the form in which it is stored; "" without either."""
    given = [part for part in parts if part is not None]
    if not all(isinstance(part, str) for part in given):
        raise DataError(f"{place}: its title or text is something other than text. Fix the row.")
    value = clean(" ".join(map(str, given)))
    reason = fault(value)
    if value and reason:
        raise DataError(f"{place}: its text cannot be used: {reason}. Fix the row.")
    return value


def _lacking(pair: tuple[str, str], queries: _Texts, corpus: _Texts) -> str | None:
    """Return which part of a judgement is missing or has no text, or None."""
    if pair[0] not in queries.texts:
        return f"query {shorten(pair[0])}"
    return None if pair[1] in corpus.texts else f"document {shorten(pair[1])}"


def _check_absent(
    path: Path,
    judged: Judgements,
    usable: Mapping[tuple[str, str], int],
    queries: _Texts,
    corpus: _Texts,
) -> str | None:
    """Return the first query or document that judgements name but that is missing, or None.

    Raises:
        DataError: More than `MAX_ABSENT` of the judgements above 0 name such a query or document.
    """
    lost = sorted(judged.grades.keys() - usable.keys())
    relevant = sum(grade > 0 for grade in judged.grades.values())
    lost_relevant = [pair for pair in lost if judged.grades[pair] > 0]
    if len(lost_relevant) > MAX_ABSENT * relevant:
        raise DataError(
            f"{path}: {len(lost_relevant)} of {relevant} judgements above 0 ({len(lost_relevant) / relevant:.0%}) "
            f"name a query or document that is missing or has no text, such as "
            f"{_lacking(lost_relevant[0], queries, corpus)}. Up to {MAX_ABSENT:.0%} are left out. Check that the files "
            "belong together and write ids in the same way, or remove these judgements."
        )
    return _lacking(lost[0], queries, corpus) if lost else None


def _table(rows: Collection[tuple[Any, ...]], schema: Any) -> Any:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
