"""Reuse of earlier versions: of their models, and of the rows they were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from continual.recipes.recipe import Portion
from continual.recipes.rows import RecipeRows, read_training_rows
from continual.registry import Registry, Version, Window

if TYPE_CHECKING:
    import pyarrow as pa


def usable(registry: Registry, version: Version | None) -> Version | None:
    """Return a version if its snapshot exists or can be rebuilt from files that exist; otherwise None."""
    if version is None or registry.path(version.path).is_dir():
        return version
    if version.provenance.members:
        needed = [version.parent, *version.provenance.members]
    else:
        needed = [version.parent]
        if version.adapter is None or not registry.path(version.adapter).is_dir():
            return None
    rebuildable = all(name is not None and usable(registry, registry.version(name)) for name in needed)
    return version if rebuildable else None


def earlier_rows(
    registry: Registry, version: Version, rows: RecipeRows, clusters: Mapping[str, Sequence[str]], seed: int
) -> tuple[pa.Table, list[Window]] | None:
    """Return the rows that a version was trained on, with their windows, if they can be used again.

    They cannot be used if the clusters divide the version's domains differently now, if some rows are held out now, or
    if the stored rows have changed.

    Args:
        rows: The rows to train on now.
        clusters: Domains by cluster now.
        seed: Seed of the draws.
    """
    windows = version.provenance.new
    before = {frozenset(names) for names in version.provenance.clusters.values()}
    domains: frozenset[str] = frozenset().union(*before)
    now = [domains.intersection(names) for names in clusters.values()]
    if set(now) != before or not all(now):
        return None
    first_held = {window.domain: window.start for window in rows.held_windows}
    if any(window.domain in first_held and window.stop >= first_held[window.domain] for window in windows):
        return None
    batches = [batch for batch in registry.batches() if batch.id in version.batches]
    earlier = read_training_rows(registry, batches)
    if any(earlier.counts.get(window.domain, 0) < window.rows for window in windows):
        return None
    table, drawn = earlier.take([Portion(window.domain, window.rows) for window in windows], seed)
    return (table, drawn) if drawn == windows else None
