"""The texts and judgements of a task's queries and documents, by their ids, wherever the task comes from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from continual.errors import DataError
from continual.registry import Registry
from continual.registry.records import Task


class TaskTexts:
    """Looks up the texts of one task; those of mteb are loaded by mteb, once.

    Args:
        registry: Holds the task.
        task: One that ranks documents, with a score per query.

    Raises:
        DataError: Its data is gone or cannot be read.
    """

    def __init__(self, registry: Registry, task: Task) -> None:
        self.task = task
        self._folder: Path | None = registry.task_folder(task) if task.mteb is None else None
        self._data: Mapping[str, Any] = {} if task.mteb is None else _loaded(task)

    def queries(self, ids: Collection[str]) -> dict[str, str]:
        """Return the texts of queries by id."""
        if self._folder is not None:
            return self._read("queries", "query_id", ids)
        from continual.eval.mteb_tasks import query_text

        return {name: query_text(text) for name, text in self._select("queries", ids).items()}

    def documents(self, ids: Collection[str]) -> dict[str, str]:
        """Return the texts of documents by id, each with its title in front where it has one."""
        if self._folder is not None:
            return self._read("corpus", "doc_id", ids)
        return self._select("corpus", ids)

    def relevant(self, ids: Collection[str]) -> dict[str, set[str]]:
        """Return the ids of the documents that are relevant to queries, by query id."""
        found: dict[str, set[str]] = {name: set() for name in ids}
        if self._folder is None:
            for name in found:
                found[name] = {doc for doc, score in self._data["relevant_docs"].get(name, {}).items() if score > 0}
            return found
        columns = ["query_id", "doc_id", "score"]
        for query, document, score in _rows(self._folder / "qrels.parquet", "query_id", ids, columns):
            if score > 0:
                found[query].add(document)
        return found

    def _read(self, name: str, key: str, ids: Collection[str]) -> dict[str, str]:
        assert self._folder is not None
        return dict(_rows(self._folder / f"{name}.parquet", key, ids, [key, "text"]))

    def _select(self, name: str, ids: Collection[str]) -> dict[str, Any]:
        rows, wanted = self._data[name], set(ids)
        chosen = rows.select([place for place, each in enumerate(rows["id"]) if each in wanted])
        return {row["id"]: f"{row['title']} {row['text']}" if row.get("title") else row["text"] for row in chosen}


def _rows(path: Path, key: str, ids: Collection[str], columns: list[str]) -> list[tuple[Any, ...]]:
    """Return the rows with some ids, batch by batch. A filter of pyarrow would import pandas, which takes a second."""
    wanted, found = set(ids), []
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=columns):
                places = [place for place, each in enumerate(batch[key].to_pylist()) if each in wanted]
                found += [tuple(batch[name][place].as_py() for name in columns) for place in places]
        return found
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read: {error}. Put it back from a backup.") from None


def _loaded(task: Task) -> Mapping[str, Any]:
    """Return the data of the only subset and split that a task of mteb is scored on."""
    from continual.eval.mteb_tasks import only_split, open_task
    from continual.eval.run import own_randomness, quiet

    with quiet(), own_randomness():
        return only_split(open_task(task))
