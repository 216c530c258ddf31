"""Every command of the command line, as the harness runs it. A command without a case fails `test_cases.py`.

To add a command, add a case. New files go to `../out`, which is compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from continual import Workspace
from tests.faults.stock import flip


@dataclass(frozen=True)
class Case:
    """A command in a copy of the stock; its working directory is the workspace `w`.

    Attributes:
        name: The command.
        words: Its arguments and options.
        writes: Whether it changes the workspace or makes files elsewhere, beyond caches.
        prepare: Called with the copy before the command.
        again: What is run after a kill, if another command than the same.
        light: Whether it loads no model: such cases are tried in the short size.
        needs_room: Whether it needs a workspace; if not, its faults concern the files that it makes.
        repeatable: Whether it changes nothing when it is run again after it has ended.
    """

    name: str
    words: tuple[str, ...] = ()
    writes: bool = True
    prepare: Callable[[Path], object] | None = None
    again: tuple[str, ...] | None = None
    light: bool = False
    needs_room: bool = True
    repeatable: bool = True

    @property
    def command(self) -> list[str]:
        """What is typed after `continual`."""
        return [*self.name.split(), *self.words]

    @property
    def label(self) -> str:
        """The command with what distinguishes it from other cases."""
        return " ".join([self.name, *(word for word in self.words if word.startswith("--"))])


def damage(room: Path) -> None:
    """Damage a snapshot and a score, and add a file that the catalog does not know and one of a dead process."""
    store = room / "w" / ".continual"
    flip(store / "versions/v2/tokenizer.json")
    flip(store / "scores/v2/first.parquet")
    (store / "data/first/b9.parquet").write_text("unknown")
    left = store / "versions" / f".v8.{'0' * 8}-1-{'0' * 8}.partial"
    left.mkdir()
    (left / "model.safetensors").write_text("half")
    os.utime(left, (0, 0))


def fill(room: Path) -> None:
    """Fill an index with the current version."""
    Workspace(room / "w").fill_index(room / "beir/corpus.jsonl", room / "index")


CASES = (
    Case("init", ("../out", "--base", "../model"), needs_room=False),
    Case("ingest", ("../third.jsonl", "--domain", "other"), light=True),
    Case("ingest", ("../bad.jsonl", "../shards", "--domain", "first"), light=True),
    Case("update", ("--replay", "0.5"), again=("update", "--resume")),
    Case("update", ("--merge", "search"), again=("update", "--resume")),
    Case("train", ("--recipe", "joint")),
    Case("promote", ("v1",), light=True),
    Case("rollback", light=True, repeatable=False),
    Case("export", ("v1", "--out", "../out"), light=True),
    Case("gc", ("--set", "store.keep_every=10"), light=True),
    Case("eval", ("v1", "--suite", "release")),
    Case("task add", ("new", "../beir"), light=True),
    Case("versions rebuild", ("v2",), light=True),
    Case("versions pin", ("v1",), light=True),
    Case("merge", ("../model", "../other", "--out", "../out"), light=True, needs_room=False),
    Case("merge", ("../model", "../other", "-m", "ties", "-b", "../model", "--out", "../out"), needs_room=False),
    Case("doctor", ("--full", "--fix"), prepare=damage, light=True),
    Case("forget", ("--rows", "../unwanted.jsonl", "--yes"), light=True),
    Case("backup", ("../store", "--verify"), light=True),
    Case("restore", ("../store", "../out"), light=True, needs_room=False),
    Case("index fit", ("v1", "v2", "--out", "../out")),
    Case("index fill", ("../beir/corpus.jsonl", "../out"), light=True),
    Case("index check", ("../index", "v2"), writes=False, prepare=fill),
    Case("mine", ("first",), light=True),
    Case("synthesize", ("../beir/corpus.jsonl", "--out", "../out.parquet", "--consistency", "0"), light=True),
    Case("compare", ("v1", "v2", "--index")),
    Case("analyze conflicts", ("--rows", "32")),
    Case("report", ("--html", "../out.html", "--figures", "../out")),
    Case("status", writes=False, light=True),
    Case("report", ("--json",), writes=False, light=True),
    Case("compare", ("v1", "v2"), writes=False),
    Case("compare", ("v1", "v2", "--queries"), writes=False),
    Case("compare", ("v1", "v2", "--weights"), writes=False),
    Case("task list", writes=False, light=True),
    Case("versions list", writes=False, light=True),
    Case("versions show", ("v1",), writes=False, light=True),
    Case("versions history", writes=False, light=True),
    Case("index show", writes=False, light=True),
    Case("doctor", writes=False, light=True),
)

UNTRIED = {"dashboard"}
"""Commands that run until Ctrl-C."""
