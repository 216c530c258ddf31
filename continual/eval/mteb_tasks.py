"""Tasks of mteb: find them by name, load them with mteb, and check that their data are the registered data."""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import mteb
import numpy as np
import torch
from mteb.abstasks import AbsTaskRetrieval
from mteb.get_tasks import TASK_LIST

from continual.errors import (
    DataError,
    InputError,
    NotFoundError,
    did_you_mean,
)
from continual.eval.hub_cache import pinned
from continual.eval.suites import WHOLE, Sample
from continual.eval.tasks import sampled_ids
from continual.registry.records import Task


@dataclass(frozen=True)
class Contents:
    """What a loaded task holds.

    Attributes:
        queries: Number of queries, or of scored items if the task doesn't rank documents.
        documents: Number of documents in all corpora.
        judgements: Number of judged (query, document) pairs.
        asked: Texts of the queries, or of all items if the task doesn't rank documents.
        relevant: Texts of the relevant documents, with and without their titles, or of all items likewise.
        listed: Whether mteb declares the columns that hold texts, so that `asked` and `relevant` are complete.
    """

    queries: int
    documents: int
    judgements: int
    asked: set[str]
    relevant: set[str]
    listed: bool


def find_mteb_tasks(name: str, subsets: Sequence[str] = ()) -> list[Any]:
    """Return the mteb task with this name, or the tasks of the benchmark with this name.

    Args:
        name: mteb's name, such as "SciFact" or "MTEB(eng, v2)".
        subsets: The subsets of a task to keep, mostly languages; empty keeps all.

    Raises:
        NotFoundError: mteb has no such task or benchmark, or the task has no such subset.
        InputError: Subsets are given for a benchmark, or a task needs more than text.
    """
    try:
        tasks = [mteb.get_task(name)]
    except KeyError:
        try:
            tasks = list(mteb.get_benchmark(name).tasks)
        except KeyError:
            names = [task.metadata.name for task in TASK_LIST]
            names += [benchmark.name for benchmark in mteb.get_benchmarks()]
            near = difflib.get_close_matches(name, names, n=1)
            raise NotFoundError(
                f"mteb {mteb.__version__} has no task or benchmark {name!r}.{did_you_mean(name, near)}"
            ) from None
        if subsets:
            raise InputError(
                f"{name} is a benchmark and defines its own subsets. Remove --subset, or name a single task."
            ) from None
    if subsets:
        tasks = [_with_subsets(tasks[0], subsets)]
    not_text = [task.metadata.name for task in tasks if set(task.modalities) != {"text"}]
    if not_text:
        raise InputError(
            f"The mteb tasks {', '.join(not_text)} need more than text, but models here encode only text. Choose other "
            "tasks."
        )
    return tasks


def _with_subsets(task: Any, subsets: Sequence[str]) -> Any:
    available = task.metadata.hf_subsets
    for subset in subsets:
        if subset not in available:
            raise NotFoundError(
                f"{task.metadata.name} has no subset {subset!r}.{did_you_mean(subset, available)} Its subsets are "
                f"{', '.join(available)}."
            )
    return task.filter_languages(None, hf_subsets=list(subsets))


def parts(task: Any) -> list[Any]:
    """Return the tasks that an aggregate such as CQADupstackRetrieval consists of, or the task itself in a list."""
    return [part for member in task.metadata.tasks for part in parts(member)] if task.is_aggregate else [task]


def identity(task: Any) -> dict[str, Any]:
    """Return everything except the model that determines a task's scores, in the form the catalog stores.

    This is the task's name and main score and, for each part, the dataset, its revision, the subsets and the splits.
    """
    return {
        "task": task.metadata.name,
        "metric": task.metadata.main_score,
        "parts": [
            {
                "task": part.metadata.name,
                "dataset": part.metadata.dataset["path"],
                "revision": part.metadata.dataset["revision"],
                "subsets": list(part.hf_subsets),
                "splits": list(part.eval_splits),
            }
            for part in parts(task)
        ],
    }


def default_name(task: Any) -> str:
    """Return mteb's name of a task, followed by its subsets or splits if it is restricted to some of them.

    Two benchmarks that restrict the same task differently thus get different names for it.
    """
    name: str = task.metadata.name
    if task.is_aggregate:
        return name
    for kept, available in ((task.hf_subsets, task.metadata.hf_subsets), (task.eval_splits, task.metadata.eval_splits)):
        if set(kept) != set(available):
            name += f".{'+'.join(kept)}" if len(kept) <= MOST_NAMED else f".{len(kept)}-of-{len(available)}"
    return name.replace("/", "-")


MOST_NAMED = 3
"""Maximum number of subsets or splits listed in a task's default name; above that, only their count is given."""


def open_task(record: Task) -> Any:
    """Return the mteb task of a record, with its data loaded at the registered revision.

    Raises:
        DataError: The installed mteb doesn't have the task, or its data can't be loaded or have changed.
    """
    assert record.mteb is not None, record
    try:
        task = mteb.get_task(record.mteb["task"])
    except KeyError:
        task = None
    registered = record.mteb["parts"]
    if task is None or [part.metadata.name for part in parts(task)] != [part["task"] for part in registered]:
        raise DataError(
            f"The task {record.name} was registered as {record.mteb['task']} of mteb {record.mteb['version']}, but the "
            f"installed mteb {mteb.__version__} has no task with the same name and parts. Run "
            f"`pip install mteb=={record.mteb['version']}`."
        )
    for part, as_registered in zip(parts(task), registered, strict=True):
        if list(part.hf_subsets) != as_registered["subsets"]:
            part.filter_languages(None, hf_subsets=as_registered["subsets"])
        part.filter_eval_splits(as_registered["splits"])
        if part.metadata.dataset["revision"] != as_registered["revision"]:
            changed = {**part.metadata.dataset, "revision": as_registered["revision"]}
            part.metadata = part.metadata.model_copy(update={"dataset": changed})
    load_task_data(task)
    if digest_task_data(task) != record.mteb["content"]:
        raise DataError(
            f"The data of the task {record.name} are not what was registered: mteb {mteb.__version__} reads other "
            f"content from {_origin(record)} than mteb {record.mteb['version']} did. Install mteb "
            f"{record.mteb['version']}, or register the task under a new name: `continual task add NAME "
            f"{record.origin}`."
        )
    return task


def _origin(record: Task) -> str:
    return ", ".join(f"{part['dataset']} at {part['revision']}" for part in (record.mteb or {})["parts"])


def load_task_data(task: Any) -> None:
    """Load the data of a task, from the local Hugging Face cache or from the Hub.

    Raises:
        DataError: The data can't be loaded; the message names the dataset.
    """
    for part in parts(task):
        dataset = part.metadata.dataset
        try:
            _seed(part)
            with pinned(dataset["path"], dataset["revision"]):
                part.load_data()
            if isinstance(part, AbsTaskRetrieval):
                part.convert_v1_dataset_format_to_v2(num_proc=None)
        except Exception as error:  # the loaders of mteb's datasets raise errors of many types
            raise unreadable(part, error) from error


def unreadable(part: Any, error: Exception) -> DataError:
    """Return the error for a dataset that can't be loaded."""
    dataset = part.metadata.dataset
    return DataError(
        f"The dataset {dataset['path']} (revision {dataset['revision']}) of the mteb task {part.metadata.name} cannot "
        f"be loaded from the local Hugging Face cache or the Hub: {_first_line(error)}. Run this command once with "
        "access to the Hub (HF_HUB_OFFLINE unset, and after `hf auth login` if the dataset is gated), or copy the "
        "cache ($HF_HOME) from a machine that has the dataset."
    )


def digest_task_data(task: Any) -> str:
    """Return the sha256 of a loaded task's data: the scored splits and, for a classifier, the training split."""
    result = hashlib.sha256()

    def add(value: Any) -> None:
        result.update(json.dumps(value, sort_keys=True, default=str).encode() + b"\n")

    for part in parts(task):
        for data in _splits(part, getattr(part, "train_split", None)):
            for name in sorted(data) if isinstance(data, dict) else [""]:
                table = data[name] if name else data
                for piece in table.iter(10_000) if isinstance(table, datasets.Dataset) else [table]:
                    add([name, piece])
    return result.hexdigest()


def unload_task_data(task: Any) -> None:
    """Free the memory that a task's data take."""
    for part in parts(task):
        if part.data_loaded:
            part.unload_data()


def contents(task: Any) -> Contents:
    """Count the queries, documents and judgements of a loaded task, and list the texts that must not be trained on."""
    queries, documents, judgements = 0, 0, 0
    asked: set[str] = set()
    relevant: set[str] = set()
    listed = True
    for part in parts(task):
        columns = list(part._get_content_columns())
        for data in _splits(part):
            if isinstance(part, AbsTaskRetrieval):
                queries += len(data["queries"])
                documents += len(data["corpus"])
                judgements += sum(len(judged) for judged in data["relevant_docs"].values())
                asked.update(_query_texts(data))
                relevant.update(_relevant_texts(data))
            else:
                queries += len(data)
                texts = {text for name in columns if name in data.column_names for text in _item_texts(data[name])}
                listed = listed and bool(texts)
                asked |= texts
                relevant |= texts
    return Contents(queries, documents, judgements, asked, relevant, listed)


def cut_to_sample(task: Any, sample: Sample) -> None:
    """Reduce a loaded task to a sample of its queries and documents, separately for each subset and split."""
    for data in (data for part in parts(task) for data in _splits(part)) if sample != WHOLE else ():
        qrels, ranked = data["relevant_docs"], data["top_ranked"]
        judged = [query for query in data["queries"]["id"] if qrels.get(query)]
        asked, kept = sampled_ids(data["corpus"]["id"], judged, qrels, sample, ranked)
        data["queries"], data["corpus"] = _select(data["queries"], asked), _select(data["corpus"], kept)
        data["relevant_docs"] = {query: qrels[query] for query in judged if query in asked}
        if ranked is not None:
            data["top_ranked"] = {query: list(ranked[query]) for query in asked if query in ranked}


def only_split(task: Any) -> Mapping[str, Any]:
    """Return the data of a loaded task with per-query scores, which has exactly one subset and one split."""
    (data,) = (data for part in parts(task) for data in _splits(part))
    return dict(data)


def _splits(part: Any, extra: str | None = None) -> Iterator[Any]:
    """Yield the data of each scored subset and split, and of the split `extra` if it exists."""
    for subset in part.hf_subsets:
        # The splits are one level higher if there are no subsets, or if all languages are columns of one table.
        data = part.dataset.get(subset, part.dataset)
        for split in dict.fromkeys([*part.eval_splits, *([extra] if extra in data else [])]):
            yield data[split]


def _query_texts(data: Mapping[str, Any]) -> Iterator[str]:
    for text in data["queries"]["text"]:
        yield query_text(text)


def query_text(text: Any) -> str:
    """Return a query as one text; of a conversation, the last turn, which is a text or a dict with "content"."""
    turn = text[-1] if isinstance(text, list) and text else text
    return str(turn["content"] if isinstance(turn, dict) else turn)


def _item_texts(column: Iterable[Any]) -> Iterator[str]:
    for cell in column:
        yield from (text for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str))


def _relevant_texts(data: Mapping[str, Any]) -> Iterator[str]:
    relevant = {name for judged in data["relevant_docs"].values() for name, score in judged.items() if score > 0}
    for row in _select(data["corpus"], relevant):
        yield row["text"]
        if row.get("title"):
            yield f"{row['title']} {row['text']}"


def _select(rows: Any, ids: set[str]) -> Any:
    return rows.select([index for index, row_id in enumerate(rows["id"]) if row_id in ids])


def _seed(part: Any) -> None:
    """Reset a task's random state: some tasks sample their data on loading, and a task may be loaded twice."""
    random.seed(part.seed)
    np.random.seed(part.seed)
    torch.manual_seed(part.seed)
    part.rng_state, part.np_rng = random.Random(part.seed), np.random.default_rng(part.seed)


def _first_line(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}".rstrip(":. ")
