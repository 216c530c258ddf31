"""Every command when the catalog is damaged, the disk is full, memory is short, or Ctrl-C comes: one message."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from continual import Workspace
from continual.cli import app
from continual.registry import catalog
from continual.storage import files
from tests.commands import Result, Run
from tests.pairs import make_pairs

pytestmark = pytest.mark.faults

COMMANDS: dict[str, list[str]] = {
    "init": ["../new", "--base", "MODEL"],
    "ingest": ["../new.parquet"],
    "update": [],
    "status": [],
    "report": ["--json"],
    "compare": ["v1", "v2"],
    "task add": ["new", "../beir"],
    "task list": [],
    "eval": [],
    "train": ["--recipe", "joint"],
    "versions list": [],
    "versions show": ["v1"],
    "versions history": [],
    "versions rebuild": ["v1"],
    "versions pin": ["v1"],
    "promote": ["v1"],
    "rollback": [],
    "export": ["v1", "--out", "../exported"],
    "gc": [],
    "doctor": [],
    "backup": ["../backups"],
    "index show": [],
    "index fit": ["v1", "v2", "--out", "../fitted"],
    "analyze conflicts": [],
}
READERS = ("status", "report", "task list", "versions list", "versions show", "index show")
"""Commands that need no more than the catalog."""

OTHER = {"dashboard", "merge", "restore"}
"""Commands that shows faults in its page, and those that open no catalog."""


def names(group: typer.Typer, prefix: str = "") -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield prefix + (command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from names(inner.typer_instance, f"{inner.name} ")


def test_all_commands_are_here() -> None:
    assert set(COMMANDS) | OTHER == set(names(app))


@pytest.fixture
def call(learned_folder: Path, run: Run, tiny_model: Path) -> Run:
    """Return a function that calls a command by its name in a workspace that has learned two domains."""
    pq.write_table(pa.Table.from_pylist(make_pairs(60, seed=5)), learned_folder.parent / "new.parquet")
    beir = learned_folder.parent / "beir"
    beir.mkdir()
    (beir / "corpus.jsonl").write_text("".join(f'{{"_id": "d{i}", "text": "text {i}"}}\n' for i in range(5)))
    (beir / "queries.jsonl").write_text('{"_id": "q1", "text": "a question"}\n')
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td3\t1\n")

    def call(name: str) -> Result:
        return run(*name.split(), *(str(tiny_model) if word == "MODEL" else word for word in COMMANDS[name]))

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
def test_a_damaged_catalog_is_named_by_every_command(damage: str, call: Run, learned_folder: Path) -> None:
    path = learned_folder / ".continual" / "catalog.duckdb"
    data = DAMAGES[damage](path.read_bytes())
    for name in COMMANDS:
        if name != "init":
            path.write_bytes(data)
            message = one_message(call(name), name)
            assert str(path) in message, name
            assert "Restore catalog.duckdb from a backup" in message
            assert path.read_bytes() == data, "nothing is made of it"


@pytest.mark.parametrize("with_log", [False, True])
def test_flipped_bytes_give_results_or_one_message(with_log: bool, call: Run, learned_folder: Path) -> None:
    path = learned_folder / ".continual" / "catalog.duckdb"
    log = path.with_name("catalog.duckdb.wal")
    if with_log:
        kill = "c.execute(\"UPDATE versions SET pinned = true WHERE id = 'v1'\"); os.kill(os.getpid(), 9)"
        code = f"import duckdb, os; c = duckdb.connect({str(path)!r}); {kill}"
        subprocess.run([sys.executable, "-c", code], check=False)
    damaged = log if with_log else path
    data = damaged.read_bytes()
    kept, seen = (path.read_bytes(), log.read_bytes()) if with_log else (data, None), set()
    for at in range(20, len(data), max(1, len(data) // 40)):
        path.write_bytes(kept[0])
        log.unlink(missing_ok=True)
        if kept[1] is not None:
            log.write_bytes(kept[1])
        flipped = bytes(byte ^ 255 if at <= place < at + 16 else byte for place, byte in enumerate(data[: at + 16]))
        damaged.write_bytes(flipped + data[at + 16 :])
        for name in ("status", "report"):
            result = call(name)
            seen.add(result.code)
            if result.code:
                assert "is damaged" in one_message(result, name) or "Restore" in result.err, (at, name)
    assert 2 in seen


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
    for name in COMMANDS:
        message = one_message(call(name), name, code)
        assert words in message or name == "init", message  # which has words of its own


@pytest.mark.parametrize("fault", ["full", "read-only", "memory", "memory of torch", "interrupt"])
def test_a_fault_at_the_end_of_a_file_is_one_message(fault: str, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    error, code, _ = FAULTS[fault]

    def fail(path: Path) -> None:
        raise error

    monkeypatch.setattr(files, "flush", fail)
    for name in ("init", "ingest", "task add", "versions rebuild", "export", "train"):
        one_message(call(name), name, code)


def test_a_full_disk_under_the_output_is_one_message(learned: Workspace) -> None:
    command = [sys.executable, "-m", "continual", "status", "-w", str(learned.directory)]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("continual: No space is left")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["a#b", "q'u\"o", "new\nline", "a%20[b]*", "x;--"])
def test_any_name_of_a_folder(name: str, learned: Workspace, call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = learned.directory.parent / name / "w"
    folder.parent.mkdir()
    learned.directory.rename(folder)
    (folder.parent / "new.parquet").write_bytes((learned.directory.parent / "new.parquet").read_bytes())
    monkeypatch.chdir(folder)
    for command in ("status", "ingest", "update", "report", "promote", "versions rebuild"):
        assert call(command).code == 0, command
    assert sorted(path.name for path in folder.parent.iterdir()) == ["new.parquet", "w"], "nothing is written beside it"


def test_a_question_mark_in_the_path_is_refused(learned: Workspace, run: Run, tiny_model: Path) -> None:
    folder = learned.directory.rename(learned.directory.parent / "a?b")
    for words in (["status", "-w", folder], ["init", folder / "new", "--base", tiny_model]):
        assert "contains a question mark" in one_message(run(*words), str(words[0]))
    assert not (folder / "new").exists()


def test_a_refused_init_leaves_no_folder(tmp_path: Path, run: Run) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "modules.json").write_text("[]")
    assert run("init", tmp_path / "a" / "b", "--base", tmp_path / "base").code == 2
    assert not (tmp_path / "a").exists()
