"""One training of a recipe as a job that any executor can run: plain data in, plain data out, folders beside."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import TrainConfig
from continual.progress import SILENT, Log, Progress, no_log

if TYPE_CHECKING:
    import pyarrow as pa

    from continual.train import TrainResult


@dataclass(frozen=True)
class Job:
    """A LoRA training.

    Attributes:
        start: Folder of the model that it starts from.
        table: Its rows, as `continual.train.train` takes them.
        config: Settings of the training.
        seed: Of LoRA's start values and of the order of the rows.
        run_dir: Folder for checkpoints: a job that was killed goes on from the last one there.
        adapter_dir: The folder to publish.
        trust_remote_code: Run code that the model brings with it.
    """

    start: Path
    table: pa.Table
    config: TrainConfig
    seed: int
    run_dir: Path
    adapter_dir: Path
    trust_remote_code: bool


Executor = Callable[[Callable[[Job], "TrainResult"], Iterable[Job]], Iterable["TrainResult"]]
"""Maps a function over jobs, in order, as `map` does, or `ProcessPoolExecutor.map`, or a cluster's: what is given and
what comes back can be pickled. All jobs of one call are independent of each other; folders are shared."""


def run_job(job: Job, progress: Progress = SILENT, log: Log = no_log) -> TrainResult:
    """Train a job's adapter and publish it; see `continual.train.train`."""
    from continual.train import train

    return train(
        job.start,
        job.table,
        job.config,
        seed=job.seed,
        run_dir=job.run_dir,
        adapter_dir=job.adapter_dir,
        resume=True,
        progress=progress,
        log=log,
        trust_remote_code=job.trust_remote_code,
    )
