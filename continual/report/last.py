"""What the last update did to single queries, from files that are there: no model, no data set of others is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from continual.errors import DataError
from continual.eval.regressions import Regressions, find_regressions, has_rankings
from continual.registry import Registry, Version
from continual.registry.records import Score, Task

SHOWN = 8
"""Queries that fell, and as many that rose."""


def last_regressions(
    registry: Registry,
    versions: Sequence[Version],
    tasks: Sequence[Task],
    scores: Mapping[tuple[str, str], Score],
    confidence: float,
) -> Regressions | None:
    """Compare the last version with its parent, query by query, on the workspace's own tasks.

    Args:
        registry: The workspace's registry.
        versions: All, in the order they were made.
        tasks: All of the workspace.
        scores: By version and task.
        confidence: Level of the intervals.

    Returns:
        The largest falls and rises; None where no ranking of both was kept, or its files are gone.
    """
    last = next(version for version in reversed(versions) if version.status != "trained")
    parent = next((version for version in versions if version.id == last.parent), None)
    if parent is None:
        return None
    try:
        ranked = [
            task
            for task in tasks
            if task.mteb is None and all(_ranked(registry, scores.get((each.id, task.name))) for each in (parent, last))
        ]
        if not ranked:
            return None
        return find_regressions(registry, parent, last, ranked, scores, None, count=SHOWN, confidence=confidence)
    except DataError:
        return None


def _ranked(registry: Registry, score: Score | None) -> bool:
    return score is not None and score.path is not None and has_rankings(registry.path(score.path))
