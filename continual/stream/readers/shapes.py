"""Files of ids without a header line: which columns their places stand for, and whether the values agree."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from continual.errors import DataError
from continual.stream.labels import NUMBER

ITERATION = ("0", "Q0", "q0")
"""What judgements and runs of TREC have in their second column, which nobody reads."""
FEW = 10
"""Most different values of a column of grades."""
RANKS = 1000
"""Lowest rank in most rankings."""


def is_bare(cells: Sequence[str]) -> bool:
    """Return whether the first line of a file of ids is a row: all numbers, or as TREC writes judgements and runs."""
    trec = len(cells) in (4, 6) and cells[1].strip() in ITERATION
    return trec or (bool(cells) and all(NUMBER.fullmatch(cell.strip()) for cell in cells))


def places(name: str, cells: Sequence[str]) -> dict[str, str]:
    """Return the columns of a file without a header line by role: query, positive, negatives, score.

    Two columns are query and positive, three also a negative. Four are judgements as TREC writes them: the query, 0,
    the document and the grade.

    Args:
        name: The file.
        cells: Its first line.

    Raises:
        DataError: The file is a ranking, or has other columns.
    """
    if len(cells) == 6 and cells[1].strip() in ITERATION:
        raise DataError(
            f"{name} looks like a TREC run: the ranking of a search system, which doesn't say which documents are "
            "relevant. Give the file of judgements (qrels), or name the columns with --query-column 1 "
            "--positive-column 3 --score-column 5 --positive-at X."
        )
    if len(cells) == 4 and cells[1].strip() in ITERATION:
        return {"query": "1", "positive": "3", "score": "4"}
    if len(cells) in (2, 3):
        return dict(zip(("query", "positive", "negatives"), "123"[: len(cells)], strict=False))
    raise DataError(
        f"{name} has {len(cells)} columns without names, so nothing says what they hold. Name them, such as "
        "--query-column 1 --positive-column 2 (and --negatives-column or --score-column)."
    )


def check_third(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Check that the third column of a file without a header line holds ids of negatives, not labels or ranks.

    Args:
        connection: Holds the tables `pairs` and `given` of `continual.stream.readers.ids.IdSource`.
        name: The file.

    Raises:
        DataError: The values are fractions; or they are few; or they number the rows of each query; or all of them are
            small beside the ids of the positives.
    """
    values = """
        WITH cells AS (
            SELECT query, TRY_CAST(positive AS DOUBLE) AS positive, id, TRY_CAST(id AS DOUBLE) AS value
            FROM pairs JOIN given USING (row)
        )
    """
    summary = connection.execute(
        f"""{values} SELECT count(*), count(value), count(DISTINCT id), min(value), max(value), max(abs(positive)),
            count(*) FILTER (value <> floor(value)) FROM cells"""
    ).fetchone()
    assert summary is not None
    rows, numbers, different, least, largest, documents, fractions = summary
    if not rows or numbers < rows:
        return
    few = different <= FEW and (rows >= 2 * different or (least >= -1 and largest <= 1))
    small = largest <= RANKS and documents is not None and documents > 100 * max(largest, 1) and rows > 1
    ranked = 0
    if not (fractions or few or small):
        found = connection.execute(
            f"""{values}, queries AS (
                SELECT count(*) AS rows, min(value) IN (0, 1) AND count(DISTINCT value) = rows
                    AND max(value) - min(value) + 1 = rows AS ranked FROM cells GROUP BY query
            ) SELECT count(*) FILTER (ranked) > 0.9 * count(*) AND max(rows) > 1 FROM queries"""
        ).fetchone()
        ranked = found is not None and found[0]
    if fractions or few or small or ranked:
        raise DataError(
            f"{name} has {rows:,} rows with {different:,} different values from {least:g} to {largest:g} in its third "
            "column, which look like labels, scores or ranks and not like ids of negatives. Use --score-column 3 "
            "--positive-at X if they say which pairs are positive, --score-column none if they don't, or "
            "--negatives-column 3 if they are ids."
        )
