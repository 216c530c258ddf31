"""Phase `races`: writers and readers of one workspace at once, as processes of the command line.

Each writer ingests a file of its own again and again, and each reader asks for the status. Every command must end with
0, every row must be registered once, and 95 % of the readers must be answered within a second. A reader's second
begins when Python has started and imported what the command needs: a start takes longer than that by itself when 24
processes share two cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from continual import Workspace
from tests.faults.bench import Attempt, Outcome
from tests.faults.killed import findings
from tests.faults.sizes import Sizes
from tests.faults.stock import copied

ROWS = 20
MOST_SECONDS = 1.0

TIMED = """
import sys, time, duckdb, pyarrow.parquet
import continual.cli, continual.workspace, continual.report.status
began = time.monotonic()
try:
    continual.cli.main()
finally:
    print("seconds", time.monotonic() - began, file=sys.stderr)
"""


def plan(sizes: Sizes, stock: Path) -> Sequence[Attempt]:
    """Return one race; none in the short size, which `tests/cli/test_at_once.py` stands for."""
    return [partial(race, sizes, stock)] if sizes.seconds else []


def command(*words: str) -> tuple[int, float, str]:
    """Run a command; return its exit code, its seconds without the start of Python, and what it printed on stderr."""
    ended = subprocess.run([sys.executable, "-c", TIMED, *words], capture_output=True, text=True, check=False)
    error, _, seconds = ended.stderr.rpartition("seconds ")
    return ended.returncode, float(seconds or "nan"), error


def write(folder: Path, number: int, deadline: float) -> tuple[Counter[int], int, set[str]]:
    """Ingest files until the deadline; return exit codes, the rows ingested, and what failed."""
    codes, rows, faults, turn = Counter[int](), 0, set[str](), 0
    while time.monotonic() < deadline:
        turn += 1
        file = folder.parent / f"w{number}.jsonl"
        names = [f"{number} {turn} {row}" for row in range(ROWS)]
        lines = [json.dumps({"query": f"what is {name}", "positive": f"an answer to {name}"}) for name in names]
        file.write_text("\n".join(lines))
        code, _, error = command("ingest", str(file), "--holdout", "0", "-w", str(folder))
        codes[code] += 1
        rows += ROWS if code == 0 else 0
        if code:
            faults.add(error[-500:])
    return codes, rows, faults


def read(folder: Path, deadline: float) -> tuple[Counter[int], list[float], set[str]]:
    """Ask for the status until the deadline; return exit codes, seconds, and what failed."""
    codes, times, faults = Counter[int](), [], set[str]()
    while time.monotonic() < deadline:
        code, seconds, error = command("status", "-w", str(folder))
        codes[code] += 1
        times.append(seconds)
        if code:
            faults.add(error[-500:])
    return codes, times, faults


def race(sizes: Sizes, stock: Path) -> Outcome:
    """Run all processes, and count."""
    with copied(stock) as room:
        folder = room / "w"
        before = _rows(folder)
        deadline = time.monotonic() + sizes.seconds
        with ThreadPoolExecutor(sizes.writers + sizes.readers) as pool:
            writers = [pool.submit(write, folder, n, deadline) for n in range(sizes.writers)]
            readers = [pool.submit(read, folder, deadline) for _ in range(sizes.readers)]
            written, asked = [job.result() for job in writers], [job.result() for job in readers]
        registered = _rows(folder) - before
        wrong = findings(room)
    expected = sum(rows for _, rows, _ in written)
    exits = sum((codes for codes, *_ in (*written, *asked)), Counter[int]())
    times = sorted(seconds for _, each, _ in asked for seconds in each)
    faults = set().union(*(found for *_, found in (*written, *asked)))
    slow = times[int(len(times) * 0.95)]
    result = (
        f"{sizes.writers} writers, {sizes.readers} readers, {sizes.seconds} s: exits {dict(exits)}; {registered} rows "
        f"registered of {expected}; fewest ingests of a writer {min(codes.total() for codes, *_ in written)}; readers "
        f"p50 {times[len(times) // 2]:.2f} s, p95 {slow:.2f} s, longest {times[-1]:.2f} s"
    )
    problems = [
        *([f"failed: {sorted(faults)[:3]}"] if faults else []),
        *([f"{registered} rows were registered, but {expected} ingested"] if registered != expected else []),
        *([f"95 % of the readers took {slow:.2f} s"] if not slow <= MOST_SECONDS else []),
        *([f"doctor: {wrong}"] if wrong else []),
    ]
    return Outcome("readers and writers", result, "; ".join(problems))


def _rows(folder: Path) -> int:
    return sum(batch.kept + batch.duplicates for batch in Workspace(folder).registry.batches())
