"""Who runs the trainings of a recipe: a job is plain data with folders, so any executor that maps can."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from continual.progress import SILENT, Progress
from continual.registry import TrainResult
from continual.train.job import Job

Executor = Callable[[Callable[[Job], TrainResult], Iterable[Job]], Iterable[TrainResult]]
"""Maps a function over jobs, in order, as `map` does, or `ProcessPoolExecutor.map`, or a cluster's: what is given and
what comes back can be pickled. All jobs of one call are independent of each other; folders are shared."""


def load_libraries() -> None:
    """Load what loads models, before a clock runs: it takes many seconds, once a process, and trains nothing."""
    import sentence_transformers  # noqa: F401 - and peft with it


def run_job(job: Job, progress: Progress = SILENT) -> TrainResult:
    """Train a job's adapter and publish it; see `continual.train.loop.train`."""
    from continual.train.loop import train

    load_libraries()
    return train(job, progress)
