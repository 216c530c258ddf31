"""Jobs that other processes do in the tests, and a progress bar that remembers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from continual.errors import NothingToDoError
from continual.progress import SILENT, Progress


class Seen:
    """Remembers its bars: label, total, and what each advance counted."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int | None, list[int]]] = []

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.bars.append((label, total, []))

    def advance(self, count: int) -> None:
        self.bars[-1][2].append(count)

    def finish(self) -> None:
        pass


def count_up(job: tuple[Path, int], progress: Progress = SILENT) -> tuple[int, int, int]:
    import torch

    progress.start("training", 4, "pairs")
    for _ in range(4):
        progress.advance(1)
    progress.finish()
    return job[1], os.getpid(), torch.get_num_threads()


def note(job: tuple[Path, str], progress: Progress = SILENT) -> None:
    with job[0].open("a") as order:
        order.write(job[1])


def die_once(file: Path, progress: Progress = SILENT) -> str:
    if not file.exists():
        file.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return file.name


def die_always(file: Path, progress: Progress = SILENT) -> None:
    with file.open("a") as attempts:
        attempts.write(".")
    os.kill(os.getpid(), signal.SIGKILL)


def fail(what: str, progress: Progress = SILENT) -> float:
    if what == "ours":
        raise NothingToDoError("no rows")
    return 1 / 0


def never_end(file: Path, progress: Progress = SILENT) -> None:
    file.write_text(str(os.getpid()))
    while True:
        time.sleep(0.01)
