"""The hold-out: the documents of a new domain that are never trained on, and the evaluation task made of them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from continual.stream.database import count
from continual.stream.task_tables import TaskTables, task_tables

HELD = "held.parquet"
"""File of the hashes of held-out rows, in the folder of the held-out task."""

LAST_HASH = "f" * 32
MAX_CORPUS = 5_000
"""Largest number of documents in the corpus of a held-out task, distractors included; larger only if more documents
are relevant."""


def hold_out(connection: duckdb.DuckDBPyConnection, share: float, max_queries: int) -> int:
    """Create `held` (clean rows that are held out) and `judged` (the rows of `held` that make up the task).

    A document is all rows with the same document id, or with the same positive if they have no id. Documents are taken
    in the order of their hash until `share` of them (rounded) is reached, or until the next one would bring the number
    of distinct queries above `max_queries`, but at least one. A document is skipped if it shares a text with a stored
    batch, or its id with a batch of the same domain, because a model may have been trained on it. All rows of the
    documents taken are held out, and all rows with one of their positives.

    Args:
        connection: Holds the tables `clean`, `stored` and `stored_documents`.
        share: Share of the documents to hold out, 0 to 1.
        max_queries: Largest number of distinct queries in the task. If a single document has more, its first by hash
            are used.

    Returns:
        The number of documents held out; 0 if `share` of them is less than half a document.
    """
    wanted = int(share * count(connection, "SELECT count(DISTINCT document) FROM clean") + 0.5) if share else 0
    if not wanted:
        connection.execute("CREATE TABLE held AS SELECT * FROM clean WHERE false")
        connection.execute("CREATE TABLE judged AS SELECT * FROM clean WHERE false")
        return 0
    connection.execute(
        """
        CREATE TABLE known_texts AS
        SELECT DISTINCT text::UUID AS hash FROM (
            SELECT query_hash AS text FROM stored UNION ALL SELECT positive_hash AS text FROM stored
        ) SEMI JOIN (
            SELECT replace(query::VARCHAR, '-', '') AS text FROM clean
            UNION ALL SELECT replace(positive::VARCHAR, '-', '') AS text FROM clean
        ) USING (text)
        """
    )
    for role, name in (("query", "stored_queries"), ("positive", "stored_positives")):
        known = f"(SELECT hash AS {role} FROM known_texts)"
        connection.execute(f"CREATE TABLE {name} AS SELECT {role} FROM clean SEMI JOIN {known} USING ({role})")
    connection.execute(
        """
        CREATE TABLE documents AS
        SELECT document, row_number() OVER (ORDER BY document) AS place FROM (
            SELECT DISTINCT document FROM clean
            ANTI JOIN (
                SELECT document FROM clean
                WHERE query IN (SELECT query FROM stored_queries)
                   OR positive IN (SELECT positive FROM stored_positives)
            ) USING (document)
            ANTI JOIN stored_documents USING (document)
        )
        """
    )
    fitting = _fitting(connection, wanted, max_queries)
    connection.execute(f"CREATE TABLE chosen AS SELECT document FROM documents WHERE place <= {min(wanted, fitting)}")
    connection.execute(
        """
        CREATE TABLE held AS SELECT * FROM clean WHERE positive IN (
            SELECT positive FROM clean SEMI JOIN chosen USING (document)
        )
        """
    )
    connection.execute(
        f"""
        CREATE TABLE judged AS SELECT * FROM held SEMI JOIN (
            SELECT DISTINCT query FROM held ANTI JOIN stored_queries USING (query) ORDER BY query LIMIT {max_queries}
        ) USING (query)
        """
    )
    return count(connection, "SELECT count(*) FROM chosen")


def _fitting(connection: duckdb.DuckDBPyConnection, wanted: int, max_queries: int) -> int:
    """Return how many of the first documents have at most `max_queries` queries together, at least one.

    A query counts for the first document that has it. Beyond `wanted` documents nothing is counted, and not beyond the
    first few either, as long as these have too many queries.
    """
    looked = 2 * max_queries
    while True:
        fitting = count(
            connection,
            f"""
            WITH first AS (SELECT * FROM documents WHERE place <= {looked}),
                 firsts AS (SELECT min(place) AS place FROM clean JOIN first USING (document) GROUP BY query),
                 totals AS (
                     SELECT place, sum(coalesce(queries, 0)) OVER (ORDER BY place) AS queries
                     FROM first LEFT JOIN (SELECT place, count(*) AS queries FROM firsts GROUP BY place) USING (place)
                 )
            SELECT coalesce(max(place), 1) FROM totals WHERE queries <= {max_queries}
            """,
        )
        if fitting < looked or looked >= wanted:
            return fitting
        looked *= 8


def _hash_below(share: float) -> str:
    """Return a hash that about this share of all hashes is below."""
    return LAST_HASH if share >= 1 else f"{int(share * 2**64):016x}" + "0" * 16


def write_held(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write the hashes of what was held out, so that later files of the domain add no row of it to training.

    The columns are `kind` and `hash` (32 hex digits). "document" rows hash a document's id, or its text if it has no
    id. "positive" rows hash all texts held out, including those left out of the task because it has enough queries.
    """
    hashes = connection.sql(
        """
        SELECT kind, replace(hash::VARCHAR, '-', '') AS hash FROM (
            SELECT 'document' AS kind, document AS hash FROM chosen
            UNION ALL SELECT DISTINCT 'positive', positive FROM held
        ) ORDER BY kind, hash
        """
    ).to_arrow_table()
    pq.write_table(hashes.cast(pa.schema([("kind", pa.string()), ("hash", pa.string())])), path, compression="zstd")


def held_out_task(connection: duckdb.DuckDBPyConnection, staged: Path) -> TaskTables:
    """Return the task of the judged rows: ids are the hashes of the texts, and every pair has score 1.

    Kept positives, the first by hash, fill up the corpus to `MAX_CORPUS` documents. They are distractors that are also
    trained on; no positive of a query of the task is among them.
    """
    space = max(0, MAX_CORPUS - count(connection, "SELECT count(DISTINCT positive) FROM judged"))
    distractors = f"""
        SELECT DISTINCT positive FROM kept
        ANTI JOIN (SELECT positive FROM clean SEMI JOIN judged USING (query)) USING (positive)
        WHERE positive <= $1::UUID ORDER BY positive LIMIT {space}
    """
    connection.execute("CREATE TABLE corpus AS SELECT DISTINCT positive FROM judged")
    # Hashes are uniform, so few of many rows have the first ones: the others need no memory.
    share = min(1.0, 16 * space / max(1, count(connection, "SELECT count(*) FROM kept")))
    for bound in (_hash_below(share), LAST_HASH):
        found = connection.sql(distractors, params=[bound]).to_arrow_table()
        if found.num_rows == space:
            break
    connection.register("distractors", found)
    connection.execute("INSERT INTO corpus SELECT positive::UUID FROM distractors")
    connection.unregister("distractors")
    # Equal texts can be stored in several spellings; min() does not depend on the order of the rows.
    corpus = """
        SELECT lower(hex(positive_hash)) AS doc_id, min(positive) AS text FROM read_parquet($1)
        WHERE positive_hash::UUID IN (SELECT positive FROM corpus) GROUP BY positive_hash
    """
    queries = """
        SELECT lower(hex(query_hash)) AS query_id, min(query) AS text FROM read_parquet($1)
        WHERE query_hash::UUID IN (SELECT query FROM judged) GROUP BY query_hash
    """
    qrels = """
        SELECT replace(query::VARCHAR, '-', '') AS query_id, replace(positive::VARCHAR, '-', '') AS doc_id,
            1::BIGINT AS score
        FROM judged
    """
    return task_tables(
        connection.sql(corpus, params=[str(staged)]).to_arrow_table(),
        connection.sql(queries, params=[str(staged)]).to_arrow_table(),
        connection.sql(qrels).to_arrow_table(),
    )
