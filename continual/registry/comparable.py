"""Which of the recorded scores can be compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from continual.registry.records import Score


def comparable(scores: Iterable[Score], positions: Mapping[str, int]) -> dict[tuple[str, str], Score]:
    """Return the scores with `common_settings`, without probes, by (version, task).

    Args:
        positions: Position of each version by id.
    """
    scores = [score for score in scores if not score.probe]
    settings = common_settings(scores, positions)
    return {(score.version, score.task): score for score in scores if settings.get(score.task) == score.settings}


def common_settings(scores: Iterable[Score], positions: Mapping[str, int]) -> dict[str, str]:
    """Return by task the settings of the newest version's score; of several, those that most versions have."""
    newest: dict[str, int] = {}
    counts: dict[tuple[str, str], int] = {}
    scores = list(scores)
    for score in scores:
        newest[score.task] = max(newest.get(score.task, -1), positions.get(score.version, -1))
        counts[score.task, score.settings] = counts.get((score.task, score.settings), 0) + 1
    chosen: dict[str, str] = {}
    for score in scores:
        if positions.get(score.version, -1) == newest[score.task]:
            best = chosen.setdefault(score.task, score.settings)
            if counts[score.task, score.settings] >= counts[score.task, best]:
                chosen[score.task] = score.settings
    return chosen
