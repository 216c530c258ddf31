"""The analysis of conflicts: each domain is trained alone and with each other one, and its held-out loss compared.

What makes the comparison fair: a domain's rows, their number of passes, and the held-out rows with their batches are
the same in all its trainings; batches hold one domain each (unless `train.mix_domains`); everything starts from the
same model, with the workspace's settings but without distillation and guide, which would hold the domains near where
they were. What is left is chance, so each domain is trained alone a second time, with its rows in the opposite order.

All models are thrown away. Their losses are kept as they come, under a digest of all that decides them: an analysis
that was interrupted goes on, and one more domain costs only its own trainings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.build import kept
from continual.clusters import is_edited, render_clusters
from continual.config import Config, TrainConfig
from continual.errors import (
    DataError,
    DivergedError,
    InputError,
    NotFoundError,
    NothingToDoError,
    WorkspaceBusy,
    did_you_mean,
)
from continual.eval.conflicts import LAST, Conflicts, chance, check_count, cluster, conflict_matrix, name_clusters
from continual.progress import SILENT, Progress
from continual.registry import Registry, Version
from continual.registry.catalog import now
from continual.registry.registry import CURRENT, ROOT
from continual.registry.store import UPDATE_LOCK, exclusive, held, holder, publish, remove
from continual.replay import Rows

if TYPE_CHECKING:
    import pyarrow as pa

_logger = logging.getLogger(__name__)

HELD = 128
"""Rows of each domain that its loss is measured on, at most; of a small one what the others leave, a tenth at least."""

TRAININGS = "conflicts/trainings.json"
"""The losses of all trainings so far, below `.continual`."""

LOCK = "conflicts.lock"
FOLDER = "runs/conflicts"
_SCHEMA = 1
_SAMPLE = 200  # rows of each domain whose tokens are counted for an estimate
_POLL_SECONDS = 2.0
_FORWARD = 1 / 3  # of the time of a training step, which goes forward and back
_LOADS = 3.0  # a training loads the model, writes it folded, and loads it again: about as much as loading it so often


@dataclass(frozen=True)
class Training:
    """One domain, or two in sorted order; whether their rows are turned round; a digest of what decides the losses."""

    domains: tuple[str, ...]
    turned: bool
    key: str


@dataclass(frozen=True)
class Inquiry:
    """What is to be trained, fixed before it is.

    Attributes:
        start: The version to train from.
        config: Settings of the trainings.
        seed: Of LoRA's start values, of the order of the rows, and of the held-out batches.
        tables: The rows of each domain, as a draw gives them; domains are in the order of the stream.
        held: Those that its loss is measured on.
        trainings: The single domains, the pairs, and the single domains with their rows turned round.
        known: What is known of trainings, by their key, as `train_once` returns it.
        trust_remote_code: Run code that the model brings with it.
    """

    start: Version
    config: TrainConfig
    seed: int
    tables: dict[str, pa.Table]
    held: dict[str, pa.Table]
    trainings: list[Training]
    known: dict[str, Any]
    trust_remote_code: bool

    @property
    def missing(self) -> list[Training]:
        """The trainings that are still to be done."""
        return [each for each in self.trainings if each.key not in self.known]

    def pairs(self, training: Training) -> int:
        """Return how many pairs a training trains."""
        return sum(len(self.tables[domain]) for domain in training.domains) * self.config.epochs


@dataclass(frozen=True)
class ConflictPlan:
    """What an analysis would do, and its cost.

    Attributes:
        start: The version to train from.
        rows: Rows to train on, by domain.
        held: Rows to measure on, by domain.
        trainings: In all, known ones too.
        known: Those whose losses are known.
        pairs: Pairs to train: rows times epochs, of all trainings that are not known.
        seconds: That they would take, estimated from a few batches measured here.
    """

    start: str
    rows: dict[str, int]
    held: dict[str, int]
    trainings: int
    known: int
    pairs: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data."""
        return asdict(self)


def prepare(
    registry: Registry,
    config: Config,
    *,
    domains: Sequence[str] | None,
    rows: int,
    epochs: int | None,
    start: str,
    seed: int,
) -> Inquiry:
    """Draw the rows of an analysis and fix what is trained. Changes nothing.

    Args:
        registry: The workspace's registry.
        config: Its settings.
        domains: Domains to compare; None: all.
        rows: Of each domain, at most; 0: all but those that are held out.
        epochs: Passes over them; None: `train.epochs`.
        start: Train from the root "base" or from "current".
        seed: From 0 up.

    Raises:
        NotFoundError: A domain is not known.
        InputError: A setting is out of its range, or a domain has too few rows.
        NothingToDoError: There are no two domains.
    """
    if start not in ("base", "current"):
        raise InputError(f"--from takes base or current, not {start!r}.{did_you_mean(start, ['base', 'current'])}")
    if rows == 1 or rows < 0:
        raise InputError(f"--rows takes a number from 2 up, or all; not {rows}.")
    if seed < 0:
        raise InputError(f"--seed takes an integer from 0 up, not {seed}.")
    plain = config.replace("train", epochs=epochs, distillation=0.0, guide_margin="off", anchor="base").train
    version = registry.version(ROOT if start == "base" else CURRENT)
    chosen = _chosen(registry, domains)
    batches = [batch for batch in registry.batches() if batch.domain in chosen]
    with Rows(registry) as source:
        counts = source.count(batches)
        quotas = {domain: min(count, rows) if rows else count for domain, count in counts.items()}
        drawn = source.draw([], batches, quotas, {}, HELD)
    parts = []
    for table, windows in ((drawn.table, drawn.replay), (drawn.held_table, drawn.held)):
        ends = list(itertools.accumulate((window.rows for window in windows), initial=0))
        found = zip(windows, ends, strict=False)
        parts.append({window.domain: table.slice(begin, window.rows) for window, begin in found})
    tables, spared = ({domain: part.get(domain) for domain in chosen} for part in parts)
    _check_rows(tables, spared)
    # What of each domain decides the losses.
    told = {
        name: [
            name,
            source.domains[name].instruction,
            source.domains[name].in_batch,
            *(window.digest for window in drawn.replay + drawn.held if window.domain == name),
        ]
        for name in chosen
    }
    decided = {"start": version.sha256, "settings": _settings(plain), "seed": seed, **_machine(plain)}
    trainings = _trainings(told, decided)
    known = _load(registry.root)
    return Inquiry(version, plain, seed, tables, spared, trainings, known, config.trust_remote_code)


def _trainings(told: Mapping[str, list[Any]], decided: Mapping[str, Any]) -> list[Training]:
    """Return the trainings of some domains.

    Args:
        told: What of each domain decides the losses.
        decided: What else does.
    """
    singles = [(domain,) for domain in told]
    couples = [tuple(sorted(pair)) for pair in itertools.combinations(told, 2)]
    found = []
    for names, turned in [*((names, False) for names in [*singles, *couples]), *((names, True) for names in singles)]:
        identity = {**decided, "turned": turned, "rows": [told[name] for name in names]}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        found.append(Training(names, turned, key))
    return found


def _chosen(registry: Registry, domains: Sequence[str] | None) -> list[str]:
    """Return the domains to compare, in the order of the stream."""
    known = [domain.name for domain in registry.domains()]
    for name in domains or ():
        if name not in known:
            raise NotFoundError(f"There is no domain {name!r}.{did_you_mean(name, known)}")
    chosen = [name for name in known if not domains or name in domains]
    if len(chosen) < 2:
        what = f"only {chosen[0]} is {'named' if domains else 'there'}" if chosen else "there is none"
        raise NothingToDoError(
            f"A conflict is between two domains, and {what}. Name another with --domain, or register one with "
            "`continual ingest FILE`."
        )
    return chosen


def _check_rows(tables: Mapping[str, pa.Table | None], spared: Mapping[str, pa.Table | None]) -> None:
    """Refuse domains that cannot be trained on, or not be measured."""
    parts = (tables, spared)
    counts = {domain: [len(part[domain] or ()) for part in parts] for domain in tables}
    few = [domain for domain, found in counts.items() if min(found) < 2]
    if few:
        names = ", ".join(f"{domain} ({sum(counts[domain])})" for domain in few)
        raise InputError(
            "The loss of a domain is measured on a tenth of its rows, two at least, and there are too few rows of "
            f"{names}. Leave these out: name the others with --domain."
        )


def _settings(config: TrainConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"checkpoint_seconds"})


def _machine(config: TrainConfig) -> dict[str, Any]:
    """Return what else decides a loss: the arithmetic, and what computes it."""
    import torch

    from continual import __version__
    from continual.train.hardware import resolve_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision(config.precision, device)
    libraries = {"continual": __version__, "torch": str(torch.__version__)}
    return {"device": device.type, "precision": precision, "libraries": libraries}


def make_plan(registry: Registry, inquiry: Inquiry, progress: Progress = SILENT) -> ConflictPlan:
    """Return the cost of an analysis. Changes nothing."""
    missing = inquiry.missing
    return ConflictPlan(
        start=inquiry.start.id,
        rows={domain: len(table) for domain, table in inquiry.tables.items()},
        held={domain: len(table) for domain, table in inquiry.held.items()},
        trainings=len(inquiry.trainings),
        known=len(inquiry.trainings) - len(missing),
        pairs=sum(map(inquiry.pairs, missing)),
        seconds=_estimate(registry, inquiry, missing, progress) if missing else 0.0,
    )


def _estimate(registry: Registry, inquiry: Inquiry, missing: Sequence[Training], progress: Progress) -> float:
    """Return the seconds that trainings would take: by their tokens, and by how often a model is loaded."""
    from continual.train import estimate, load_encoder

    trust = inquiry.trust_remote_code
    domains = sorted({domain for each in missing for domain in each.domains})
    table = _joined(inquiry.tables, domains)
    sample = _joined({domain: inquiry.tables[domain].slice(0, _SAMPLE) for domain in domains}, domains)
    with kept(registry, inquiry.start.id, progress=progress) as (folder,):
        progress.start("measuring a few batches", None, "batches")
        cost = estimate(folder, table, inquiry.config, count=sample, trust_remote_code=trust)
        began = time.perf_counter()
        load_encoder(folder, trust_remote_code=trust)
        loading = time.perf_counter() - began
        progress.finish()
    per_token, seconds = cost.seconds / cost.tokens, 0.0
    for each in missing:
        passes = _FORWARD * (2 if len(each.domains) == 1 else 1)  # of a single one the loss before, too
        for domain in each.domains:
            rows = len(inquiry.tables[domain]) * inquiry.config.epochs + passes * len(inquiry.held[domain])
            seconds += rows * cost.row_tokens[domain] * per_token
        seconds += _LOADS * loading
    return seconds


def run(
    registry: Registry, inquiry: Inquiry, *, count: int | None, out: Path, progress: Progress = SILENT
) -> Conflicts:
    """Do the trainings that are missing, and compare and cluster the domains.

    An update never waits for it: while one runs, the analysis waits between two trainings.

    Args:
        registry: The workspace's registry.
        inquiry: From `prepare`.
        count: Clusters to cut into; None: see `continual.eval.conflicts.cluster`.
        out: File to write the clusters to.
        progress: A bar over the pairs of all trainings.

    Raises:
        InputError: The file was edited by hand, cannot be written, or `count` is out of its range.
        DivergedError: A loss is no longer a number; what was trained before is kept.
        WorkspaceBusy: An update is running, or another analysis.
    """
    check_count(count, len(inquiry.tables))
    _check_out(out)
    with exclusive(registry.root / LOCK, "analyze conflicts"):
        if inquiry.missing and (what := holder(registry.root / UPDATE_LOCK)) is not None:
            raise WorkspaceBusy(
                f"A `continual {what or 'update'}` is running in this workspace, and two trainings at once help "
                "neither. Wait for it to end, then try again."
            )
        known = _train_missing(registry, inquiry, progress)
        found = _compare(inquiry, known, count, out)
        about = f"Clusters of domains by `continual analyze conflicts`, {found.made[:10]}, from {found.start}."
        try:
            with publish(out) as partial:
                partial.write_text(render_clusters(found.clusters, about), encoding="utf-8")
        except OSError as error:
            raise InputError(f"The clusters cannot be written to {out}: {error.strerror or error}.") from None
        _write(registry.path(LAST), found.to_json())
    return found


def _check_out(out: Path) -> None:
    """Refuse to write over what a person wrote.

    Raises:
        InputError: The file was edited.
    """
    if out.is_dir():
        raise InputError(f"{out} is a folder. Name a file, such as {out / 'clusters.toml'}.")
    if is_edited(out):
        raise InputError(f"{out} was edited by hand, and is not overwritten. Name another file with --out, or move it.")


def _train_missing(registry: Registry, inquiry: Inquiry, progress: Progress) -> dict[str, Any]:
    """Do what is missing, keep the losses of each training at once, and return all that is known."""
    known = _load(registry.root)
    missing = [each for each in inquiry.trainings if each.key not in known]
    folders = {each.key: registry.path(f"{FOLDER}/{each.key[:16]}") for each in missing}
    for path in registry.path(FOLDER).glob("*"):
        if path not in folders.values():
            remove(path)  # of an analysis that was not gone on with
    if not missing:
        return known
    done = sum(inquiry.pairs(each) for each in inquiry.trainings if each.key in known)
    models = f"{len(missing)} model{'s' * (len(missing) != 1)}"
    progress.start(f"training {models}", done + sum(map(inquiry.pairs, missing)), "pairs", done)
    for each in missing:
        _give_way(registry)
        with kept(registry, inquiry.start.id) as (start,):
            table, spared = _joined(inquiry.tables, each.domains), _joined(inquiry.held, each.domains)
            if each.turned:
                table = table.take(list(range(len(table)))[::-1])  # other rows share a batch, and that is all
            known[each.key] = train_once(
                start,
                table,
                spared,
                inquiry.config,
                seed=inquiry.seed,
                folder=folders[each.key],
                progress=_Whole(progress),
                trust_remote_code=inquiry.trust_remote_code,
            )
        _write(registry.path(TRAININGS), {"schema": _SCHEMA, "trainings": known})
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
    from continual.train import fold, train
    from continual.train.objective import Objective

    def losses(model: Path) -> dict[str, float]:
        objective = Objective(model, spared, config, seed=seed, trust_remote_code=trust_remote_code)
        return objective.evaluate(objective.parameters())

    began = time.monotonic()
    adapter, folded = folder / "adapter", folder / "update"
    trained = train(
        start,
        table,
        config,
        seed=seed,
        run_dir=folder,
        adapter_dir=adapter,
        resume=True,
        progress=progress,
        trust_remote_code=trust_remote_code,
    )
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


def _compare(inquiry: Inquiry, known: Mapping[str, Any], count: int | None, out: Path) -> Conflicts:
    domains = list(inquiry.tables)
    records = {(each.domains, each.turned): known[each.key] for each in inquiry.trainings}
    alone, again = (
        {domain: records[(domain,), turned]["losses"][domain] for domain in domains} for turned in (False, True)
    )
    joint = {(names[0], names[1]): found["losses"] for (names, _), found in records.items() if len(names) == 2}
    matrix, cut = conflict_matrix(domains, alone, joint), chance(alone, again)
    merges, order, labels = cluster(matrix, count, cut=cut)
    return Conflicts(
        domains=domains,
        start=inquiry.start.id,
        made=now().isoformat(timespec="seconds"),
        seed=inquiry.seed,
        epochs=inquiry.config.epochs,
        rows={domain: len(table) for domain, table in inquiry.tables.items()},
        held={domain: len(table) for domain, table in inquiry.held.items()},
        before={domain: records[(domain,), False]["before"][domain] for domain in domains},
        alone=alone,
        again=again,
        chance=cut,
        matrix=matrix,
        merges=merges,
        order=order,
        clusters=name_clusters(domains, labels),
        cut=cut if count is None else None,
        trainings=len(records),
        pairs=sum(found["pairs"] for found in records.values()),
        seconds=sum(found["seconds"] for found in records.values()),
        file=str(out),
    )


def _joined(tables: Mapping[str, pa.Table], domains: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables([tables[domain] for domain in domains])


def _load(root: Path) -> dict[str, Any]:
    """Return the losses of all trainings so far, by their keys.

    Raises:
        DataError: The file is damaged, or of a newer continual.
    """
    path = root / TRAININGS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] == _SCHEMA:
            return dict(data["trainings"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{path}, the losses of earlier analyses, is damaged or of a newer continual. Remove it, and run the analysis "
        "again: it trains anew."
    )


def _write(path: Path, data: Mapping[str, Any]) -> None:
    with publish(path) as partial:
        partial.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")
