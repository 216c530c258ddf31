"""Phase `mutations`: damaged inputs of every kind, which are read right or refused with one message.

A refusal must leave the workspace as it was. Where a command takes a damaged input, another reader (see `oracles.py`)
says what it holds, and the command must have found the same.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import duckdb
import numpy as np

from tests import ROOT
from tests.faults import oracles
from tests.faults.bench import Attempt, Outcome
from tests.faults.mutators import damage
from tests.faults.processes import Ended, call
from tests.faults.sizes import Sizes
from tests.faults.state import difference, state
from tests.faults.stock import copied

FAILED = ROOT / "build" / "faults" / "failed"
"""Damaged inputs that were neither refused nor read right, in a folder each."""


@dataclass(frozen=True)
class Format:
    """A kind of input.

    Attributes:
        name: Row of the table.
        files: The files that are damaged, one each time, as patterns relative to the room.
        command: What reads it.
        right: Returns what is wrong with a result, by the room and the output; "" if nothing is.
        prepare: Called with the room before the damage.
        keeps: Whether a refusal must leave the workspace as it was.
    """

    name: str
    files: tuple[str, ...]
    command: tuple[str, ...]
    right: Callable[[Path, Ended], str]
    prepare: Callable[[Path], object] | None = None
    keeps: bool = True


def right_rows(room: Path, ended: Ended, *names: str) -> str:
    """Check that the stored rows are those of the files, and that every row is accounted for."""
    with duckdb.connect(str(room / "w/.continual/catalog.duckdb"), read_only=True) as connection:
        query = "SELECT path, columns, rows_in, kept, duplicates, leaked, rejected, held_out FROM batches "
        found = connection.execute(query + "ORDER BY position DESC LIMIT 1").fetchone()
        count = connection.execute("SELECT count(*) FROM batches").fetchone()
    assert found is not None
    assert count is not None
    if count[0] == 4:
        return ""  # nothing new: the message says so
    path, columns, rows_in, *parts = found
    if rows_in != sum(parts):
        return f"{rows_in} rows came in, but {parts} are accounted for"
    mapping = json.loads(columns)
    files = [file for name in names for file in sorted(room.glob(name))]
    try:
        there = oracles.pairs(files, mapping["query"], mapping["positive"])
        counts = [oracles.row_count(file, mapping["positive"]) for file in files]
    except Exception as error:
        return f"taken, but the independent reader refuses it: {type(error).__name__}: {str(error)[:200]}"
    if None not in counts and rows_in != sum(filter(None, counts)):
        return f"{rows_in} rows came in, but the independent reader finds {counts}"
    wrong = oracles.stored(room / "w/.continual" / path) - there
    return f"stored {sorted(wrong)[0]}, which the file does not hold" if wrong else ""


def right_task(room: Path, ended: Ended) -> str:
    """Check that the texts and judgements of a task are those of the files that can be used, no more and no fewer."""
    folder, made = room / "beir", room / "w/.continual/tasks/new"
    try:
        corpus, queries = oracles.texts(folder / "corpus.jsonl", title=True), oracles.texts(folder / "queries.jsonl")
        grades = oracles.judgements(folder / "qrels.tsv")
    except Exception as error:
        return f"taken, but the independent reader refuses it: {type(error).__name__}: {str(error)[:200]}"
    with duckdb.connect(config={"threads": 1}) as connection:
        found = {
            name: connection.execute(f"SELECT * FROM read_parquet('{made}/{name}.parquet')").fetchall()
            for name in ("corpus", "queries", "qrels")
        }
    if {name: oracles.squeezed(text) for name, text in found["corpus"]} != corpus:
        return "its documents are not those of the file"
    stored = {name: oracles.squeezed(text) for name, text in found["queries"]}
    if any(queries.get(name) != text for name, text in stored.items()):
        return "its queries are not those of the file"
    if grades is not None:
        usable = {pair: grade for pair, grade in grades.items() if pair[0] in queries and pair[1] in corpus}
        asked = {query for (query, _), grade in usable.items() if grade > 0}
        expected = {pair: grade for pair, grade in usable.items() if pair[0] in asked}
        if {(query, document): grade for query, document, grade in found["qrels"]} != expected:
            return "its judgements are not those of the file"
        if stored.keys() != asked:
            return "its queries are not those with a relevant document"
    return ""


def right_restored(room: Path, ended: Ended, *, stock: Path) -> str:
    """Check that the restored workspace has the versions of the one that was backed up, and misses no file."""
    listed = call(["versions", "list", "--json"], room / "out")
    if listed.out != good_reports(stock)[0]:
        return f"other records: {(listed.out or listed.err)[:200]}"
    checked = call(["doctor", "--json"], room / "out", seconds=30)
    return f"restored, but doctor finds {checked.out[:300]}" if checked.code else ""


def right_settings(room: Path, ended: Ended) -> str:
    """Check that each setting of the file is the one that is used."""
    given = tomllib.loads((room / "w/continual.toml").read_text(encoding="utf-8-sig"))
    used = json.loads(ended.out)["spec"]["provenance"]["config"]
    for section, values in given.items():
        for key, value in values.items() if isinstance(values, dict) else []:
            kept = used.get(section, {}).get(key, value)
            if kept != value and not (isinstance(value, (int, float)) and float(kept) == float(value)):
                return f"{section}.{key} is {value!r} in the file, and {kept!r} was used"
    return ""


def right_base(room: Path, ended: Ended) -> str:
    """Check that the root base has the weights of the folder, and loads."""
    made, given = room / "out/.continual/versions/v0", room / "model"
    here, there = oracles.tensors(made / "model.safetensors"), oracles.tensors(given / "model.safetensors")
    for name, tensor in here.items():
        if name not in there or tensor.tobytes() != there[name].tobytes():
            return f"{name} differs from the folder's"
    return ""


def right_mean(room: Path, ended: Ended) -> str:
    """Check that the merged weights are the mean of those of both models."""
    one, other, made = (oracles.tensors(room / name / "model.safetensors") for name in ("model", "other", "out"))
    for name, tensor in made.items():
        if name not in one or name not in other:
            return f"{name} is of neither model"
        if tensor.dtype == np.float32:
            mean = (one[name].astype(np.float64) + other[name].astype(np.float64)) / 2
            if not np.allclose(tensor, mean, rtol=1e-5, atol=1e-7, equal_nan=False):
                return f"{name} is not the mean of both"
    return ""


def right_adapter(room: Path, ended: Ended) -> str:
    """Check that the model has the tensors of its base, with finite weights."""
    base, made = (oracles.tensors(room / name / "model.safetensors") for name in ("model", "out"))
    for name, tensor in base.items():
        if name not in made or made[name].shape != tensor.shape:
            return f"{name} is missing or has another shape"
        if tensor.dtype == np.float32 and not np.isfinite(made[name]).all():
            return f"{name} has weights that are no numbers"
    return ""


@cache
def good_reports(stock: Path) -> tuple[str, str]:
    """Return the version list of the stock, without and with the transaction that its log holds."""
    found = []
    for prepare in (None, leave_log):
        with copied(stock) as room:
            if prepare is not None:
                prepare(room)
            found.append(call(["versions", "list", "--json"], room / "w").out)
    return found[0], found[1]


def right_records(room: Path, ended: Ended, *, stock: Path, logged: bool) -> str:
    """Check that the records are those of the file that was not damaged."""
    good = good_reports(stock)
    return "" if ended.out in (good if logged else good[:1]) else f"other records: {ended.out[:200]}"


def leave_log(room: Path) -> None:
    """Leave a transaction in the log of the catalog, as a killed process does."""
    path = room / "w/.continual/catalog.duckdb"
    child = os.fork()
    if child == 0:
        connection = duckdb.connect(str(path), config={"threads": 1})
        connection.execute("UPDATE versions SET pinned = true WHERE id = 'v1'")
        os._exit(0)
    os.waitpid(child, 0)


def copy_adapter(room: Path) -> None:
    shutil.copytree(room / "w/.continual/adapters/v1", room / "adapter")


def formats(stock: Path) -> list[Format]:
    """Return the kinds of input."""
    made = []
    for name in ("parquet", "jsonl", "csv", "tsv", "jsonl.gz", "jsonl.zst"):
        file = f"third.{name}"
        command = ("ingest", f"../{file}", "--domain", "other", "--holdout", "0", "--json")
        made.append(Format(name, (file,), command, partial(_rows_of, file)))
    ingest = ("ingest", "../shards", "--domain", "other", "--holdout", "0", "--json")
    beir = ("corpus.jsonl", "queries.jsonl", "qrels.tsv")
    return [
        *made,
        Format("folder of Parquet", ("shards/*.parquet",), ingest, partial(_rows_of, "shards/*.parquet")),
        Format("BEIR task", tuple(f"beir/{each}" for each in beir), ("task", "add", "new", "../beir"), right_task),
        Format("continual.toml", ("w/continual.toml",), ("update", "--plan", "--json"), right_settings),
        Format(
            "model folder, init",
            ("model/*", "model/*/*"),
            ("init", "../out", "--base", "../model"),
            right_base,
        ),
        Format(
            "model folder, merge",
            ("other/*", "other/*/*"),
            ("merge", "../model", "../other", "--out", "../out"),
            right_mean,
        ),
        Format(
            "adapter",
            ("adapter/*.json", "adapter/*.safetensors"),
            ("merge", "../adapter", "-b", "../model", "--out", "../out"),
            right_adapter,
            copy_adapter,
        ),
        Format(
            "catalog",
            ("w/.continual/catalog.duckdb",),
            ("versions", "list", "--json"),
            partial(right_records, stock=stock, logged=False),
            keeps=False,
        ),
        Format(
            "log of the catalog",
            ("w/.continual/catalog.duckdb.wal",),
            ("versions", "list", "--json"),
            partial(right_records, stock=stock, logged=True),
            leave_log,
            keeps=False,
        ),
        Format(
            "backup manifest",
            ("store/*.json", "store/backups/*.json"),
            ("restore", "../store", "../out"),
            partial(right_restored, stock=stock),
        ),
    ]


def _rows_of(file: str, room: Path, ended: Ended) -> str:
    return right_rows(room, ended, file)


def plan(sizes: Sizes, stock: Path) -> Sequence[Attempt]:
    """Return the mutations, evenly over the formats; the first of each is not damaged, and must be read."""
    kinds = formats(stock)
    return [partial(attempt, kinds[number % len(kinds)], number, stock) for number in range(sizes.mutations)]


def attempt(kind: Format, number: int, stock: Path) -> Outcome:
    """Damage an input once, and give it to its command."""
    rng, whole = random.Random(number), number < len(formats(stock))
    with copied(stock) as room:
        if kind.prepare is not None:
            kind.prepare(room)
        chosen = rng.choice(list(_files(room, kind)))
        data, how = (chosen.read_bytes(), "nothing") if whole else damage(chosen, rng)
        before = state(room) if kind.keeps else {}
        chosen.write_bytes(data)
        ended = call(kind.command, room / "w", seconds=20)
        problem = ended.problem()
        if whole and ended.code:
            problem = f"refused, though nothing is damaged: {ended.err[-300:]}"
        elif not problem and ended.code == 0:
            problem = kind.right(room, ended)
        elif not problem and kind.keeps:
            changed = difference(before, state(room))
            problem = f"refused, but it changed {changed}" if changed else ""
        if problem:
            kept = FAILED / f"mutation-{number}"
            kept.mkdir(parents=True, exist_ok=True)
            (kept / chosen.name).write_bytes(data)
            (kept / "command.txt").write_text(
                f"{chosen.relative_to(room)}\n{' '.join(kind.command)}\n{problem}\n{ended.err}"
            )
    result = "read" if ended.code == 0 else f"refused ({ended.code})"
    return Outcome(kind.name, result, problem, {"file": str(chosen.relative_to(room)), "how": how})


def _files(room: Path, kind: Format) -> Iterator[Path]:
    for pattern in kind.files:
        yield from sorted(path for path in room.glob(pattern) if path.is_file() and path.stat().st_size)
