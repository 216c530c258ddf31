"""The progress of a running step as a file, for the dashboard and `continual status`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from continual.progress import SILENT, Log, Progress, no_log
from continual.storage.files import beside

PROGRESS_FILE = "progress.json"
"""File in the folder of a running step that holds its progress."""

_SECONDS = 1.0
"""Least time between two writes of the progress file."""

_LOSSES = 120
"""Largest number of points of the loss curve in the progress file."""


class Recorder:
    """Forward progress and figures, and write them to the progress file about once a second.

    Every write replaces the whole file, so a reader never sees half a state. A write that fails is skipped: the file
    only informs the dashboard and `continual status`.

    Args:
        folder: Folder of the running step; the first write creates it.
        progress: Gets every call.
        log: Gets every figure.
    """

    def __init__(self, folder: Path, progress: Progress = SILENT, log: Log = no_log) -> None:
        self._folder, self._progress, self._log = folder, progress, log
        self._partial = beside(folder / PROGRESS_FILE)
        self._bar: dict[str, Any] = {}
        self._losses: list[tuple[int, float]] = []
        self._every = 1
        self._written = float("-inf")

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Start a bar and write it at once."""
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
        """Forward the values, and keep the loss of every n-th step for the progress file."""
        self._log(values, step)
        loss = values.get("train/loss")
        if loss is None or step % self._every:
            return
        self._losses.append((step, round(float(loss), 5)))
        if len(self._losses) > _LOSSES:
            self._every *= 2
            self._losses = [(kept_step, value) for kept_step, value in self._losses if kept_step % self._every == 0]

    def _write(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._written < _SECONDS:
            return
        self._written = now
        state = {"version": self._folder.name, **self._bar, "at": time.time(), "losses": self._losses}
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._partial.write_text(json.dumps(state), encoding="utf-8")
            self._partial.replace(self._folder / PROGRESS_FILE)
