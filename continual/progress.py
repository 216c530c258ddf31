"""Progress bars and logged figures of long operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """One progress bar at a time: `start` ends the previous bar."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Start a bar.

        Args:
            label: The operation, such as "training".
            total: Number of units; None if it is unknown.
            unit: Plural name of the units, such as "pairs".
            done: Units done by the run that this one resumes. They count towards the total, but not towards the rate.
        """

    def advance(self, count: int) -> None:
        """Count more units as done."""

    def finish(self) -> None:
        """End the bar."""


class Silent:
    """Show no progress: the default of the library."""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Show nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""


SILENT = Silent()


class Log(Protocol):
    """Take figures of a running step, for its curves."""

    def __call__(self, values: Mapping[str, float], step: int) -> None:
        """Log values by name, such as "train/loss", at an optimizer step, counted from 1."""


def no_log(values: Mapping[str, float], step: int) -> None:
    """Log nothing: the default."""
