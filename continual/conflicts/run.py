"""Run a conflict analysis: train each domain alone and with each other domain, and compare its held-out losses.

To make the comparison fair, a domain has the same rows, epochs, held-out rows and held-out batches in all its
trainings. Batches hold one domain each (unless `train.mix_domains`). All trainings start from the same model and use
the workspace's settings, but without distillation and the guide, which would keep the domains close to the start
model. To measure chance, each domain is trained alone a second time, with its rows in reverse order.

All models are deleted. Each training's losses are stored at once, under a digest of everything that determines them. So
an interrupted analysis resumes, and adding a domain costs only its own trainings.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import TrainConfig
from continual.conflicts.analysis import (
    LAST,
    Conflicts,
    chance,
    check_count,
    cluster_domains,
    conflict_matrix,
    name_domain_clusters,
)
from continual.conflicts.clusters import is_edited, render_clusters
from continual.conflicts.plan import (
    SCHEMA,
    TRAININGS,
    ConflictJob,
    Training,
    chosen_domains,
    joined,
    load_results,
)
from continual.errors import DivergedError, InputError, WorkspaceBusy
from continual.executors.protocol import Execute
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.catalog import now
from continual.storage.files import publish, remove
from continual.storage.locks import (
    UPDATE_LOCK,
    held,
    holder,
)
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa

_logger = logging.getLogger(__name__)

LOCK = "conflicts.lock"
FOLDER = "runs/conflicts"
_POLL_SECONDS = 2.0


def run(
    registry: Registry,
    job: ConflictJob,
    *,
    count: int | None,
    out: Path,
    execute: Execute | None = None,
    progress: Progress = SILENT,
) -> Conflicts:
    """Do the missing trainings, then compare and cluster the domains.

    An update never waits for an analysis: while an update runs, the analysis waits between two trainings.

    Args:
        job: From `prepare_conflicts`.
        count: Number of clusters; None derives it, see `continual.conflicts.analysis.cluster_domains`.
        out: File to write the clusters to.
        execute: Runs the trainings elsewhere; None runs them one after the other in this process. With it the analysis
            waits for an update only before the first training, and keeps `continual gc` waiting until the last.
        progress: Shows one bar over the pairs of all trainings.

    Raises:
        InputError: `out` was edited by hand or can't be written, or `count` is out of its range.
        DivergedError: A loss is not a number; the results of earlier trainings are kept.
        WorkspaceBusy: An update or another analysis is running.
    """
    check_count(count, len(job.tables))
    _check_out(out)
    with registry.lock(LOCK, "analyze conflicts"):
        if job.missing and (what := _still_running(registry)) is not None:
            raise WorkspaceBusy(
                f"`continual {what or 'update'}` is running in this workspace, and two trainings at once would slow "
                "each other down. Wait until it ends, then try again."
            )
        results = _train_missing(registry, job, execute, progress)
        conflicts = _compare(job, results, count, out)
        about = f"Clusters of domains by `continual analyze conflicts`, {conflicts.made[:10]}, from {conflicts.start}."
        try:
            with publish(out) as partial:
                partial.write_text(render_clusters(conflicts.clusters, about), encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"The clusters cannot be written to {out}: {error.strerror or error}. Name another file with --out."
            ) from None
        _write(registry.path(LAST), conflicts.to_json())
    return conflicts


def check_call(registry: Registry, domains: Sequence[str] | None, count: int | None, out: Path) -> None:
    """Check the arguments of an analysis before its cost is measured or anything is trained.

    Args:
        domains: Names of the domains to compare; None compares all.
        count: Number of clusters; None allows any number.
        out: File to write the clusters to.

    Raises:
        NotFoundError: There is no such domain.
        NothingToDoError: There are fewer than two domains.
        InputError: `count` is out of its range, or `out` was edited by hand or is a folder.
    """
    check_count(count, len(chosen_domains(registry, domains)))
    _check_out(out)


def _check_out(out: Path) -> None:
    """Check that the clusters can be written to `out`.

    Raises:
        InputError: `out` was edited by hand or is a folder.
    """
    if out.is_dir():
        raise InputError(
            f"{out} is a folder, but the clusters need a file. Name one with --out, such as {out / 'clusters.toml'}."
        )
    if is_edited(out):
        raise InputError(
            f"{out} was edited by hand, so it is not overwritten. Name another file with --out, or move it."
        )


def _train_missing(registry: Registry, job: ConflictJob, execute: Execute | None, progress: Progress) -> dict[str, Any]:
    """Do the missing trainings, store the result of each at once, and return the results of all, by key."""
    results = load_results(registry.root)
    missing = [training for training in job.trainings if training.key not in results]
    folders = {training.key: registry.path(f"{FOLDER}/{training.key[:16]}") for training in missing}
    for path in registry.path(FOLDER).glob("*"):
        if path not in folders.values():
            remove(path)  # left by an analysis that was not resumed
    if not missing:
        return results
    trained = (
        _one_by_one(registry, job, missing, folders, progress)
        if execute is None
        else _elsewhere(registry, job, missing, folders, execute)
    )
    for training, result in zip(missing, trained, strict=True):
        results[training.key] = result
        _write(registry.path(TRAININGS), {"schema": SCHEMA, "trainings": results})
        remove(folders[training.key])
    remove(registry.path(FOLDER))
    return results


def _one_by_one(
    registry: Registry,
    job: ConflictJob,
    missing: Sequence[Training],
    folders: Mapping[str, Path],
    progress: Progress,
) -> Iterator[dict[str, Any]]:
    """Yield the results of trainings in this process. Between two of them it waits for a running update."""
    done = sum(map(job.pairs, job.trainings)) - sum(map(job.pairs, missing))
    models = f"{len(missing)} model{'s' * (len(missing) != 1)}"
    progress.start(f"training {models}", done + sum(map(job.pairs, missing)), "pairs", done)
    for training in missing:
        _wait_for_update(registry)
        with kept(registry, job.start.id) as (start,):
            result = measure(_trial(job, training, start, folders[training.key]), _Whole(progress))
        yield result
    progress.finish()


def _elsewhere(
    registry: Registry, job: ConflictJob, missing: Sequence[Training], folders: Mapping[str, Path], execute: Execute
) -> Iterator[dict[str, Any]]:
    """Yield the results of trainings that an executor runs."""
    _wait_for_update(registry)
    with kept(registry, job.start.id) as (start,):
        trials = [_trial(job, training, start, folders[training.key]) for training in missing]
        yield from execute(measure, trials, [job.pairs(training) for training in missing])


@dataclass(frozen=True)
class Trial:
    """The inputs of `train_once`, as plain data with paths."""

    start: Path
    table: pa.Table
    held_rows: pa.Table
    config: TrainConfig
    seed: int
    folder: Path
    trust_remote_code: bool


def _trial(job: ConflictJob, training: Training, start: Path, folder: Path) -> Trial:
    table, held_rows = joined(job.tables, training.domains), joined(job.held, training.domains)
    if training.turned:
        table = table.take(list(range(len(table)))[::-1])  # only changes which rows share a batch
    return Trial(start, table, held_rows, job.config, job.seed, folder, job.trust_remote_code)


def measure(trial: Trial, progress: Progress = SILENT) -> dict[str, Any]:
    """Train and measure as `train_once`, in any process that sees the folders."""
    return train_once(
        trial.start,
        trial.table,
        trial.held_rows,
        trial.config,
        seed=trial.seed,
        folder=trial.folder,
        progress=progress,
        trust_remote_code=trial.trust_remote_code,
    )


def train_once(
    start: Path,
    table: pa.Table,
    held_rows: pa.Table,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Train on the rows of one or two domains, and measure the loss on their held-out rows.

    Args:
        start: The sentence-transformers folder to train from.
        table: Training rows, in the form of a draw.
        held_rows: Held-out rows of the same domains.
        config: Settings of the training.
        seed: Seed of the training and of the held-out batches.
        folder: Folder for the checkpoint, from which a killed training resumes, and for the model. The caller removes
            it.
        trust_remote_code: Whether to run code that the model folder brings.

    Returns:
        `losses` after training, by domain; `pairs` and `seconds`; and, for a single domain, its loss `before`.

    Raises:
        DivergedError: A loss is not a number.
    """
    from continual.train.job import Job
    from continual.train.loop import train
    from continual.train.lora import fold
    from continual.train.objective import Objective

    def losses(model: Path) -> dict[str, float]:
        objective = Objective(model, held_rows, config, seed=seed, trust_remote_code=trust_remote_code)
        return objective.evaluate(objective.parameters())

    began = time.monotonic()
    adapter, folded = folder / "adapter", folder / "update"
    job = Job(start, table, config, seed, folder, adapter, resume=True, trust_remote_code=trust_remote_code)
    trained = train(job, progress)
    try:
        fold(start, adapter, folded)
        result: dict[str, Any] = {"losses": losses(folded), "pairs": trained.pairs}
    finally:
        remove(folded)
    diverged = [domain for domain, loss in result["losses"].items() if not math.isfinite(loss)]
    if diverged:
        raise DivergedError(
            f"The loss of {diverged[0]} is {result['losses'][diverged[0]]} after training, so its conflicts cannot be "
            f"computed. Lower train.learning_rate (now {config.learning_rate:g})."
        )
    if len(result["losses"]) == 1:
        result["before"] = losses(start)
    return result | {"seconds": time.monotonic() - began}


class _Whole:
    """One bar over all trainings: passes on a training's pairs and drops its other bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._counts = False

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self._counts = label == "training"
        if self._counts and done:
            self._progress.advance(done)

    def advance(self, count: int) -> None:
        if self._counts:
            self._progress.advance(count)

    def finish(self) -> None:
        self._counts = False


def _still_running(registry: Registry) -> str | None:
    """Wait for an update as long as other commands that write; return what is running then, or None."""
    deadline = time.monotonic() + registry.catalog.busy_seconds
    lock = registry.root / UPDATE_LOCK
    if (what := holder(lock)) and registry.catalog.busy_seconds:
        _logger.warning("continual: waiting for `continual %s` (at most %g s).", what, registry.catalog.busy_seconds)
    while held(lock) and time.monotonic() < deadline:
        time.sleep(min(_POLL_SECONDS, 0.1))
    return holder(lock)


def _wait_for_update(registry: Registry) -> None:
    """Wait while an update, or another command that creates or drops versions, is running."""
    lock = registry.root / UPDATE_LOCK
    if (what := holder(lock)) is not None:
        _logger.warning(
            "`continual %s` is running in this workspace; the analysis continues when it has ended.", what or "update"
        )
        while held(lock):
            time.sleep(_POLL_SECONDS)


def _compare(job: ConflictJob, results: Mapping[str, Any], count: int | None, out: Path) -> Conflicts:
    domains = list(job.tables)
    by_training = {(training.domains, training.turned): results[training.key] for training in job.trainings}
    alone, again = (
        {domain: by_training[(domain,), turned]["losses"][domain] for domain in domains} for turned in (False, True)
    )
    joint = {(names[0], names[1]): result["losses"] for (names, _), result in by_training.items() if len(names) == 2}
    matrix, cut = conflict_matrix(domains, alone, joint), chance(alone, again)
    merges, order, labels = cluster_domains(matrix, count, cut=cut)
    return Conflicts(
        domains=domains,
        start=job.start.id,
        made=now().isoformat(timespec="seconds"),
        seed=job.seed,
        epochs=job.config.epochs,
        rows={domain: len(table) for domain, table in job.tables.items()},
        held={domain: len(table) for domain, table in job.held.items()},
        before={domain: by_training[(domain,), False]["before"][domain] for domain in domains},
        alone=alone,
        again=again,
        chance=cut,
        matrix=matrix,
        merges=merges,
        order=order,
        clusters=name_domain_clusters(domains, labels),
        cut=cut if count is None else None,
        trainings=len(by_training),
        pairs=sum(result["pairs"] for result in by_training.values()),
        seconds=sum(result["seconds"] for result in by_training.values()),
        file=str(out),
    )


def _write(path: Path, data: Mapping[str, Any]) -> None:
    with publish(path) as partial:
        partial.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
