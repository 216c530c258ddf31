"""Comparison of two versions: scores, answers to single queries, and weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from continual.config import Config
from continual.errors import InputError
from continual.eval.compare import Comparison, compare_versions
from continual.eval.suites import suite_settings
from continual.progress import SILENT, Progress
from continual.registry import ROOT, Registry, Task, Version
from continual.storage.locks import UPDATE_LOCK
from continual.versions.build import kept
from continual.versions.scores import (
    choose_tasks,
    query_embedder,
    rank_missing,
    score_missing,
    unranked,
    unscored,
)

if TYPE_CHECKING:
    from continual.eval.regressions import Regressions
    from continual.versions.diff import Diff


def version_pair(registry: Registry, a: str | None, b: str) -> tuple[Version, Version]:
    """Return the two versions of a comparison. If `a` is None, the first one is the parent of the second.

    Raises:
        NotFoundError: There is no such version.
        InputError: `a` is None, and the second version is the root base.
    """
    second = registry.version(b)
    if a is not None:
        return registry.version(a), second
    if second.parent is None:
        raise InputError(
            f"{second.id} is the root base, so it has no parent to compare with. Name two versions: `continual compare "
            f"{second.id} VERSION`."
        )
    return registry.version(second.parent), second


def compare_scores(
    registry: Registry,
    config: Config,
    a: str | None,
    b: str,
    tasks: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Compare the scores of two versions; see `Workspace.compare`."""
    first, second = version_pair(registry, a, b)
    chosen = choose_tasks(registry, config, tasks)
    _score(registry, config, first, second, chosen, progress)
    return compare_versions(registry, first, second, chosen, config.eval, suite_settings(chosen, config, "step"))


def compare_queries(
    registry: Registry,
    config: Config,
    a: str | None,
    b: str,
    tasks: Sequence[str] | None = None,
    count: int = 5,
    progress: Progress = SILENT,
) -> Regressions:
    """Compare the answers of two versions query by query; see `Workspace.compare_queries`."""
    from continual.eval.regressions import find_regressions

    first, second = version_pair(registry, a, b)
    if count < 1:
        raise InputError(f"-n takes a number from 1 up, not {count}.")
    chosen = choose_tasks(registry, config, tasks)
    again = _score(registry, config, first, second, chosen, progress, rankings=True)
    return find_regressions(
        registry,
        first,
        second,
        chosen,
        registry.scores(suite_settings(chosen, config, "step")),
        query_embedder(registry, config, progress),
        count=count,
        confidence=config.eval.confidence,
        scored_again=again,
    )


def compare_weights(registry: Registry, config: Config, a: str | None, b: str, progress: Progress = SILENT) -> Diff:
    """Compare the weights of two versions; see `Workspace.compare_weights`."""
    from continual.versions.diff import diff

    first, second = version_pair(registry, a, b)
    with kept(registry, ROOT, first.id, second.id, progress=progress):
        return diff(registry, first, second, progress=progress, trust_remote_code=config.trust_remote_code)


def _score(
    registry: Registry,
    config: Config,
    first: Version,
    second: Version,
    tasks: Sequence[Task],
    progress: Progress,
    *,
    rankings: bool = False,
) -> dict[str, list[str]]:
    """Score two versions on the tasks they have no score on, under the update lock.

    Args:
        rankings: Also score again on tasks without rankings, which older versions of `continual` did not keep.

    Returns:
        Names of the tasks that were scored again, by version.
    """
    versions = {version.id: version for version in (first, second)}.values()
    lacks = (unscored, unranked) if rankings else (unscored,)
    if not any(lack(registry, version, tasks, config) for lack in lacks for version in versions):
        return {}
    again = {}
    with registry.lock(UPDATE_LOCK, "compare"):  # an update scores versions too
        for version in versions:
            score_missing(registry, version, tasks, config, progress)
            if rankings:
                again[version.id] = rank_missing(registry, version, tasks, config, progress)
    return again
