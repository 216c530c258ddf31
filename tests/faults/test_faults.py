"""Every command when the catalog is damaged, the disk is full, memory is short, or Ctrl-C comes: one message."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

from continual.registry import catalog
from continual.storage import files
from tests import ROOT
from tests.commands import Result, Run
from tests.faults.cases import CASES
from tests.faults.sizes import SIZE

pytestmark = pytest.mark.faults

COMMANDS: dict[str, list[str]] = {
    case.name: case.command for case in reversed(CASES) if case.name not in ("merge", "restore")
}
"""A case of each command that opens a catalog; `merge` and `restore` open none."""


def some(fault: str, commands: Sequence[str], faults: Sequence[str]) -> Sequence[str]:
    """Return the commands that a fault is tried on: all, or in the short size a share, so that together all are."""
    return commands if SIZE.all_commands else commands[list(faults).index(fault) :: len(faults)]


@pytest.fixture
def folder(stock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace of a copy of the stock, as the working directory."""
    room = shutil.copytree(stock, tmp_path / "room")
    monkeypatch.chdir(room / "w")
    return room / "w"


@pytest.fixture
def call(folder: Path, run: Run) -> Run:
    """Return a function that calls a command by its name in a copy of the stock."""

    def call(name: str) -> Result:
        return run(*COMMANDS[name])

    return call


def one_message(result: Result, name: str, code: int = 2) -> str:
    """Check the exit code, and return the only message."""
    assert result.code == code, (name, result)
    assert "Traceback" not in result.err
    (message,) = [line for line in result.err.splitlines() if line.startswith("continual: ")]
    return message


DAMAGES: dict[str, Any] = {
    "empty": lambda data: b"",
    "headers alone": lambda data: data[: 4096 * 3],
    "header": lambda data: bytes(4096 * 3) + data[4096 * 3 :],
    "text": lambda data: b"x" * len(data),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_catalog_is_named_by_every_command(damage: str, call: Run, folder: Path) -> None:
    path = folder / ".continual" / "catalog.duckdb"
    data = DAMAGES[damage](path.read_bytes())
    for name in some(damage, [*COMMANDS], [*DAMAGES]):
        if name != "init":
            path.write_bytes(data)
            message = one_message(call(name), name)
            assert str(path) in message, name
            assert "Restore catalog.duckdb from a backup" in message
            assert path.read_bytes() == data, "nothing is made of it"


FAULTS: dict[str, tuple[BaseException, int, str]] = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), 2, "No space is left"),
    "full for DuckDB": (
        duckdb.IOException('IO Error: Could not write file "/w/catalog.duckdb": No space left on device'),
        2,
        "No space is left on the disk of /w/catalog.duckdb",
    ),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "/w/x"), 2, "/w/x cannot be written"),
    "denied": (PermissionError(errno.EACCES, "Permission denied", "/w/x"), 2, "no permission to use /w/x"),
    "disk error": (OSError(errno.EIO, "Input/output error", "/w/x"), 2, "/w/x cannot be used"),
    "memory": (MemoryError(), 2, "not enough memory"),
    "memory of DuckDB": (
        duckdb.OutOfMemoryException("Out of Memory Error: failed to allocate data of size 16.0 KiB (15 MiB used)"),
        2,
        "not enough memory",
    ),
    "memory of torch": (
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4096 bytes."),
        2,
        "not enough memory (asked for 4096 bytes)",
    ),
    "fatal": (duckdb.FatalException("FATAL Error: database has been invalidated"), 2, "is damaged"),
    "internal": (duckdb.InternalException("INTERNAL Error: assertion failed"), 2, "is damaged"),
    "interrupt": (KeyboardInterrupt(), 130, "interrupted"),
    "interrupted DuckDB": (duckdb.InterruptException("INTERRUPT Error: Interrupted!"), 130, "interrupted"),
    "interrupted query": (RuntimeError("Query interrupted"), 130, "interrupted"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_catalog_is_one_message_of_every_command(
    fault: str, call: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, code, words = FAULTS[fault]

    def fail(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(catalog, "attached", fail)
    for name in some(fault, [*COMMANDS], [*FAULTS]):
        message = one_message(call(name), name, code)
        assert words in message or name == "init", message  # which has words of its own


AT_THE_END = ("full", "read-only", "memory", "memory of torch", "interrupt")


@pytest.mark.parametrize("fault", AT_THE_END)
def test_a_fault_at_the_end_of_a_file_is_one_message(fault: str, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    error, code, _ = FAULTS[fault]

    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(files, "flush", fail)
    for name in some(fault, ("init", "ingest", "task add", "versions rebuild", "export", "train"), AT_THE_END):
        one_message(call(name), name, code)


def test_a_full_disk_under_the_output_is_one_message(folder: Path) -> None:
    command = [sys.executable, "-m", "continual", "status", "-w", str(folder)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 2
    assert ended.stderr.startswith("continual: No space is left")
    assert ended.stderr.count("\n") == 1


NAMES = ["a#b", "q'u\"o", "new\nline", "a%20[b]*", "x;--"]


@pytest.mark.parametrize("name", NAMES if SIZE.all_commands else ["".join(NAMES)])
def test_any_name_of_a_folder(name: str, folder: Path, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    room = folder.parent.rename(folder.parent.parent / name)
    monkeypatch.chdir(room / "w")
    before = {path.name for path in room.iterdir()}
    for command in ("status", "ingest", "update", "report", "promote", "versions rebuild"):
        assert call(command).code == 0, command
    made = {"out", "out.html"}  # of `report`
    assert {path.name for path in room.iterdir()} == before | made, "nothing is written beside it"


def test_a_question_mark_in_the_path_is_refused(folder: Path, run: Run, tiny_model: Path) -> None:
    odd = folder.rename(folder.parent / "a?b")
    for words in (["status", "-w", odd], ["init", odd / "new", "--base", tiny_model]):
        assert "contains a question mark" in one_message(run(*words), str(words[0]))
    assert not (odd / "new").exists()


def test_a_refused_init_leaves_no_folder(tmp_path: Path, run: Run) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "modules.json").write_text("[]")
    assert run("init", tmp_path / "a" / "b", "--base", tmp_path / "base").code == 2
    assert not (tmp_path / "a").exists()
