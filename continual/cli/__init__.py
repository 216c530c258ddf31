"""The command line. A command parses, calls one method of `Workspace`, and prints."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from continual.cli.app import app
from continual.errors import ContinualError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line, and turn our own errors into one line on stderr and an exit code.

    A SIGTERM ends it as Ctrl-C does, so that a scheduler's stop leaves no unfinished folders either.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with _leading() as leads:
        if not leads:
            return
        try:
            app()
        except ContinualError as error:
            print(f"continual: {error}", file=sys.stderr)
            sys.exit(error.exit_code)


def _leading() -> AbstractContextManager[bool]:
    """Yield whether this process runs the command: of those that torchrun started, one does, and the others help."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(True)
    from continual.train.launch import leading

    return leading()


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # another one would interrupt the removal of what is unfinished
    raise KeyboardInterrupt
