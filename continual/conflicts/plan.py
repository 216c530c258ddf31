"""Plan a conflict analysis: its rows, its trainings with their keys, and its cost."""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Config, TrainConfig
from continual.errors import (
    DataError,
    InputError,
    NothingToDoError,
    did_you_mean,
)
from continual.models.folder import start_key
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, ROOT, Registry, Version
from continual.replay import RowReader
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa

HELD = 128
"""Maximum number of held-out rows of a domain; a small domain holds out what training leaves, at least a tenth."""

TRAININGS = "conflicts/trainings.json"
"""File of the losses of all trainings so far, relative to `.continual`."""

SCHEMA = 1
"""Schema number of that file."""

_SAMPLE = 200  # rows per domain whose tokens are counted for the estimate
_FORWARD = 1 / 3  # share of the forward pass in the time of a training step
_LOADS = 3.0  # a training loads the model, writes it folded and loads it again, which takes as long as three loads


@dataclass(frozen=True)
class Training:
    """One training of the analysis.

    Attributes:
        domains: One domain, or two in sorted order.
        turned: Whether the rows are in reverse order.
        key: Digest of everything that determines the losses.
    """

    domains: tuple[str, ...]
    turned: bool
    key: str


@dataclass(frozen=True)
class ConflictJob:
    """Everything a conflict analysis trains on, fixed before the first training.

    Attributes:
        start: The version that every training starts from.
        config: Settings of the trainings.
        seed: Seed of LoRA's initial values, of the order of the rows, and of the held-out batches.
        tables: Training rows by domain, in the form of a draw; domains are in the order of the stream.
        held: Held-out rows by domain, on which the losses are measured.
        trainings: The single domains, the pairs, and the single domains with their rows in reverse order.
        known: Results of earlier trainings, by key, as `train_once` returns them.
        trust_remote_code: Whether to run code that the model folder brings.
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
        """The trainings without a result so far."""
        return [training for training in self.trainings if training.key not in self.known]

    def pairs(self, training: Training) -> int:
        """Return the number of (query, passage) pairs a training trains, over all epochs."""
        return sum(len(self.tables[domain]) for domain in training.domains) * self.config.epochs


@dataclass(frozen=True)
class ConflictPlan:
    """What a conflict analysis would do, and its cost.

    Attributes:
        start: Id of the version that every training starts from.
        rows: Number of training rows, by domain.
        held: Number of held-out rows, by domain.
        trainings: Number of trainings, including known ones.
        known: Number of trainings whose losses are known from earlier analyses.
        pairs: Number of pairs to train: rows times epochs, over the missing trainings.
        seconds: Estimated time of the missing trainings, from a few batches measured on this machine.
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


def prepare_conflicts(
    registry: Registry,
    config: Config,
    *,
    domains: Sequence[str] | None,
    rows: int,
    start: str,
    seed: int,
) -> ConflictJob:
    """Draw the rows of an analysis and list its trainings. Changes nothing.

    Args:
        domains: Names of the domains to compare; None compares all.
        rows: Maximum number of training rows per domain; 0 takes all that are not held out.
        start: Train from the root "base" or from "current".
        seed: Seed of the trainings, from 0 up.

    Raises:
        NotFoundError: There is no such domain.
        InputError: An argument is out of its range, or a domain has too few rows.
        NothingToDoError: There are fewer than two domains.
    """
    if start not in ("base", "current"):
        raise InputError(f"--from must be base or current, not {start!r}.{did_you_mean(start, ['base', 'current'])}")
    if rows == 1 or rows < 0:
        raise InputError(f"--rows must be a number from 2 up, or all, not {rows}.")
    if seed < 0:
        raise InputError(f"--seed must be an integer of 0 or more, not {seed}.")
    plain = config.replace("train", distillation=0.0, guide_margin="off", anchor="base").train
    version = registry.version(ROOT if start == "base" else CURRENT)
    chosen = chosen_domains(registry, domains)
    batches = [batch for batch in registry.batches() if batch.domain in chosen]
    with RowReader(registry) as source:
        counts = source.count(batches)
        if not any(counts.values()):
            raise _too_few(dict.fromkeys(chosen, 0))
        quotas = {domain: min(count, rows) if rows else count for domain, count in counts.items()}
        drawn = source.draw([], batches, quotas, {}, HELD)
    parts = []
    for table, windows in ((drawn.table, drawn.replay), (drawn.held_table, drawn.held)):
        ends = list(itertools.accumulate((window.rows for window in windows), initial=0))
        starts = zip(windows, ends, strict=False)
        parts.append({window.domain: table.slice(begin, window.rows) for window, begin in starts})
    tables, held = ({domain: part.get(domain) for domain in chosen} for part in parts)
    _check_rows(tables, held)
    # Everything about a domain that determines the losses.
    identities = {
        name: [
            name,
            source.domains[name].instruction,
            source.domains[name].in_batch,
            *(["graded"] if source.domains[name].graded else []),
            *(window.digest for window in drawn.replay + drawn.held if window.domain == name),
        ]
        for name in chosen
    }
    start_of = start_key(registry.path(f"versions/{ROOT}"), version.sha256)  # versions compare as the root does
    shared = {"start": start_of, "settings": plain.deciding(), "seed": seed, **_machine(plain)}
    trainings = _trainings(identities, shared)
    results = load_results(registry.root)
    return ConflictJob(version, plain, seed, tables, held, trainings, results, config.trust_remote_code)


def _trainings(identities: Mapping[str, list[Any]], shared: Mapping[str, Any]) -> list[Training]:
    """Return the trainings of all single domains and pairs.

    Args:
        identities: Everything about each domain that determines the losses.
        shared: Everything else that determines them.
    """
    singles = [(domain,) for domain in identities]
    couples = [tuple(sorted(pair)) for pair in itertools.combinations(identities, 2)]
    trainings = []
    for names, turned in [*((names, False) for names in [*singles, *couples]), *((names, True) for names in singles)]:
        identity = {**shared, "turned": turned, "rows": [identities[name] for name in names]}
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        trainings.append(Training(names, turned, key))
    return trainings


def chosen_domains(registry: Registry, domains: Sequence[str] | None) -> list[str]:
    """Return the names of the domains to compare, in the order of the stream.

    Raises:
        NotFoundError: There is no such domain.
        NothingToDoError: There are fewer than two.
    """
    chosen = registry.domain_names(domains or None)
    if len(chosen) < 2:
        if not chosen:
            reason = "there are no domains"
        else:
            reason = f"only {chosen[0]} is named" if domains else f"{chosen[0]} is the only domain"
        raise NothingToDoError(
            f"A conflict analysis needs at least two domains, but {reason}. Name another with --domain, or add one "
            "with `continual ingest FILE`."
        )
    return chosen


def _check_rows(tables: Mapping[str, pa.Table | None], held: Mapping[str, pa.Table | None]) -> None:
    """Raise if a domain has fewer than two rows to train on or to measure on."""
    parts = (tables, held)
    counts = {domain: [len(part[domain] or ()) for part in parts] for domain in tables}
    few = {domain: sum(sizes) for domain, sizes in counts.items() if min(sizes) < 2}
    if few:
        raise _too_few(few)


def _too_few(counts: Mapping[str, int]) -> InputError:
    names = ", ".join(f"{domain} ({count})" for domain, count in counts.items())
    return InputError(
        f"There are too few rows of {names}: the loss of a domain is measured on a tenth of its rows, at least two. "
        "Leave these domains out: name the others with --domain."
    )


def _machine(config: TrainConfig) -> dict[str, Any]:
    """Return what else determines a loss: device, precision and library versions."""
    import torch

    from continual import __version__
    from continual.models.precision import resolve_precision

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision(config.precision, device)
    libraries = {"continual": __version__, "torch": str(torch.__version__)}
    return {"device": device.type, "precision": precision, "libraries": libraries}


def estimate_conflicts(registry: Registry, job: ConflictJob, progress: Progress = SILENT) -> ConflictPlan:
    """Return the plan of an analysis with its cost. Changes nothing."""
    missing = job.missing
    return ConflictPlan(
        start=job.start.id,
        rows={domain: len(table) for domain, table in job.tables.items()},
        held={domain: len(table) for domain, table in job.held.items()},
        trainings=len(job.trainings),
        known=len(job.trainings) - len(missing),
        pairs=sum(map(job.pairs, missing)),
        seconds=_estimate(registry, job, missing, progress) if missing else 0.0,
    )


def _estimate(registry: Registry, job: ConflictJob, missing: Sequence[Training], progress: Progress) -> float:
    """Return the estimated seconds of trainings, from their tokens and the number of model loads."""
    from continual.models.encoder import load_encoder
    from continual.train.loop import estimate

    trust = job.trust_remote_code
    domains = sorted({domain for training in missing for domain in training.domains})
    table = joined(job.tables, domains)
    sample = joined({domain: job.tables[domain].slice(0, _SAMPLE) for domain in domains}, domains)
    with kept(registry, job.start.id, progress=progress) as (folder,):
        progress.start("measuring a few batches", None, "batches")
        cost = estimate(folder, table, job.config, count=sample, trust_remote_code=trust)
        began = time.perf_counter()
        load_encoder(folder, trust_remote_code=trust)
        loading = time.perf_counter() - began
        progress.finish()
    per_token, seconds = cost.seconds / cost.tokens, 0.0
    for training in missing:
        passes = _FORWARD * (2 if len(training.domains) == 1 else 1)  # of a single domain also the loss before training
        for domain in training.domains:
            rows = len(job.tables[domain]) * job.config.epochs + passes * len(job.held[domain])
            seconds += rows * cost.row_tokens[domain] * per_token
        seconds += _LOADS * loading
    return seconds


def joined(tables: Mapping[str, pa.Table], domains: Sequence[str]) -> pa.Table:
    """Return the rows of several domains as one table."""
    import pyarrow as pa

    return pa.concat_tables([tables[domain] for domain in domains])


def load_results(root: Path) -> dict[str, Any]:
    """Return the results of all trainings so far, by key.

    Raises:
        DataError: The file is damaged or was written by a newer release.
    """
    path = root / TRAININGS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] == SCHEMA:
            return dict(data["trainings"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DataError(
        f"{path}, the losses of earlier analyses, is damaged or was written by a newer release of continual. Remove it "
        "and run the analysis again, which repeats the trainings."
    )
