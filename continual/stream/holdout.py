"""The hold-out: which documents of a new domain are never trained on, and the task made of them."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from continual.stream.database import count
from continual.stream.task_files import TaskTables, task_tables

HELD = "held.parquet"
"""What was held out of a domain, in the folder of the task made of it."""

MAX_CORPUS = 5_000
"""Documents in the corpus of a held-out task, with its distractors; more only if more are relevant."""


def hold_out(connection: duckdb.DuckDBPyConnection, share: float, max_queries: int) -> int:
    """Make `held` (clean rows that are held out) and `judged` (those of them that make up the task).

    A document is the rows of one document id, or of one positive where there is no id. Documents are taken
    in the order of their hash until `share` of them (rounded) is reached, or as many as keep the distinct
    queries within `max_queries`, but at least one. A document that shares a text with a stored batch, or its
    id with one of the same domain, is passed over: a model may have been trained on it. Every row of a held-out
    document is held out, and every row with one of their positives.

    Args:
        connection: With the tables `clean` and `stored_documents`.
        share: Share of the documents, 0 to 1.
        max_queries: Distinct queries in the task, at most; the first by hash if one document has more.

    Returns:
        The number of documents held out; 0 if `share` of them is less than half a document.
    """
    connection.execute("CREATE TABLE known_queries AS SELECT query FROM clean SEMI JOIN stored USING (query)")
    connection.execute("CREATE TABLE known_positives AS SELECT positive FROM clean SEMI JOIN stored USING (positive)")
    wanted = int(share * count(connection, "SELECT count(DISTINCT document) FROM clean") + 0.5)
    connection.execute(
        """
        CREATE TABLE documents AS
        SELECT document, row_number() OVER (ORDER BY document) AS place FROM (
            SELECT DISTINCT document FROM clean
            ANTI JOIN (
                SELECT document FROM clean
                WHERE query IN (SELECT query FROM known_queries)
                   OR positive IN (SELECT positive FROM known_positives)
            ) USING (document)
            ANTI JOIN stored_documents USING (document)
        )
        """
    )
    # Each query counts at the first document that brings it in.
    fitting = count(
        connection,
        f"""
        WITH firsts AS (SELECT min(place) AS place FROM clean JOIN documents USING (document) GROUP BY query),
             totals AS (
                 SELECT place, sum(coalesce(queries, 0)) OVER (ORDER BY place) AS queries
                 FROM documents LEFT JOIN (SELECT place, count(*) AS queries FROM firsts GROUP BY place) USING (place)
             )
        SELECT coalesce(max(place), 1) FROM totals WHERE queries <= {max_queries}
        """,
    )
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
            SELECT DISTINCT query FROM held ANTI JOIN known_queries USING (query) ORDER BY query LIMIT {max_queries}
        ) USING (query)
        """
    )
    return count(connection, "SELECT count(*) FROM chosen")


def write_held(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write what was held out, of which no later file of the domain may bring another row into training.

    Columns `kind` and `hash` (32 hex digits): "document" of a document's id, or of its text where it has no id, and
    "positive" of each text held out, with those that are not in the task because it has enough queries.
    """
    found = connection.sql(
        """
        SELECT kind, replace(hash::VARCHAR, '-', '') AS hash FROM (
            SELECT 'document' AS kind, document AS hash FROM chosen
            UNION ALL SELECT DISTINCT 'positive', positive FROM held
        ) ORDER BY kind, hash
        """
    ).to_arrow_table()
    pq.write_table(found.cast(pa.schema([("kind", pa.string()), ("hash", pa.string())])), path, compression="zstd")


def held_out_task(connection: duckdb.DuckDBPyConnection, staged: Path) -> TaskTables:
    """Return the task of the judged rows: ids are the hashes of the texts, every pair has score 1.

    The corpus is filled up with kept positives, the first by hash, to `MAX_CORPUS` documents: distractors
    that do get trained on, as in any corpus. A positive of a query of the task is never one of them.
    """
    space = max(0, MAX_CORPUS - count(connection, "SELECT count(DISTINCT positive) FROM judged"))
    connection.execute(
        f"""
        CREATE TABLE corpus AS
        SELECT DISTINCT positive FROM judged
        UNION ALL
        (
            SELECT DISTINCT positive FROM kept
            ANTI JOIN (SELECT positive FROM clean SEMI JOIN judged USING (query)) USING (positive)
            ORDER BY positive LIMIT {space}
        )
        """
    )
    # Equal texts can be stored in several spellings; the smallest does not depend on the rows' order.
    corpus = """
        SELECT positive_hash AS doc_id, min(positive) AS text FROM read_parquet($1)
        WHERE positive_hash::UUID IN (SELECT positive FROM corpus) GROUP BY positive_hash
    """
    queries = """
        SELECT query_hash AS query_id, min(query) AS text FROM read_parquet($1)
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
