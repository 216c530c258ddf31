"""An evaluation task in memory, what was read of its folder, and its files in a workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.registry.text import hash_text
from continual.stream.near import SHINGLES, write_shingles

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

READ_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class TaskReading:
    """What was read of a task's folder, and what was left out or converted.

    Attributes:
        qrels: File of the judgements, relative to the folder.
        dropped_judgements: Judgements left out because their query or document is missing or has no text.
        dropped_example: The first of these ids, such as "document 'd7'"; None without any.
        unjudged_queries: Queries left out because they have no judgement, such as those of other splits.
        irrelevant_queries: Judged queries left out because no document is relevant to them.
        empty_queries: Queries left out because they have no text.
        empty_documents: Documents left out because they have no text.
        repeated_rows: Rows of corpus and queries left out because they repeat an id with the same text.
        repeated_judgements: Judgements left out because they repeat another one.
        negative_grades: Grades below 0, which count as 0.
        cut_grades: Grades with a fraction, which was cut off.
        unread_columns: Columns that were not read, by file.
        unread_files: Files and folders that were not read, relative to the folder; hidden ones are not listed.
    """

    qrels: str
    dropped_judgements: int = 0
    dropped_example: str | None = None
    unjudged_queries: int = 0
    irrelevant_queries: int = 0
    empty_queries: int = 0
    empty_documents: int = 0
    repeated_rows: int = 0
    repeated_judgements: int = 0
    negative_grades: int = 0
    cut_grades: int = 0
    unread_columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unread_files: Sequence[str] = ()


@dataclass(frozen=True)
class TaskTables:
    """A task in memory, sorted by id.

    Attributes:
        corpus: `doc_id` string, `text` string.
        queries: `query_id` string, `text` string; every query has a judgement with a score above 0.
        qrels: `query_id` string, `doc_id` string, `score` int64, 0 or more.
        bare: Texts without their titles, by `doc_id`, of the relevant documents that have a title. Training rows can
            hold such a document with or without its title. These texts are not part of the task's content.
        reading: What was left out or converted when the task's folder was read; None if it was not read from a folder.
    """

    corpus: Any
    queries: Any
    qrels: Any
    bare: Mapping[str, str] = field(default_factory=dict)
    reading: TaskReading | None = None

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
    bare: Mapping[str, str] | None = None,
    reading: TaskReading | None = None,
) -> TaskTables:
    """Return Arrow tables with the columns of `TaskTables` as a task, sorted by id.

    Args:
        corpus: See `TaskTables`.
        queries: See `TaskTables`.
        qrels: See `TaskTables`.
        bare: See `TaskTables`.
        reading: See `TaskTables`.
    """
    return TaskTables(
        corpus.cast(CORPUS_SCHEMA).sort_by("doc_id"),
        queries.cast(QUERIES_SCHEMA).sort_by("query_id"),
        qrels.cast(QRELS_SCHEMA).sort_by([("query_id", "ascending"), ("doc_id", "ascending")]),
        bare or {},
        reading,
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
    the task if its query or its positive is an exact or near duplicate of one of these texts.
    """
    texts = {"document": sorted(set(documents)), "query": sorted(set(queries))}
    hashes = {text_kind: sorted({hash_text(text) for text in of_kind}) for text_kind, of_kind in texts.items()}
    rows = [(text_kind, key) for text_kind, of_kind in hashes.items() for key in of_kind]
    keys = pa.table([[text_kind for text_kind, _ in rows], [key for _, key in rows]], schema=KEYS_SCHEMA)
    folder.mkdir(parents=True)
    pq.write_table(keys, folder / KEYS, compression="zstd")
    write_shingles(folder / SHINGLES, texts)
