"""The joint version: a version trained on all domains at once, which the report compares with."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from continual.config import Config
from continual.errors import InputError, NotFoundError
from continual.registry import CURRENT, ROOT, Registry, Version
from continual.registry.artifacts import queries_of
from continual.registry.records import Score

STORE = ".continual"


@dataclass(frozen=True)
class Joint:
    """A version that was trained on its domains together.

    Attributes:
        name: Its id, with the name of its workspace if that is another one.
        domains: Names of the domains it has learned.
        scores: By task; only scores on the same data and with the same settings as the report's.
        root: The `.continual` folder with its files.
    """

    name: str
    domains: frozenset[str]
    scores: dict[str, Score]
    root: Path


def joint_name(directory: Path, config: Config, given: str | Path | None = None) -> str | None:
    """Return the joint version that the caller or the settings name; None if neither does.

    Args:
        directory: The workspace; a relative folder in its settings is relative to it.
        given: What the caller names.
    """
    named = config.eval.joint
    if given is not None or named is None:
        return None if given is None else str(given)
    folder = directory / named
    return str(folder) if (folder / STORE).is_dir() else named


def find_joint(registry: Registry, name: str, scores: Mapping[tuple[str, str], Score]) -> Joint:
    """Return the joint version.

    Args:
        name: An id or alias of a version of this workspace, or the folder of another workspace, whose current version
            is used.
        scores: The scores of the report by version and task; the joint version's scores must have their settings.

    Raises:
        NotFoundError: `name` is neither a version nor a workspace.
        InputError: The other workspace has another root base, so its scores can't be compared.
    """
    versions = registry.versions()
    names = [*sorted({event.alias for event in registry.alias_events()}), *(version.id for version in versions)]
    settings = {score.task: score.settings for score in scores.values()}
    if name in names:
        return _joint(registry, registry.version(name), settings, "")
    folder = Path(name).expanduser()
    if not (folder / STORE).is_dir():
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"This workspace has {', '.join(names)}."
        trained = [
            version.id for version in versions if version.provenance.phase and version.provenance.recipe == "joint"
        ]
        existing = f" (already trained: {', '.join(trained)})" if trained else ""
        raise NotFoundError(
            f"The joint version {name!r} is neither a version of this workspace nor the folder of another one. {hint} "
            f"Train a joint version with `continual train --recipe joint`{existing}."
        )
    other = Registry(folder / STORE, registry.catalog.busy_seconds)
    own_base, other_base = (opened.version(ROOT).sha256 for opened in (registry, other))
    if own_base != other_base:
        raise InputError(
            f"The workspace {folder} has another root base (sha256 {other_base[:12]}, not {own_base[:12]}), so its "
            "current version can't serve as the joint version. Name a version or workspace with the same root base."
        )
    digests = {task.name: task.sha256 for task in other.tasks()}
    shared = {task.name for task in registry.tasks() if digests.get(task.name) == task.sha256}
    shared_settings = {task: value for task, value in settings.items() if task in shared}
    return _joint(other, other.version(CURRENT), shared_settings, f" of {folder.resolve().name}")


def _joint(registry: Registry, version: Version, settings: Mapping[str, str], suffix: str) -> Joint:
    domain_of = {batch.id: batch.domain for batch in registry.batches()}
    chosen = {task: score for (owner, task), score in registry.scores(settings).items() if owner == version.id}
    registry.digests.check(*map(queries_of, chosen.values()), missing_ok=True)
    return Joint(
        name=version.id + suffix,
        domains=frozenset(domain_of[batch] for batch in registry.learned(version)),
        scores=chosen,
        root=registry.root,
    )
