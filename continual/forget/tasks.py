"""Evaluation tasks without the queries, judgements and documents that are forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.forget.select import Selection
from continual.registry import Registry, Task
from continual.registry.text import hash_text
from continual.stream.holdout import HELD
from continual.stream.near import SHINGLES, write_shingles
from continual.stream.task_tables import KEYS, KEYS_SCHEMA, TaskTables, relevant_texts, task_tables

QRELS = ("query_id", "doc_id", "score")


@dataclass(frozen=True)
class ChangedTask:
    """A task, and what stays of it.

    Attributes:
        task: Its record.
        before: Its tables.
        judged: Its judgements that stay, as far as queries decide.
        texts: Texts of the queries and relevant documents that the selection takes.
    """

    task: Task
    before: TaskTables
    judged: Any
    texts: set[str]

    @property
    def empty(self) -> bool:
        """Whether no query stays, so that the task goes away."""
        return not self.judged.num_rows

    def needed(self) -> Iterator[Any]:
        """Yield the texts of the queries that stay and of the documents that are relevant to them."""
        relevant = self.judged.filter(pc.greater(self.judged["score"], 0))
        yield _only(self.before.queries, "query_id", self.judged["query_id"])["text"].combine_chunks()
        yield _only(self.before.corpus, "doc_id", relevant["doc_id"])["text"].combine_chunks()

    def without(self, texts: Collection[str]) -> TaskTables:
        """Return the task without the queries that don't stay, and without documents that have one of these texts."""
        corpus = self.before.corpus
        corpus = corpus.filter(pc.invert(pc.is_in(corpus["text"], value_set=pa.array(sorted(texts), pa.string()))))
        qrels = _only(self.judged, "doc_id", corpus["doc_id"])
        return task_tables(corpus, _only(self.before.queries, "query_id", qrels["query_id"]), qrels)


def read_changed(registry: Registry, task: Task, selection: Selection) -> ChangedTask:
    """Read a local task, and find what the selection takes of it."""
    folder = registry.task_folder(task)
    names = ("corpus", "queries", "qrels")
    before = task_tables(*(pq.read_table(folder / f"{name}.parquet") for name in names))
    if selection.domain is not None:
        return ChangedTask(task, before, before.qrels, set())
    queries = dict(zip(*(before.queries[name].to_pylist() for name in ("query_id", "text")), strict=True))
    documents = dict(zip(*(before.corpus[name].to_pylist() for name in ("doc_id", "text")), strict=True))
    keep, texts, stays = [], set[str](), set[str]()
    for query, document, score in zip(*(before.qrels[name].to_pylist() for name in QRELS), strict=True):
        taken = selection.takes_pair(queries[query], documents[document])
        keep.append(not taken)
        if taken and score > 0:
            texts |= {queries[query], documents[document]}
        elif taken:
            texts.add(queries[query])
        elif score > 0:
            stays.add(query)
    judged = before.qrels.filter(pa.array(keep, pa.bool_()))
    return ChangedTask(task, before, _only(judged, "query_id", pa.array(sorted(stays), pa.string())), texts)


def write_changed(registry: Registry, changed: ChangedTask, after: TaskTables, folder: Path) -> list[str]:
    """Write the files of a task that changed to a folder; return their names.

    The hashes and shingles for leakage checks, and those of what was held out, lose the texts too.
    """
    stored = registry.path(changed.task.path)
    folder.mkdir(parents=True)
    for name, table in (("corpus", after.corpus), ("queries", after.queries), ("qrels", after.qrels)):
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
    queries, documents = set(after.queries["text"].to_pylist()), set(relevant_texts(after))
    gone = {
        "query": {hash_text(text) for text in set(changed.before.queries["text"].to_pylist()) - queries},
        "document": {hash_text(text) for text in set(relevant_texts(changed.before)) - documents},
    }
    stay = {"query": set(map(hash_text, queries)), "document": set(map(hash_text, documents))}
    keys = _without_hashes(pq.read_table(stored / KEYS), {kind: gone[kind] - stay[kind] for kind in gone})
    pq.write_table(keys.cast(KEYS_SCHEMA), folder / KEYS, compression="zstd")
    write_shingles(folder / SHINGLES, {"document": sorted(documents), "query": sorted(queries)})
    names = ["corpus.parquet", "queries.parquet", "qrels.parquet", KEYS, SHINGLES]
    if (stored / HELD).is_file():
        hashes = gone["document"] - stay["document"]
        held = _without_hashes(pq.read_table(stored / HELD), {"document": hashes, "positive": hashes})
        pq.write_table(held, folder / HELD, compression="zstd")
        names.append(HELD)
    return names


def _without_hashes(table: Any, gone: dict[str, set[str]]) -> Any:
    """Return a table of kinds and hashes without some."""
    rows = zip(table["kind"].to_pylist(), table["hash"].to_pylist(), strict=True)
    return table.filter(pa.array([key not in gone.get(kind, ()) for kind, key in rows], pa.bool_()))


def _only(table: Any, column: str, values: Any) -> Any:
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return table.filter(pc.is_in(table[column], value_set=values))
