"""The second pass: which good rows are duplicates, leak, are held out, or are kept. SQL on hashes, mostly.

Every decision is a function of the rows' content, never of their order in the file: the same rows shuffled
give the same batch and the same task. The texts stay in the staging file until `write_rows`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from continual.stream.database import count, scan
from continual.stream.near import find_near


@dataclass(frozen=True, slots=True)
class Split:
    """How many good rows went where; `leaked` includes `near` and `of_held`.

    Attributes:
        kept: Rows to train on.
        duplicates: Pairs that the file or a batch has already.
        leaked: Rows that a task must not have trained on.
        held_out: Rows that are held out.
        near: Near duplicates of a task's texts.
        of_held: Rows of a document that was held out of the domain before.
    """

    kept: int
    duplicates: int
    leaked: int
    held_out: int
    near: int
    of_held: int


def load(connection: duckdb.DuckDBPyConnection, staged: Path, history: Sequence[Path], own: Sequence[Path]) -> None:
    """Make the tables `rows` (the hashes of the staging file) and `stored` (those of all batches so far).

    UUID is DuckDB's 128-bit type that sorts as the hex digits do.

    Args:
        connection: An empty database.
        staged: The staging file.
        history: The rows of all batches so far.
        own: Those of the batches of the same domain: `stored_documents` has the documents that they have rows of.
    """
    names = ("row", "query", "positive", "document")
    hashes = ", ".join(f"{name}_hash::UUID AS {name}" for name in names)
    connection.execute(f"CREATE TABLE rows AS SELECT * FROM {scan([staged], f'seq, rank, {hashes}')}")
    hashes = ", ".join(f"{name}_hash::UUID AS {name}" for name in names[:3])
    connection.execute(f"CREATE VIEW stored AS SELECT * FROM {scan(history, hashes)}")
    connection.execute(
        f"""
        CREATE TABLE stored_documents AS
        SELECT DISTINCT document FROM {scan([staged], "doc_id, document_hash::UUID AS document")}
        SEMI JOIN {scan(own, "doc_id")} USING (doc_id)
        """
    )


def drop_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `fresh`: of each pair that no batch has, the row with the lowest rank."""
    connection.execute("CREATE TABLE twice AS SELECT row FROM rows GROUP BY row HAVING count(*) > 1")
    connection.execute(
        """
        CREATE TABLE fresh AS
        WITH single AS (
            SELECT * FROM rows ANTI JOIN twice USING (row)
            UNION ALL
            SELECT * FROM rows SEMI JOIN (
                SELECT arg_min(seq, rank) AS seq FROM rows SEMI JOIN twice USING (row) GROUP BY row
            ) USING (seq)
        )
        SELECT * FROM single ANTI JOIN stored USING (row)
        """
    )


def drop_leaks(
    connection: duckdb.DuckDBPyConnection, keys: Sequence[Path], held: Sequence[Path], own: Sequence[Path]
) -> int:
    """Make `unknown`, the fresh rows whose query and positive no evaluation task knows, and `clean`.

    Of these, `clean` has no row of a document that was held out: neither one of its texts, nor one of its id.

    Args:
        connection: With the table `fresh`.
        keys: What all tasks know, see `write_keys`.
        held: What was held out of any domain, see `write_held`.
        own: Of those files, the ones of the same domain: ids of documents are a domain's own.

    Returns:
        How many clean rows there are.
    """
    connection.execute(f"CREATE TABLE keys AS SELECT * FROM {scan(keys, 'kind, hash::UUID AS hash')}")
    connection.execute(
        """
        CREATE TABLE unknown AS
        SELECT * FROM fresh
        ANTI JOIN (SELECT hash AS query FROM keys WHERE kind = 'query') USING (query)
        ANTI JOIN (SELECT hash AS positive FROM keys WHERE kind = 'document') USING (positive)
        """
    )
    known = "(SELECT hash AS {0} FROM {1} WHERE kind = '{0}')"
    columns = "kind, hash::UUID AS hash"
    connection.execute(
        f"""
        CREATE TABLE clean AS
        SELECT * FROM unknown
        ANTI JOIN {known.format("positive", scan(held, columns))} USING (positive)
        ANTI JOIN {known.format("document", scan(own, columns))} USING (document)
        """
    )
    return count(connection, "SELECT count(*) FROM clean")


def keep_rest(connection: duckdb.DuckDBPyConnection) -> None:
    """Make `kept`: clean rows that are not held out, and whose query is no held-out query."""
    connection.execute(
        "CREATE TABLE kept AS SELECT * FROM clean ANTI JOIN held USING (seq) ANTI JOIN judged USING (query)"
    )


def drop_near(connection: duckdb.DuckDBPyConnection, staged: Path, good: int, tasks: Sequence[Path]) -> int:
    """Remove near duplicates of the tasks' texts from `kept`. Return how many rows they were.

    Args:
        connection: With the table `kept`.
        staged: The staging file, of `good` rows.
        good: How many rows it has.
        tasks: Shingles of the tasks.
    """
    if not tasks:
        return 0
    find_near(connection, _kept_texts(staged, kept_rows(connection, good)), tasks)
    near = count(connection, "SELECT count(DISTINCT place) FROM near")
    connection.execute("DELETE FROM kept WHERE seq IN (SELECT place FROM near)")
    return near


def _kept_texts(staged: Path, kept: npt.NDArray[np.bool_]) -> Iterator[Any]:
    first = 0
    with pq.ParquetFile(staged, buffer_size=1 << 20, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["seq", "query", "positive"], use_threads=False)
            mask = pa.array(kept[first : first + table.num_rows])
            first += table.num_rows
            yield table.filter(mask).rename_columns(["place", "query", "positive"])


def fates(connection: duckdb.DuckDBPyConnection, near: int) -> Split:
    """Count what became of the rows, `near` of which were removed as near duplicates of a task's texts."""
    rows, fresh, unknown, clean, held, kept = (
        count(connection, f"SELECT count(*) FROM {table}")
        for table in ("rows", "fresh", "unknown", "clean", "held", "kept")
    )
    leaked = fresh - held - kept
    return Split(kept, duplicates=rows - fresh, leaked=leaked, held_out=held, near=near, of_held=unknown - clean)


def kept_rows(connection: duckdb.DuckDBPyConnection, good: int) -> npt.NDArray[np.bool_]:
    """Return which rows of the staging file are kept, of shape `(good,)`."""
    kept = np.zeros(good, dtype=np.bool_)
    for batch in connection.sql("SELECT seq FROM kept").to_arrow_reader(100_000):
        kept[batch.column(0).to_numpy()] = True
    return kept
