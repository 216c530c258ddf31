"""The training of a recipe's phase. A job is plain data with paths, so executors can run it elsewhere."""

from __future__ import annotations

import os

from continual.errors import InputError
from continual.progress import SILENT, Progress
from continual.registry import TrainResult
from continual.train.job import Job


def load_libraries() -> None:
    """Import the libraries that load models, which takes seconds, so that no training's time includes it."""
    import sentence_transformers  # noqa: F401 - imports peft too


def run_job(job: Job, progress: Progress = SILENT) -> TrainResult:
    """Train the adapter of a job; see `continual.train.loop.train`.

    Raises:
        InputError: This machine does not see the folder of the model.
    """
    from continual.train.loop import train

    if not job.start.is_dir():
        raise InputError(
            f"{os.uname().nodename} finds no {job.start}, the model to train from. An executor on several machines "
            "needs the workspace on a shared file system, under the same path on all of them."
        )
    load_libraries()
    return train(job, progress)


def check_adapter(job: Job) -> None:
    """Check that the adapter of a job that ran elsewhere has arrived.

    Raises:
        InputError: This machine does not see the adapter.
    """
    if not job.adapter_dir.is_dir():
        raise InputError(
            f"A training ended, but {os.uname().nodename} finds no adapter in {job.adapter_dir}. All machines of an "
            "executor must share the file system, and renamed folders must show at once (NFS: mount it with "
            "lookupcache=positive). Run the same command again: the training continues at its end."
        )
