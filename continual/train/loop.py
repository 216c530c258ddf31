"""The training loop: from a model folder and a table of rows to a LoRA adapter.

Every step depends only on the seed and its number, so a run that is killed and resumed gives the same weights as an
uninterrupted one.
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
from continual.models.tokens import Indices
from continual.models.weights import weights_sha256
from continual.progress import (
    SILENT,
    Log,
    Progress,
    no_log,
)
from continual.registry import Cuts, TrainResult
from continual.train import checkpoint
from continual.train.batching import epoch_batches, length_bands
from continual.train.job import Job
from continual.train.lora import save_adapter
from continual.train.rows import TrainingRows, read_rows
from continual.train.step import Session, open_session
from continual.train.team import Team, find_team, single_process_team

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CURVE_POINTS = 200
"""Maximum number of points of a loss curve."""

ADDED_SETTINGS = ("batch_sizes", "bidirectional", "matryoshka", "distillation_loss")
"""Settings that older checkpoints don't have. At their defaults they are left out of a checkpoint's identity."""

_SAMPLE = 1024  # rows of an estimate
_EMBEDDED_SAMPLE = 128  # texts that an estimate embeds
_WARM_UP_SECONDS = 2.0  # time for which an estimate trains


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a training.

    Attributes:
        pairs: Rows times epochs.
        tokens: Tokens to encode without padding, each distinct text of a batch once; extrapolated from a sample of the
            rows.
        seconds: Time on this machine, from the speed of a few real batches.
        row_tokens: Mean tokens to encode per row, by domain of the `count` table.
        cuts: What the training would not use of the sampled rows.
    """

    pairs: int
    tokens: int
    seconds: float
    row_tokens: dict[str, float]
    cuts: Cuts


def train(job: Job, progress: Progress = SILENT, log: Log = no_log) -> TrainResult:
    """Train a LoRA adapter with InfoNCE, and with CoSENT on graded pairs, and publish it.

    On a CPU, the same job with the same number of threads gives the same bytes, whether or not the run was interrupted
    and resumed.

    Args:
        job: Model, rows, settings and folders of the training.
        progress: Counts training pairs.
        log: Called with the loss, the learning rate and the pairs per second of every optimizer step.

    Raises:
        ModelError: The model cannot be loaded or trained.
        NothingToDoError: There are fewer than two rows.
        ConfigError: The checkpoint was written with other settings, or a setting does not fit the model or the rows.
        DivergedError: The loss is not finite.
    """
    team = find_team()
    with team.training(job):
        return train_together(team, job, progress, log)


def train_together(team: Team, job: Job, progress: Progress = SILENT, log: Log = no_log) -> TrainResult:
    """Train as a process of a team. Every process calls this with the same job; see `train`.

    All processes share the folders; only the first one writes to them.
    """
    config = job.config
    clock = time.monotonic()
    session = open_session(
        job.start,
        job.table,
        config,
        seed=job.seed,
        team=team,
        trust_remote_code=job.trust_remote_code,
        anchor=job.anchor,
        progress=progress,
    )
    schedule = Schedule(session, job.seed)
    parameters = session.factors
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    identity = _identity(job.start, job.anchor, session, job.seed)
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
        loss, tokens = _optimizer_step(session, optimizer, batch, rate, f"step {done.step + 1} of {schedule.steps}")
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
    return _result(done, session)


def _optimizer_step(
    session: Session, optimizer: torch.optim.Optimizer, batch: Indices, rate: float, name: str
) -> tuple[float, int]:
    """Update the LoRA factors with the gradient of a batch at a learning rate. Return the loss and the tokens encoded.

    Raises:
        DivergedError: The loss is not finite; the message contains `name`.
    """
    config = session.config
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss, tokens = session.backward(batch)
    if not math.isfinite(loss):
        raise DivergedError(
            f"The loss is {loss} at {name}, so the training diverged. Lower train.learning_rate (now "
            f"{config.learning_rate:g}) and start the training again instead of resuming it."
        )
    torch.nn.utils.clip_grad_norm_(session.factors, config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad()
    session.refresh()
    return loss, tokens


def _result(done: checkpoint.RunState, session: Session) -> TrainResult:
    return TrainResult(
        pairs=done.pairs,
        tokens=done.tokens,
        seconds=done.seconds,
        steps=done.step,
        loss=float(np.mean(done.losses[-max(1, done.step // 10) :])),
        curve=_curve(done.losses),
        precision=session.precision,
        device=str(session.device),
        cuts=session.rows.cuts,
        similarity=session.similarity.name,
        dimensions=session.similarity.served if session.similarity.truncated else None,
        threads=torch.get_num_threads(),
    )


def estimate(
    start: Path, table: pa.Table, config: TrainConfig, *, count: pa.Table | None = None, trust_remote_code: bool = False
) -> Estimate:
    """Estimate the cost of `train` from a sample of the rows and about two seconds of real batches.

    Args:
        start: The sentence-transformers folder to train from.
        table: The rows, as in `Job.table`; at least two.
        config: Settings of the training.
        count: Other rows whose tokens are counted per domain; a sample of each domain is enough.
        trust_remote_code: Run code that the model brings with it.

    Raises:
        ModelError: The model cannot be loaded or trained.
        NothingToDoError: There are fewer than two rows.
    """
    rows = len(table)
    if rows > _SAMPLE:
        table = table.take(np.sort(np.random.default_rng(0).choice(rows, _SAMPLE, replace=False)))
    session = open_session(
        start, table, config, seed=0, team=single_process_team(), trust_remote_code=trust_remote_code, remember=False
    )
    schedule = Schedule(session, seed=0)
    session.backward(schedule.batch(0)[:2])  # the first pass is slower: it allocates memory
    rates, began = [], time.perf_counter()
    for step in range(schedule.steps):
        start_of_step = time.perf_counter()
        tokens = session.backward(schedule.batch(step))[1]
        session.refresh()
        rates.append((time.perf_counter() - start_of_step) / tokens)
        if time.perf_counter() - began >= _WARM_UP_SECONDS and len(rates) > 1:
            break
    per_token = float(np.median(rates[1:] or rates))  # the first allocates, and another process may slow one down
    sampled = session.rows
    lengths = sampled.tokens.lengths
    used = sum(_tokens(sampled, schedule.batch(step)) for step in range(schedule.steps))
    total = round(used * rows / len(sampled))
    seconds = total * per_token
    if session.needs_earlier_embeddings:
        texts = np.arange(min(len(lengths), _EMBEDDED_SAMPLE))
        began = time.perf_counter()
        session.encode_all(texts)
        seconds += (time.perf_counter() - began) / lengths[texts].sum() * lengths.sum() * rows / len(sampled)
    row_tokens = _tokens_per_row(session.model, count, config) if count is not None else {}
    pairs = rows * config.epochs
    return Estimate(pairs=pairs, tokens=total, seconds=seconds, row_tokens=row_tokens, cuts=sampled.cuts)


def _tokens_per_row(model: SentenceTransformer, table: pa.Table, config: TrainConfig) -> dict[str, float]:
    """Return the mean number of tokens that training encodes per row, by domain, without padding."""
    rows = read_rows(table, model, config.max_length, config.max_negatives)
    bands, sizes = _bands(rows, config), [band.pairs for band in config.batch_sizes]
    row_tokens = {}
    for code, name in enumerate(sorted(set(table["domain"].to_pylist()))):  # in the order of the codes
        own = np.flatnonzero(rows.domains == code)
        own_bands = None if bands is None else bands[own]
        batches = epoch_batches(np.zeros_like(own), config.batch_size, seed=0, epoch=0, bands=own_bands, sizes=sizes)
        tokens = sum(_tokens(rows, own[batch]) for batch in batches) if batches else _tokens(rows, own)
        row_tokens[name] = tokens / len(own)
    return row_tokens


def _tokens(rows: TrainingRows, batch: Indices) -> int:
    """Return the number of tokens of the distinct texts of a batch."""
    texts = np.unique(np.concatenate([rows.query[batch], rows.positive[batch], rows.given(batch)]))
    return int(rows.tokens.lengths[texts].sum())


class Schedule:
    """The batch and the learning rate of each step.

    Attributes:
        steps: Number of optimizer steps.
        pairs: Number of training pairs over all epochs.

    Raises:
        NothingToDoError: There are fewer than two rows.
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
                "There is only a single row to train on, but the loss compares each row with others and needs at least "
                "two. Register more rows with `continual ingest FILE`."
            )
        self.steps = len(self._batches) * session.config.epochs
        self.pairs = sum(map(len, self._batches)) * session.config.epochs

    def batch(self, step: int) -> Indices:
        """Return the row indices of a step."""
        epoch, place = divmod(step, len(self._batches))
        self._load(epoch)
        return self._batches[place]

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a share of the peak: a linear rise, then a linear fall to near 0."""
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
                graded=self._session.rows.graded,
            )
            self._epoch = epoch


def _bands(rows: TrainingRows, config: TrainConfig) -> Indices | None:
    if not config.batch_sizes:
        return None
    return length_bands(rows.longest(), [band.tokens for band in config.batch_sizes])


def _identity(start: Path, anchor: Path | None, session: Session, seed: int) -> dict[str, Any]:
    """Return all that decides the weights, to be compared with a checkpoint's."""
    settings = session.config.deciding()
    for name in ADDED_SETTINGS:
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
    } | _compared(session)


def _compared(session: Session) -> dict[str, Any]:
    """Return the rest of the identity, each part only where it is not that of all checkpoints of older releases."""
    similarity = session.similarity
    parts = {
        "processes": session.team.size if session.team.size > 1 else None,
        "similarity": similarity.name if similarity.name != "cosine" else None,
        "dimensions": similarity.served if similarity.truncated else None,
    }
    return {name: value for name, value in parts.items() if value is not None}


def _curve(losses: list[float]) -> tuple[tuple[int, float], ...]:
    width = math.ceil(len(losses) / CURVE_POINTS)
    windows = [losses[start : start + width] for start in range(0, len(losses), width)]
    return tuple((min((i + 1) * width, len(losses)), float(np.mean(window))) for i, window in enumerate(windows))
