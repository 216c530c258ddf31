"""What long work tells the person who waits, a label, a total, and how far it is; and what it logs for later."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol


class Progress(Protocol):
    """One bar at a time: `start` ends the bar before it."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin a bar.

        Args:
            label: What is being done, such as "training".
            total: Units in all; None when nobody knows.
            unit: Plural name of what is counted, such as "pairs".
            done: Units that were done before, by a run that this one resumes: they count, but not for the rate.
        """

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""

    def finish(self) -> None:
        """End the bar."""


class Silent:
    """Shows nothing: the default in the library."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Show nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""


SILENT = Silent()


class Log(Protocol):
    """Takes the figures of a step, for a curve."""

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Keep values by name, such as "train/loss", at an optimizer step counted from 1."""


def no_log(values: Mapping[str, float], step: int) -> None:
    """Keep nothing: the default."""


PROGRESS_FILE = "progress.json"
"""In the folder of a running step: how far it is, for whoever looks on."""

_SECONDS = 1.0
"""Time between two writings of it."""

_LOSSES = 120
"""Points of the loss curve in it."""


class Recorder:
    """Passes on progress and figures, and writes them to a small file about once a second.

    The file is replaced whole, so a reader sees a state or the one before, never half of one. It is an aid for who
    looks on: where it cannot be written, the work goes on without it.

    Args:
        folder: Of the running step; made when the work begins.
        progress: Shows how far it is.
        log: Takes the figures.
    """

    def __init__(self, folder: Path, progress: Progress = SILENT, log: Log = no_log) -> None:
        self._folder, self._progress, self._log = folder, progress, log
        self._bar: dict[str, Any] = {}
        self._losses: list[tuple[int, float]] = []
        self._every = 1
        self._written = float("-inf")

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Begin a bar, and write it at once."""
        self._progress.start(label, total, unit, done)
        self._bar = {"label": label, "total": total, "unit": unit, "done": done, "before": done, "began": time.time()}
        self._write(at_once=True)

    def advance(self, count: int) -> None:
        """Count more units as done."""
        self._progress.advance(count)
        if self._bar:
            self._bar["done"] += count
            self._write()

    def finish(self) -> None:
        """End the bar."""
        self._progress.finish()

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Keep the loss of every so many steps, and pass everything on."""
        self._log(values, step)
        loss = values.get("train/loss")
        if loss is None or step % self._every:
            return
        self._losses.append((step, round(float(loss), 5)))
        if len(self._losses) > _LOSSES:
            self._every *= 2
            self._losses = [pair for pair in self._losses if pair[0] % self._every == 0]

    def _write(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._written < _SECONDS:
            return
        self._written = now
        state = {"version": self._folder.name, **self._bar, "at": time.time(), "losses": self._losses}
        partial = self._folder / f".{PROGRESS_FILE}.partial"
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(state), encoding="utf-8")
            partial.replace(self._folder / PROGRESS_FILE)
