"""The rows of a step: all new ones, and those of history that the replay policy takes or chooses."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import Config
from continual.progress import SILENT, Progress
from continual.registry import Batch, Registry, Version
from continual.replay import Candidates, Draw, Policy, RowReader, allot, get_policy
from continual.replay.draw import pack
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = 128
"""Rows embedded to estimate how long embedding all candidates takes."""


@dataclass(frozen=True)
class Available:
    """What a step draws from.

    Attributes:
        rows: Rows of the history and of the new batches, by domain.
        guarded: Names of the tasks whose rows are left out.
        skipped: New rows left out because their domain needs negatives and they have none, by domain.
    """

    rows: dict[str, int]
    guarded: list[str]
    skipped: dict[str, int]


def draw_rows(
    registry: Registry,
    config: Config,
    parent: Version,
    new: Sequence[Batch],
    history: Sequence[Batch],
    *,
    held: int,
    seed: int,
    look: bool,
    mined: Mapping[str, str] | None = None,
    progress: Progress = SILENT,
) -> tuple[Draw, Available]:
    """Return the rows of a step, and what they were drawn from.

    Args:
        parent: The current version.
        new: Batches to learn.
        history: Batches that the current version has learned.
        held: Rows of each domain to hold out of training.
        seed: Seed of the step.
        look: Let a policy that needs embeddings choose among the candidates. If False, take the first candidates
            instead, the same number of rows.
        mined: As for `RowReader`.
        progress: A bar over the candidates that are embedded.
    """
    policy = get_policy(config.replay.policy)
    cursors = cursors_of(parent, policy)
    picked: dict[str, str] = {}
    with RowReader(registry, mined) as reader:
        rows = reader.count(history)
        available = Available(reader.count([*history, *new]), reader.guarded, reader.skipped(new))
        quotas = allot(
            policy.name,
            rows,
            config.replay.share,
            config.replay.rows,
            falls=falls(registry, parent) if policy.scored else None,
            temperature=config.replay.temperature,
        )
        if policy.choose is not None and any(quotas.values()):
            wanted, factor = quotas, config.replay.candidates
            quotas = {domain: min(rows[domain], quota * factor) for domain, quota in wanted.items()}
            candidates = reader.draw(new, history, quotas, cursors, held)
            if look:
                with kept(registry, parent.id, progress=progress) as (folder,):
                    table = replayed(candidates)
                    picked = choose_rows(policy, folder, table, wanted, config, seed=seed, progress=progress)
            else:
                for window in candidates.replay:
                    picked[window.domain] = pack(range(min(wanted[window.domain], window.rows)), window.rows)
        return reader.draw(new, history, quotas, cursors, held, picked), available


def cursors_of(parent: Version, policy: Policy) -> dict[str, str]:
    """Return the row hash after which each domain's next replay window starts, by domain."""
    return {} if policy.fixed else parent.provenance.cursors


def replayed(drawn: Draw) -> pa.Table:
    """Return the rows of a draw that come from history."""
    return drawn.table.filter(drawn.table["replayed"])


def choose_rows(
    policy: Policy,
    model: Path,
    table: pa.Table,
    quotas: Mapping[str, int],
    config: Config,
    *,
    seed: int,
    progress: Progress = SILENT,
) -> dict[str, str]:
    """Return which candidates a policy picks, by domain, as a window records it.

    Args:
        policy: A policy with `choose`.
        model: Folder of the current version, which embeds the candidates.
        table: The candidates as a draw gives them: all rows of a domain together, in hash order.
        quotas: Rows to pick, by domain.
        seed: Seed of the step.
        progress: A bar over the candidates.
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
    """Return how many seconds a model takes to embed candidates, estimated from a sample.

    Args:
        model: Folder of the current version.
        table: Candidates, or some of them.
        rows: Number of candidates.
    """
    from continual.train.candidates import embed_pairs

    sizes = [1, min(SAMPLE, len(table))]
    seconds = []
    for size in sizes:
        began = time.perf_counter()
        embed_pairs(model, table.slice(0, size), config.train, trust_remote_code=config.trust_remote_code)
        seconds.append(time.perf_counter() - began)
    loading, sample = seconds
    return loading + max(0.0, sample - loading) * rows / sizes[1]


def falls(registry: Registry, version: Version) -> dict[str, float]:
    """Return how far the tasks of each domain lie below their best score in a version's lineage, mean points by domain.

    The score of a task is the last in the lineage, because an update does not score every task in full. A task with
    fewer than two is left out.
    """
    lineage, scores = [ancestor.id for ancestor in registry.ancestry(version.id)], registry.scores()
    by_domain: dict[str, list[float]] = {}
    for task in registry.tasks():
        points = [scores[name, task.name].score for name in lineage if (name, task.name) in scores]
        if task.domain is not None and len(points) > 1:
            by_domain.setdefault(task.domain, []).append(max(0.0, max(points[:-1]) - points[-1]))
    return {domain: sum(points) / len(points) for domain, points in by_domain.items()}
