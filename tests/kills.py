"""Commands that end on the way: interrupted in this process, or killed in one of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from continual import Workspace


class Interrupter:
    """A progress bar that interrupts a step at a moment of its progress."""

    def __init__(self, label: str, advances: int) -> None:
        self.at, self.left, self.label = label, advances, ""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if self.label.startswith(self.at):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt

    def finish(self) -> None:
        pass


def interrupt_update(workspace: Workspace, label: str, advances: int, **options: object) -> None:
    """Run an update in this process and interrupt it at a moment of its progress."""
    with pytest.raises(KeyboardInterrupt):
        workspace.update(**options, progress=Interrupter(label, advances))  # type: ignore[arg-type]


UPDATE = """
import json, os, signal, sys
from continual import Workspace

class Killer:
    done = 0
    def start(self, label, total, unit, done=0): self.label = label
    def finish(self): pass
    def advance(self, count):
        if self.label.startswith(sys.argv[2]):
            self.done += 1
            if self.done == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)

Workspace(sys.argv[1]).update(**json.loads(sys.argv[4]), progress=Killer())
"""


def kill_update(directory: Path, label: str, advances: int, **options: object) -> None:
    """Run an update in another process and kill it at a moment of its progress."""
    command = [sys.executable, "-c", UPDATE, str(directory), label, str(advances), json.dumps(options)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL


KILLS = int(os.environ.get("KILLS", "4"))
"""Moments at which each command is killed, 4 or more; each costs a process that imports torch."""

COMMAND = """
import atexit, os, pathlib, signal, sys
from continual.cli import main
from continual.models.tensors import Writer
from continual.storage import files

left = first = int(sys.argv.pop(1))
atexit.register(lambda: print("calls:", first - left))

def counted(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

Writer.write = counted(Writer.write)
files._sync = counted(files._sync)
files.remove = counted(files.remove)
pathlib.Path.rename = counted(pathlib.Path.rename)
pathlib.Path.replace = counted(pathlib.Path.replace)
main()
"""


def kill_everywhere(command: list[str], check: Callable[[], None], reset: Callable[[], None] = lambda: None) -> None:
    """Kill a command at some of its writes, flushes, renames and removals, and let it end at last.

    Args:
        command: What is run.
        check: Called after every end, violent or not.
        reset: Called before every start.
    """

    def start(moment: int) -> subprocess.CompletedProcess[str]:
        reset()
        words = [sys.executable, "-c", COMMAND, str(moment), *command]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        check()
        return done

    calls = int(start(1_000_000).stdout.rpartition("calls:")[2])
    early = [calls * part // (KILLS - 2) for part in range(1, KILLS - 2)]
    for moment in (*early, calls - 3, calls - 2, calls - 1):
        done = start(moment)
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert start(1_000_000).returncode == 0
