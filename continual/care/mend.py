"""Mend what is safe to mend: clear leftovers, move unknown files aside, rebuild snapshots, drop damaged scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from continual.care.doctor import diagnose
from continual.care.findings import Diagnosis, Finding
from continual.errors import ContinualError
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.storage.aside import set_aside
from continual.storage.files import is_unfinished, remove, sweep_unfinished
from continual.storage.locks import INGEST_LOCK, UPDATE_LOCK
from continual.versions.build import rebuild


def doctor(registry: Registry, *, full: bool = False, fix: bool = False, progress: Progress = SILENT) -> Diagnosis:
    """Check a workspace and mend what can be mended; see `Workspace.doctor`."""
    if not fix:
        return diagnose(registry, full=full, progress=progress)
    with registry.lock(UPDATE_LOCK, "doctor"), registry.lock(INGEST_LOCK, "doctor"):
        found = diagnose(registry, full=full, alone=True, progress=progress)
        done = [text for finding in _each_once(found.findings) if (text := _mend(registry, finding, progress))]
        # Read in full only what changed: the rest was read a moment ago.
        left = diagnose(registry, alone=True, progress=progress) if done else found
    return replace(left, full=full, fixed=done)


def _each_once(findings: list[Finding]) -> list[Finding]:
    """Return the findings to mend, one per subject; snapshots come last, in the order they were made."""
    chosen = {finding.subject: finding for finding in findings if finding.mend is not None}
    return sorted(chosen.values(), key=lambda finding: (finding.mend == "rebuild", _number(finding.subject)))


def _number(subject: str) -> int:
    return int(subject[1:]) if subject[1:].isdecimal() else 0


def _mend(registry: Registry, finding: Finding, progress: Progress) -> str:
    """Mend one finding, and return what was done as a sentence."""
    mends: dict[str, Callable[[], str]] = {
        "rebuild": lambda: _rebuild(registry, finding.subject, progress),
        "sweep": lambda: _sweep(registry, finding.subject),
        "aside": lambda: _aside(registry, finding.subject),
        "rescore": lambda: _drop_score(registry, finding.subject),
    }
    return mends[str(finding.mend)]()


def _rebuild(registry: Registry, name: str, progress: Progress) -> str:
    try:
        rebuild(registry, registry.version(name), progress)
    except ContinualError as error:
        return f"{name} could not be rebuilt: {error}"
    return f"Rebuilt the snapshot of {name}; its weights are the recorded ones."


def _sweep(registry: Registry, place: str) -> str:
    path = registry.path(place)
    if is_unfinished(path):
        sweep_unfinished(path.parent)
    else:  # the staging folder, or what a killed command had announced
        remove(path)
    return f"Cleared .continual/{place}, which a killed process left."


def _aside(registry: Registry, place: str) -> str:
    target = set_aside(registry.root, registry.path(place))
    return f"Moved .continual/{place} to {target.relative_to(registry.root.parent)}."


def _drop_score(registry: Registry, path: str) -> str:
    """Drop the scores with a damaged file, so that the next evaluation computes them again."""
    dropped = registry.drop_scores(path)
    moved = f" {_aside(registry, path)}" if registry.path(path).exists() else ""
    names = ", ".join(f"{score.version} on {score.task}" for score in dropped)
    return f"Dropped the score of {names}; `continual eval {dropped[0].version}` computes it again.{moved}"
