"""The executor `processes:N`: N processes on this machine, each with a job at a time and a share of the cores."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from continual.errors import ContinualError, ResourceError
from continual.executors.protocol import Execute, J, R
from continual.executors.tally import RETRIES, Counter, Tally, fixed_threads, largest_first
from continual.progress import Progress

_logger = logging.getLogger(__name__)

_PAIRS, _RESULT, _ERROR = "pairs", "result", "error"
_GRACE_SECONDS = 5.0


@contextmanager
def open_processes(count: int, progress: Progress) -> Iterator[Execute]:
    """Yield a function that runs jobs in `count` processes; see `continual.executors.protocol`.

    A process has OMP_NUM_THREADS threads, or else its share of those that a training in this process would have. It
    also has one of the visible GPUs.
    """
    crew = _Crew(fixed_threads() or max(_threads() // count, 1), _gpus())

    def execute(work: Callable[..., R], jobs: Sequence[J], pairs: Sequence[int]) -> Iterator[R]:
        crew.begin()
        tally = Tally(progress, pairs)
        # A thread per process: it sends a job, passes its progress on, and waits for its result.
        with ThreadPoolExecutor(count) as pool:
            try:
                futures = {
                    place: pool.submit(crew.run, work, jobs[place], place, tally) for place in largest_first(pairs)
                }
                for place in range(len(jobs)):
                    yield futures[place].result()
            except BaseException:
                crew.end()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        tally.finish()

    try:
        yield execute
    finally:
        crew.end()


class _Crew:
    """The processes: started when a job needs one, used again, and all ended together."""

    def __init__(self, threads: int, gpus: list[str]) -> None:
        self._threads, self._gpus = threads, gpus
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all: list[_Worker] = []
        self._lock, self._ended = threading.Lock(), False

    def begin(self) -> None:
        """Allow new processes, also after an error ended all that there were."""
        with self._lock:
            if self._ended:
                self._idle, self._all, self._ended = queue.LifoQueue(), [], False

    def run(self, work: Callable[..., Any], job: Any, place: int, tally: Tally) -> Any:
        """Return the result of a job. If its process dies, start the job again in another one."""
        for attempt in range(1, RETRIES + 2):
            worker = self._take()
            try:
                kind, value = worker.run(work, job, lambda done: tally.tell(place, done))
            except (EOFError, ConnectionError):
                code = worker.wait()
                if self._ended:
                    raise
                if attempt <= RETRIES:
                    _logger.warning("A training's process died (%s); it starts again.", _cause(code))
                continue
            self._idle.put(worker)
            if kind == _ERROR:
                raise value
            tally.complete(place)
            return value
        raise ResourceError(
            f"A training's process died {RETRIES + 1} times, at last with {_cause(code)}. The kernel kills processes "
            "when memory is short: run fewer at once with --executor processes:1, or lower train.micro_batch_tokens. "
            "The same command continues where this one stopped."
        )

    def end(self) -> None:
        """End all processes, also in the middle of a job."""
        with self._lock:
            self._ended = True
        for worker in self._all:
            worker.process.terminate()
        for worker in self._all:
            worker.wait()

    def _take(self) -> _Worker:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            pass
        with self._lock:
            if self._ended:
                raise EOFError
            # A dead worker's GPU is free again, so the new one takes the GPU that has the fewest.
            alive = [worker.gpu for worker in self._all if worker.process.is_alive()]
            gpu = min(self._gpus, key=alive.count) if self._gpus else None
            worker = _Worker(self._threads, gpu)
            self._all.append(worker)
            return worker


class _Worker:
    """A process that does one job after the other, seen from the process that started it."""

    def __init__(self, threads: int, gpu: str | None) -> None:
        self.gpu = gpu
        # spawn, not fork: a process that has used a GPU, or holds locks of threads, can't be forked.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, threads, gpu), daemon=True)
        self.process.start()
        theirs.close()  # so that the end of the process ends the connection

    def run(self, work: Callable[..., Any], job: Any, tell: Callable[[int], None]) -> tuple[str, Any]:
        """Do a job and return what kind of end it had, with its result or its error.

        Raises:
            EOFError: The process died.
            ConnectionError: The same.
        """
        self._connection.send((work, job))
        while True:
            kind, value = self._connection.recv()
            if kind != _PAIRS:
                return kind, value
            tell(value)

    def wait(self) -> int:
        """Wait for the end of the process, for some seconds, and return its exit code, or minus its signal."""
        self.process.join(_GRACE_SECONDS)
        self.process.kill()
        self.process.join()
        return self.process.exitcode or 0


def _serve(connection: Connection, threads: int, gpu: str | None) -> None:
    """Do jobs until the other end of the connection is closed. Runs in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before torch looks for GPUs
    import torch

    torch.set_num_threads(threads)
    try:
        while True:
            work, job = connection.recv()
            connection.send(_answer(work, job, connection))
    except (EOFError, ConnectionError):
        return  # the process that sends jobs has ended


def _answer(work: Callable[..., Any], job: Any, connection: Connection) -> tuple[str, Any]:
    try:
        return _RESULT, work(job, progress=Counter(lambda done: connection.send((_PAIRS, done))))
    except ConnectionError:
        raise
    except Exception as error:
        if not isinstance(error, ContinualError):
            error.add_note(f"In a worker process:\n{traceback.format_exc()}")
        return _ERROR, error


def _cause(code: int) -> str:
    """Name the end of a process, such as "signal SIGKILL" or "exit code 1"."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def _gpus() -> list[str]:
    """Return the visible GPUs, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
