"""Compare two versions task by task and query by query, and test whether the difference is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from continual.config import EvalConfig
from continual.errors import NothingToDoError
from continual.eval.ood import flags
from continual.eval.significance import (
    Values,
    holm,
    mean_interval,
    mean_permutation,
    paired,
    paired_interval,
    permutation_test,
)
from continual.registry import Registry, Version
from continual.registry.artifacts import queries_of
from continual.registry.records import Score, Task


@dataclass(frozen=True)
class TaskComparison:
    """The scores of two versions on one task, or their means over several tasks.

    Attributes:
        task: Name of the task, or "mean".
        domain: The task's domain; None if it has none.
        queries: Number of queries that both versions were scored on.
        first: Points of the first version.
        second: Points of the second version.
        difference: Points, second minus first.
        low: Lower end of the confidence interval of the difference; None without per-query scores.
        high: Upper end.
        p: Two-sided p-value of a permutation test, 0 to 1; None without per-query scores.
        adjusted: `p` after Holm's adjustment for the number of compared tasks; None for the mean.
        better: Number of queries on which the second version scores higher.
        worse: Number of queries on which it scores lower.
        metric: mteb's name of the main score; None for a mean over tasks with different main scores.
        flag: Why a score is not out of domain, if a version was trained on the task's texts; see `continual.eval.ood`.
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
        second: Id of the second version.
        confidence: Level of the intervals, 0 to 1.
        tasks: One comparison per task, in the order of registration.
        mean: The mean over the tasks; every task has the same weight.
    """

    first: str
    second: str
    confidence: float
    tasks: list[TaskComparison]
    mean: TaskComparison

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain data."""
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
        tasks: The tasks to compare on; both versions have scores on each.
        config: Gives the level of the intervals.
        settings: Which scores to compare, by task name; by default those with the settings of the newest version.

    Raises:
        NothingToDoError: `tasks` is empty.
        DataError: Per-query scores are damaged or can't be read.
    """
    if not tasks:
        raise NothingToDoError("There is no evaluation task to compare on. Add one with `continual task add`.")
    scores = registry.scores(settings)
    compared = [scores[version.id, task.name] for task in tasks for version in (first, second)]
    registry.digests.check(*map(queries_of, compared))
    comparisons: list[TaskComparison] = []
    pairs = []
    for task in tasks:
        old, new = (scores[version.id, task.name] for version in (first, second))
        if old.path is None or new.path is None:
            comparisons.append(_without_queries(task, old, new))
            continue
        pair = paired(registry.path(new.path), registry.path(old.path))
        comparisons.append(_per_query(task, *pair, config.confidence))
        pairs.append(pair)
    comparisons = _with_flags(registry, _with_adjusted(comparisons), (first.id, second.id))
    return Comparison(first.id, second.id, config.confidence, comparisons, _mean(comparisons, pairs, config.confidence))


def _per_query(task: Task, new: Values, old: Values, confidence: float) -> TaskComparison:
    """Compare per-query scores, 0 to 1, of shape [queries] each."""
    interval = paired_interval(new, old, confidence)
    return TaskComparison(
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


def _without_queries(task: Task, first: Score, second: Score) -> TaskComparison:
    """Compare two scores that are not means over queries, such as correlations: the difference has no interval."""
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


def _with_adjusted(comparisons: Sequence[TaskComparison]) -> list[TaskComparison]:
    p_values = {row.task: row.p for row in comparisons if row.p is not None}
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    return [replace(row, adjusted=adjusted.get(row.task)) for row in comparisons]


def _with_flags(
    registry: Registry, comparisons: Sequence[TaskComparison], versions: tuple[str, str]
) -> list[TaskComparison]:
    flagged = flags(registry)
    flagged_rows = []
    for row in comparisons:
        keys = [(version, row.task) for version in versions]
        reasons = dict.fromkeys(flagged[key].why for key in keys if key in flagged)
        flagged_rows.append(replace(row, flag=" ".join(reasons) or None))
    return flagged_rows


def _mean(
    comparisons: Sequence[TaskComparison], pairs: Sequence[tuple[Values, Values]], confidence: float
) -> TaskComparison:
    """Return the mean over the tasks; it has an interval only if every task has per-query scores."""
    complete = len(pairs) == len(comparisons)
    interval = mean_interval(pairs, confidence) if complete else None
    metrics = {row.metric for row in comparisons}
    return TaskComparison(
        task="mean",
        domain=None,
        queries=sum(row.queries for row in comparisons),
        first=sum(row.first for row in comparisons) / len(comparisons),
        second=sum(row.second for row in comparisons) / len(comparisons),
        difference=sum(row.difference for row in comparisons) / len(comparisons),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        p=mean_permutation(pairs) if complete else None,
        adjusted=None,
        better=sum(row.better for row in comparisons),
        worse=sum(row.worse for row in comparisons),
        metric=metrics.pop() if len(metrics) == 1 else None,
    )
