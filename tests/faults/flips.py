"""Phase `flips`: one flipped bit in any file of a workspace, also in an interrupted update and in caches.

Doctor must find it, and commands that use the file must refuse. A bit that doctor does not find may not change any
result: the commands must print and record what they do without it. `continual.toml` is left out: it is the user's to
edit, and no record says what it should hold.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

from tests.faults.bench import Attempt, Outcome
from tests.faults.processes import call
from tests.faults.sizes import Sizes
from tests.faults.state import state
from tests.faults.stock import copied, flip

LEFT_OUT = (".lock", ".announced", "continual.toml")


def plan(sizes: Sizes, stock: Path) -> Sequence[Attempt]:
    """Return the flips, spread over the files of the workspace."""
    return [partial(attempt, number, stock) for number in range(sizes.flips)]


def unfinished(place: str) -> bool:
    """Return whether a file is of the interrupted update, which writes all but its checkpoint anew, or of vectors."""
    return place.startswith(("runs/", "vectors/")) or "/v3/" in place


def uses(place: str) -> list[list[str]]:
    """Return the commands that use a file of a workspace."""
    top, _, rest = place.partition("/")
    name = rest.partition("/")[0]
    if unfinished(place):
        return [["update", "--resume"]]
    if top == "versions":
        return [["export", name, "--out", "../out"]]
    if top == "adapters":
        return [["versions", "rebuild", name]]
    if top == "data":
        return [["ingest", "../third.tsv", "--domain", "other", "--holdout", "0"]]
    if top == "tasks":
        same = ["compare", "v0", "v2", "--index"]
        words = place.endswith(("corpus.parquet", "queries.parquet", "qrels.parquet"))
        return [same] if words else [["ingest", "../third.tsv", "--domain", "other"]]
    if top == "scores":
        return [["report", "--json"], ["compare", "v1", "v2", "--json"]]
    return [["versions", "list", "--json"], ["report", "--json"], ["versions", "show", "v2", "--json"]]


@cache
def clean(commands: str, stock: Path) -> tuple[str, ...]:
    """Return what commands print and record without a flip."""
    with copied(stock, begun=True) as room:
        return tuple(map(str, _results(json.loads(commands), room)[0]))


def attempt(number: int, stock: Path) -> Outcome:
    """Flip one bit, and look whether it is found, and what commands make of it."""
    rng = random.Random(number)
    with copied(stock, begun=True) as room:
        root = room / "w/.continual"
        files = sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)
        files = [path for path in files if not path.name.endswith(LEFT_OUT)]
        chosen = files[rng.randrange(len(files))]
        if rng.random() < 0.1:
            chosen = root / "catalog.duckdb"
        place = chosen.relative_to(root).as_posix()
        at, bit = rng.randrange(chosen.stat().st_size), rng.randrange(8)
        flip(chosen, at, bit)
        found = call(["doctor", "--full", "--json"], room / "w")
        problem = "" if found.code in (0, 2) else f"doctor: {found.problem()}"
        noticed = found.code == 2
        same, refused, refusals = True, False, ""
        if not problem:
            results, problems = _results(uses(place), room)
            expected = clean(json.dumps(uses(place)), stock)
            for one, other, wrong in zip(results, expected, problems, strict=True):
                problem = problem or wrong
                if one.startswith("refused"):
                    refused, refusals = True, one
                elif one != other:
                    same = False
        if not problem and not same:
            problem = f"changes a result silently{' though doctor finds it' if noticed else ''}"
        kind = re.sub(r"v\d+|b\d+|first|second|third|rejected", "*", place.partition("/")[0])
        if refused and not noticed and not problem:
            problem = f"refused, but not found by doctor: {refusals}"
    result = ("found" if noticed else "not found") + (", refused" if refused else ", same result")
    return Outcome(kind, result, problem, {"file": place, "at": at, "bit": bit})


def _results(commands: list[list[str]], room: Path) -> tuple[list[str], list[str]]:
    """Run commands; return what each printed and recorded, or that it refused, and what is wrong with its end."""
    results, problems = [], []
    for words in commands:
        ended = call(words, room / "w", seconds=60)
        problems.append(ended.problem(seconds=60))
        if ended.code in (2, 4) or (ended.code == 1 and "continual: " in ended.err):
            results.append(f"refused: {ended.err[-300:]}")
            continue
        if "--json" in words:  # it reads; what it prints is what counts
            out, records = ended.out.replace(str(room), "ROOM"), {}
        else:
            out, records = "", {table: sorted(rows) for table, rows in state(room).items() if table != "files"}
        results.append(json.dumps([ended.code, out, records]))
    return results, problems
