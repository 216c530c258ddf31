"""The joint version: what training on all domains at once would have reached, for a report to compare with."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from continual.config import Config
from continual.errors import InputError, NotFoundError
from continual.registry import Registry, Version
from continual.registry.records import Score
from continual.registry.registry import CURRENT, ROOT

STORE = ".continual"


@dataclass(frozen=True)
class Joint:
    """A version that was trained on the domains together.

    Attributes:
        name: What it is called: its id, and its workspace if that is another one.
        domains: Names of the domains it has learned.
        scores: By task: those on the same data, with the same settings.
        root: The `.continual` folder that its files are in.
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
    """Return the joint version of a name.

    Args:
        registry: Of the workspace that is reported on.
        name: An id or alias of a version in it, or the folder of another workspace, whose version in service it is.
        scores: Those that are reported, by version and task: the joint version's must have their settings.

    Raises:
        NotFoundError: There is no such version and no such workspace.
        InputError: The workspace has another root base, so that there is nothing to compare.
    """
    versions = registry.versions()
    known = [*sorted({event.alias for event in registry.alias_events()}), *(version.id for version in versions)]
    settings = {score.task: score.settings for score in scores.values()}
    if name in known:
        return _joint(registry, registry.version(name), settings, "")
    folder = Path(name).expanduser()
    if not (folder / STORE).is_dir():
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
        made = [each.id for each in versions if each.provenance.phase and each.provenance.recipe == "joint"]
        there = f"; already made: {', '.join(made)}" if made else ""
        raise NotFoundError(
            f"The joint version is named {name!r}, and there is neither such a version nor a workspace in a folder of "
            f"that name. {hint} `continual train --recipe joint` makes one{there}."
        )
    other = Registry(folder / STORE, registry.catalog.busy_seconds)
    bases = [each.version(ROOT).sha256 for each in (registry, other)]
    if bases[0] != bases[1]:
        raise InputError(
            f"The workspace {folder} has another root base (sha256 {bases[1][:12]}, not {bases[0][:12]}), so its "
            "version in service is no joint version of this one."
        )
    theirs = {task.name: task.sha256 for task in other.tasks()}
    same = {task.name for task in registry.tasks() if theirs.get(task.name) == task.sha256}
    wanted = {task: value for task, value in settings.items() if task in same}
    return _joint(other, other.version(CURRENT), wanted, f" of {folder.resolve().name}")


def _joint(registry: Registry, version: Version, settings: Mapping[str, str], where: str) -> Joint:
    domain_of = {batch.id: batch.domain for batch in registry.batches()}
    return Joint(
        name=version.id + where,
        domains=frozenset(domain_of[batch] for batch in registry.learned(version)),
        scores={task: score for (owner, task), score in registry.scores(settings).items() if owner == version.id},
        root=registry.root,
    )
