"""What long work tells the person who waits, a label, a total, and how far it is; and what it logs for later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


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
