"""The queries to mine negatives for and the passages to find them in, as tables of a temporary database.

A passage is a distinct positive of the domain's rows, or a distinct text of another corpus. What an evaluation task
asks or expects is never a passage, and a row that a task holds gets no negatives: it is never trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from continual.registry import Batch, Registry
from continual.registry.text import hash_text
from continual.stream.database import count, literal, scan
from continual.stream.sample import documents_of

PIECE = 4_096
"""Texts that are read at a time."""

Indices = NDArray[np.int64]
Corpus = Sequence[Batch] | str
"""More passages: the positives of another domain's batches, or the documents of a file."""


@dataclass(frozen=True)
class Links:
    """Which passages are no negatives of some queries.

    Attributes:
        query: Number of the query, from the first one of the piece, [links].
        passage: Number of the passage, [links].
        positive: Whether it is a positive of the query, and not only of the same document as one, [links].
    """

    query: Indices
    passage: Indices
    positive: NDArray[np.bool_]


class Passages:
    """Tables of queries and passages, both numbered from 0 in the order of their hashes.

    Attributes:
        queries: Number of distinct queries.
        passages: Number of passages.
        most_links: Largest number of passages that are no negatives of one query.

    Args:
        connection: An empty database.
        registry: The workspace's registry.
        batches: The batches of the domain.
        corpora: Where else to find passages.

    Raises:
        DataError: A file of rows is damaged, or a corpus can't be read.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        registry: Registry,
        batches: Sequence[Batch],
        corpora: Sequence[Corpus],
    ) -> None:
        self._connection = connection
        others = [batch for corpus in corpora if not isinstance(corpus, str) for batch in corpus]
        registry.rows_files([*batches, *others], full=True)
        folders = registry.task_folders(registry.tasks(), full=True, names=("keys.parquet", "leaks.parquet"))
        keys = scan([folder / "keys.parquet" for folder in folders], "hash")
        leaks = scan([file for folder in folders if (file := folder / "leaks.parquet").is_file()], "row_hash")
        run = connection.execute
        run(f"CREATE TABLE held AS SELECT DISTINCT hash FROM {keys}")
        run(f"CREATE TABLE leaked AS SELECT DISTINCT row_hash FROM {leaks}")
        free = (
            "WHERE row_hash NOT IN (FROM leaked) AND query_hash NOT IN (FROM held) AND positive_hash NOT IN (FROM held)"
        )
        own, other = (
            f"read_parquet([{', '.join(literal(registry.path(batch.path)) for batch in group)}])" if group else ""
            for group in (batches, others)
        )
        run(f"CREATE TABLE rows AS SELECT row_hash, query_hash, positive_hash, doc_id FROM {own} {free}")
        run("CREATE TABLE texts (hash VARCHAR, text VARCHAR)")
        for corpus in corpora:
            if isinstance(corpus, str):
                self._add_texts(corpus)
        found = f"SELECT positive_hash AS hash, positive AS text FROM {own} {free} UNION ALL FROM texts"
        if other:
            found += f" UNION ALL SELECT positive_hash, positive FROM {other} {free}"
        numbered = "SELECT row_number() OVER (ORDER BY hash) - 1 AS number, hash, text FROM"
        run(
            f"CREATE TABLE passages AS {numbered} (SELECT hash, min(text) AS text FROM ({found}) "
            "WHERE hash NOT IN (FROM held) GROUP BY hash) ORDER BY number"
        )
        run(
            f"CREATE TABLE queries AS {numbered} (SELECT query_hash AS hash, min(query) AS text FROM {own} {free} "
            "GROUP BY query_hash) ORDER BY number"
        )
        self._link()
        self.queries, self.passages = (count(connection, f"SELECT count(*) FROM {t}") for t in ("queries", "passages"))
        self.most_links = count(
            connection, "SELECT coalesce(max(n), 0) FROM (SELECT count(*) AS n FROM links GROUP BY query)"
        )

    def _add_texts(self, source: str) -> None:
        texts: list[str] = []

        def insert() -> None:
            added = pa.table({"hash": [hash_text(text) for text in texts], "text": texts})
            self._connection.register("added", added)
            self._connection.execute("INSERT INTO texts FROM added")
            self._connection.unregister("added")
            texts.clear()

        for text in documents_of(source):
            texts.append(text)
            if len(texts) >= PIECE:
                insert()
        if texts:
            insert()

    def _link(self) -> None:
        """Record which passages are positives of a query, or of the same document as one."""
        self._connection.execute(
            "CREATE TABLE links AS SELECT query, passage, bool_or(positive) AS positive FROM ("
            "SELECT q.number AS query, p.number AS passage, true AS positive FROM rows r "
            "JOIN queries q ON q.hash = r.query_hash JOIN passages p ON p.hash = r.positive_hash "
            "UNION ALL SELECT q.number, p.number, false FROM rows r JOIN queries q ON q.hash = r.query_hash "
            "JOIN (SELECT DISTINCT doc_id, positive_hash FROM rows WHERE doc_id IS NOT NULL) d ON d.doc_id = r.doc_id "
            "JOIN passages p ON p.hash = d.positive_hash) GROUP BY query, passage ORDER BY query, passage"
        )

    def read(self, table: str) -> Iterator[list[str]]:
        """Yield the texts of `queries` or `passages` in the order of their numbers."""
        for start in range(0, getattr(self, table), PIECE):
            yield self._texts(f"SELECT text FROM {table} WHERE number >= {start} AND number < {start + PIECE}")

    def _texts(self, query: str) -> list[str]:
        return [text for (text,) in self._connection.execute(f"{query} ORDER BY number").fetchall()]

    def passages_at(self, numbers: Indices) -> dict[int, str]:
        """Return the texts of some passages by their numbers."""
        self._connection.register("wanted", pa.table({"number": np.unique(numbers)}))
        rows = self._connection.execute("SELECT number, text FROM passages SEMI JOIN wanted USING (number)").fetchall()
        self._connection.unregister("wanted")
        return dict(rows)

    def links(self, start: int, stop: int) -> Links:
        """Return the links of the queries from `start` to before `stop`."""
        found = self._connection.execute(
            "SELECT query - ?, passage, positive FROM links WHERE query >= ? AND query < ? ORDER BY ALL",
            [start, start, stop],
        ).fetchnumpy()
        query, passage, positive = found.values()
        return Links(query.astype(np.int64), passage.astype(np.int64), positive.astype(bool))

    def add_negatives(
        self,
        first: int,
        negatives: Sequence[Sequence[str]],
        scores: Sequence[Sequence[float]],
        positives: Sequence[float],
    ) -> None:
        """Add what was chosen for the queries from number `first` on, with the score of each query's positive."""
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS chosen (query BIGINT, negatives VARCHAR[], hashes VARCHAR[], scores FLOAT[], "
            "positive_score FLOAT)"
        )
        added = pa.table(
            {
                "query": pa.array(range(first, first + len(negatives)), pa.int64()),
                "negatives": pa.array(negatives, pa.list_(pa.string())),
                "hashes": pa.array([[hash_text(text) for text in texts] for texts in negatives], pa.list_(pa.string())),
                "scores": pa.array(scores, pa.list_(pa.float32())),
                "positive_score": pa.array(positives, pa.float32()),
            }
        )
        self._connection.register("added", added)
        self._connection.execute("INSERT INTO chosen FROM added")
        self._connection.unregister("added")

    def rows(self, file: Path) -> pa.RecordBatchReader:
        """Return the rows of a batch that got negatives, in hash order, a piece at a time."""
        return self._connection.sql(
            "SELECT row_hash, negatives, hashes, scores, positive_score FROM chosen JOIN queries ON query = number "
            f"JOIN (SELECT row_hash, query_hash FROM rows SEMI JOIN {scan([file], 'row_hash')} USING (row_hash)) ON "
            "query_hash = hash WHERE len(negatives) > 0 ORDER BY row_hash"
        ).to_arrow_reader(PIECE)

    def figures(self, files: Sequence[Path], wanted: int) -> tuple[int, int, int, int, float | None]:
        """Return the rows of batches, their negatives, rows with `wanted` ones and with none, and the mean margin."""
        query = (
            "SELECT count(*), coalesce(sum(len(negatives)), 0), count(*) FILTER (len(negatives) >= ?), "
            "count(*) FILTER (len(negatives) = 0), "
            "sum(len(negatives) * positive_score - list_sum(scores)) / nullif(sum(len(negatives)), 0) FROM "
            f"(SELECT query_hash FROM rows SEMI JOIN {scan(files, 'row_hash')} USING (row_hash)) JOIN queries ON "
            "query_hash = hash JOIN chosen ON query = number"
        )
        ((rows, negatives, full, none, margin),) = self._connection.execute(query, [wanted]).fetchall()
        return int(rows), int(negatives), int(full), int(none), None if margin is None else float(margin)

    def examples(self, most: int) -> list[tuple[str, str, float, list[str], list[float]]]:
        """Return query, positive, its score, negatives and their scores of some queries, evenly from all."""
        return self._connection.execute(
            "SELECT q.text, min(p.text), any_value(positive_score), any_value(negatives), any_value(scores) "
            "FROM queries q JOIN chosen c ON c.query = q.number JOIN links l ON l.query = q.number AND l.positive "
            "JOIN passages p ON p.number = l.passage WHERE q.number IN "
            "(SELECT unnest(range(0, ?, greatest(1, ? // ?)))) GROUP BY q.number, q.text ORDER BY q.number LIMIT ?",
            [self.queries, self.queries, max(most, 1), most],
        ).fetchall()
