"""Tasks of mteb: found by name, loaded by mteb itself, and known by what must never change of them."""

from __future__ import annotations

import difflib
import hashlib
import heapq
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

PREFIX = "mteb:"
"""What the name of a task or benchmark of mteb begins with, on the command line and as an origin."""


@dataclass(frozen=True)
class Contents:
    """What a loaded task holds.

    Attributes:
        queries: Queries; the items scored, if it is no retrieval or reranking task.
        documents: Documents of all corpora.
        judgements: Judged pairs of query and document.
        asked: Texts of the queries; the texts of all items, if it is no retrieval or reranking task.
        relevant: Texts of the documents that are relevant to one, with their titles and without; or of all items too.
        listed: Whether mteb says which columns hold the texts, so that they are all in `asked` and `relevant`.
    """

    queries: int
    documents: int
    judgements: int
    asked: set[str]
    relevant: set[str]
    listed: bool


def find_mteb_tasks(name: str, subsets: Sequence[str] = ()) -> list[Any]:
    """Return the task of a name, or the tasks of the benchmark of that name.

    Args:
        name: As mteb has it, such as "SciFact" or "MTEB(eng, v2)".
        subsets: Of a task, the subsets (languages, mostly) to keep; none keeps all.

    Raises:
        NotFoundError: mteb has neither, or the task lacks a subset.
        InputError: Subsets of a benchmark, or tasks that need more than text.
    """
    try:
        tasks = [mteb.get_task(name)]
    except KeyError:
        try:
            tasks = list(mteb.get_benchmark(name).tasks)
        except KeyError:
            names = [kind.metadata.name for kind in TASK_LIST] + [each.name for each in mteb.get_benchmarks()]
            near = difflib.get_close_matches(name, names, n=1)
            raise NotFoundError(
                f"mteb {mteb.__version__} has no task and no benchmark {name!r}.{did_you_mean(name, near)}"
            ) from None
        if subsets:
            raise InputError(
                f"{name} is a benchmark, which fixes its own subsets: --subset goes with one task."
            ) from None
    if subsets:
        tasks = [_with_subsets(tasks[0], subsets)]
    other = [task.metadata.name for task in tasks if set(task.modalities) != {"text"}]
    if other:
        raise InputError(f"{', '.join(other)} of mteb needs more than text, which no model here can encode.")
    return tasks


def _with_subsets(task: Any, subsets: Sequence[str]) -> Any:
    known = task.metadata.hf_subsets
    for subset in subsets:
        if subset not in known:
            raise NotFoundError(f"{task.metadata.name} has no subset {subset!r}.{did_you_mean(subset, known)}")
    return task.filter_languages(None, hf_subsets=list(subsets))


def parts(task: Any) -> list[Any]:
    """Return the tasks that an aggregate such as CQADupstackRetrieval is made of, or the task itself."""
    return [each for part in task.metadata.tasks for each in parts(part)] if task.is_aggregate else [task]


def identity(task: Any) -> dict[str, Any]:
    """Return what decides the scores of a task besides the model, as the catalog keeps it.

    That is its name and main score, and for each part the data set with its revision, the subsets and the splits.
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
    """Return mteb's name of a task, with the subsets or splits if it is restricted to some of them.

    So the same task of two benchmarks has one name if it is the same, and two if it is not.
    """
    name: str = task.metadata.name
    if task.is_aggregate:
        return name
    for kept, known in ((task.hf_subsets, task.metadata.hf_subsets), (task.eval_splits, task.metadata.eval_splits)):
        if set(kept) != set(known):
            name += f".{'+'.join(kept)}" if len(kept) <= MOST_NAMED else f".{len(kept)}-of-{len(known)}"
    return name.replace("/", "-")


MOST_NAMED = 3
"""Subsets or splits that are named in the default name of a task; more are counted."""


def open_task(record: Task) -> Any:
    """Return the mteb task of a record, its data loaded at the revision that was registered.

    Raises:
        DataError: The installed mteb lacks it, its data set cannot be had, or it is not what it was.
    """
    assert record.mteb is not None, record
    try:
        task = mteb.get_task(record.mteb["task"])
    except KeyError:
        task = None
    known = record.mteb["parts"]
    if task is None or [part.metadata.name for part in parts(task)] != [part["task"] for part in known]:
        raise DataError(
            f"The task {record.name} is {record.mteb['task']} of mteb {record.mteb['version']}, and the installed mteb "
            f"{mteb.__version__} has none with the same parts. `pip install mteb=={record.mteb['version']}` installs "
            "the one that has."
        )
    for part, wanted in zip(parts(task), known, strict=True):
        if list(part.hf_subsets) != wanted["subsets"]:
            part.filter_languages(None, hf_subsets=wanted["subsets"])
        part.filter_eval_splits(wanted["splits"])
        if part.metadata.dataset["revision"] != wanted["revision"]:
            changed = {**part.metadata.dataset, "revision": wanted["revision"]}
            part.metadata = part.metadata.model_copy(update={"dataset": changed})
    load_task_data(task)
    if digest_task_data(task) != record.mteb["content"]:
        raise DataError(
            f"The data of the task {record.name} is not what was registered: {_origin(record)} was read with mteb "
            f"{record.mteb['version']}, and mteb {mteb.__version__} makes something else of it. Install the former, or "
            f"register it under a new name: `continual task add NAME {record.origin}`."
        )
    return task


def _origin(record: Task) -> str:
    return ", ".join(f"{part['dataset']} at {part['revision']}" for part in (record.mteb or {})["parts"])


def load_task_data(task: Any) -> None:
    """Load the data of a task, from the local Hugging Face cache or from the Hub.

    Raises:
        DataError: It cannot be had; the message names the data set.
    """
    for part in parts(task):
        dataset = part.metadata.dataset
        try:
            _seed(part)
            with pinned(dataset["path"], dataset["revision"]):
                part.load_data()
            if isinstance(part, AbsTaskRetrieval):
                part.convert_v1_dataset_format_to_v2(num_proc=None)
        except Exception as error:  # loaders of a thousand data sets fail in as many ways
            raise unreadable(part, error) from error


def unreadable(part: Any, error: Exception) -> DataError:
    """Return the error for a data set that cannot be had."""
    dataset = part.metadata.dataset
    return DataError(
        f"The data set {dataset['path']} (revision {dataset['revision']}) of the mteb task {part.metadata.name} cannot "
        f"be loaded: {_first_line(error)}. It is taken from the local Hugging Face cache, or from the Hub if that can "
        "be reached. Run this command once where it can (HF_HUB_OFFLINE unset, and logged in with `hf auth login` if "
        "the data set is gated), or copy the cache ($HF_HOME) from such a machine."
    )


def digest_task_data(task: Any) -> str:
    """Return the sha256 over what is scored of a loaded task, and over what a classifier is fitted on."""
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
    """Let go of the data of a task."""
    for part in parts(task):
        if part.data_loaded:
            part.unload_data()


def contents(task: Any) -> Contents:
    """Count what a loaded task holds, and list the texts that must not be trained on."""
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
    """Keep only a sample of the queries and documents of a loaded task: of each subset and split by itself."""
    for data in (data for part in parts(task) for data in _splits(part)) if sample != WHOLE else ():
        qrels, ranked = data["relevant_docs"], data["top_ranked"]
        judged = [query for query in data["queries"]["id"] if qrels.get(query)]
        asked, kept = sampled_ids(data["corpus"]["id"], judged, qrels, sample, ranked)
        data["queries"], data["corpus"] = _select(data["queries"], asked), _select(data["corpus"], kept)
        data["relevant_docs"] = {query: qrels[query] for query in judged if query in asked}
        if ranked is not None:
            data["top_ranked"] = {query: list(ranked[query]) for query in asked if query in ranked}


@dataclass(frozen=True)
class PerQuery:
    """What came of the queries of one split and subset.

    Attributes:
        scores: What trec_eval says of each query: 0 to 1 by the name of the measure, by query id.
        first: The ids of the first `TOP` documents, the best first, by query id.
    """

    scores: dict[str, dict[str, float]]
    first: dict[str, list[str]]


TOP = 10
"""Documents of each query's ranking that are kept."""


def keep_per_query(task: Any) -> dict[tuple[str, str], PerQuery]:
    """Return a dict that fills, by split and subset, with what came of each query while mteb evaluates.

    mteb itself keeps only means, rounded to five digits. Other tasks than those that rank have nothing per query.

    Raises:
        DataError: While mteb evaluates, if the task needs data then that cannot be had.
    """
    found: dict[tuple[str, str], PerQuery] = {}
    if not isinstance(task, AbsTaskRetrieval):
        return found
    original = task.task_specific_scores

    def keep(
        scores: dict[str, dict[str, float]], qrels: Any, results: Any, hf_split: str, hf_subset: str
    ) -> dict[str, float]:
        found[hf_split, hf_subset] = PerQuery(scores, {query: _first(results.get(query, {})) for query in scores})
        try:
            own: dict[str, float] = original(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)
        except (OSError, ValueError) as error:  # those of FollowIR read more of their data set here
            raise unreadable(task, error) from error
        return own

    task.task_specific_scores = keep
    return found


def only_split(task: Any) -> Mapping[str, Any]:
    """Return the data of a loaded task that has scores per query: it has one subset and one split."""
    (data,) = (data for part in parts(task) for data in _splits(part))
    return dict(data)


def _first(similarity: Mapping[str, float]) -> list[str]:
    """Return the first documents as trec_eval orders them: equal ones by their ids, the last first."""
    return [name for _, name in heapq.nlargest(TOP, ((value, name) for name, value in similarity.items()))]


def _splits(part: Any, more: str | None = None) -> Iterator[Any]:
    """Yield the data of each subset and split that is scored, and of one more split if it is there."""
    for subset in part.hf_subsets:
        # Without subsets, and where all languages are columns of one table, the splits are one level higher.
        data = part.dataset.get(subset, part.dataset)
        for split in dict.fromkeys([*part.eval_splits, *([more] if more in data else [])]):
            yield data[split]


def _query_texts(data: Mapping[str, Any]) -> Iterator[str]:
    for text in data["queries"]["text"]:
        yield query_text(text)


def query_text(text: Any) -> str:
    """Return a query as one text: of a conversation the last turn, which is a text, or has its text as "content"."""
    turn = text[-1] if isinstance(text, list) and text else text
    return str(turn["content"] if isinstance(turn, dict) else turn)


def _item_texts(column: Iterable[Any]) -> Iterator[str]:
    for cell in column:
        yield from (text for text in (cell if isinstance(cell, list) else [cell]) if isinstance(text, str))


def _relevant_texts(data: Mapping[str, Any]) -> Iterator[str]:
    wanted = {name for judged in data["relevant_docs"].values() for name, score in judged.items() if score > 0}
    for row in _select(data["corpus"], wanted):
        yield row["text"]
        if row.get("title"):
            yield f"{row['title']} {row['text']}"


def _select(rows: Any, ids: set[str]) -> Any:
    return rows.select([place for place, name in enumerate(rows["id"]) if name in ids])


def _seed(part: Any) -> None:
    """Put a task in the state that it was made in: some draw a part of their data, and one may be loaded twice."""
    random.seed(part.seed)
    np.random.seed(part.seed)
    torch.manual_seed(part.seed)
    part.rng_state, part.np_rng = random.Random(part.seed), np.random.default_rng(part.seed)


def _first_line(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}".rstrip(":. ")
