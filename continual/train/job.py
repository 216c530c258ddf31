"""A training as plain data: what `train` takes, what other processes of a team get, and what an executor maps over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import TrainConfig

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Job:
    """A LoRA training; `continual.train.train` describes what each of these is."""

    start: Path
    table: pa.Table
    config: TrainConfig
    seed: int
    run_dir: Path
    adapter_dir: Path
    anchor: Path | None = None
    resume: bool = False
    trust_remote_code: bool = False
