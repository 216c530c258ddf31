"""Read an evaluation task from a BEIR-like folder, and write it as Parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.errors import DataError
from continual.registry.text import clean, fault, hash_text
from continual.stream.near import SHINGLES, write_shingles
from continual.stream.readers import Source, open_source

CORPUS_SCHEMA = pa.schema([pa.field("doc_id", pa.string(), False), pa.field("text", pa.string(), False)])
QUERIES_SCHEMA = pa.schema([pa.field("query_id", pa.string(), False), pa.field("text", pa.string(), False)])
QRELS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), False),
        pa.field("doc_id", pa.string(), False),
        pa.field("score", pa.int64(), False),
    ]
)
KEYS_SCHEMA = pa.schema([pa.field("kind", pa.string(), False), pa.field("hash", pa.string(), False)])
KEYS = "keys.parquet"

ENDINGS = (".parquet", ".jsonl", ".jsonl.gz")
QRELS = ("qrels.parquet", "qrels.tsv", "qrels.jsonl", "qrels/test.parquet", "qrels/test.tsv", "qrels/test.jsonl")
QUERY_IDS = ("query_id", "query-id", "_id", "id")
DOCUMENT_IDS = ("doc_id", "corpus_id", "corpus-id", "_id", "id")
READ_ROWS = 10_000


@dataclass(frozen=True)
class TaskTables:
    """A task in memory, sorted by id.

    Attributes:
        corpus: `doc_id` string, `text` string.
        queries: `query_id` string, `text` string; every query has a judgement with a score above 0.
        qrels: `query_id` string, `doc_id` string, `score` int64, 0 or more.
        dropped_queries: Queries left out because no document is relevant to them.
        dropped_documents: Documents left out because they have no text and are relevant to no query.
        bare: Texts without their titles, by `doc_id`, of the relevant documents that have a title. Training rows can
            hold such a document with or without its title. These texts are not part of the task's content.
    """

    corpus: Any
    queries: Any
    qrels: Any
    dropped_queries: int = 0
    dropped_documents: int = 0
    bare: Mapping[str, str] = field(default_factory=dict)

    def sha256(self) -> str:
        """Return the SHA-256 over all ids, texts and judgements; it does not depend on the order of the input."""
        result = hashlib.sha256()
        for table in (self.corpus, self.queries, self.qrels):
            for batch in table.to_batches(max_chunksize=READ_ROWS):
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    for value in row:
                        data = str(value).encode()
                        result.update(b"%d:" % len(data) + data)  # the length keeps fields apart
            result.update(b"\n")
        return result.hexdigest()


def task_tables(
    corpus: Any,
    queries: Any,
    qrels: Any,
    *,
    dropped: tuple[int, int] = (0, 0),
    bare: Mapping[str, str] | None = None,
) -> TaskTables:
    """Return Arrow tables with the columns of `TaskTables` as a task, sorted by id.

    Args:
        corpus: See `TaskTables`.
        queries: See `TaskTables`.
        qrels: See `TaskTables`.
        dropped: `dropped_queries` and `dropped_documents`.
        bare: See `TaskTables`.
    """
    return TaskTables(
        corpus.cast(CORPUS_SCHEMA).sort_by("doc_id"),
        queries.cast(QUERIES_SCHEMA).sort_by("query_id"),
        qrels.cast(QRELS_SCHEMA).sort_by([("query_id", "ascending"), ("doc_id", "ascending")]),
        *dropped,
        bare or {},
    )


def write_task(tables: TaskTables, folder: Path) -> None:
    """Write a task's folder: corpus, queries and qrels in Parquet, and the hashes and shingles for leakage checks.

    The leakage checks cover all queries, and all relevant documents with and without their titles.
    """
    write_keys(folder, tables.queries["text"].to_pylist(), relevant_texts(tables))
    for name, table in (("corpus", tables.corpus), ("queries", tables.queries), ("qrels", tables.qrels)):
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")


def relevant_texts(tables: TaskTables) -> list[str]:
    """Return the texts of the documents that are relevant to a query, with and without their titles."""
    relevant = set(tables.qrels.filter(pa.compute.greater(tables.qrels["score"], 0))["doc_id"].to_pylist())
    corpus = zip(tables.corpus["doc_id"].to_pylist(), tables.corpus["text"].to_pylist(), strict=True)
    return [text for name, text in [*corpus, *tables.bare.items()] if name in relevant]


def write_keys(folder: Path, queries: Iterable[str], documents: Iterable[str]) -> None:
    """Create a task's folder with the files for leakage checks: keys.parquet and the shingles.

    keys.parquet has the columns `kind` ("query" or "document") and `hash` (32 hex digits). A training row leaks into
    the task if its query is an exact or near duplicate of one of the queries, or its positive of one of the documents.
    """
    texts = {"document": sorted(set(documents)), "query": sorted(set(queries))}
    hashes = {text_kind: sorted({hash_text(text) for text in of_kind}) for text_kind, of_kind in texts.items()}
    rows = [(text_kind, key) for text_kind, of_kind in hashes.items() for key in of_kind]
    keys = pa.table([[text_kind for text_kind, _ in rows], [key for _, key in rows]], schema=KEYS_SCHEMA)
    folder.mkdir(parents=True)
    pq.write_table(keys, folder / KEYS, compression="zstd")
    write_shingles(folder / SHINGLES, texts)


def read_task(folder: Path) -> TaskTables:
    """Read and check a BEIR-like folder.

    corpus and queries are .parquet or .jsonl(.gz) files. They have an id (`doc_id` or `query_id`, or `_id`, `id`) and
    `text`; the corpus can have a `title`, which is put before the text. The judgements are in qrels.parquet, qrels.tsv
    or qrels/test.tsv, with or without a header: query, document, integer score. A negative score counts as 0. BEIR's
    query files hold the queries of all splits, so queries without a relevant document are left out and counted, and so
    are documents without text that no judgement needs.

    Raises:
        DataError: A file is missing or unreadable; an id is missing, repeated or unknown; a text is empty or cannot be
            stored; or no query has a relevant document.
    """
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {state}. Give the folder of a task, with its corpus, queries and qrels.")
    path = _find(folder, QRELS)
    scores = _judgements(path)
    judged = {document for (_, document), score in scores.items() if score > 0}
    corpus, bare = _texts(_find(folder, [f"corpus{end}" for end in ENDINGS]), DOCUMENT_IDS, judged)
    queries, _ = _texts(_find(folder, [f"queries{end}" for end in ENDINGS]), QUERY_IDS)
    for name, texts, file, place in (("query", queries, "queries", 0), ("document", corpus, "corpus", 1)):
        unknown = sorted({pair[place] for pair in scores if pair[place] not in texts})
        if unknown:
            raise DataError(
                f"{path} judges {len(unknown)} {name} id(s) that {file} lacks, such as {unknown[0]!r}. Add them to "
                f"{file}, or remove the judgements."
            )
    empty = {name for name, text in corpus.items() if not text}
    if empty & judged:
        raise DataError(
            f"{folder} has a relevant document without text: {min(empty & judged)!r}. Add the text, or remove the "
            "document's judgements."
        )
    used = {query for (query, _), score in scores.items() if score > 0}
    if not used:
        raise DataError(
            f"{path} has no judgement with a score above 0, so no query has a relevant document to be scored on. Use "
            "other judgements."
        )
    pairs = sorted(
        (query, document, score)
        for (query, document), score in scores.items()
        if query in used and document not in empty
    )
    return task_tables(
        _table([(name, text) for name, text in corpus.items() if text], CORPUS_SCHEMA),
        _table([(name, text) for name, text in queries.items() if name in used], QUERIES_SCHEMA),
        _table(pairs, QRELS_SCHEMA),
        dropped=(len(queries) - len(used), len(empty)),
        bare=bare,
    )


def _find(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} is not an evaluation task: it has none of the files {', '.join(names)}. Add one.")


def _texts(
    path: Path, ids: Sequence[str], relevant: AbstractSet[str] | None = None
) -> tuple[dict[str, str], dict[str, str]]:
    """Return texts by id, and the texts of relevant documents with a title without that title.

    Args:
        path: The file.
        ids: Possible names of the id column.
        relevant: Ids of the relevant documents if the file is a corpus, whose texts can be missing or have a title;
            None if the file holds queries.
    """
    source = open_source(str(path))
    identity, text = _column(source, ids), _column(source, ("text", "query"))
    title = "title" if relevant is not None and "title" in source.columns else None
    texts: dict[str, str] = {}
    bare: dict[str, str] = {}
    for number, row in _rows(source, [identity, text, *([title] if title else [])]):
        name = _identity(row[identity], f"{path}, row {number}")
        if name in texts:
            raise DataError(f"{path}, row {number}, repeats the id {name!r}, but ids must be unique. Remove a row.")
        parts = [row[column] for column in (title, text) if column and row[column] is not None]
        if not all(isinstance(part, str) for part in parts):
            raise DataError(
                f"{path}, row {number} (id {name!r}): {text!r} holds something other than text. Fix the row."
            )
        value = clean(" ".join(parts))
        reason = fault(value)
        if reason and not (reason == "empty" and relevant is not None):
            raise DataError(f"{path}, row {number} (id {name!r}): {text!r} cannot be used: {reason}. Fix the row.")
        texts[name] = value
        if title and relevant and name in relevant:
            untitled = clean(row[text] or "")
            if untitled and untitled != value:
                bare[name] = untitled
    return texts, bare


def _judgements(path: Path) -> dict[tuple[str, str], int]:
    scores: dict[tuple[str, str], int] = {}
    for number, query, document, score in _qrels_tsv(path) if path.suffix == ".tsv" else _qrels_rows(path):
        place = f"{path}, row {number}"
        pair = (_identity(query, place), _identity(document, place))
        value = max(0, _integer(score, place))
        if scores.setdefault(pair, value) != value:
            raise DataError(f"{place}, judges {pair} again with another score. Remove one of the judgements.")
    return scores


def _qrels_rows(path: Path) -> Iterator[tuple[int, object, object, object]]:
    source = open_source(str(path))
    names = [
        _column(source, QUERY_IDS[:2]),
        _column(source, DOCUMENT_IDS[:3]),
        _column(source, ("score", "relevance")),
    ]
    for number, row in _rows(source, names):
        query, document, score = (row[name] for name in names)
        yield number, query, document, score


def _qrels_tsv(path: Path) -> Iterator[tuple[int, object, object, object]]:
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            for number, line in enumerate(file, start=1):
                fields = line.rstrip("\n").split("\t")
                if fields == [""]:
                    continue
                if len(fields) != 3:
                    raise DataError(
                        f"{path}, row {number}, has {len(fields)} tab-separated fields, but three are expected: query, "
                        "document, score. Fix the row."
                    )
                if number == 1 and not _is_integer(fields[2]):
                    continue  # a header
                yield number, fields[0], fields[1], fields[2]
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}. Convert it, for example with iconv."
        ) from None


def _rows(source: Source, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for piece in source.read(columns, READ_ROWS):
        for index, number in enumerate(piece.numbers):
            if index in piece.faults:
                raise DataError(f"{source.name}, row {number}: {piece.faults[index]}. Fix the row.")
            yield number, {name: values[index] for name, values in piece.columns.items()}


def _column(source: Source, names: Sequence[str]) -> str:
    for name in names:
        if name in source.columns:
            return name
    raise DataError(
        f"{source.name} has the columns {', '.join(source.columns)}, but none of {', '.join(names)}. Rename a column."
    )


def _identity(value: object, place: str) -> str:
    name = value if isinstance(value, str) else str(value) if type(value) is int else ""
    reason = fault(name)
    if reason:
        raise DataError(
            f"{place}, has an id that cannot be used ({value!r}): {reason if name else 'not text'}. Fix the row."
        )
    return name


def _integer(value: object, place: str) -> int:
    if isinstance(value, str) and _is_integer(value):
        return int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    raise DataError(f"{place}, has the score {value!r}, but a score is a whole number. Fix the row.")


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True


def _table(rows: Sequence[tuple[Any, ...]], schema: Any) -> Any:
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
