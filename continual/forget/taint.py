"""Which versions were trained on rows, by the windows in their provenance, and which were made from those.

And which other rows were left out because of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from continual.registry import Batch, Registry, Version, Window
from continual.registry.erase import FORGOTTEN, Erasure


def rows_trained(registry: Registry, removed: Mapping[str, Sequence[str]], batches: Sequence[Batch]) -> dict[str, int]:
    """Return how many of the removed rows the training of each version drew, by id; versions without any are left out.

    A window tells the range of hashes that it was drawn from. If a policy chose some of its rows, all rows in the range
    count, so the number is an upper bound. So does every row of a domain that mined negatives come from: its positive
    may have been one of them.

    Args:
        removed: Hashes of the removed rows, by id of the batch.
        batches: The batches.
    """
    domain_of = {batch.id: batch.domain for batch in batches}
    trained = {}
    for version in registry.versions():
        if version.provenance.training is None or version.status == FORGOTTEN:
            continue
        made = version.provenance
        windows = [window for window in (*made.new, *made.replay, *made.held) if window.rows]
        learned = registry.learned(version)
        count = sum(
            domain_of[batch] in made.mined_from
            or (batch in learned and any(w.domain == domain_of[batch] and _inside(w, key) for w in windows))
            for batch in removed
            for key in removed[batch]
        )
        if count:
            trained[version.id] = count
    return trained


def _inside(window: Window, key: str) -> bool:
    if window.start <= window.stop:
        return window.start <= key <= window.stop
    return key >= window.start or key <= window.stop


def tainted(versions: Sequence[Version], trained: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return the versions whose weights depend on forgotten rows and still exist, with the reason in words, by id.

    Args:
        versions: All versions.
        trained: Numbers of forgotten rows that are not recorded yet, from `rows_trained`.
    """
    reasons: dict[str, str] = {}
    for version in versions:
        if version.status == FORGOTTEN:
            continue
        rows = version.provenance.forgotten + (trained or {}).get(version.id, 0)
        origins = [version.parent, version.provenance.start, *version.provenance.members]
        source = next((name for name in origins if name in reasons), None)
        if rows:
            reasons[version.id] = f"trained on {rows:,} forgotten row{'s' * (rows > 1)}"
        elif source is not None:
            reasons[version.id] = f"made from {source}"
    return reasons


def rows_missed(erasure: Erasure, batches: Sequence[Batch]) -> dict[str, int]:
    """Return how many rows the batches that stay lost because of what goes away, at most, by id.

    A row of another domain was dropped as a duplicate if the forgotten domain had it first. And a row was dropped as a
    leak if a query or a document of a task that changes was like it.
    """
    dropped = [_position(name) for name in erasure.dropped_batches]
    tasks = bool(erasure.dropped_tasks or erasure.tasks)
    found = {}
    for batch in batches:
        if batch.id not in erasure.dropped_batches:
            later = bool(dropped) and _position(batch.id) > min(dropped)
            rows = batch.duplicates * later + batch.leaked * tasks
            if rows:
                found[batch.id] = rows
    return found


def _position(batch: str) -> int:
    return int(batch.removeprefix("b"))
