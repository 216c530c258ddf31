"""Two versions, task by task and query by query: what differs, and whether it is more than luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from continual.config import EvalConfig
from continual.errors import NothingToDoError
from continual.eval.significance import mean_bootstrap, paired, paired_bootstrap, permutation_test
from continual.registry import Registry, Version
from continual.registry.records import Task


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
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end.
        p: Two-sided p-value of a permutation test; None for a mean of tasks.
        better: Queries that the second version answers better.
        worse: Queries that it answers worse.
    """

    task: str
    domain: str | None
    queries: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float | None
    better: int
    worse: int


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


def compare(
    registry: Registry, first: Version, second: Version, tasks: Sequence[Task], config: EvalConfig
) -> Comparison:
    """Compare the per-query scores of two versions.

    Args:
        registry: Holds the scores.
        first: A version.
        second: Another.
        tasks: Both were scored on these.
        config: Resamples and level of the intervals.

    Raises:
        NothingToDoError: There is no task.
        DataError: Per-query scores are gone.
    """
    if not tasks:
        raise NothingToDoError("There is no evaluation task to compare on. Add one with `continual task add`.")
    scores = registry.scores()
    settings = config.bootstrap, config.confidence
    found, pairs = [], []
    for task in tasks:
        paths = (registry.path(scores[version.id, task.name].path or "") for version in (second, first))
        new, old = pair = paired(*paths)
        interval = paired_bootstrap(new, old, *settings)
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
                better=int((new > old).sum()),
                worse=int((new < old).sum()),
            )
        )
        pairs.append(pair)
    whole = mean_bootstrap(pairs, *settings)
    mean = TaskComparison(
        task="mean",
        domain=None,
        queries=sum(each.queries for each in found),
        first=sum(each.first for each in found) / len(found),
        second=sum(each.second for each in found) / len(found),
        difference=whole.difference,
        low=whole.low,
        high=whole.high,
        p=None,
        better=sum(each.better for each in found),
        worse=sum(each.worse for each in found),
    )
    return Comparison(first.id, second.id, config.confidence, found, mean)
