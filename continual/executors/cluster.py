"""The executor `ray`: a job is a Ray task, on this machine or on the nodes of a cluster that share the workspace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from continual.errors import InputError, ResourceError
from continual.executors.protocol import Execute, J, R
from continual.executors.tally import RETRIES, Tally, fixed_threads, largest_first
from continual.progress import Progress
from continual.registry.provenance import libraries

_POLL_SECONDS = 0.5


@contextmanager
def open_cluster(address: str, progress: Progress) -> Iterator[Execute]:
    """Yield a function that runs jobs as Ray tasks; see `continual.executors.protocol`.

    A task takes OMP_NUM_THREADS cores, or else as many as let all jobs run at once. On a cluster with GPUs it also
    takes one of these.

    Args:
        address: `ray://HOST:PORT` of Ray's client server. Empty for the cluster of RAY_ADDRESS, or the one started on
            this machine, or else a new one of this machine alone.
        progress: Shows one bar over the pairs of all jobs of a call.
    """
    ray = _import()
    if ray.is_initialized():  # the caller's, and the caller's to end
        yield _executor(ray, progress)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that this starts reports nothing to others
    try:
        ray.init(address=address or None, logging_level="warning")
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise InputError(
            f"There is no connection to Ray at {where}: {str(error).strip().splitlines()[0]} Check the address, and "
            "that `ray status` answers there."
        ) from None
    try:
        yield _executor(ray, progress)
    finally:
        ray.shutdown()


def _import() -> Any:
    try:
        import ray
    except ImportError:
        raise InputError(
            "--executor ray needs Ray, which is not installed. Run `pip install 'continual-embeddings[ray]'`, on every "
            "machine of the cluster."
        ) from None
    return ray


def _executor(ray: Any, progress: Progress) -> Execute:
    from continual.executors.remote import Board, run_task

    def execute(work: Callable[..., R], jobs: Sequence[J], pairs: Sequence[int]) -> Iterator[R]:
        tally = Tally(progress, pairs)
        threads = fixed_threads() or _threads(ray, len(jobs))
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        board = ray.remote(Board).options(num_cpus=0, max_restarts=-1).remote()
        task = ray.remote(run_task).options(num_cpus=threads, num_gpus=gpus, max_retries=RETRIES)
        sent = [libraries(), board]
        running = {place: task.remote(work, jobs[place], place, threads, *sent) for place in largest_first(pairs)}
        try:
            for place in range(len(jobs)):
                reference = running[place]
                while not ray.wait([reference], timeout=_POLL_SECONDS)[0]:
                    _show(ray, board, tally)
                result = _result(ray, reference)
                tally.complete(place)
                yield result
        finally:
            for reference in running.values():
                ray.cancel(reference, force=True)  # does nothing to a task that has ended
        tally.finish()

    return execute


def _show(ray: Any, board: Any, tally: Tally) -> None:
    """Pass on what the jobs have reported. The board may be gone for a while with its node; the jobs don't need it."""
    try:
        reported = ray.get(board.read.remote(), timeout=_POLL_SECONDS)
    except (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):
        return
    for place, done in reported.items():
        tally.tell(place, done)


def _result(ray: Any, reference: Any) -> Any:
    """Return the result of a task, or raise its error as a training in this process would."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from None
        raise
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
        raise ResourceError(
            f"A training's Ray worker died {RETRIES + 1} times: {str(error).splitlines()[0]} Ray kills workers when "
            "memory is short: run fewer at once with a higher OMP_NUM_THREADS, or lower train.micro_batch_tokens. The "
            "same command continues where this one stopped."
        ) from None


def _threads(ray: Any, jobs: int) -> int:
    """Return the cores of a task: as many as let all jobs run at once, and no more than a node has."""
    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    return max(min(sum(nodes) // jobs, max(nodes, default=1)), 1)
