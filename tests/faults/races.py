"""Writers and readers of one workspace at once: exit codes, rows registered once, and how long readers take.

Each writer ingests a file of its own again and again, and each reader runs `continual status`, all as processes of
the command line. The exit code is 1 if a command failed otherwise than busy, or a row is missing or registered twice.

    python benchmarks/contention.py --writers 16 --readers 8 --seconds 600
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from continual import Workspace

ROWS = 20


def command(*words: str) -> tuple[int, float, str]:
    """Run a command; return its exit code, its seconds and what it printed on stderr."""
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", "continual", *words], capture_output=True, text=True, check=False)
    return ended.returncode, time.monotonic() - began, ended.stderr


def write(folder: Path, number: int, deadline: float) -> tuple[Counter[int], float, int, set[str]]:
    """Ingest files until the deadline; return exit codes, the longest time, the rows ingested, and tracebacks."""
    codes, longest, rows, faults, turn = Counter[int](), 0.0, 0, set[str](), 0
    while time.monotonic() < deadline:
        turn += 1
        file = folder.parent / f"w{number}.jsonl"
        names = [f"{number} {turn} {row}" for row in range(ROWS)]
        lines = [json.dumps({"query": f"what is {name}", "positive": f"an answer to {name}"}) for name in names]
        file.write_text("\n".join(lines))
        code, seconds, error = command("ingest", str(file), "--holdout", "0", "-w", str(folder))
        codes[code] += 1
        longest = max(longest, seconds)
        rows += ROWS if code == 0 else 0
        if code not in (0, 4):
            faults.add(error[-500:])
    return codes, longest, rows, faults


def read(folder: Path, deadline: float) -> tuple[Counter[int], list[float]]:
    """Ask for the status until the deadline; return exit codes and seconds."""
    codes, times = Counter[int](), []
    while time.monotonic() < deadline:
        code, seconds, _ = command("status", "-w", str(folder))
        codes[code] += 1
        times.append(seconds)
    return codes, times


def main() -> int:
    """Run the processes and print what happened."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--writers", type=int, default=16)
    options.add_argument("--readers", type=int, default=8)
    options.add_argument("--seconds", type=float, default=60)
    options.add_argument("--base", default="packaged", help="base model of the workspace")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.init(Path(scratch) / "w", given.base)
        deadline = time.monotonic() + given.seconds
        with ThreadPoolExecutor(given.writers + given.readers) as pool:
            writers = [pool.submit(write, workspace.directory, n, deadline) for n in range(given.writers)]
            readers = [pool.submit(read, workspace.directory, deadline) for _ in range(given.readers)]
            written, asked = [job.result() for job in writers], [job.result() for job in readers]
        registered = sum(batch.kept + batch.duplicates for batch in workspace.registry.batches())
    expected = sum(rows for _, _, rows, _ in written)
    exits = sum((codes for codes, *_ in written), Counter[int]())
    times = sorted(seconds for _, each in asked for seconds in each)
    print(
        f"writers: exits {dict(exits)}, fewest ingests of one {min(codes[0] for codes, *_ in written)}, longest "
        f"{max(longest for _, longest, *_ in written):.1f} s"
    )
    print(f"rows: {registered} registered, {expected} ingested")
    if times:
        print(
            f"readers: exits {dict(sum((codes for codes, _ in asked), Counter[int]()))}, p50 "
            f"{times[len(times) // 2]:.2f} s, p95 {times[int(len(times) * 0.95)]:.2f} s, longest {times[-1]:.2f} s"
        )
    faults = set().union(*(found for *_, found in written))
    print("\n".join(faults), end="\n" if faults else "")
    return int(registered != expected or bool(faults))


if __name__ == "__main__":
    sys.exit(main())
