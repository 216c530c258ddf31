"""The samples of a suite, with the hard documents of pools and probes: those that the root base finds first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from continual.config import Config
from continual.eval.query_scores import read_rankings
from continual.eval.suites import HardSample, Pool, Sample, SuiteName, sample_of, suite_settings
from continual.registry import ROOT, Registry, Score, Task
from continual.registry.artifacts import queries_of


def samples_of(registry: Registry, tasks: Sequence[Task], config: Config, suite: SuiteName) -> dict[str, Sample]:
    """Return how much of each task a suite scores, by name.

    For the suite "probe", only tasks that have a probe are returned. A task has none if it ranks no documents, if the
    probe would be half of what an update scores anyway, or if no ranking of the root base was stored: older releases
    stored none. A task whose pool has no ranking yet is scored on its whole corpus.

    Raises:
        DataError: The root base's scores per query are damaged or missing.
    """
    samples = {task.name: sample_of(task, config.suites, suite) for task in tasks}
    hard = [task for task in tasks if isinstance(samples[task.name], HardSample)]
    known = registry.scores(suite_settings(hard, config, "corpus"), ROOT) if hard else {}
    registry.digests.check(*map(queries_of, known.values()))
    found = dict[str, Sample]()
    for task in tasks:
        sample = samples[task.name]
        if isinstance(sample, HardSample):
            rankings = _rankings(registry, known.get((ROOT, task.name)))
            if rankings is not None and _deep_enough(rankings, sample, task):
                found[task.name] = replace(sample, hard=rankings)
            elif isinstance(sample, Pool):
                found[task.name] = sample_of(task, config.suites, "corpus")
        elif suite != "probe":
            found[task.name] = sample
    return found


def unranked_corpora(registry: Registry, tasks: Sequence[Task], config: Config) -> list[Task]:
    """Return the tasks with a pool whose documents the root base has not ranked yet."""
    pooled = [task for task in tasks if isinstance(sample_of(task, config.suites, "step"), Pool)]
    found = samples_of(registry, pooled, config, "step")
    return [task for task in pooled if not isinstance(found[task.name], Pool)]


def _rankings(registry: Registry, score: Score | None) -> Mapping[str, Sequence[str]] | None:
    return None if score is None or score.path is None else read_rankings(registry.path(score.path))


def _deep_enough(rankings: Mapping[str, Sequence[str]], sample: HardSample, task: Task) -> bool:
    """Return whether rankings have as many documents as a sample takes."""
    wanted = min(sample.documents or 0, task.documents)
    return all(len(ranking) >= wanted for ranking in rankings.values())
