"""Look up a task's query and document texts and its judgements by id, for stored tasks and tasks of mteb."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from continual.errors import DataError
from continual.registry import Registry
from continual.registry.records import Task


class TaskTexts:
    """The texts and judgements of one task. A task of mteb is loaded once, by mteb.

    Args:
        task: A task that ranks documents and has per-query scores.

    Raises:
        DataError: The task's data are missing or can't be read.
    """

    def __init__(self, registry: Registry, task: Task) -> None:
        self.task = task
        self._folder: Path | None = registry.task_folder(task) if task.mteb is None else None
        self._data: Mapping[str, Any] = {} if task.mteb is None else _loaded(task)

    def queries(self, ids: Collection[str]) -> dict[str, str]:
        """Return the texts of queries, by id."""
        if self._folder is not None:
            return self._read("queries", "query_id", ids)
        from continual.eval.mteb_tasks import query_text

        return {name: query_text(text) for name, text in self._select("queries", ids).items()}

    def documents(self, ids: Collection[str]) -> dict[str, str]:
        """Return the texts of documents, by id; a title, if there is one, comes first."""
        if self._folder is not None:
            return self._read("corpus", "doc_id", ids)
        return self._select("corpus", ids)

    def relevant(self, ids: Collection[str]) -> dict[str, set[str]]:
        """Return the ids of the documents that are relevant to each query, by query id."""
        relevant: dict[str, set[str]] = {query: set() for query in ids}
        if self._folder is None:
            for query in relevant:
                judged = self._data["relevant_docs"].get(query, {})
                relevant[query] = {document for document, score in judged.items() if score > 0}
            return relevant
        columns = ["query_id", "doc_id", "score"]
        for query, document, score in _rows(self._folder / "qrels.parquet", "query_id", ids, columns):
            if score > 0:
                relevant[query].add(document)
        return relevant

    def _read(self, name: str, key: str, ids: Collection[str]) -> dict[str, str]:
        assert self._folder is not None
        return dict(_rows(self._folder / f"{name}.parquet", key, ids, [key, "text"]))

    def _select(self, name: str, ids: Collection[str]) -> dict[str, Any]:
        rows, wanted = self._data[name], set(ids)
        chosen = rows.select([index for index, row_id in enumerate(rows["id"]) if row_id in wanted])
        return {row["id"]: f"{row['title']} {row['text']}" if row.get("title") else row["text"] for row in chosen}


def _rows(path: Path, key: str, ids: Collection[str], columns: list[str]) -> list[tuple[Any, ...]]:
    """Return the rows with these ids, read in chunks. A filter of pyarrow would import pandas, which takes a second."""
    wanted, rows = set(ids), []
    try:
        with pq.ParquetFile(path) as file:
            for chunk in file.iter_batches(columns=columns):
                indices = [index for index, row_id in enumerate(chunk[key].to_pylist()) if row_id in wanted]
                rows += [tuple(chunk[name][index].as_py() for name in columns) for index in indices]
        return rows
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}. Restore it from a backup.") from None


def _loaded(task: Task) -> Mapping[str, Any]:
    """Return the data of an mteb task, which has exactly one scored subset and split."""
    from continual.eval.mteb_tasks import only_split, open_task
    from continual.eval.run import own_randomness, quiet

    with quiet(), own_randomness():
        return only_split(open_task(task))
