"""Trainings of the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from continual.config import TrainConfig
from continual.models.encoder import load_encoder
from continual.progress import SILENT, Progress
from continual.registry import TrainResult
from continual.train.job import Job
from continual.train.loop import train
from continual.train.step import Session, open_session
from continual.train.team import Team
from tests.rows import SCHEMA, make_pairs

SOLO = Team(0, 1, torch.device("cpu"))
CONFIG = TrainConfig(
    epochs=2,
    batch_size=4,
    lora_rank=4,
    lora_alpha=8,
    precision="fp32",
    checkpoint_seconds=0,
    distillation=0,
    guide_margin="off",
)


def make_table(rows: int = 20, domains: int = 2) -> pa.Table:
    pairs = make_pairs(rows)
    return pa.Table.from_pylist([pair | {"domain": f"d{n % domains}"} for n, pair in enumerate(pairs)], SCHEMA)


def run(
    model: Path,
    folder: Path,
    config: TrainConfig = CONFIG,
    table: pa.Table | None = None,
    *,
    progress: Progress = SILENT,
    **options: Any,
) -> TrainResult:
    job = Job(model, table or make_table(), config, 3, folder / "run", folder / "adapter", **options)
    return train(job, progress)


def factors(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def moved_from(model: Path, folder: Path) -> Any:
    """Return a model whose weights are those of another with noise, saved in a folder."""
    moved = load_encoder(model, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in moved[0].auto_model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    moved.save_pretrained(str(folder))
    return moved


def session(model: Path, config: TrainConfig = CONFIG, table: pa.Table | None = None) -> Session:
    """Open a session whose B factors are not zero, so that A has a gradient."""
    opened = open_session(model, table or make_table(), config, seed=0, team=SOLO)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in opened.parameters:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    opened.refresh()
    return opened


def gradients(opened: Session, batch: np.ndarray) -> tuple[float, list[torch.Tensor]]:
    loss, _ = opened.backward(batch)
    found = [parameter.grad for _, parameter in opened.parameters]
    for _, parameter in opened.parameters:
        parameter.grad = None
    assert all(gradient is not None for gradient in found)
    return loss, found


class Interrupt(Exception):
    pass


class StopAt:
    """A progress bar that raises at the n-th batch."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.label = ""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if self.label == "training" and count:
            self.left -= 1
            if self.left == 0:
                raise Interrupt

    def finish(self) -> None:
        pass


class Count:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.bars: list[list[Any]] = []

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.bars.append([label, total, unit, done])

    def advance(self, count: int) -> None:
        self.bars[-1][3] += count

    def finish(self) -> None:
        pass


def labelled(table: pa.Table, replayed: list[bool], in_batch: list[bool]) -> pa.Table:
    return table.append_column("replayed", pa.array(replayed)).append_column("in_batch", pa.array(in_batch))
