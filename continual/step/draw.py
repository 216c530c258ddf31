"""The rows of a step: its new ones, and those of history that the policy says, or lets the model in service choose."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import Config
from continual.progress import SILENT, Progress
from continual.registry import Batch, Registry, Version
from continual.replay import (
    Candidates,
    Draw,
    Policy,
    RowReader,
    allot,
    get_policy,
)
from continual.replay.draw import pack
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = 128
"""Rows that are embedded to estimate what embedding all of them takes."""


@dataclass(frozen=True)
class Available:
    """What a step draws from.

    Attributes:
        rows: Rows of the history and of the new batches, by domain.
        guarded: Names of the tasks whose rows are left out.
        skipped: New rows that are left out because they have no negatives, by domain.
    """

    rows: dict[str, int]
    guarded: list[str]
    skipped: dict[str, int]


def draw(
    registry: Registry,
    config: Config,
    parent: Version,
    new: Sequence[Batch],
    history: Sequence[Batch],
    *,
    held: int,
    seed: int,
    look: bool,
    progress: Progress = SILENT,
) -> tuple[Draw, Available]:
    """Return the rows of a step, and what they were drawn from.

    Args:
        registry: The workspace's registry.
        config: The resolved settings.
        parent: What is in service.
        new: Batches to learn.
        history: Batches that were learned.
        held: Rows of each domain to hold out of training.
        seed: Of the step.
        look: Let a policy that chooses do so. If not, the first of its candidates are drawn, as many.
        progress: Shows how far it is.
    """
    policy = get_policy(config.replay.policy)
    cursors = cursors_of(parent, policy)
    picked: dict[str, str] = {}
    with RowReader(registry) as rows:
        available = rows.count(history)
        stock = Available(rows.count([*history, *new]), rows.guarded, rows.skipped(new))
        quotas = allot(
            policy.name,
            available,
            config.replay.share,
            config.replay.rows,
            falls=falls(registry, parent) if policy.scored else None,
            temperature=config.replay.temperature,
        )
        if policy.choose is not None and any(quotas.values()):
            wanted, factor = quotas, config.replay.candidates
            quotas = {domain: min(available[domain], quota * factor) for domain, quota in wanted.items()}
            candidates = rows.draw(new, history, quotas, cursors, held)
            if look:
                with kept(registry, parent.id, progress=progress) as (folder,):
                    table = replayed(candidates)
                    picked = choose(policy, folder, table, wanted, config, seed=seed, progress=progress)
            else:
                for window in candidates.replay:
                    picked[window.domain] = pack(range(min(wanted[window.domain], window.rows)), window.rows)
        return rows.draw(new, history, quotas, cursors, held, picked), stock


def cursors_of(parent: Version, policy: Policy) -> dict[str, str]:
    """Return where the windows of the next step's replay begin, by domain."""
    return {} if policy.fixed else parent.provenance.cursors


def replayed(drawn: Draw) -> pa.Table:
    """Return the rows of a draw that come from history."""
    return drawn.table.filter(drawn.table["replayed"])


def choose(
    policy: Policy,
    model: Path,
    table: pa.Table,
    quotas: Mapping[str, int],
    config: Config,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Return, by domain, which of its candidates a policy picks, as a window records it.

    Args:
        policy: One that chooses.
        model: Folder of what is in service.
        table: The candidates as a draw gives them: all rows of a domain together, in hash order.
        quotas: Rows to pick, by domain.
        config: The resolved settings.
        seed: Of the step.
        progress: Shows how far it is.
    """
    import numpy as np

    from continual.train.candidates import embed_pairs

    assert policy.choose is not None
    queries, positives, losses = embed_pairs(
        model, table, config.train, trust_remote_code=config.trust_remote_code, progress=progress
    )
    domains = np.asarray(table["domain"].to_pylist(), dtype=object)
    picked = {}
    for domain in losses:
        own = np.flatnonzero(domains == domain)
        wanted = min(quotas[domain], len(own))
        picks = policy.choose(Candidates(queries[own], positives[own], losses[domain]), wanted, seed)
        assert len(np.unique(picks)) == len(picks) == wanted, f"policy {policy.name} broke its contract"
        picked[domain] = pack(picks, len(own))
    return picked


def seconds_to_choose(model: Path, table: pa.Table, rows: int, config: Config) -> float:
    """Return how long a model takes to embed some candidates, estimated from a sample.

    Args:
        model: Folder of what is in service.
        table: Candidates, or some of them.
        rows: How many there are.
        config: The resolved settings.
    """
    from continual.train.candidates import embed_pairs

    sizes = [1, min(SAMPLE, len(table))]
    took = []
    for size in sizes:
        began = time.perf_counter()
        embed_pairs(model, table.slice(0, size), config.train, trust_remote_code=config.trust_remote_code)
        took.append(time.perf_counter() - began)
    return took[0] + max(0.0, took[1] - took[0]) * rows / sizes[1]  # loading, and then row by row


def falls(registry: Registry, version: Version) -> dict[str, float]:
    """Return, by domain, the mean points by which its tasks lie below their best score along a version's lineage.

    A task without a score of the version, or of any version before it, is left out.
    """
    line, scores = [each.id for each in registry.lineage(version)], registry.scores()
    found: dict[str, list[float]] = {}
    for task in registry.tasks():
        before = [scores[each, task.name].score for each in line[:-1] if (each, task.name) in scores]
        if task.domain is not None and before and (version.id, task.name) in scores:
            fall = max(before) - scores[version.id, task.name].score
            found.setdefault(task.domain, []).append(max(0.0, fall))
    return {domain: sum(values) / len(values) for domain, values in found.items()}
