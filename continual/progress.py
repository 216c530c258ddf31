"""What long work tells the person who waits: a label, a total, and how far it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """One bar at a time: `start` ends the bar before it."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Begin a bar.

        Args:
            label: What is being done, such as "training".
            total: Units in all; None when nobody knows.
            unit: Plural name of what is counted, such as "pairs".
        """

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""

    def finish(self) -> None:
        """End the bar."""


class Silent:
    """Shows nothing: the default in the library."""

    def start(self, label: str, total: int | None, unit: str) -> None:
        """Show nothing."""

    def advance(self, count: int) -> None:
        """Show nothing."""

    def finish(self) -> None:
        """Show nothing."""


SILENT = Silent()
