"""The command line. A command parses, calls one method of `Workspace`, and prints."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from continual.cli.groups import app
from continual.cli.output import closable_output
from continual.errors import ContinualError
from continual.storage.terminal import warn

# Each of these modules adds its commands to the groups, in the order of `continual --help` and docs/cli.md.
# isort: off
from continual.cli import loop, report, compare, versions, tasks, train, merge, index, analyze, care  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line. Our own errors become a message on stderr and an exit code.

    SIGTERM ends a command as Ctrl-C does, so that a scheduler's stop leaves no unfinished folders.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    with _leading() as leads:
        if not leads:
            return
        try:
            with closable_output():
                app()
        except ContinualError as error:
            for note in getattr(error, "__notes__", ()):
                warn(note)
            warn(str(error))
            sys.exit(error.exit_code)


def _leading() -> AbstractContextManager[bool]:
    """Yield whether this process runs the command. Of the processes that torchrun starts, the first does."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(True)
    from continual.train.launch import leading

    return leading()


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the removal of unfinished folders
    raise KeyboardInterrupt
