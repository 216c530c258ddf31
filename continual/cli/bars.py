"""Progress bars on stderr: what is done, the rate, the time left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

from continual.storage.terminal import make_console, say

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task, TaskID
    from rich.text import Text


EVERY_SECONDS = 30.0
"""Time between the lines of a long bar outside a terminal."""


class Bars:
    """Shows one bar at a time in a terminal; elsewhere (logs, CI), a line per finished bar, and more of long ones.

    Between two bars the terminal is free to print to. Use it as a context manager, so that an error ends the bar
    without the line that says it is done.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rich: RichProgress | None = None
        self._task: TaskID | None = None
        self._label, self._unit = "", ""
        self._done, self._began, self._said = 0, 0.0, 0.0
        self._total: int | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self._close()

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin a bar; the one before it ends."""
        self.finish()
        self._label, self._unit, self._done, self._began = label, unit, 0, time.monotonic()
        self._total, self._said = None if total is None else total - done, self._began
        if self._stream.isatty():
            self._rich = _rich_progress(self._stream)
            self._task = self._rich.add_task(label, total=total, unit=unit, completed=done)
            self._rich.start()

    def advance(self, count: int) -> None:
        """Count more units as done."""
        self._done += count
        if self._rich is not None and self._task is not None:
            self._rich.advance(self._task, count)
        elif self._label and time.monotonic() - self._said >= EVERY_SECONDS:
            self._said = time.monotonic()
            of = "" if self._total is None else f" of {self._total:,}"
            say(f"{self._label}: {self._done:,}{of} {self._unit} so far", self._stream)

    def finish(self) -> None:
        """Replace the bar with a line that says how much was done and how fast."""
        if not self._label:
            return
        seconds = max(time.monotonic() - self._began, 1e-9)
        line = f"{self._label}: {seconds:.1f} s"
        if self._done and seconds >= 0.01:
            rate = f"{per_second(self._done / seconds)} {self._unit}/s"
            line = f"{self._label}: {self._done:,} {self._unit} in {seconds:.1f} s ({rate})"
        rich = self._rich
        self._close()
        if rich is not None:
            rich.console.print(line, style="dim", markup=False, highlight=False)
        else:
            say(line, self._stream)

    def _close(self) -> None:
        if self._rich is not None:
            self._rich.stop()
        self._label, self._rich, self._task = "", None, None


def per_second(rate: float) -> str:
    """Return a rate with at least two digits."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def _rich_progress(stream: TextIO) -> RichProgress:
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second, such as `118 pairs/s`."""

        def render(self, task: Task) -> Text:
            speed, unit = task.speed or task.finished_speed, task.fields["unit"]
            return Text(f"{per_second(speed)} {unit}/s" if speed else "", style="progress.data.speed")

    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    ]
    return Progress(*columns, console=make_console(file=stream), transient=True)
