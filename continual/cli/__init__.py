"""The command line. A command parses, calls one method of `Workspace`, and prints."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from types import FrameType

from continual.cli.groups import app
from continual.cli.output import closable_output
from continual.storage.faults import is_interrupt, translate
from continual.storage.terminal import warn

# Each of these modules adds its commands to the groups, in the order of `continual --help` and docs/cli.md.
# isort: off
from continual.cli import loop, pairs, report, compare, versions, tasks, train, merge, index, analyze, care  # noqa: F401
# isort: on

INTERRUPTED = 130
"""Exit code after Ctrl-C or SIGTERM, as shells have it."""

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
        except SystemExit as end:
            if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):  # Typer ends without a word
                warn("interrupted.")
            _flush()
            raise
        except Exception as error:
            _fail(error)


def _fail(error: Exception) -> None:
    """End with one message and an exit code if a user or the machine caused the error; raise it if it is a bug."""
    if is_interrupt(error):
        warn("interrupted.")
        sys.exit(INTERRUPTED)
    fault = translate(error)
    if fault is None:
        raise error
    for note in getattr(fault, "__notes__", ()):
        warn(note)
    warn(str(fault))
    sys.exit(fault.exit_code)


def _flush() -> None:
    """Write what was printed. Python would report a full disk after the end of the command, with a traceback."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end of Python
        if isinstance(error, BrokenPipeError):
            sys.exit(1)
        _fail(error)


def _leading() -> AbstractContextManager[bool]:
    """Yield whether this process runs the command. Of the processes that torchrun starts, the first does."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return nullcontext(True)
    from continual.train.launch import leading

    return leading()


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the removal of unfinished folders
    raise KeyboardInterrupt
