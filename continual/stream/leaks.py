"""Stored rows that leak into a task that was registered after them.

Such rows were stored, and perhaps trained on, before the task existed. From then on no draw takes them, and versions
trained on them are no longer out of domain for the task; see `continual.eval.ood`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from continual.registry import Leak, Registry, Task
from continual.registry.catalog import now
from continual.storage.files import publish, scratch
from continual.stream.database import database, literal, scan
from continual.stream.near import SHINGLES, find_near, write_shingles
from continual.stream.task_files import read_task
from continual.stream.task_tables import KEYS, relevant_texts

LEAKS = "leaks.parquet"
LEAKS_SCHEMA = pa.schema(
    [
        pa.field("batch", pa.string(), False),
        pa.field("row_hash", pa.string(), False),
        pa.field("near", pa.bool_(), False),
    ]
)
READ_ROWS = 10_000


def find_leaks(registry: Registry, tasks: Mapping[str, Path]) -> dict[str, Any]:
    """Return, by task, the stored rows that leak into it: Arrow tables with `LEAKS_SCHEMA`.

    Rows with `near` are near duplicates of the task's texts. The others have exactly a query of the task or a document
    that is relevant in it, as their query or as their positive.

    Args:
        registry: The texts of all its batches are read.
        tasks: Folders of tasks by name; they hold keys and shingles.
    """
    batches = registry.batches()
    files = dict(zip((batch.id for batch in batches), registry.rows_files(batches), strict=True))
    if not files or not tasks:
        return {name: LEAKS_SCHEMA.empty_table() for name in tasks}
    with scratch(registry.root, "leaks") as spill, database(spill) as connection:
        connection.execute("CREATE TABLE leaks (task INTEGER, batch VARCHAR, row_hash VARCHAR, near BOOLEAN)")
        _add_equal(connection, [folder / KEYS for folder in tasks.values()], files)
        _add_near(connection, [folder / SHINGLES for folder in tasks.values()], files)
        leaks = {}
        for number, name in enumerate(tasks):
            rows = connection.sql(
                f"SELECT batch, row_hash, bool_and(near) AS near FROM leaks WHERE task = {number} "
                "GROUP BY batch, row_hash ORDER BY batch, row_hash"
            ).to_arrow_table()
            leaks[name] = rows.cast(LEAKS_SCHEMA)
        return leaks


def _add_equal(connection: duckdb.DuckDBPyConnection, keys: Sequence[Path], files: Mapping[str, Path]) -> None:
    history = " UNION ALL ".join(
        f"SELECT '{batch}' AS batch, row_hash, query_hash, positive_hash FROM read_parquet({literal(file)})"
        for batch, file in files.items()
    )
    for number, file in enumerate(keys):
        hashes = scan([file], "hash")
        connection.execute(
            f"""
            INSERT INTO leaks SELECT {number}, batch, row_hash, false FROM ({history})
            WHERE query_hash IN (SELECT hash FROM {hashes}) OR positive_hash IN (SELECT hash FROM {hashes})
            """
        )


def _add_near(connection: duckdb.DuckDBPyConnection, shingles: Sequence[Path], files: Mapping[str, Path]) -> None:
    find_near(connection, _texts(files.values()), shingles)
    first = 0
    for batch, file in files.items():
        connection.execute(
            f"""
            INSERT INTO leaks
            SELECT task, '{batch}', row_hash, true FROM near
            JOIN (
                SELECT {first} + file_row_number AS place, row_hash
                FROM read_parquet({literal(file)}, file_row_number = true)
            ) USING (place)
            """
        )
        first += pq.read_metadata(file).num_rows


def _texts(files: Iterable[Path]) -> Iterator[Any]:
    """Yield the texts of all files in pieces; `place` numbers the rows across all files in their stored order."""
    first = 0
    for file in files:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(READ_ROWS, columns=["query", "positive"], use_threads=False):
                places = pa.array(range(first, first + batch.num_rows), pa.int64())
                first += batch.num_rows
                yield pa.table({"place": places, "query": batch["query"], "positive": batch["positive"]})


def write_leaks(folder: Path, rows: Any) -> None:
    """Write the rows that leak into a task to its folder, where every draw reads them."""
    with publish(folder / LEAKS) as partial:
        pq.write_table(rows, partial, compression="zstd")


def count_leaks(task: str, rows: Any) -> list[Leak]:
    """Return the catalog's records of the rows that leak into a task: one per batch, with its number of rows."""
    counts: dict[str, list[int]] = {}
    for batch, near in zip(rows["batch"].to_pylist(), rows["near"].to_pylist(), strict=True):
        of_batch = counts.setdefault(batch, [0, 0])
        of_batch[0] += 1
        of_batch[1] += near
    return [Leak(task, batch, rows, near, now()) for batch, (rows, near) in counts.items()]


def shingle_files(registry: Registry, tasks: Sequence[Task]) -> list[Path]:
    """Return the shingle files of tasks; missing ones, of tasks registered by older versions, are written first."""
    files = []
    for task, folder in zip(tasks, registry.task_folders(tasks), strict=True):
        file = folder / SHINGLES
        if not file.is_file():
            tables = read_task(file.parent)
            texts = {"document": relevant_texts(tables), "query": tables.queries["text"].to_pylist()}
            with publish(file) as partial:
                write_shingles(partial, texts)
            registry.digests.record(task.path)
        files.append(file)
    return files
