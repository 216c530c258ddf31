"""What the last update changed for single queries, read from stored rankings without loading a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from continual.errors import DataError
from continual.eval.regressions import Regressions, find_regressions, has_rankings
from continual.registry import Registry, Version
from continual.registry.records import Score, Task

SHOWN = 8
"""Number of queries in each list: the largest falls, and the largest rises."""


def last_regressions(
    registry: Registry,
    versions: Sequence[Version],
    tasks: Sequence[Task],
    scores: Mapping[tuple[str, str], Score],
    confidence: float,
) -> Regressions | None:
    """Compare the last update with its parent, query by query, on the workspace's own tasks.

    Args:
        versions: In the order of creation.
        scores: By version and task.
        confidence: Level of the intervals.

    Returns:
        The largest falls and rises; None if no task has the rankings of both versions.
    """
    last = next(version for version in reversed(versions) if version.status != "trained")
    parent = next((version for version in versions if version.id == last.parent), None)
    if parent is None:
        return None
    try:
        ranked = [
            task
            for task in tasks
            if task.mteb is None
            and all(_has_rankings(registry, scores.get((version.id, task.name))) for version in (parent, last))
        ]
        if not ranked:
            return None
        return find_regressions(registry, parent, last, ranked, scores, None, count=SHOWN, confidence=confidence)
    except DataError:
        return None


def _has_rankings(registry: Registry, score: Score | None) -> bool:
    return score is not None and score.path is not None and has_rankings(registry.path(score.path))
