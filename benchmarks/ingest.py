"""Measure the time and the memory of `ingest` against DuckDB's bare copy of the same file to Parquet with zstd.

    python benchmarks/ingest.py [--rows 200000] [--negatives] [--history 0] [--runs 2] [--file train.parquet]
        [--tasks DIR ...]

The file is generated: pairs of random words, 50 to 400 characters, a hundredth of them repeated; see `generated.py`.
Both are measured in turn, each in a process of its own, in a temporary folder. With `--history`, the file is ingested a
third time into a workspace that holds so many rows, which are generated as they are stored and not ingested; the other
ingest that this is compared with then holds nothing out, as nothing is held out of the second file of a domain. Every
row is checked against the tasks of `--tasks`, folders with corpus, queries and qrels.

The last line is one JSON object: `seconds` and `cpu` by name, `ratio` and `cpu_ratio` of ingest and the bare copy,
`history_ratio`, and `peak_mb` of the ingest with its helper processes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

INGEST = """
import json, os, resource, sys, threading, time
from pathlib import Path
from continual.config import IngestConfig
from continual.registry import Registry
from continual.stream import import_task, ingest

source, root, domain, holdout, *tasks = sys.argv[1:]
registry = Registry(Path(root))
if not registry.root.is_dir():
    registry.root.mkdir(parents=True)
    registry.catalog.create()
for number, task in enumerate(tasks):
    import_task(registry, f"task{number}", Path(task))

def resident(process):
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # it has ended
        return 0

def watch():
    global peak
    while not ended.wait(0.02):
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        peak = max(peak, sum(map(resident, ["self", *children])))

peak, ended = 0, threading.Event()
watching = threading.Thread(target=watch)
watching.start()
begun = time.perf_counter()
try:
    report = ingest(registry, IngestConfig(), source, domain=domain, holdout=float(holdout) if holdout else None)
    seconds = time.perf_counter() - begun
finally:
    ended.set()
    watching.join()
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({
    "seconds": seconds, "cpu": sum(each.ru_utime + each.ru_stime for each in used), "peak_mb": peak / 2**20,
    "rows_in": report.rows_in, "kept": report.kept, "held_out": report.held_out,
}))
"""

COPY = """
import json, resource, sys, time
import duckdb

begun = time.perf_counter()
query = "COPY (SELECT * FROM read_parquet('{}')) TO '{}' (FORMAT parquet, COMPRESSION zstd)"
duckdb.execute("SET enable_progress_bar = false").fetchall()
duckdb.execute(query.format(*sys.argv[1:])).fetchall()
seconds, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}))
"""

GENERATE = """
import sys
from pathlib import Path
from generated import write_pairs

write_pairs(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), negatives=bool(sys.argv[4]))
"""

HISTORY = """
import sys
from pathlib import Path
from generated import make_store

make_store(Path(sys.argv[1]), int(sys.argv[2]), 3)
"""


def run(code: str, *words: str) -> str:
    """Run code in a process of its own, since the peak of a process begins at the memory of its parent."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
    ).stdout


def measure(name: str, code: str, *words: str) -> dict[str, float]:
    """Run code that prints its figures as JSON, and show them."""
    figures: dict[str, float] = json.loads(run(code, *words))
    shown = " ".join(f"{figures[key]:>9,.2f}" for key in ("seconds", "cpu", "peak_mb"))
    print(f"{name:20} {shown} {os.getloadavg()[0]:>6.1f} {figures.get('kept', 0):>12,}", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, help="a Parquet file to read in place of the generated one")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the generated file")
    parser.add_argument("--group-rows", type=int, default=100_000, help="rows per row group of the generated file")
    parser.add_argument("--negatives", action="store_true", help="a negative in each row of the generated file")
    parser.add_argument("--history", type=int, default=0, help="rows in the workspace of the third ingest")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--tasks", type=Path, nargs="*", default=[], help="folders of tasks to check the rows against")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = arguments.file or folder / "generated.parquet"
        if arguments.file is None:
            sizes = (str(arguments.rows), str(arguments.group_rows))
            run(GENERATE, str(source), *sizes, "negatives" if arguments.negatives else "")
        print(f"{source.name}: {source.stat().st_size / 1e6:,.0f} MB")
        print(f"{'':20} {'seconds':>9} {'CPU s':>9} {'peak MB':>9} {'load':>6} {'kept':>12}")
        runs = compare(arguments, source, folder)
    print(json.dumps(summary(runs)))


def compare(arguments: argparse.Namespace, source: Path, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Measure the copy and the ingests in turn, and return the figures of all runs by name."""
    tasks = list(map(str, arguments.tasks))
    runs: dict[str, list[dict[str, float]]] = {"copy": [], "ingest": []}
    for number in range(arguments.runs):
        runs["copy"].append(measure("bare copy", COPY, str(source), str(folder / "copy.parquet")))
        (folder / "copy.parquet").unlink()
        root = folder / f"empty{number}" / ".continual"
        words: Sequence[str] = (str(source), str(root), "bench", "0" if arguments.history else "", *tasks)
        runs["ingest"].append(measure("ingest", INGEST, *words))
        if arguments.history:
            root = folder / f"full{number}" / ".continual"
            run(HISTORY, str(root), str(arguments.history))
            own = measure("ingest, history", INGEST, str(source), str(root), "bench", "0", *tasks)
            runs.setdefault("history", []).append(own)
        for each in ("empty", "full"):
            shutil.rmtree(folder / f"{each}{number}", ignore_errors=True)
    return runs


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, object]:
    """Return the medians, and their ratios."""
    seconds, cpu = (
        {name: round(statistics.median(run[key] for run in own), 2) for name, own in runs.items()}
        for key in ("seconds", "cpu")
    )
    result: dict[str, object] = {
        "seconds": seconds,
        "cpu": cpu,
        "ratio": round(seconds["ingest"] / seconds["copy"], 2),
        "cpu_ratio": round(cpu["ingest"] / cpu["copy"], 2),
        "peak_mb": round(max(run["peak_mb"] for run in runs["ingest"])),
    }
    if "history" in runs:
        result["history_ratio"] = round(seconds["history"] / seconds["ingest"], 2)
    return result


if __name__ == "__main__":
    main()
