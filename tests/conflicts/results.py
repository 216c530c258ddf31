"""The result of an analysis, made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

from continual.conflicts.analysis import (
    LAST,
    Conflicts,
    cluster_domains,
    name_domain_clusters,
)
from continual.registry import Registry

NAMES = ["med", "bash", "table", "law"]
MATRIX: list[list[float | None]] = [
    [None, 0.30, -0.12, 0.20],
    [0.10, None, 0.30, -0.02],
    [-0.08, 0.10, None, 0.40],
    [0.20, -0.02, 0.20, None],
]
"""Conflicts: med-table -0.10, bash-law -0.02, med-bash 0.20, med-law 0.20, bash-table 0.20, table-law 0.30."""


def made(names: list[str] = NAMES, count: int | None = None, **changes: object) -> Conflicts:
    merges, order, labels = cluster_domains(MATRIX, count)
    found = Conflicts(
        domains=names,
        start="v0",
        made="2026-03-02T09:30:00+00:00",
        seed=0,
        epochs=2,
        rows=dict.fromkeys(names, 256),
        held=dict.fromkeys(names, 128),
        before=dict.fromkeys(names, 1.0),
        alone=dict.fromkeys(names, 0.5),
        again=dict.fromkeys(names, 0.52),
        chance=0.03,
        matrix=MATRIX,
        merges=merges,
        order=order,
        clusters=name_domain_clusters(names, labels),
        cut=0.0 if count is None else None,
        trainings=10,
        pairs=100,
        seconds=9.0,
        file="conflicts.toml",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def keep(registry: Registry, found: Conflicts) -> Conflicts:
    """Make it the last analysis of a workspace."""
    path = registry.path(LAST)
    path.parent.mkdir()
    path.write_text(json.dumps(found.to_json()), encoding="utf-8")
    return found
