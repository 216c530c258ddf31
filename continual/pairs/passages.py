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

RANGE = 50_000
"""Texts that are sorted at a time."""

Indices = NDArray[np.int64]
Corpus = Sequence[Batch] | str
"""More passages: the positives of another domain's batches, or the documents of a file."""


@dataclass(frozen=True)
class Links:
    """What rules out passages as negatives of some queries.

    Attributes:
        query: Number of the query, from the first one of the piece, [links].
        passage: Number of a passage that is a positive of the query, or the query's own text, [links].
        positive: Whether it is a positive, [links].
        document_query: Number of the query, likewise, [documents].
        document: Code of the document of one of its positives, [documents].
    """

    query: Indices
    passage: Indices
    positive: NDArray[np.bool_]
    document_query: Indices
    document: Indices


class Passages:
    """Tables of queries and passages, both numbered from 0 in the order of their hashes.

    Attributes:
        queries: Number of distinct queries.
        passages: Number of passages.
        documents: Code of each passage's document, -1 without one, [passages]. Of several, the first.
        most_links: Largest number of passages that are positives of one query.

    Args:
        connection: An empty database.
        registry: The workspace's registry.
        batches: The batches of the domain.
        targets: Those whose rows get negatives.
        corpora: Where else to find passages.

    Raises:
        DataError: A file of rows is damaged, or a corpus can't be read.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        registry: Registry,
        batches: Sequence[Batch],
        targets: Sequence[Batch],
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
        own, asked, other = (
            f"read_parquet([{', '.join(literal(registry.path(batch.path)) for batch in group)}])" if group else ""
            for group in (batches, targets, others)
        )
        run(f"CREATE TABLE rows AS SELECT row_hash, query_hash, positive_hash, doc_id FROM {own} {free}")
        run("CREATE TABLE texts (hash VARCHAR, text VARCHAR)")
        for corpus in corpora:
            if isinstance(corpus, str):
                self._add_texts(corpus)
        found = f"SELECT positive_hash AS hash, positive AS text FROM {own} {free} UNION ALL FROM texts"
        if other:
            found += f" UNION ALL SELECT positive_hash, positive FROM {other} {free}"
        self._number("passages", f"SELECT hash, text FROM ({found}) WHERE hash NOT IN (FROM held)")
        self._number("queries", f"SELECT query_hash AS hash, query AS text FROM {asked} {free}")
        self.queries, self.passages = (count(connection, f"SELECT count(*) FROM {t}") for t in ("queries", "passages"))
        self._link()
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

    def _number(self, table: str, texts: str) -> None:
        """Make a table of distinct texts, sorted by their numbers.

        Hashes are numbered first, and texts sorted a range of numbers at a time: DuckDB's sort of all texts takes more
        memory than it is allowed.
        """
        run = self._connection.execute
        run(
            f"CREATE TABLE {table}_numbers AS SELECT row_number() OVER (ORDER BY hash) - 1 AS number, hash FROM "
            f"(SELECT DISTINCT hash FROM ({texts}))"
        )
        run(f"CREATE TABLE {table} (number BIGINT, text VARCHAR)")
        for start in range(0, count(self._connection, f"SELECT count(*) FROM {table}_numbers"), RANGE):
            run(
                f"INSERT INTO {table} SELECT number, min(text) FROM ({texts}) JOIN (SELECT number, hash FROM "
                f"{table}_numbers WHERE number >= {start} AND number < {start + RANGE}) USING (hash) "
                "GROUP BY number ORDER BY number"
            )

    def _link(self) -> None:
        """Record the positives of each query, and the documents of queries and passages."""
        run = self._connection.execute
        run("CREATE TABLE codes AS SELECT doc_id, row_number() OVER (ORDER BY doc_id) - 1 AS code FROM "
            "(SELECT DISTINCT doc_id FROM rows WHERE doc_id IS NOT NULL)")  # fmt: skip
        run(
            "CREATE TABLE links AS SELECT query, passage, bool_or(positive) AS positive FROM ("
            "SELECT q.number AS query, p.number AS passage, true AS positive FROM rows r "
            "JOIN queries_numbers q ON q.hash = r.query_hash JOIN passages_numbers p ON p.hash = r.positive_hash "
            "UNION ALL SELECT q.number, p.number, false FROM queries_numbers q JOIN passages_numbers p USING (hash)) "
            "GROUP BY query, passage ORDER BY query, passage"
        )
        run(
            "CREATE TABLE asked_documents AS SELECT DISTINCT q.number AS query, code FROM rows r "
            "JOIN queries_numbers q ON q.hash = r.query_hash JOIN codes USING (doc_id) ORDER BY query, code"
        )
        self.documents = np.full(self.passages, -1, np.int64)
        told = run(
            "SELECT p.number, min(code) AS code FROM rows r JOIN passages_numbers p ON p.hash = r.positive_hash "
            "JOIN codes USING (doc_id) GROUP BY p.number"
        ).fetchnumpy()
        self.documents[told["number"]] = told["code"]

    def read(self, table: str) -> Iterator[list[str]]:
        """Yield the texts of `queries` or `passages` in the order of their numbers."""
        for start in range(0, getattr(self, table), PIECE):
            query = f"SELECT text FROM {table} WHERE number >= ? AND number < ? ORDER BY number"
            yield [text for (text,) in self._connection.execute(query, [start, start + PIECE]).fetchall()]

    def texts(self, table: str, numbers: Indices) -> dict[int, str]:
        """Return some texts of `queries` or `passages` by their numbers."""
        self._connection.register("wanted", pa.table({"number": np.unique(numbers)}))
        rows = self._connection.execute(f"SELECT number, text FROM {table} SEMI JOIN wanted USING (number)").fetchall()
        self._connection.unregister("wanted")
        return dict(rows)

    def links(self, start: int, stop: int) -> Links:
        """Return what rules out passages for the queries from `start` to before `stop`."""
        between = "FROM {} WHERE query >= ? AND query < ? ORDER BY ALL"
        query, passage, positive = self._connection.execute(
            f"SELECT query - ?, passage, positive {between.format('links')}", [start, start, stop]
        ).fetchnumpy().values()  # fmt: skip
        asked, code = self._connection.execute(
            f"SELECT query - ?, code {between.format('asked_documents')}", [start, start, stop]
        ).fetchnumpy().values()  # fmt: skip
        return Links(
            query.astype(np.int64),
            passage.astype(np.int64),
            positive.astype(bool),
            asked.astype(np.int64),
            code.astype(np.int64),
        )

    def rows(self, file: Path) -> tuple[pa.ChunkedArray, Indices]:
        """Return the row hashes of a batch in their order, and the number of each row's query; without held rows."""
        table = self._connection.sql(
            f"SELECT row_hash, number FROM rows SEMI JOIN {scan([file], 'row_hash')} USING (row_hash) "
            "JOIN queries_numbers ON query_hash = hash ORDER BY row_hash"
        ).to_arrow_table()
        return table["row_hash"], table["number"].to_numpy()
