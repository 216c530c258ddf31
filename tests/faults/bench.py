"""Runs the attempts of a phase in processes that have imported everything, and keeps their outcomes as JSON lines."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from continual.storage.files import publish

PROCESSES = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Outcome:
    """How one attempt ended.

    Attributes:
        case: The row of the table that it counts in.
        result: What happened, in a word or two.
        problem: What is wrong about it; "" if nothing.
        replay: What repeats the attempt: `make faults ONLY=PHASE REPLAY=NUMBER`, and with what.
        seconds: How long it took.
    """

    case: str
    result: str
    problem: str = ""
    replay: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


Attempt = Callable[[], Outcome]
Plan = Callable[[Path], Sequence[Attempt]]
"""Makes the attempts of a phase. It is called in each worker with the stock, so it gives the same each time."""


def run(
    plan: Plan,
    stock: Path,
    out: Path,
    jobs: int = 1,
    *,
    only: int | None = None,
    tell: Callable[[str], object] = print,
) -> list[Outcome]:
    """Run the attempts of a phase that have no outcome yet; return the outcomes of all.

    A run that was stopped continues: each outcome is on the disk as soon as it is known.

    Args:
        stock: Of `make_stock`.
        out: File for the outcomes, one JSON object a line. Remove it to make all attempts again.
        jobs: Processes; each takes every `jobs`-th attempt.
        only: Number of the one attempt to make again.
        tell: Called with a line about the progress now and then.
    """
    PROCESSES.set_forkserver_preload(["tests.faults.warm"])
    out.parent.mkdir(parents=True, exist_ok=True)
    if only is not None:
        out = out.with_stem(f"{out.stem}-{only}")
        out.unlink(missing_ok=True)
    before = recorded(out)
    parts = [part_of(out, number) for number in range(jobs)]
    for part in parts:
        part.write_text("")
    done = frozenset(outcome.replay["attempt"] for outcome in before)
    workers = [
        PROCESSES.Process(target=_work, args=(plan, stock, part, number, jobs, only, done))
        for number, part in enumerate(parts)
    ]
    began = told = time.monotonic()
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        workers[0].join(0.2) if workers[0].is_alive() else time.sleep(0.2)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            found = [outcome for part in parts for outcome in read(part)]
            wrong = sum(bool(outcome.problem) for outcome in found)
            tell(f"{out.stem}: {len(found)} attempts, {wrong} wrong, {told - began:.0f} s")
    if codes := [worker.exitcode for worker in workers if worker.exitcode]:
        raise RuntimeError(f"{out.stem}: a worker of the harness ended with {codes[0]}")
    found = recorded(out)
    tell(f"{out.stem}: {len(found)} attempts, {len(before)} of them earlier, in {time.monotonic() - began:.0f} s")
    return found


def part_of(out: Path, number: int | str) -> Path:
    """Return the file that one worker writes to."""
    return out.with_suffix(f".{number}.part")


def recorded(out: Path) -> list[Outcome]:
    """Return all outcomes so far, in the order of the attempts; move those of workers into the file `out`."""
    parts = sorted(out.parent.glob(part_of(out, "*").name))
    found = {outcome.replay["attempt"]: outcome for file in (out, *parts) if file.exists() for outcome in read(file)}
    outcomes = [found[number] for number in sorted(found)]
    if parts:
        with publish(out) as partial:
            partial.write_text("".join(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes))
    for part in parts:
        part.unlink()
    return outcomes


def _work(plan: Plan, stock: Path, part: Path, number: int, jobs: int, only: int | None, done: frozenset[int]) -> None:
    with part.open("a") as file:
        for index, attempt in enumerate(plan(stock)):
            if index % jobs == number and index not in done and only in (None, index):
                file.write(json.dumps(asdict(tried(attempt, index))) + "\n")
                file.flush()


def tried(attempt: Attempt, index: int) -> Outcome:
    """Make an attempt. One that the harness cannot make counts as wrong: nothing is left out unseen."""
    began = time.monotonic()
    try:
        outcome = attempt()
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        outcome = Outcome("the harness itself", "failed", f"attempt {index}: {error!r}")
    return Outcome(
        outcome.case, outcome.result, outcome.problem, outcome.replay | {"attempt": index}, time.monotonic() - began
    )


def read(file: Path) -> Iterator[Outcome]:
    """Yield the outcomes of a file."""
    for line in file.read_text().splitlines():
        try:
            yield Outcome(**json.loads(line))
        except ValueError:  # half a line, which is being written
            return


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as a Markdown table, a row per case."""
    lines = ["| what | tried | results | wrong |", "|---|---:|---|---:|"]
    cases: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        cases.setdefault(outcome.case, []).append(outcome)
    for case, found in sorted(cases.items()):
        counts: dict[str, int] = {}
        for outcome in found:
            counts[outcome.result] = counts.get(outcome.result, 0) + 1
        results = ", ".join(f"{count} {result}" for result, count in sorted(counts.items(), key=lambda each: -each[1]))
        lines.append(f"| {case} | {len(found)} | {results} | {sum(bool(outcome.problem) for outcome in found)} |")
    lines.append(f"| **all** | {len(outcomes)} | | {sum(bool(outcome.problem) for outcome in outcomes)} |")
    return "\n".join(lines)
