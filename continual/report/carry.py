"""Scores that a version has from an earlier one, because its update did not score all tasks in full."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from continual.report.report import ReportVersion

UNKNOWN = 1.0
"""Mean squared change of a task in one step, points squared, where no change was measured."""


def carry(
    versions: Sequence[ReportVersion], limited: Collection[str], created: Mapping[str, datetime]
) -> list[ReportVersion]:
    """Return the versions with the scores that they have from their lineage.

    Args:
        versions: The root base first, parents before their children.
        limited: Ids of the versions whose update scored some tasks in full only.
        created: When each task was registered, by name. A version has no score on a later task.
    """
    carried: dict[str, ReportVersion] = {}
    for version in versions:
        before = carried.get(version.parent or "")
        if before is not None and version.id in limited:
            missing = {
                task: before.carried.get(task, before.id)
                for task in before.scores
                if task not in version.scores and task in created and created[task] <= version.created_at
            }
            scores = version.scores | {task: before.scores[task] for task in missing}
            version = replace(version, scores=scores, carried=missing)
        carried[version.id] = version
    return list(carried.values())


def drift(
    versions: Sequence[ReportVersion], tasks: Sequence[str], lineages: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Return how much the variance of a score grows because it is that of an earlier version, [versions, tasks].

    The variance, in points squared, grows with every step between the two versions by the mean squared change of a task
    in a step: over all versions and tasks that the version and its parent were both scored on, and that the version did
    not learn. It holds the chance of the queries too, so it errs on the wide side.
    """
    column = {task: place for place, task in enumerate(tasks)}
    spread = np.zeros((len(versions), len(tasks)))
    if not any(version.carried for version in versions):
        return spread
    place_of = {version.id: place for place, version in enumerate(versions)}
    changes = [
        version.scores[task] - parent.scores[task]
        for version in versions
        if version.parent is not None
        for parent in (versions[place_of[version.parent]],)
        for task in version.scores.keys() & parent.scores.keys()
        if task not in version.carried and task not in parent.carried and _kept(version, task)
    ]
    step = float(np.mean(np.square(changes))) if changes else UNKNOWN
    for place, (version, lineage) in enumerate(zip(versions, lineages, strict=True)):
        for task, origin in version.carried.items():
            spread[place, column[task]] = step * (len(lineage) - 1 - lineage.index(place_of[origin]))
    return spread


def _kept(version: ReportVersion, task: str) -> bool:
    """Whether the version's step did not learn the domain of a task."""
    change = version.changes.get(task)
    return change is None or change.role not in ("new", "again")
