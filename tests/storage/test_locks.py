"""Locks."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from continual.errors import WorkspaceBusy
from continual.storage import locks
from continual.storage.locks import exclusive, guard, held, holder, who

HOLD = """
import os, sys
from pathlib import Path
from continual.storage.locks import exclusive
with exclusive(Path(sys.argv[1]), "ingest"):
    if len(sys.argv) == 2 or not os.fork():
        print("held", flush=True)
    sys.stdin.readline()
"""


def hold(path: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_exclusive_and_freed(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "update"):
        with pytest.raises(WorkspaceBusy, match="continual update"), exclusive(tmp_path / "lock", "update"):
            pass
        with pytest.raises(WorkspaceBusy), guard(tmp_path / "lock", "the snapshots", alone=False, seconds=0):
            pass
    with exclusive(tmp_path / "lock", "update"):
        pass
    assert holder(tmp_path / "lock") is None


def test_who_waits_is_told_for_whom_and_then_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = hold(tmp_path / "lock")
    other = who(tmp_path / "lock")
    assert other is not None
    assert (other.what, other.pid, holder(tmp_path / "lock")) == ("ingest", process.pid, "ingest")
    with pytest.raises(WorkspaceBusy, match=f"process {process.pid}, since .*; waited 0 s"):
        exclusive(tmp_path / "lock", "update").__enter__()
    assert not caplog.records

    said = threading.Event()

    class Say(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.set()

    def release() -> None:
        said.wait(60)
        process.communicate("\n")

    handler, thread = Say(), threading.Thread(target=release)
    logging.getLogger("continual").addHandler(handler)
    thread.start()
    with exclusive(tmp_path / "lock", "update", seconds=60):
        assert holder(tmp_path / "lock") == "update"
    thread.join()
    logging.getLogger("continual").removeHandler(handler)
    (message,) = caplog.messages
    assert "waiting for `continual ingest`, which is already running in this workspace" in message
    assert f"(process {process.pid}, since {other.since}" in message


@pytest.mark.parametrize("fork", [[], ["fork"]])
def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path, fork: list[str]) -> None:
    process = hold(tmp_path / "lock", *fork)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not held(tmp_path / "lock"), "even if a process that it forked lives on"
    with exclusive(tmp_path / "lock", "update"):
        assert locks.writing()
    process.communicate()
    assert not locks.writing()


def test_who_waits_for_readers_is_told_no_command_that_may_not_be_theirs(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        guard(path, "the snapshots", alone=False, seconds=0),
        pytest.raises(WorkspaceBusy, match=r"^Another command is using the snapshots \(waited 0 s\)"),
        guard(path, "the snapshots", alone=True, seconds=0),
    ):
        pass
    with (
        guard(path, "the snapshots", alone=True, seconds=0),
        pytest.raises(WorkspaceBusy, match=rf"^Another command is using the snapshots \(process {os.getpid()}, since"),
        guard(path, "the snapshots", alone=False, seconds=0),
    ):
        pass


def test_a_killed_writer_is_not_taken_for_the_readers_after_it(tmp_path: Path) -> None:
    process = hold(tmp_path / "lock")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()
    assert who(tmp_path / "lock") is not None
    with (
        guard(tmp_path / "lock", "the snapshots", alone=False, seconds=0),
        pytest.raises(WorkspaceBusy, match=r"^Another command is using the snapshots \(waited"),
        guard(tmp_path / "lock", "the snapshots", alone=True, seconds=0),
    ):
        pass


def test_a_lock_without_a_name_is_not_called_by_the_name_of_who_waits(tmp_path: Path) -> None:
    with (
        (tmp_path / "lock").open("a") as file,
        pytest.raises(WorkspaceBusy, match=r"^Another command is writing to this workspace"),
    ):
        fcntl.flock(file, fcntl.LOCK_EX)
        exclusive(tmp_path / "lock", "doctor").__enter__()
