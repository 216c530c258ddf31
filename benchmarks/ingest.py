"""Measure time and memory of `ingest`, on real rows if given and on a generated file of two million.

    python benchmarks/ingest.py [--medquad train.parquet] [--rows 2000000] [--tasks DIR ...]

Every row is checked against the tasks of `--tasks`, folders with corpus, queries and qrels.

The last line is one JSON object: `seconds_10k` (median wall seconds of a process on the real rows, with its start and
imports) and `peak_mb_2m` (peak resident MB of a process on the generated file).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

WORDS = 20_000
RUNS = 3

INGEST = """
import json, resource, sys, time
from pathlib import Path
from continual.config import IngestConfig
from continual.registry import Registry
from continual.stream import import_task, ingest

root = Path(sys.argv[2])
root.mkdir(parents=True)
registry = Registry(root)
registry.catalog.create()
for number, task in enumerate(sys.argv[3:]):
    import_task(registry, f"task{number}", Path(task))
begun = time.perf_counter()
report = ingest(registry, IngestConfig(), sys.argv[1], domain="bench")
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "cpu": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024,
    "rows_in": report.rows_in, "kept": report.kept, "duplicates": report.duplicates,
    "leaked": report.leaked, "held_out": report.held_out, "ingest": time.perf_counter() - begun,
}))
"""


def generate(path: Path, rows: int, group_rows: int) -> None:
    """Write a Parquet file of random words: 1 % duplicates, one negative and a document id per row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9))) for _ in range(WORDS)]
    schema = pa.schema(
        [
            ("query", pa.string()),
            ("positive", pa.string()),
            ("negatives", pa.list_(pa.string())),
            ("doc_id", pa.string()),
        ]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        pending: list[dict[str, object]] = []
        for number in range(rows):
            if pending and rng.random() < 0.01:
                pending.append(dict(rng.choice(pending)))
            else:
                pending.append(
                    {
                        "query": " ".join(rng.choices(words, k=8)),
                        "positive": " ".join(rng.choices(words, k=50)),
                        "negatives": [" ".join(rng.choices(words, k=50))],
                        "doc_id": f"d{number // 2}",
                    }
                )
            if len(pending) == group_rows or number == rows - 1:
                writer.write_table(pa.Table.from_pylist(pending, schema=schema))
                pending = []


def measure(source: Path, folder: Path, tasks: Sequence[Path]) -> dict[str, float]:
    """Ingest a file in a separate process."""
    command = [sys.executable, "-c", INGEST, str(source), str(folder / ".continual"), *map(str, tasks)]
    begun = time.perf_counter()
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: dict[str, float] = json.loads(result.stdout)
    return figures | {"seconds": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medquad", type=Path, help="a Parquet file of 10,000 real rows")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of the generated file; 0: no generated file")
    parser.add_argument("--group-rows", type=int, default=100_000, help="rows per row group of the generated file")
    parser.add_argument("--tasks", type=Path, nargs="*", default=[], help="folders of tasks to check the rows against")
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.generate:
        generate(arguments.generate, arguments.rows, arguments.group_rows)
        return

    print(f"{'file':24} {'rows':>10} {'kept':>10} {'seconds':>9} {'ingest s':>9} {'CPU s':>8} {'peak MB':>8}")
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.medquad:
            runs = [measure(arguments.medquad, Path(temporary) / f"real{run}", arguments.tasks) for run in range(RUNS)]
            for run in runs:
                show(arguments.medquad.name, run)
            figures["seconds_10k"] = round(statistics.median(run["seconds"] for run in runs), 2)
        if arguments.rows:
            # Generated in another process, because the peak of a child starts at the memory of its parent.
            path = Path(temporary) / "generated.parquet"
            options = ["--rows", str(arguments.rows), "--group-rows", str(arguments.group_rows)]
            subprocess.run([sys.executable, __file__, "--generate", str(path), *options], check=True)
            run = measure(path, Path(temporary) / "generated", arguments.tasks)
            show(f"generated, {path.stat().st_size >> 20} MB", run)
            figures["peak_mb_2m"] = round(run["peak_mb"])
    print(json.dumps(figures))


def show(name: str, run: dict[str, float]) -> None:
    figures = f"{run['seconds']:>9.2f} {run['ingest']:>9.2f} {run['cpu']:>8.2f} {run['peak_mb']:>8.0f}"
    print(f"{name:24} {run['rows_in']:>10} {run['kept']:>10} {figures}")


if __name__ == "__main__":
    main()
