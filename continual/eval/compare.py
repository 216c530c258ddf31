"""Two versions, task by task and query by query: what differs, and whether it is more than luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from continual.config import EvalConfig
from continual.errors import NothingToDoError
from continual.eval.ood import flags
from continual.eval.significance import (
    holm,
    mean_interval,
    mean_permutation,
    paired,
    paired_interval,
    permutation_test,
)
from continual.registry import Registry, Version
from continual.registry.records import Score, Task


@dataclass(frozen=True)
class TaskComparison:
    """One task, or the mean of several, scored under two versions.

    Attributes:
        task: Its name.
        domain: Its domain; None: it has none.
        queries: How many queries both were scored on.
        first: Points of the first version.
        second: Points of the second.
        difference: Second minus first.
        low: Lower end of the interval of the difference; None if a task has no score per query.
        high: Upper end.
        p: Two-sided p-value of a permutation test; None without scores per query.
        adjusted: The same, adjusted (Holm) for the number of tasks that are compared; None for their mean.
        better: Queries that the second version answers better.
        worse: Queries that it answers worse.
        metric: The main score, by mteb's name; None for a mean of tasks with several.
        flag: Why a version's score is none on texts that it never saw, if so it is; see `continual.eval.ood`.
    """

    task: str
    domain: str | None
    queries: int
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None
    better: int
    worse: int
    metric: str | None = "ndcg_at_10"
    flag: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two versions on all tasks that both were scored on.

    Attributes:
        first: Id of the first version.
        second: Id of the second.
        confidence: Level of the intervals.
        tasks: In the order of their registration.
        mean: The mean over the tasks, each counting the same.
    """

    first: str
    second: str
    confidence: float
    tasks: list[TaskComparison]
    mean: TaskComparison

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def compare_versions(
    registry: Registry,
    first: Version,
    second: Version,
    tasks: Sequence[Task],
    config: EvalConfig,
    settings: Mapping[str, str] | None = None,
) -> Comparison:
    """Compare the per-query scores of two versions.

    Args:
        registry: Holds the scores.
        first: A version.
        second: Another.
        tasks: Both were scored on these.
        config: Level of the intervals.
        settings: Of the scores to compare, by task; by default those that the newest version has.

    Raises:
        NothingToDoError: There is no task.
        DataError: Per-query scores are gone.
    """
    if not tasks:
        raise NothingToDoError("There is no evaluation task to compare on. Add one with `continual task add`.")
    scores = registry.scores(settings)
    found: list[TaskComparison] = []
    pairs = []
    for task in tasks:
        one, other = (scores[version.id, task.name] for version in (first, second))
        if one.path is None or other.path is None:
            found.append(_without_queries(task, one, other))
            continue
        new, old = pair = paired(registry.path(other.path), registry.path(one.path))
        interval = paired_interval(new, old, config.confidence)
        found.append(
            TaskComparison(
                task=task.name,
                domain=task.domain,
                queries=len(new),
                first=100 * float(old.mean()),
                second=100 * float(new.mean()),
                difference=interval.difference,
                low=interval.low,
                high=interval.high,
                p=permutation_test(new, old),
                adjusted=None,
                better=int((new > old).sum()),
                worse=int((new < old).sum()),
                metric=task.metric,
            )
        )
        pairs.append(pair)
    known = [each.task for each in found if each.p is not None]
    adjusted = dict(zip(known, holm([each.p for each in found if each.p is not None]), strict=True))
    flagged = flags(registry)
    for place, each in enumerate(found):
        keys = ((first.id, each.task), (second.id, each.task))
        why = dict.fromkeys(flagged[key].why for key in keys if key in flagged)
        found[place] = replace(each, adjusted=adjusted.get(each.task), flag=" ".join(why) or None)
    whole = mean_interval(pairs, config.confidence) if len(pairs) == len(tasks) else None
    metrics = {task.metric for task in tasks}
    mean = TaskComparison(
        task="mean",
        domain=None,
        queries=sum(each.queries for each in found),
        first=sum(each.first for each in found) / len(found),
        second=sum(each.second for each in found) / len(found),
        difference=sum(each.difference for each in found) / len(found),
        low=whole.low if whole else None,
        high=whole.high if whole else None,
        p=mean_permutation(pairs) if whole else None,
        adjusted=None,
        better=sum(each.better for each in found),
        worse=sum(each.worse for each in found),
        metric=metrics.pop() if len(metrics) == 1 else None,
    )
    return Comparison(first.id, second.id, config.confidence, found, mean)


def _without_queries(task: Task, first: Score, second: Score) -> TaskComparison:
    """Compare two scores that are no means over queries, such as a correlation: their difference has no interval."""
    return TaskComparison(
        task=task.name,
        domain=task.domain,
        queries=first.queries,
        first=first.score,
        second=second.score,
        difference=second.score - first.score,
        low=None,
        high=None,
        p=None,
        adjusted=None,
        better=0,
        worse=0,
        metric=task.metric,
    )
