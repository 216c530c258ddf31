"""What long work tells the person who waits: a label, a total, and how far it is."""

from __future__ import annotations

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
