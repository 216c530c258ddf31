"""Phase `kills`: SIGKILL at any moment of every command that writes.

Half of the kills come before a counted write, flush, rename, removal or transaction, and half after a random time, so
that they also hit DuckDB, Arrow and torch on the way. After each, nothing that was registered may be gone, `doctor
--full` may find no error, `doctor --fix` must leave no junk, and the command run again must end in the same state as
one that nobody killed: same rows, versions, scores and sha256 of every file.
"""

from __future__ import annotations

import json
import random
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from tests.faults.bench import Attempt, Outcome
from tests.faults.cases import CASES, Case
from tests.faults.processes import call, die_before
from tests.faults.sizes import SIZE, Sizes
from tests.faults.state import State, difference, junk, lost, state
from tests.faults.stock import copied


@dataclass(frozen=True)
class Reference:
    """A command that nobody killed: the states before and after it, its seconds, and its countable moments."""

    before: State
    after: State
    seconds: float
    moments: int


@cache
def reference(case: Case, stock: Path) -> Reference:
    """Run a command to its end to know what a run is like; except in the short size twice: it must end in one way."""
    found = []
    for _ in range(2 if SIZE.all_commands else 1):
        with copied(stock) as room, tempfile.NamedTemporaryFile() as counter:
            if case.prepare is not None:
                case.prepare(room)
            before = state(room)
            ended = call(case.command, room / "w", partial(die_before, 0, Path(counter.name)))
            if ended.code not in (0, 2 if case.name == "doctor" else 0):
                raise RuntimeError(f"{case.label}: exit {ended.code}: {ended.err[-500:]}")
            found.append(Reference(before, state(room), ended.seconds, Path(counter.name).stat().st_size))
    if problem := difference(found[0].after, found[-1].after):
        raise RuntimeError(f"{case.label} ends differently each time: {problem}")
    return found[-1]


def plan(sizes: Sizes, stock: Path) -> Sequence[Attempt]:
    """Return the kills, spread over the cases that write."""
    cases = [case for case in CASES if case.writes and (sizes.all_commands or case.light)]
    if not sizes.all_commands:
        cases = cases[1 :: max(1, len(cases) // sizes.kills)][: sizes.kills]
    return [partial(kill, cases[number % len(cases)], number, stock) for number in range(sizes.kills)]


def kill(case: Case, number: int, stock: Path) -> Outcome:
    """Kill a command once, and check everything."""
    rng = random.Random(number)
    known = reference(case, stock)
    moment, after = 0, None
    if rng.random() < 0.5:
        moment = 1 + rng.randrange(known.moments)
    else:
        after = rng.random() * known.seconds
    with copied(stock) as room:
        if case.prepare is not None:
            case.prepare(room)
        ended = call(case.command, room / "w", partial(die_before, moment), kill_after=after)
        killed = ended.code == -signal.SIGKILL
        problem = checked(case, known, room) if killed or ended.code in (0, 2) else ended.problem()
    result = "killed" if killed else "ended before"
    return Outcome(case.label, result, problem, {"moment": moment, "after": after})


def checked(case: Case, known: Reference, room: Path) -> str:
    """Return what is wrong after a command was killed and is run again; "" if nothing is."""
    if case.needs_room and case.prepare is None:
        if gone := lost(known.before, state(room)):
            return f"lost: {gone}"
        if problem := mended(room):
            return problem
    return again(case, known, room)


def mended(room: Path) -> str:
    """Return what is wrong with a workspace, or left of a kill after `doctor --fix`; "" if nothing is."""
    if errors := findings(room, severities=("error",)):
        return f"doctor --full: {errors}"
    if findings(room) and (left := findings(room, "--fix")):
        return f"doctor --fix leaves: {left}"
    found = junk(room / "w")
    return f"junk after doctor --fix: {found[:5]}" if found else ""


def findings(room: Path, *options: str, severities: tuple[str, ...] = ("error", "warning")) -> str:
    """Return what doctor finds in a workspace, as text."""
    ended = call(["doctor", "--full", "--json", *options], room / "w")
    if ended.code not in (0, 2) or not ended.out.startswith("{"):
        return f"exit {ended.code}: {ended.err[-500:]}"
    found = json.loads(ended.out)["findings"]
    return "; ".join(f"{each['where']} {each['what']}" for each in found if each["severity"] in severities)


def again(case: Case, known: Reference, room: Path) -> str:
    """Run a killed command again; return what is wrong, or differs from a run that nobody killed."""
    done = not difference(known.after, state(room))
    if case.repeatable or not done:
        ended = call(case.again if case.again and _interrupted(room) else case.command, room / "w")
        if ended.code not in (0, 2 if done or case.name == "doctor" else 0):
            return f"run again: exit {ended.code}: {ended.err[-500:]}"
    if problem := difference(known.after, state(room)):
        return f"run again: {problem}"
    found = junk(room)
    return f"junk after it ran again: {found[:5]}" if found else ""


def _interrupted(room: Path) -> bool:
    ended = call(["status", "--json"], room / "w")
    return bool(json.loads(ended.out)["interrupted"])
