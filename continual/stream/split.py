"""The second pass: which good rows are duplicates, leak, are held out, or are kept. SQL on hashes only.

Every decision is a function of the rows' content, never of their order in the file: the same rows shuffled
give the same batch and the same task. The texts stay in the staging file until `write_rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from continual.stream.database import count, scan


@dataclass(frozen=True, slots=True)
class Split:
    """How many good rows went where."""

    kept: int
    duplicates: int
    leaked: int
    held_out: int


def load(connection: duckdb.DuckDBPyConnection, staged: Path, history: Sequence[Path]) -> None:
    """Make the tables `rows` (the hashes of the staging file) and `stored` (those of all batches so far).

    UUID is DuckDB's 128-bit type that sorts as the hex digits do.
    """
    names = ("row", "query", "positive", "document")
    hashes = ", ".join(f"{name}_hash::UUID AS {name}" for name in names)
    connection.execute(f"CREATE TABLE rows AS SELECT * FROM {scan([staged], f'seq, rank, {hashes}')}")
    hashes = ", ".join(f"{name}_hash::UUID AS {name}" for name in names[:3])
    connection.execute(f"CREATE VIEW stored AS SELECT * FROM {scan(history, hashes)}")


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


def drop_leaks(connection: duckdb.DuckDBPyConnection, keys: Sequence[Path]) -> int:
    """Make `clean`: the fresh rows whose query and positive no evaluation task knows. Return how many there are."""
    connection.execute(f"CREATE TABLE keys AS SELECT * FROM {scan(keys, 'kind, hash::UUID AS hash')}")
    connection.execute(
        """
        CREATE TABLE clean AS
        SELECT * FROM fresh
        ANTI JOIN (SELECT hash AS query FROM keys WHERE kind = 'query') USING (query)
        ANTI JOIN (SELECT hash AS positive FROM keys WHERE kind = 'document') USING (positive)
        """
    )
    return count(connection, "SELECT count(*) FROM clean")


def keep_rest(connection: duckdb.DuckDBPyConnection) -> Split:
    """Make `kept`: clean rows that are not held out, and whose query is no held-out query. Count everything."""
    connection.execute(
        "CREATE TABLE kept AS SELECT * FROM clean ANTI JOIN held USING (seq) ANTI JOIN judged USING (query)"
    )
    rows, fresh, held, kept = (
        count(connection, f"SELECT count(*) FROM {table}") for table in ("rows", "fresh", "held", "kept")
    )
    return Split(kept=kept, duplicates=rows - fresh, leaked=fresh - held - kept, held_out=held)


def kept_rows(connection: duckdb.DuckDBPyConnection, good: int) -> npt.NDArray[np.bool_]:
    """Return which rows of the staging file are kept, of shape `(good,)`."""
    kept = np.zeros(good, dtype=np.bool_)
    for batch in connection.sql("SELECT seq FROM kept").to_arrow_reader(100_000):
        kept[batch.column(0).to_numpy()] = True
    return kept
