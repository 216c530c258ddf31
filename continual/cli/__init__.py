"""The command line. A command parses, calls one method of `Workspace`, and prints."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from continual.cli.app import app
from continual.errors import ContinualError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line, and turn our own errors into one line on stderr and an exit code.

    A SIGTERM ends it as Ctrl-C does, so that a scheduler's stop leaves no unfinished folders either.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except ContinualError as error:
        print(f"continual: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # another one would interrupt the removal of what is unfinished
    raise KeyboardInterrupt
