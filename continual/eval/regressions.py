"""Find what got worse and what got better between two versions: single queries and clusters of queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.errors import DataError, NothingToDoError
from continual.eval.query_clusters import cluster_queries, name_query_clusters
from continual.eval.significance import holm, paired_interval
from continual.eval.suites import TOP
from continual.eval.task_texts import TaskTexts
from continual.registry import Registry, Version
from continual.registry.artifacts import queries_of
from continual.registry.records import Score, Task

Embed = Callable[[list[str]], NDArray[np.floating]]

SNIPPET = 300
"""Maximum number of characters of a document to show."""


@dataclass(frozen=True)
class MovedDocument:
    """A document that changed its rank among the first ten.

    Attributes:
        id: The document's id in the task's corpus.
        text: The first `SNIPPET` characters.
        before: Rank under the first version, from 1; None if it was not among the first ten.
        after: Rank under the second version, likewise.
        relevant: Whether the document is judged relevant to the query.
    """

    id: str
    text: str
    before: int | None
    after: int | None
    relevant: bool


@dataclass(frozen=True)
class QueryChange:
    """A query whose score changed.

    Attributes:
        task: Name of the task.
        id: The query's id in the task.
        before: Points under the first version.
        after: Points under the second version.
        change: Points, after minus before.
        documents: Documents that left or entered the first ten, and relevant documents whose rank changed, ordered by
            their rank before, then after.
    """

    task: str
    id: str
    text: str
    before: float
    after: float
    change: float
    documents: list[MovedDocument]


@dataclass(frozen=True)
class ClusterChange:
    """A cluster of similar queries of one task.

    Attributes:
        task: Name of the task.
        words: Words that distinguish the cluster, the most distinctive first.
        size: Number of queries.
        before: Mean points under the first version.
        after: Mean points under the second version.
        change: Points, after minus before.
        low: Lower end of the confidence interval of the change.
        high: Upper end.
        p: Two-sided p-value of "no change", with Holm's adjustment for the number of clusters.
        queries: Ids of the queries.
    """

    task: str
    words: list[str]
    size: int
    before: float
    after: float
    change: float
    low: float
    high: float
    p: float
    queries: list[str]


@dataclass(frozen=True)
class Regressions:
    """What got worse and what got better between two versions.

    Attributes:
        first: Id of the version before.
        second: Id of the version after.
        confidence: Level of the intervals, 0 to 1.
        tasks: Names of the compared tasks.
        left_out: Names of the tasks without per-query scores.
        scored_again: For each version, the tasks that were scored again because their rankings were not stored.
        queries: Number of compared queries.
        worse: Number of queries whose score fell.
        better: Number of queries whose score rose.
        losses: The queries with the largest falls, largest first.
        gains: The queries with the largest rises, largest first.
        clusters: Ordered by their change, the largest fall first.
    """

    first: str
    second: str
    confidence: float
    tasks: list[str]
    left_out: list[str]
    scored_again: dict[str, list[str]]
    queries: int
    worse: int
    better: int
    losses: list[QueryChange]
    gains: list[QueryChange]
    clusters: list[ClusterChange]

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Scored:
    """The queries of one task under two versions.

    Attributes:
        before: Points under the first version, by query id.
        after: Points under the second version.
        ranked: Under each version, the ids of the first ten documents, by query id.
    """

    task: Task
    before: dict[str, float]
    after: dict[str, float]
    ranked: tuple[dict[str, list[str]], dict[str, list[str]]]

    @property
    def change(self) -> dict[str, float]:
        """Points after minus before, for the queries that both versions have, in the order of their ids."""
        return {query: self.after[query] - self.before[query] for query in sorted(self.before.keys() & self.after)}


def find_regressions(
    registry: Registry,
    first: Version,
    second: Version,
    tasks: Sequence[Task],
    scores: Mapping[tuple[str, str], Score],
    embed: Embed | None,
    *,
    count: int = 5,
    confidence: float = 0.95,
    scored_again: Mapping[str, list[str]] | None = None,
) -> Regressions:
    """Compare the per-query scores and rankings of two versions.

    Args:
        first: The version before.
        second: The version after.
        tasks: The tasks to compare on; both versions have scores on each. Tasks without per-query scores are left out.
        scores: By version and task; their files must hold rankings.
        embed: Returns embeddings of queries, of shape [queries, dimensions], to cluster them; None makes no clusters.
        count: Maximum number of queries to describe among those that fell, and among those that rose.
        confidence: Level of the intervals of clusters, 0 to 1.
        scored_again: For each version, the tasks that the caller scored again; passed on to the result.

    Raises:
        NothingToDoError: No task has per-query scores.
        DataError: Scores or texts can't be read.
    """
    kept = [task for task in tasks if all(scores[version.id, task.name].path for version in (first, second))]
    if not kept:
        raise NothingToDoError(
            "None of the tasks has per-query scores, so queries cannot be compared. Add a task that ranks documents "
            "with `continual task add`."
        )
    registry.digests.check(*(queries_of(scores[version.id, task.name]) for task in kept for version in (first, second)))
    scored_tasks, clusters = {}, []
    texts = {task.name: TaskTexts(registry, task) for task in kept}
    for task in kept:
        old, new = (_read(registry.path(str(scores[version.id, task.name].path))) for version in (first, second))
        scored = scored_tasks[task.name] = Scored(task, old[0], new[0], (old[1], new[1]))
        if not scored.change:
            raise DataError(
                f"{first.id} and {second.id} have no scored query of {task.name} in common, so they cannot be "
                f"compared. Leave the task out: name the others with --task."
            )
        if embed is not None:
            clusters += _clusters(scored, texts[task.name], embed, confidence)
    ordered = sorted(
        (change, name, query) for name, scored in scored_tasks.items() for query, change in scored.change.items()
    )
    adjusted = holm([cluster.p for cluster in clusters])
    clusters = [replace(cluster, p=p) for cluster, p in zip(clusters, adjusted, strict=True)]
    fallen = [(name, query) for change, name, query in ordered if change < 0]
    risen = [(name, query) for change, name, query in reversed(ordered) if change > 0]
    return Regressions(
        first=first.id,
        second=second.id,
        confidence=confidence,
        tasks=[task.name for task in kept],
        left_out=[task.name for task in tasks if task not in kept],
        scored_again={name: list(names) for name, names in (scored_again or {}).items() if names},
        queries=len(ordered),
        worse=len(fallen),
        better=len(risen),
        losses=_described(fallen[:count], scored_tasks, texts),
        gains=_described(risen[:count], scored_tasks, texts),
        clusters=sorted(clusters, key=lambda cluster: cluster.change),
    )


def has_rankings(path: Path) -> bool:
    """Return whether a file of per-query scores holds rankings; files written by older releases don't.

    Raises:
        DataError: The file can't be read.
    """
    try:
        return "documents" in pq.read_schema(path).names
    except (OSError, ValueError) as error:
        raise DataError(
            f"Per-query scores cannot be read from {path}: {error}. Restore the file from a backup."
        ) from None


def _read(path: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return the points and the first documents, by query id."""
    try:
        with pq.ParquetFile(path) as file:
            columns = file.read(columns=["query_id", "score", "documents"]).to_pydict()
        queries, ranked = columns["query_id"], [documents[:TOP] for documents in columns["documents"]]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"Per-query scores and rankings cannot be read from {path}: {error}. Restore the file from a backup."
        ) from None
    points = [100.0 * score for score in columns["score"]]
    return (
        dict(zip(queries, points, strict=True)),
        dict(zip(queries, ranked, strict=True)),
    )


def _clusters(scored: Scored, texts: TaskTexts, embed: Embed, confidence: float) -> list[ClusterChange]:
    queries = list(scored.change)
    text_of = texts.queries(queries)
    query_texts = [text_of.get(query, "") for query in queries]
    labels = cluster_queries(embed(query_texts))
    clusters = []
    for label, words in enumerate(name_query_clusters(query_texts, labels.tolist())):
        inside = [query for query, query_label in zip(queries, labels, strict=True) if query_label == label]
        if not inside:
            continue
        before, after = (np.array([points[query] for query in inside]) for points in (scored.before, scored.after))
        interval = paired_interval(after / 100, before / 100, confidence)
        clusters.append(
            ClusterChange(
                task=scored.task.name,
                words=words,
                size=len(inside),
                before=float(before.mean()),
                after=float(after.mean()),
                change=interval.difference,
                low=interval.low,
                high=interval.high,
                p=interval.p,
                queries=inside,
            )
        )
    return clusters


def _described(
    chosen: Sequence[tuple[str, str]], scored_tasks: Mapping[str, Scored], texts: Mapping[str, TaskTexts]
) -> list[QueryChange]:
    """Return the chosen queries, given as (task, query id), with their texts and the documents that moved."""
    query_texts: dict[tuple[str, str], str] = {}
    moved: dict[tuple[str, str], list[MovedDocument]] = {}
    for name in dict.fromkeys(name for name, _ in chosen):
        ids = [query for task, query in chosen if task == name]
        query_texts |= {(name, query): text for query, text in texts[name].queries(ids).items()}
        documents = _moved(ids, scored_tasks[name], texts[name])
        moved |= {(name, query): documents[query] for query in documents}
    changes = []
    for name, query in chosen:
        before, after = scored_tasks[name].before[query], scored_tasks[name].after[query]
        text = query_texts.get((name, query), "")
        changes.append(QueryChange(name, query, text, before, after, after - before, moved[name, query]))
    return changes


def _moved(queries: list[str], scored: Scored, texts: TaskTexts) -> dict[str, list[MovedDocument]]:
    """Return the documents that moved, by query id, in the order that `QueryChange` describes."""
    relevant = texts.relevant(queries)
    ranks = {
        query: [{document: rank for rank, document in enumerate(ranked[query], 1)} for ranked in scored.ranked]
        for query in queries
    }
    shown: dict[str, list[str]] = {}
    for query, (before, after) in ranks.items():
        documents = [
            document
            for document in {**before, **after}
            if (document in before) != (document in after)
            or (document in relevant[query] and before[document] != after[document])
        ]
        rank_pairs = {
            document: (before.get(document, math.inf), after.get(document, math.inf)) for document in documents
        }
        shown[query] = sorted(documents, key=rank_pairs.__getitem__)
    text_of = texts.documents({document for documents in shown.values() for document in documents})
    return {
        query: [
            MovedDocument(
                id=document,
                text=text_of.get(document, "").strip()[:SNIPPET],
                before=ranks[query][0].get(document),
                after=ranks[query][1].get(document),
                relevant=document in relevant[query],
            )
            for document in documents
        ]
        for query, documents in shown.items()
    }
