"""A command in a process of its own that has imported everything: it starts in milliseconds and can die in any way."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kills import before_each_change, die

GB = 2**30


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: Its exit code, or minus its signal.
        out, err: What it printed.
        seconds: How long it ran.
        peak: The most memory that it held, in bytes.
        late: Whether it was killed because it ran too long.
        busy: Seconds of processor time.
    """

    code: int
    out: str
    err: str
    seconds: float
    peak: int
    late: bool
    busy: float = 0.0

    @property
    def messages(self) -> list[str]:
        """The lines that the command line wrote as itself, without those that tell who is waited for."""
        return [line for line in self.err.splitlines() if line.startswith("continual: ")]

    def problem(self, allowed: Sequence[int] = (0, 2, 3, 4), seconds: float = 10.0, gigabytes: float = 2.0) -> str:
        """Return what is wrong with the end; "" if it is a result, or a refusal with one message.

        Other jobs slow a command down, so the limit is one of processor time, and waiting may take six times as long.
        """
        if self.late or self.busy > seconds or self.seconds > 6 * seconds:
            return f"ran {self.seconds:.1f} s, {self.busy:.1f} s of them busy"
        if self.peak > gigabytes * GB:
            return f"held {self.peak / GB:.1f} GB"
        if "Traceback" in self.err:
            return f"traceback: {self.err.strip().splitlines()[-1][:300]}"
        if self.code not in allowed:
            return f"exit {self.code}: {self.err[-300:]}"
        if self.code and self.code != 3 and len(self.messages) != 1:
            return f"exit {self.code} with {len(self.messages)} messages: {self.err[-300:]}"
        return ""


def call(
    words: Sequence[object],
    directory: Path,
    *setups: Callable[[], object],
    kill_after: float | None = None,
    seconds: float = 300.0,
) -> Ended:
    """Run the command line in a fork of this process.

    Args:
        words: The command and its options.
        directory: The working directory.
        *setups: Called in the process before the command, such as to limit it.
        kill_after: Seconds after which the process is killed.
        seconds: Longest time; then it is killed, and `late`.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _become(words, directory, setups, out.fileno(), err.fileno())
        status, usage, late = _wait(child, began, kill_after, seconds)
        ended = time.monotonic()
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    code = os.waitstatus_to_exitcode(status)
    busy = usage.ru_utime + usage.ru_stime
    return Ended(code, texts[0], texts[1], ended - began, usage.ru_maxrss * 1024, late, busy)


def _wait(
    child: int, began: float, kill_after: float | None, seconds: float
) -> tuple[int, resource.struct_rusage, bool]:
    """Wait for a child, and kill it when its time has come."""
    late, deadline = False, began + (seconds if kill_after is None else kill_after)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return status, usage, late
        if time.monotonic() > deadline:
            late = kill_after is None
            os.kill(child, signal.SIGKILL)
            deadline = began + 10 * seconds
        time.sleep(0.003)


def _become(
    words: Sequence[object], directory: Path, setups: Sequence[Callable[[], object]], out: int, err: int
) -> None:
    """Run the command line in this process, and end it as Python would, but without what a fork inherited."""
    code = 1
    try:
        os.dup2(out, 1)
        os.dup2(err, 2)
        for stream, number in (("stdout", 1), ("stderr", 2)):
            setattr(sys, stream, open(number, "w", buffering=1, closefd=False))  # noqa: SIM115
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # if the harness is interrupted, its commands end as well
        os.chdir(directory)
        sys.argv = ["continual", *map(str, words)]
        for setup in setups:
            setup()
        from continual.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                code = code or 1
        os._exit(code)


def die_before(moment: int, counter: Path | None = None) -> None:
    """Kill this process before a write, flush, rename, removal or transaction.

    Args:
        moment: Which one, counted from 1; 0 for none.
        counter: File for the number of all, written as they come.
    """
    from continual.registry import catalog

    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if done == moment:
            die()
        if counter is not None:
            os.truncate(counter, done)

    before_each_change(count, (catalog, "attached"))


def limit_memory(more: int) -> None:
    """Allow this process so many bytes of address space more than it has, as `ulimit -v` does."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def limit_files(size: int) -> None:
    """Let no file grow beyond a size, in bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def drop_rights() -> None:
    """Give up what lets root ignore permissions. It stays the owner of Python and its libraries, which it may read."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, of this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")
