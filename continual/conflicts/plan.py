"""What an analysis of conflicts trains, fixed before it does: its rows, its trainings with their keys, its cost."""

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
from continual.progress import SILENT, Progress
from continual.registry import Registry, Version
from continual.registry.registry import CURRENT, ROOT
from continual.replay import RowReader
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa

HELD = 128
"""Rows of each domain that its loss is measured on, at most; of a small one what the others leave, a tenth at least."""

TRAININGS = "conflicts/trainings.json"
"""The losses of all trainings so far, below `.continual`."""

SCHEMA = 1
"""Of that file."""

_SAMPLE = 200  # rows of each domain whose tokens are counted for an estimate
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
    start: str,
    seed: int,
) -> Inquiry:
    """Draw the rows of an analysis and fix what is trained. Changes nothing.

    Args:
        registry: The workspace's registry.
        config: Its settings.
        domains: Domains to compare; None: all.
        rows: Of each domain, at most; 0: all but those that are held out.
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
    decided = {"start": version.sha256, "settings": plain.deciding(), "seed": seed, **_machine(plain)}
    trainings = _trainings(told, decided)
    known = load_known(registry.root)
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


def chosen_domains(registry: Registry, domains: Sequence[str] | None) -> list[str]:
    """Return the domains to compare, in the order of the stream.

    Raises:
        NotFoundError: One is not known.
        NothingToDoError: There are no two.
    """
    chosen = registry.domain_names(domains or None)
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
    few = {domain: sum(found) for domain, found in counts.items() if min(found) < 2}
    if few:
        raise _too_few(few)


def _too_few(counts: Mapping[str, int]) -> InputError:
    names = ", ".join(f"{domain} ({count})" for domain, count in counts.items())
    return InputError(
        "The loss of a domain is measured on a tenth of its rows, two at least, and there are too few rows of "
        f"{names}. Leave these out: name the others with --domain."
    )


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
    from continual.models.encoder import load_encoder
    from continual.train.loop import estimate

    trust = inquiry.trust_remote_code
    domains = sorted({domain for each in missing for domain in each.domains})
    table = joined(inquiry.tables, domains)
    sample = joined({domain: inquiry.tables[domain].slice(0, _SAMPLE) for domain in domains}, domains)
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


def joined(tables: Mapping[str, pa.Table], domains: Sequence[str]) -> pa.Table:
    """Return the rows of some domains as one table."""
    import pyarrow as pa

    return pa.concat_tables([tables[domain] for domain in domains])


def load_known(root: Path) -> dict[str, Any]:
    """Return the losses of all trainings so far, by their keys.

    Raises:
        DataError: The file is damaged, or of a newer continual.
    """
    path = root / TRAININGS
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] == SCHEMA:
            return dict(data["trainings"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(
        f"{path}, the losses of earlier analyses, is damaged or of a newer continual. Remove it, and run the analysis "
        "again: it trains anew."
    )
