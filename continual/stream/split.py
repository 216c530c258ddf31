"""The second pass: which good rows are duplicates, leak, are held out, or are kept. Mostly SQL on hashes.

Every decision depends on the content of the rows and never on their order in the file: the same rows shuffled give the
same batch and the same task. The texts stay in the staging file until `write_rows`.
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

from continual.stream.database import count, database, scan
from continual.stream.holdout import HELD, held_out_task, hold_out, write_held
from continual.stream.near import SHINGLES, find_near
from continual.stream.repeats import rank_repeats
from continual.stream.sweep import ROWS, TASK
from continual.stream.task_tables import KEYS, TaskTables, write_task


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """The files of a workspace that new rows of a domain are compared with.

    Attributes:
        batches: Rows of all batches.
        own_batches: Of these, the batches of the domain.
        keys: Hashes of the texts of all tasks; see `write_keys`.
        shingles: Shingles of the texts of all tasks; see `write_shingles`.
        held: Hashes of what was held out of any domain; see `write_held`.
        own_held: Of these, the files of the domain. Document ids are unique only within a domain.
    """

    batches: list[Path]
    own_batches: list[Path]
    keys: list[Path]
    shingles: list[Path]
    held: list[Path]
    own_held: list[Path]


@dataclass(frozen=True, slots=True)
class Counts:
    """The number of good rows per fate; `leaked` includes `near` and `of_held`.

    Attributes:
        kept: Rows to train on.
        duplicates: Rows whose pair another row of the file or a stored batch has.
        leaked: Rows that must not be trained on, because an evaluation task holds them.
        held_out: Rows held out as the domain's evaluation task.
        near: Near duplicates of the texts of a task.
        of_held: Rows of a document that was held out of the domain before.
        contradicted: Graded pairs that occur in the file with several scores, of which one is used.
    """

    kept: int
    duplicates: int
    leaked: int
    held_out: int
    near: int
    of_held: int
    contradicted: int


@dataclass(frozen=True, slots=True)
class Split:
    """The fates of the good rows of a file.

    Attributes:
        counts: Rows per fate.
        kept: Which rows of the staging file are kept, of shape `(good,)`.
        clean: Rows left after duplicates and exact leaks were removed, before the hold-out.
        documents: Documents held out.
        task: The domain's task: the one given, or the one held out; None if there is none.
    """

    counts: Counts
    kept: npt.NDArray[np.bool_]
    clean: int
    documents: int
    task: TaskTables | None


def split_rows(
    folder: Path, good: int, stored: StoredFiles, task: TaskTables | None, share: float, max_queries: int
) -> Split:
    """Decide the fate of every good row, and write the domain's task if there is one.

    Args:
        folder: The staging folder with the file of good rows; the task is written to it.
        good: Number of good rows.
        stored: The files to compare with.
        task: The task given with the file; None to hold one out.
        share: Share of the documents to hold out, 0 to 1; 0 if `task` is given.
        max_queries: Largest number of distinct queries in a held-out task.
    """
    rows, task_folder = folder / ROWS, folder / TASK
    keys, shingles = list(stored.keys), list(stored.shingles)
    if task is not None:
        write_task(task, task_folder)
        keys.append(task_folder / KEYS)
    with database(folder / "spill") as connection:
        _load_hashes(connection, rows, stored, documents=share > 0)
        rank_repeats(connection, rows)
        _drop_duplicates(connection)
        clean = _drop_leaks(connection, keys, stored)
        documents = hold_out(connection, share if clean else 0.0, max_queries)
        _keep_rest(connection)
        if documents:
            task = held_out_task(connection, rows)
            write_task(task, task_folder)
            write_held(connection, task_folder / HELD)
        if task is not None:
            shingles.append(task_folder / SHINGLES)
        near = _drop_near(connection, rows, good, shingles)
        return Split(_count_fates(connection, near), _kept_rows(connection, good), clean, documents, task)


def _load_hashes(connection: duckdb.DuckDBPyConnection, staged: Path, stored: StoredFiles, *, documents: bool) -> None:
    """Create `rows` (hashes of the staging file), `stored` (digits of those of all batches) and `stored_documents`.

    With `documents`, `stored_documents` holds the documents of the staging file that a batch of the same domain has
    rows of. UUID is DuckDB's 128-bit type; it sorts as the hex digits do. There can be far more stored rows than new
    ones, so theirs stay digits: to look a text up takes less time than to convert it.
    """
    hashes = ", ".join(f"{name}_hash::UUID AS {name}" for name in ("row", "query", "positive", "document"))
    connection.execute(f"CREATE TABLE rows AS SELECT * FROM {scan([staged], f'seq, score, {hashes}')}")
    connection.execute(
        f"CREATE VIEW stored AS SELECT * FROM {scan(stored.batches, 'row_hash, query_hash, positive_hash')}"
    )
    connection.execute("CREATE TABLE stored_documents (document UUID)")
    if documents and stored.own_batches:
        connection.execute(
            f"""
            INSERT INTO stored_documents
            SELECT DISTINCT document FROM {scan([staged], "doc_id, document_hash::UUID AS document")}
            SEMI JOIN {scan(stored.own_batches, "doc_id")} USING (doc_id)
            """
        )


def _drop_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `fresh`: the row with the lowest rank of each pair that no batch has."""
    connection.execute(
        """
        CREATE TABLE known AS SELECT row_hash::UUID AS row FROM stored
        SEMI JOIN (SELECT replace(row::VARCHAR, '-', '') AS row_hash FROM rows) USING (row_hash)
        """
    )
    connection.execute(
        """
        CREATE TABLE fresh AS
        WITH single AS (
            SELECT * FROM rows ANTI JOIN twice USING (row)
            UNION ALL
            SELECT * FROM rows SEMI JOIN (
                SELECT arg_min(seq, rank) AS seq FROM rows JOIN ranks USING (seq) GROUP BY row
            ) USING (seq)
        )
        SELECT * FROM single ANTI JOIN known USING (row)
        """
    )


def _drop_leaks(connection: duckdb.DuckDBPyConnection, keys: Sequence[Path], stored: StoredFiles) -> int:
    """Create `unknown` and `clean`, and return the number of clean rows.

    `unknown` holds the fresh rows whose query and positive are in no evaluation task, neither as a query nor as a
    relevant document. `clean` leaves out the rows of documents that were held out before: rows with a text that was a
    positive held out of any domain, or a document id held out of the same domain.

    Args:
        connection: Holds the table `fresh`.
        keys: Hashes of the texts of all tasks; see `write_keys`.
        stored: Its files of held-out hashes are used.
    """
    connection.execute(f"CREATE TABLE keys AS SELECT DISTINCT hash FROM {scan(keys, 'hash::UUID AS hash')}")
    connection.execute(
        """
        CREATE TABLE unknown AS
        SELECT * FROM fresh
        ANTI JOIN (SELECT hash AS query FROM keys) USING (query)
        ANTI JOIN (SELECT hash AS positive FROM keys) USING (positive)
        """
    )
    hashes = "(SELECT hash AS {0} FROM {1} WHERE kind = '{2}')"
    columns = "kind, hash::UUID AS hash"
    held = scan(stored.held, columns)
    connection.execute(
        f"""
        CREATE TABLE clean AS
        SELECT * FROM unknown
        ANTI JOIN {hashes.format("positive", held, "positive")} USING (positive)
        ANTI JOIN {hashes.format("query", held, "positive")} USING (query)
        ANTI JOIN {hashes.format("document", scan(stored.own_held, columns), "document")} USING (document)
        """
    )
    return count(connection, "SELECT count(*) FROM clean")


def _keep_rest(connection: duckdb.DuckDBPyConnection) -> None:
    """Create `kept`: clean rows that are not held out, with no text of a held-out query or a held-out positive."""
    connection.execute(
        """
        CREATE TABLE kept AS
        SELECT * FROM clean ANTI JOIN held USING (seq) ANTI JOIN judged USING (query)
        ANTI JOIN (SELECT query AS positive FROM judged) USING (positive)
        ANTI JOIN (SELECT positive AS query FROM held) USING (query)
        """
    )


def _drop_near(connection: duckdb.DuckDBPyConnection, staged: Path, good: int, shingles: Sequence[Path]) -> int:
    """Remove near duplicates of the tasks' texts from `kept`, and return the number of rows removed."""
    if not shingles:
        return 0
    find_near(connection, _kept_texts(staged, _kept_rows(connection, good)), shingles)
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


def _count_fates(connection: duckdb.DuckDBPyConnection, near: int) -> Counts:
    """Count the rows per fate; `near` rows were removed as near duplicates."""
    rows, fresh, unknown, clean, held, kept = (
        count(connection, f"SELECT count(*) FROM {table}")
        for table in ("rows", "fresh", "unknown", "clean", "held", "kept")
    )
    contradicted = count(
        connection,
        "SELECT count(*) FROM (SELECT row FROM rows SEMI JOIN twice USING (row) GROUP BY row HAVING min(score) < "
        "max(score))",
    )
    return Counts(
        kept,
        duplicates=rows - fresh,
        leaked=fresh - held - kept,
        held_out=held,
        near=near,
        of_held=unknown - clean,
        contradicted=contradicted,
    )


def _kept_rows(connection: duckdb.DuckDBPyConnection, good: int) -> npt.NDArray[np.bool_]:
    """Return which rows of the staging file are kept, of shape `(good,)`."""
    kept = np.zeros(good, dtype=np.bool_)
    for batch in connection.sql("SELECT seq FROM kept").to_arrow_reader(100_000):
        kept[batch.column(0).to_numpy()] = True
    return kept
