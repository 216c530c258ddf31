"""Running the trainings of a recipe. A job is plain data with paths, so any executor with a `map` can run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from continual.progress import SILENT, Progress
from continual.registry import TrainResult
from continual.train.job import Job

Executor = Callable[[Callable[[Job], TrainResult], Iterable[Job]], Iterable[TrainResult]]
"""Maps a function over jobs and returns the results in order: `map`, `ProcessPoolExecutor.map`, or that of a cluster
with a shared file system. Jobs and results can be pickled. The jobs of a call are independent of each other."""


def load_libraries() -> None:
    """Import the libraries that load models, which takes seconds, so that no training's time includes it."""
    import sentence_transformers  # noqa: F401 - imports peft too


def run_job(job: Job, progress: Progress = SILENT) -> TrainResult:
    """Train the adapter of a job; see `continual.train.loop.train`."""
    from continual.train.loop import train

    load_libraries()
    return train(job, progress)
