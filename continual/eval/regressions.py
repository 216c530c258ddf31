"""What got worse between two versions, and what got better: query by query, and by cluster of queries. No layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.errors import DataError, NothingToDoError
from continual.eval.query_clusters import cluster, name_clusters
from continual.eval.significance import holm, paired_interval
from continual.eval.task_texts import TaskTexts
from continual.registry import Registry, Version
from continual.registry.records import Score, Task

Embed = Callable[[list[str]], NDArray[np.floating]]

SNIPPET = 300
"""Characters of a document that are shown."""


@dataclass(frozen=True)
class MovedDocument:
    """A document whose place in the first ten changed.

    Attributes:
        id: Its id in the task's corpus.
        text: How it begins.
        before: Its place under the first version, from 1; None: it was not among the first ten.
        after: Its place under the second.
        relevant: Whether it is judged relevant to the query.
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
        id: The query's id in it.
        text: The query.
        before: Points under the first version.
        after: Points under the second.
        change: Points, after minus before.
        documents: What left and what entered the first ten, and relevant documents that changed places: by their
            place before, then after.
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
    """Queries of one task about one subject.

    Attributes:
        task: Name of the task.
        words: What sets them apart, the most telling word first.
        size: How many they are.
        before: Mean points under the first version.
        after: Mean points under the second.
        change: Points, after minus before.
        low: Lower end of the interval of the change.
        high: Upper end.
        p: Two-sided p-value of "it did not change", adjusted (Holm) for the number of clusters that were looked at.
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
    """What got worse and what got better.

    Attributes:
        first: Id of the version before.
        second: Id of the version after.
        confidence: Level of the intervals.
        tasks: Names of the tasks that were looked at.
        left_out: Names of those without a score per query.
        scored_again: Per version, the tasks that were scored once more because their rankings had not been kept.
        queries: Queries looked at.
        worse: How many of them fell.
        better: How many rose.
        losses: The largest falls, the largest first.
        gains: The largest rises, the largest first.
        clusters: By their change, the largest fall first.
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
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Scored:
    """The queries of one task under two versions, by query id: points, and the ids of the first ten documents."""

    task: Task
    before: dict[str, float]
    after: dict[str, float]
    ranked: tuple[dict[str, list[str]], dict[str, list[str]]]

    @property
    def change(self) -> dict[str, float]:
        """Points by which each query rose, in the order of their ids."""
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
        registry: Holds them.
        first: The version before.
        second: The version after.
        tasks: Both were scored on these; those without a score per query are left out.
        scores: By version and task; their files hold rankings.
        embed: Returns the embeddings of queries, [queries, dimensions]; clusters are made of them. None: no clusters.
        count: Queries to show of those that fell, and of those that rose.
        confidence: Level of the intervals of clusters.
        scored_again: What was scored once more for this, by version.

    Raises:
        NothingToDoError: No task has a score per query.
        DataError: Scores or texts are gone.
    """
    kept = [task for task in tasks if all(scores[each.id, task.name].path for each in (first, second))]
    if not kept:
        raise NothingToDoError(
            "None of the tasks has a score per query, so queries cannot be compared. Tasks that rank documents have "
            "one; add one with `continual task add`."
        )
    found, clusters = {}, []
    texts = {task.name: TaskTexts(registry, task) for task in kept}
    for task in kept:
        old, new = (_read(registry.path(str(scores[each.id, task.name].path))) for each in (first, second))
        scored = found[task.name] = Scored(task, old[0], new[0], (old[1], new[1]))
        if not scored.change:
            raise DataError(f"{first.id} and {second.id} have no query of {task.name} in common.")
        if embed is not None:
            clusters += _clusters(scored, texts[task.name], embed, confidence)
    ordered = sorted((change, name, query) for name, scored in found.items() for query, change in scored.change.items())
    adjusted = holm([each.p for each in clusters])
    clusters = [ClusterChange(**{**vars(each), "p": p}) for each, p in zip(clusters, adjusted, strict=True)]
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
        losses=_described(fallen[:count], found, texts),
        gains=_described(risen[:count], found, texts),
        clusters=sorted(clusters, key=lambda each: each.change),
    )


def has_rankings(path: Path) -> bool:
    """Return whether a file of per-query scores holds rankings; those written by older versions of this do not.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return "documents" in pq.read_schema(path).names
    except (OSError, ValueError) as error:
        raise DataError(f"Per-query scores cannot be read from {path}: {error}.") from None


def _read(path: Path) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return points and first documents by query."""
    try:
        with pq.ParquetFile(path) as file:
            columns = file.read(columns=["query_id", "score", "documents"]).to_pydict()
        queries, ranked = columns["query_id"], columns["documents"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Per-query scores and rankings cannot be read from {path}: {error}.") from None
    points = [100.0 * score for score in columns["score"]]
    return (
        dict(zip(queries, points, strict=True)),
        dict(zip(queries, ranked, strict=True)),
    )


def _clusters(scored: Scored, texts: TaskTexts, embed: Embed, confidence: float) -> list[ClusterChange]:
    queries = list(scored.change)
    known = texts.queries(queries)
    said = [known.get(query, "") for query in queries]
    labels = cluster(embed(said))
    found = []
    for label, words in enumerate(name_clusters(said, labels.tolist())):
        inside = [query for query, each in zip(queries, labels, strict=True) if each == label]
        if not inside:
            continue
        before, after = (np.array([points[query] for query in inside]) for points in (scored.before, scored.after))
        interval = paired_interval(after / 100, before / 100, confidence)
        found.append(
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
    return found


def _described(
    chosen: Sequence[tuple[str, str]], found: Mapping[str, Scored], texts: Mapping[str, TaskTexts]
) -> list[QueryChange]:
    """Return queries with their texts and with the documents that moved."""
    said: dict[tuple[str, str], str] = {}
    moved: dict[tuple[str, str], list[MovedDocument]] = {}
    for name in dict.fromkeys(name for name, _ in chosen):
        ids = [query for task, query in chosen if task == name]
        said |= {(name, query): text for query, text in texts[name].queries(ids).items()}
        moved |= {(name, query): each for query, each in _moved(ids, found[name], texts[name]).items()}
    changes = []
    for name, query in chosen:
        before, after = found[name].before[query], found[name].after[query]
        text = said.get((name, query), "")
        changes.append(QueryChange(name, query, text, before, after, after - before, moved[name, query]))
    return changes


def _moved(queries: list[str], scored: Scored, texts: TaskTexts) -> dict[str, list[MovedDocument]]:
    relevant = texts.relevant(queries)
    places = {
        query: [{name: place for place, name in enumerate(ranked[query], 1)} for ranked in scored.ranked]
        for query in queries
    }
    shown: dict[str, list[str]] = {}
    for query, (before, after) in places.items():
        names = [
            name
            for name in {**before, **after}
            if (name in before) != (name in after) or (name in relevant[query] and before[name] != after[name])
        ]
        pairs = {name: (before.get(name, math.inf), after.get(name, math.inf)) for name in names}
        shown[query] = sorted(names, key=pairs.__getitem__)
    known = texts.documents({name for names in shown.values() for name in names})
    return {
        query: [
            MovedDocument(
                id=name,
                text=known.get(name, "").strip()[:SNIPPET],
                before=places[query][0].get(name),
                after=places[query][1].get(name),
                relevant=name in relevant[query],
            )
            for name in names
        ]
        for query, names in shown.items()
    }
