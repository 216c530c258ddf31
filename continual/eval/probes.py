"""The hard documents of a probe: those that the root base finds first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from continual.config import Config
from continual.eval.query_scores import read_rankings
from continual.eval.suites import Probe, Sample, sample_of, suite_settings
from continual.registry import ROOT, Registry, Task
from continual.registry.artifacts import queries_of


def probes(registry: Registry, tasks: Sequence[Task], config: Config) -> dict[str, Sample]:
    """Return the probe of each task that has one, by name.

    A task has none if it ranks no documents, if the probe would be half of what an update scores anyway, or if no
    ranking of the root base was stored: older releases stored none.

    Raises:
        DataError: The root base's scores per query are damaged or missing.
    """
    wanted = {
        task.name: sample for task in tasks if isinstance(sample := sample_of(task, config.suites, "probe"), Probe)
    }
    known = registry.scores(suite_settings([task for task in tasks if task.name in wanted], config, "step"), ROOT)
    found: dict[str, Sample] = {}
    for name, sample in wanted.items():
        score = known.get((ROOT, name))
        if score is not None and score.path is not None:
            registry.digests.check(queries_of(score))
            rankings = read_rankings(registry.path(score.path))
            if rankings is not None:
                found[name] = replace(sample, hard=rankings)
    return found
