"""Phase `system`: every command on a full disk, on a read-only one, without permission, and with little memory.

Each must end with a result or one message, without a traceback; commands that only read must work on a copy that they
cannot write. Afterwards nothing that was registered may be gone or wrong, and with space again the command must end as
if nothing had happened. Without the right to mount, limits of file sizes stand for the full disk, and the read-only
mount is left out, which the table shows.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from tests.faults.bench import Attempt, Outcome
from tests.faults.cases import CASES, Case
from tests.faults.killed import checked, reference
from tests.faults.processes import Ended, call, drop_rights, limit_files, limit_memory
from tests.faults.sizes import Sizes
from tests.faults.stock import copied

ROOM = 256 * 2**20
"""Size of the disk while a command is measured, in bytes."""

NEEDED = 2 * 2**20
"""Space that commands can need at most, if it can't be measured."""


def plan(sizes: Sizes, stock: Path) -> Sequence[Attempt]:
    """Return every fault for every case; in the short size, a few of both."""
    tries: list[Attempt] = []
    for index, case in enumerate(CASES):
        if not sizes.all_commands and (not case.light or index % 6):
            continue
        for moment in range(sizes.moments):
            share = (moment + 0.5) / sizes.moments
            tries.append(partial(full_disk, case, share, stock))
            tries.append(partial(little_memory, case, share, stock))
        tries += [partial(fault, case, stock) for fault in (read_only, another_user, no_permission)]
    return tries


def full_disk(case: Case, share: float, stock: Path) -> Outcome:
    """Run a command on a disk with room for a share of what it needs."""
    if not can_mount():
        with copied(stock) as room:
            ended = _prepared(case, room, partial(limit_files, int(share * 300_000)))
            return Outcome("files limited in size", _result(ended), ended.problem(seconds=60), {"case": case.label})
    with disk() as folder, copied(stock, folder) as room:
        resize(folder, used(folder) + int(share * needed(case, stock)))
        ended = _prepared(case, room)
        problem = _judged(case, ended)
        resize(folder, ROOM)
        problem = problem or (checked(case, reference(case, stock), room) if case.writes and ended.code else "")
    return Outcome("full disk", _result(ended), problem, {"case": case.label, "share": share})


def little_memory(case: Case, share: float, stock: Path) -> Outcome:
    """Run a command that may take some address space more than the interpreter with its libraries."""
    more = int(share**2 * 400 * 2**20)
    with copied(stock) as room:
        ended = _prepared(case, room, partial(limit_memory, more))
        problem = _judged(case, ended)
        problem = problem or (checked(case, reference(case, stock), room) if case.writes and ended.code else "")
    return Outcome("ulimit -v", _result(ended), problem, {"case": case.label, "bytes": more})


def read_only(case: Case, stock: Path) -> Outcome:
    """Run a command in a workspace on a read-only mount."""
    if not can_mount():
        return Outcome("read-only mount", "not tried: no right to mount")
    with copied(stock) as room, mounted_read_only(room / "w"):
        ended = call(case.command, room / "w")
    return Outcome("read-only mount", _result(ended), _reads(case, ended), {"case": case.label})


def another_user(case: Case, stock: Path) -> Outcome:
    """Run a command in a workspace of another user, which may be read."""
    if os.geteuid():
        return Outcome("another user, who may read", "not tried: not root")
    with copied(stock) as room:
        _give_away(room)
        ended = call(case.command, room / "w", drop_rights)
    return Outcome("another user, who may read", _result(ended), _reads(case, ended), {"case": case.label})


def no_permission(case: Case, stock: Path) -> Outcome:
    """Run a command in a workspace whose content nobody else may read."""
    if os.geteuid():
        return Outcome("another user, who may not read", "not tried: not root")
    with copied(stock) as room:
        _give_away(room)
        for path in (room / "w/.continual", room / "model", room / "store"):
            path.chmod(0o700)
        ended = call(case.command, room / "w", drop_rights)
    problem = ended.problem(seconds=60) or ("" if ended.code == 2 else f"exit {ended.code}")
    return Outcome("another user, who may not read", _result(ended), problem, {"case": case.label})


def _give_away(room: Path) -> None:
    """Give everything to another user, and let all read it."""
    for path in (room, *room.rglob("*")):
        os.chown(path, 65534, 65534)
        path.chmod(0o755 if path.is_dir() else 0o644)


def _prepared(case: Case, room: Path, *setups: partial[None]) -> Ended:
    if case.prepare is not None:
        case.prepare(room)
    return call(case.command, room / "w", *setups)


def _judged(case: Case, ended: Ended) -> str:
    """Return what is wrong with the end of a command. If doctor finds something, it ends with 2 and no message."""
    if case.name == "doctor" and ended.code == 2 and "Traceback" not in ended.err:
        return ""
    return ended.problem(seconds=60)


def _result(ended: Ended) -> str:
    return "done" if ended.code == 0 else f"refused ({ended.code})"


def _reads(case: Case, ended: Ended) -> str:
    """Return what is wrong with a command on what can't be written: one that only reads must work."""
    problem = _judged(case, ended)
    return problem or (
        f"does not read: {ended.err[-300:]}" if ended.code and not (case.writes or case.name == "doctor") else ""
    )


@cache
def can_mount() -> bool:
    """Return whether this process may mount."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError), disk():
        return True
    return False


@contextlib.contextmanager
def disk() -> Iterator[Path]:
    """Yield a folder on a small disk of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)
        _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder)
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, size: int) -> None:
    """Give a disk another size, in bytes."""
    _mount("-o", f"remount,size={size}", folder)


def used(folder: Path) -> int:
    """Return how much of a disk is used, in bytes."""
    found = os.statvfs(folder)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@cache
def needed(case: Case, stock: Path) -> int:
    """Return how much space a command takes that nothing disturbs, in bytes, with some more for what it removes."""
    with disk() as folder, copied(stock, folder) as room:
        before = used(folder)
        _prepared(case, room)
        grown = used(folder) - before
    return max(2 * grown, NEEDED // 8)


@contextlib.contextmanager
def mounted_read_only(folder: Path) -> Iterator[None]:
    """Make a folder a read-only mount of itself."""
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,bind,ro", folder)
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)
