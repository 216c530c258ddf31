"""Commands that end on the way: interrupted in this process, or killed in one of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from continual import Workspace

PROCESSES = multiprocessing.get_context("forkserver")
"""Starts processes from one that has imported what takes seconds to import, and has done nothing else."""

PROCESSES.set_forkserver_preload(
    [
        "sentence_transformers",
        "peft",
        "peft.tuners.lora",
        "accelerate",
        "transformers.models.bert.modeling_bert",
        "scipy.special",
        "continual.cli",
        "continual.eval.run",
        "continual.index.cross",
        "continual.merge.folders",
        "continual.step.update",
        "continual.train.loop",
    ]
)

KILLS = int(os.environ.get("KILLS", "4"))
"""Moments at which each command is killed, 4 or more."""


class At:
    """A progress bar that calls a function at a moment of the progress.

    Args:
        call: What is called.
        label: How the label of the bar begins; empty for any.
        advances: At which advance, counted over all such bars.
    """

    def __init__(self, call: Callable[[], None], label: str, advances: int) -> None:
        self.call, self.at, self.left, self.label = call, label, advances, ""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if count and self.label.startswith(self.at):
            self.left -= 1
            if self.left == 0:
                self.call()

    def finish(self) -> None:
        pass


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupt_update(workspace: Workspace, label: str, advances: int, **options: Any) -> None:
    """Run an update in this process and interrupt it at a moment of its progress."""
    with pytest.raises(KeyboardInterrupt):
        workspace.update(**options, progress=At(interrupt, label, advances))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit_code(function: Callable[..., object], *args: object, **options: object) -> int:
    """Call a module's function in a process of its own; return the process's exit code, or minus its signal."""
    process = PROCESSES.Process(target=function, args=args, kwargs=options)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def kill(directory: Path, method: str, label: str, advances: int, **options: object) -> None:
    """Call a method of a workspace in another process and kill that at a moment of its progress."""
    assert exit_code(_die_in, directory, method, label, advances, options) == -signal.SIGKILL


def _die_in(directory: Path, method: str, label: str, advances: int, options: dict[str, object]) -> None:
    getattr(Workspace(directory), method)(**options, progress=At(die, label, advances))


def kill_everywhere(command: list[str], check: Callable[[], None], reset: Callable[[], None] = lambda: None) -> None:
    """Kill a command at some of its writes, flushes, renames and removals, and let it end at last.

    Args:
        command: What is run.
        check: Called after every end, violent or not.
        reset: Called before every start.
    """

    def start(moment: int) -> tuple[int, int]:
        reset()
        receiver, sender = PROCESSES.Pipe(duplex=False)
        code = exit_code(_run_counted, command, moment, sender)
        check()
        return code, receiver.recv() if receiver.poll() else -1

    start(0)  # the first one also remembers which files it has read
    code, calls = start(0)
    assert (code, calls > KILLS) == (0, True)
    early = [calls * part // (KILLS - 2) for part in range(1, KILLS - 2)]
    for moment in (*early, calls - 3, calls - 2, calls - 1):
        assert start(moment) == (-signal.SIGKILL, -1)
    assert start(0)[0] == 0


def _run_counted(command: list[str], moment: int, calls: Connection) -> None:
    """Run a command, die before a write, flush, rename or removal (0: never), and at the end send their number."""
    from continual.cli import main

    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done == moment:
            die()

    before_each_change(count)
    sys.argv = ["continual", *command]
    try:
        main()
    finally:
        calls.send(done)


def before_each_change(call: Callable[[], None], *more: tuple[Any, str]) -> None:
    """Call a function before every write, flush, rename and removal of this process.

    Args:
        more: Other functions that it is called before, each by its owner and its name.
    """
    from continual.models.tensors import Writer
    from continual.storage import files

    def precede(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def preceded(*args: Any, **options: Any) -> Any:
            call()
            return function(*args, **options)

        setattr(owner, name, preceded)

    changes = ((Writer, "write"), (files, "sync"), (files, "remove"), (Path, "rename"), (Path, "replace"))
    for owner, name in (*changes, *more):
        precede(owner, name)
