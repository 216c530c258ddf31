"""The training loop: from a model folder and a table of rows to a LoRA adapter.

Everything that happens at a step follows from the seed and the step's number, so a run that is killed and
resumed ends with the weights of one that was not.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from continual.config import TrainConfig
from continual.errors import DivergedError, NothingToDoError
from continual.models.weights import weights_sha256
from continual.progress import (
    SILENT,
    Log,
    Progress,
    no_log,
)
from continual.registry import TrainResult
from continual.train import checkpoint
from continual.train.batching import Indices, epoch_batches, length_bands
from continual.train.job import Job
from continual.train.lora import save_adapter
from continual.train.rows import Rows, read_rows
from continual.train.step import Session, open_session
from continual.train.team import Team, alone, find_team

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CURVE_POINTS = 200
"""Points of a loss curve, at most."""

LATER = ("batch_sizes", "bidirectional", "matryoshka", "distillation_loss")
"""Settings that checkpoints of before there were any lack: at their default they change nothing."""

_SAMPLE = 1024  # rows that an estimate looks at
_FEW = 128  # texts that it embeds
_WARM_UP_SECONDS = 2.0


@dataclass(frozen=True)
class Estimate:
    """What a training would cost.

    Attributes:
        pairs: Rows times epochs.
        tokens: Tokens to encode, each distinct text of a batch once, padding not counted; extrapolated from a sample of
            the rows.
        seconds: At the speed of a few real batches, measured here.
        row_tokens: Mean tokens to encode for a row, by domain, of the table that was given to count.
    """

    pairs: int
    tokens: int
    seconds: float
    row_tokens: dict[str, float]


def train(job: Job, progress: Progress = SILENT, log: Log = no_log) -> TrainResult:
    """Train a LoRA adapter with InfoNCE and publish it.

    On a CPU the same job gives the same bytes, whether or not the run was interrupted and resumed.

    Args:
        job: What to train.
        progress: A bar over the pairs.
        log: Gets the loss, the learning rate and the pairs per second of every optimizer step.

    Raises:
        ModelError: The model cannot be loaded or trained.
        NothingToDoError: There are fewer than two rows.
        ConfigError: The checkpoint was written with other settings; or a setting does not fit the model or the rows.
        DivergedError: The loss is not a number.
    """
    team = find_team()
    with team.training(job):
        return train_together(team, job, progress, log)


def train_together(team: Team, job: Job, progress: Progress = SILENT, log: Log = no_log) -> TrainResult:
    """Train as one of a team: every process of it calls this with the same job. See `train`.

    Folders are shared by all; only the first process writes to them.
    """
    start, config, seed = job.start, job.config, job.seed
    clock = time.monotonic()
    session = open_session(
        start,
        job.table,
        config,
        seed=seed,
        team=team,
        trust_remote_code=job.trust_remote_code,
        anchor=job.anchor,
        progress=progress,
    )
    schedule = Schedule(session, seed)
    parameters = [parameter for _, parameter in session.parameters]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    identity = _identity(start, job.anchor, session, seed)
    if team.first:
        job.run_dir.mkdir(parents=True, exist_ok=True)
        checkpoint.clear(job.run_dir, keep_last=job.resume)
    team.wait()
    done = checkpoint.restore(job.run_dir, session.parameters, optimizer, identity)
    session.refresh()
    clock -= done.seconds

    progress.start("training", schedule.pairs, "pairs", done.pairs)
    saved = time.monotonic()
    while done.step < schedule.steps:
        began, batch = time.monotonic(), schedule.batch(done.step)
        rate = config.learning_rate * schedule.rate(done.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, tokens = session.backward(batch)
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss is {loss} at step {done.step + 1} of {schedule.steps}. Lower train.learning_rate "
                f"(now {config.learning_rate:g}) and start anew."
            )
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        session.refresh()
        done.step += 1
        done.pairs += len(batch)
        done.tokens += tokens
        done.losses.append(loss)
        now = time.monotonic()
        speed = len(batch) / max(now - began, 1e-9)
        log({"train/loss": loss, "train/learning_rate": rate, "train/pairs_per_second": speed}, done.step)
        if team.first and (now - saved >= config.checkpoint_seconds or done.step == schedule.steps):
            done.seconds = now - clock
            checkpoint.save(job.run_dir, done, session.parameters, optimizer, identity)
            saved = time.monotonic()
        progress.advance(len(batch))
    progress.finish()
    if team.first:
        save_adapter(session.model, identity["start"], job.adapter_dir)
    return TrainResult(
        pairs=done.pairs,
        tokens=done.tokens,
        seconds=done.seconds,
        steps=done.step,
        loss=float(np.mean(done.losses[-max(1, done.step // 10) :])),
        curve=_curve(done.losses),
        precision=session.precision,
        device=str(team.device),
    )


def estimate(
    start: Path, table: pa.Table, config: TrainConfig, *, count: pa.Table | None = None, trust_remote_code: bool = False
) -> Estimate:
    """Return what `train` would cost, from a sample of the rows and about two seconds of real batches.

    Args:
        start: The sentence-transformers folder to train from.
        table: As in `train`, at least two rows.
        config: Settings of the training.
        count: Other rows whose tokens are counted too: a sample of each domain will do.
        trust_remote_code: Run code that the model brings with it.

    Raises:
        ModelError: The model cannot be loaded or trained.
        NothingToDoError: There are fewer than two rows.
    """
    rows = len(table)
    if rows > _SAMPLE:
        table = table.take(np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False)))
    session = open_session(
        start, table, config, seed=0, team=alone(), trust_remote_code=trust_remote_code, remember=False
    )
    schedule = Schedule(session, seed=0)
    session.backward(schedule.batch(0)[:2])  # the first pass pays for allocations that no later one does
    tokens, began = 0, time.perf_counter()
    for step in range(schedule.steps):
        tokens += session.backward(schedule.batch(step))[1]
        session.refresh()
        if time.perf_counter() - began >= _WARM_UP_SECONDS:
            break
    per_token = (time.perf_counter() - began) / tokens
    sampled = session.rows
    lengths = sampled.tokens.lengths
    used = sum(_tokens(sampled, schedule.batch(step)) for step in range(schedule.steps))
    total = round(used * rows / len(sampled))
    seconds = total * per_token
    if session.remembers:
        some = np.arange(min(len(lengths), _FEW))
        began = time.perf_counter()
        session.encode_all(some)
        seconds += (time.perf_counter() - began) / lengths[some].sum() * lengths.sum() * rows / len(sampled)
    row_tokens = _tokens_per_row(session.model, count, config) if count is not None else {}
    return Estimate(pairs=rows * config.epochs, tokens=total, seconds=seconds, row_tokens=row_tokens)


def _tokens_per_row(model: SentenceTransformer, table: pa.Table, config: TrainConfig) -> dict[str, float]:
    """Return the mean number of tokens that training encodes for a row, by domain, padding not counted."""
    rows = read_rows(table, model, config.max_length, config.max_negatives)
    bands, sizes = _bands(rows, config), [band.pairs for band in config.batch_sizes]
    found = {}
    for code, name in enumerate(sorted(set(table["domain"].to_pylist()))):  # in the order of the codes
        own = np.flatnonzero(rows.domains == code)
        some = None if bands is None else bands[own]
        batches = epoch_batches(np.zeros_like(own), config.batch_size, seed=0, epoch=0, bands=some, sizes=sizes)
        tokens = sum(_tokens(rows, own[batch]) for batch in batches) if batches else _tokens(rows, own)
        found[name] = tokens / len(own)
    return found


def _tokens(rows: Rows, batch: Indices) -> int:
    """Return the tokens that a batch encodes: a text that several of its rows share is encoded once."""
    texts = np.unique(np.concatenate([rows.query[batch], rows.positive[batch], rows.given(batch)]))
    return int(rows.tokens.lengths[texts].sum())


class Schedule:
    """Which rows are trained at which step, and how fast.

    Attributes:
        steps: Optimizer steps in all.
        pairs: Rows trained in all, each as often as it is.
    """

    def __init__(self, session: Session, seed: int) -> None:
        self._session = session
        self._seed = seed
        self._bands = _bands(session.rows, session.config)
        self._epoch = -1
        self._batches: list[Indices] = []
        self._load(0)
        if not self._batches:
            raise NothingToDoError(
                "There is nothing to train on but a single row. InfoNCE tells a row from others, so it needs two; "
                "register more with `continual ingest FILE`."
            )
        self.steps = len(self._batches) * session.config.epochs
        self.pairs = sum(map(len, self._batches)) * session.config.epochs

    def batch(self, step: int) -> Indices:
        """Return the row indices of a step."""
        epoch, place = divmod(step, len(self._batches))
        self._load(epoch)
        return self._batches[place]

    def rate(self, step: int) -> float:
        """Return the share of the peak learning rate at a step: a linear rise, then a linear fall to near 0."""
        rise = round(self._session.config.warmup * self.steps)
        if step < rise:
            return (step + 1) / (rise + 1)
        return (self.steps - step) / (self.steps - rise)

    def _load(self, epoch: int) -> None:
        if epoch != self._epoch:
            config = self._session.config
            self._batches = epoch_batches(
                self._session.rows.domains,
                config.batch_size,
                seed=self._seed,
                epoch=epoch,
                mix=config.mix_domains,
                bands=self._bands,
                sizes=[band.pairs for band in config.batch_sizes],
            )
            self._epoch = epoch


def _bands(rows: Rows, config: TrainConfig) -> Indices | None:
    if not config.batch_sizes:
        return None
    return length_bands(rows.longest(), [band.tokens for band in config.batch_sizes])


def _identity(start: Path, anchor: Path | None, session: Session, seed: int) -> dict[str, Any]:
    settings = session.config.deciding()
    for name in LATER:
        if getattr(session.config, name) == TrainConfig.model_fields[name].default:
            del settings[name]
    sha256 = weights_sha256(start)
    return {
        "start": sha256,
        "anchor": sha256 if anchor in (None, start) else weights_sha256(anchor),
        "rows": session.rows.digest,
        "settings": json.loads(json.dumps(settings)),
        "seed": seed,
        "precision": session.precision,
    } | ({"processes": session.team.size} if session.team.size > 1 else {})


def _curve(losses: list[float]) -> tuple[tuple[int, float], ...]:
    width = math.ceil(len(losses) / CURVE_POINTS)
    windows = [losses[start : start + width] for start in range(0, len(losses), width)]
    return tuple((min((i + 1) * width, len(losses)), float(np.mean(window))) for i, window in enumerate(windows))
