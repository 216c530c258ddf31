"""The analysis of conflicts: each domain is trained alone and with each other one, and its held-out loss compared.

What makes the comparison fair: a domain's rows, their number of passes, and the held-out rows with their batches are
the same in all its trainings; batches hold one domain each (unless `train.mix_domains`); everything starts from the
same model, with the workspace's settings but without distillation and guide, which would hold the domains near where
they were. What is left is chance, so each domain is trained alone a second time, with its rows in the opposite order.

All models are thrown away. Their losses are kept as they come, under a digest of all that decides them: an analysis
that was interrupted goes on, and one more domain costs only its own trainings.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
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
    chosen_domains,
    joined,
    load_known,
)
from continual.errors import DivergedError, InputError, WorkspaceBusy
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.catalog import now
from continual.storage.files import publish, remove
from continual.storage.locks import (
    UPDATE_LOCK,
    exclusive,
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
    registry: Registry, job: ConflictJob, *, count: int | None, out: Path, progress: Progress = SILENT
) -> Conflicts:
    """Do the trainings that are missing, and compare and cluster the domains.

    An update never waits for it: while one runs, the analysis waits between two trainings.

    Args:
        registry: The workspace's registry.
        job: From `prepare_conflicts`.
        count: Clusters to cut into; None: see `continual.conflicts.analysis.cluster_domains`.
        out: File to write the clusters to.
        progress: A bar over the pairs of all trainings.

    Raises:
        InputError: The file was edited by hand, cannot be written, or `count` is out of its range.
        DivergedError: A loss is no longer a number; what was trained before is kept.
        WorkspaceBusy: An update is running, or another analysis.
    """
    check_count(count, len(job.tables))
    _check_out(out)
    with exclusive(registry.root / LOCK, "analyze conflicts"):
        if job.missing and (what := holder(registry.root / UPDATE_LOCK)) is not None:
            raise WorkspaceBusy(
                f"A `continual {what or 'update'}` is running in this workspace, and two trainings at once help "
                "neither. Wait for it to end, then try again."
            )
        known = _train_missing(registry, job, progress)
        found = _compare(job, known, count, out)
        about = f"Clusters of domains by `continual analyze conflicts`, {found.made[:10]}, from {found.start}."
        try:
            with publish(out) as partial:
                partial.write_text(render_clusters(found.clusters, about), encoding="utf-8")
        except OSError as error:
            raise InputError(f"The clusters cannot be written to {out}: {error.strerror or error}.") from None
        _write(registry.path(LAST), found.to_json())
    return found


def check_call(registry: Registry, domains: Sequence[str] | None, count: int | None, out: Path) -> None:
    """Refuse what an analysis could not end with, before its cost is measured or anything is trained.

    Args:
        registry: The workspace's registry.
        domains: Domains to compare; None: all.
        count: Clusters to cut into; None: any number.
        out: File to write the clusters to.

    Raises:
        NotFoundError: A domain is not known.
        NothingToDoError: There are no two domains.
        InputError: `count` is out of its range, or the file was edited by hand or is a folder.
    """
    check_count(count, len(chosen_domains(registry, domains)))
    _check_out(out)


def _check_out(out: Path) -> None:
    """Refuse to write over what a person wrote.

    Raises:
        InputError: The file was edited.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder. Name a file, such as {out / 'clusters.toml'}.")
    if is_edited(out):
        raise InputError(f"{out} was edited by hand, and is not overwritten. Name another file with --out, or move it.")


def _train_missing(registry: Registry, job: ConflictJob, progress: Progress) -> dict[str, Any]:
    """Do what is missing, keep the losses of each training at once, and return all that is known."""
    known = load_known(registry.root)
    missing = [each for each in job.trainings if each.key not in known]
    folders = {each.key: registry.path(f"{FOLDER}/{each.key[:16]}") for each in missing}
    for path in registry.path(FOLDER).glob("*"):
        if path not in folders.values():
            remove(path)  # of an analysis that was not gone on with
    if not missing:
        return known
    done = sum(job.pairs(each) for each in job.trainings if each.key in known)
    models = f"{len(missing)} model{'s' * (len(missing) != 1)}"
    progress.start(f"training {models}", done + sum(map(job.pairs, missing)), "pairs", done)
    for each in missing:
        _give_way(registry)
        with kept(registry, job.start.id) as (start,):
            table, spared = joined(job.tables, each.domains), joined(job.held, each.domains)
            if each.turned:
                table = table.take(list(range(len(table)))[::-1])  # other rows share a batch, and that is all
            known[each.key] = train_once(
                start,
                table,
                spared,
                job.config,
                seed=job.seed,
                folder=folders[each.key],
                progress=_Whole(progress),
                trust_remote_code=job.trust_remote_code,
            )
        _write(registry.path(TRAININGS), {"schema": SCHEMA, "trainings": known})
        remove(folders[each.key])
    progress.finish()
    remove(registry.path(FOLDER))
    return known


def train_once(
    start: Path,
    table: pa.Table,
    spared: pa.Table,
    config: TrainConfig,
    *,
    seed: int,
    folder: Path,
    progress: Progress = SILENT,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Train on the rows of one domain or of two, and measure the loss on others of theirs.

    Args:
        start: The sentence-transformers folder to train from.
        table: Rows, as a draw gives them.
        spared: Held-out rows of the same domains.
        config: Settings of the training.
        seed: Of the training and of the held-out batches.
        folder: For the checkpoint, from which a killed training goes on, and the model; the caller removes it.
        progress: A bar over the pairs.
        trust_remote_code: Run code that the model brings with it.

    Returns:
        `losses` after training by domain, `pairs` and `seconds`, and of a single domain the loss `before`.

    Raises:
        DivergedError: A loss is no number.
    """
    from continual.train.job import Job
    from continual.train.loop import train
    from continual.train.lora import fold
    from continual.train.objective import Objective

    def losses(model: Path) -> dict[str, float]:
        objective = Objective(model, spared, config, seed=seed, trust_remote_code=trust_remote_code)
        return objective.evaluate(objective.parameters())

    began = time.monotonic()
    adapter, folded = folder / "adapter", folder / "update"
    job = Job(start, table, config, seed, folder, adapter, resume=True, trust_remote_code=trust_remote_code)
    trained = train(job, progress)
    try:
        fold(start, adapter, folded)
        found: dict[str, Any] = {"losses": losses(folded), "pairs": trained.pairs}
    finally:
        remove(folded)
    wrong = [domain for domain, loss in found["losses"].items() if not math.isfinite(loss)]
    if wrong:
        raise DivergedError(
            f"The loss of {wrong[0]} is {found['losses'][wrong[0]]} after training. Lower train.learning_rate (now "
            f"{config.learning_rate:g})."
        )
    if len(found["losses"]) == 1:
        found["before"] = losses(start)
    return found | {"seconds": time.monotonic() - began}


class _Whole:
    """One bar over all trainings: of what a training shows, its pairs count."""

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


def _give_way(registry: Registry) -> None:
    """Wait while an update runs, or another command that makes or drops versions."""
    lock = registry.root / UPDATE_LOCK
    if (what := holder(lock)) is not None:
        _logger.warning(
            "A `continual %s` is running in this workspace: the analysis goes on when it has ended.", what or "update"
        )
        while held(lock):
            time.sleep(_POLL_SECONDS)


def _compare(job: ConflictJob, known: Mapping[str, Any], count: int | None, out: Path) -> Conflicts:
    domains = list(job.tables)
    records = {(each.domains, each.turned): known[each.key] for each in job.trainings}
    alone, again = (
        {domain: records[(domain,), turned]["losses"][domain] for domain in domains} for turned in (False, True)
    )
    joint = {(names[0], names[1]): found["losses"] for (names, _), found in records.items() if len(names) == 2}
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
        before={domain: records[(domain,), False]["before"][domain] for domain in domains},
        alone=alone,
        again=again,
        chance=cut,
        matrix=matrix,
        merges=merges,
        order=order,
        clusters=name_domain_clusters(domains, labels),
        cut=cut if count is None else None,
        trainings=len(records),
        pairs=sum(found["pairs"] for found in records.values()),
        seconds=sum(found["seconds"] for found in records.values()),
        file=str(out),
    )


def _write(path: Path, data: Mapping[str, Any]) -> None:
    with publish(path) as partial:
        partial.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
