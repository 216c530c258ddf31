"""Which row to keep of those with equal pairs."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import duckdb
import pyarrow as pa

from continual.registry.text import SEPARATOR
from continual.stream.database import literal

READ_ROWS = 10_000


def rank_repeats(connection: duckdb.DuckDBPyConnection, staged: Path) -> None:
    """Create `twice`, the pairs that several rows have, and `ranks`, the ranks of these rows.

    Args:
        connection: Holds the table `rows`.
        staged: The staging file of the good rows. Their texts are read, with the negatives that came with them.
    """
    connection.execute("CREATE TABLE twice AS SELECT row FROM rows GROUP BY row HAVING count(*) > 1")
    connection.execute("CREATE TABLE ranks (seq BIGINT, rank BIGINT)")
    texts = f"""
        SELECT seq, query, positive, negatives, doc_id, score FROM read_parquet({literal(staged)})
        SEMI JOIN (SELECT seq FROM rows SEMI JOIN twice USING (row)) USING (seq)
    """
    with connection.cursor() as reading:
        for batch in reading.sql(texts).to_arrow_reader(READ_ROWS):
            columns = batch.to_pydict()
            rows = zip(*(columns[name] for name in ("query", "positive", "negatives", "doc_id", "score")), strict=True)
            ranks = [_rank(query, positive, given, doc_id, score) for query, positive, given, doc_id, score in rows]
            connection.register("new_ranks", pa.table({"seq": batch["seq"], "rank": pa.array(ranks, pa.int64())}))
            connection.execute("INSERT INTO ranks SELECT * FROM new_ranks")
            connection.unregister("new_ranks")


def _rank(query: str, positive: str, negatives: list[str], doc_id: str | None, grade: float | None) -> int:
    """Return a number that is lowest for the row to keep among rows with equal pairs.

    Rows are ordered by most negatives, then by having a document id, then by a hash of the content, so the position in
    the file has no influence.
    """
    more = [*negatives, *([] if grade is None else [repr(grade)])]
    content = SEPARATOR.join((query, positive, doc_id or "", *more)).encode()
    fewer = 255 - min(len(more), 255)
    return fewer << 55 | (doc_id is None) << 54 | int.from_bytes(blake2b(content, digest_size=6).digest(), "big")
