"""Run the benchmarks that need no data of their own, and print one table of ratios. Takes about ten minutes.

    python benchmarks/all.py [NAME ...]

A name, such as `train`, chooses benchmarks. Each runs as its own process, with sizes for two cores. What it prints goes
to stderr. The last line is one JSON object: the figures by the names of the rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from generated import write_pairs

HERE = Path(__file__).parent
Figures = dict[str, Any]


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        name: What is compared.
        value: Reads the figure from the JSON object of a benchmark.
        aim: The figure that is wanted, such as ">= 1.5".
    """

    name: str
    value: Callable[[Figures], float]
    aim: str


class Benchmark(NamedTuple):
    """A script with its arguments, and the lines that it gives."""

    script: str
    arguments: list[str]
    rows: list[Row]


def benchmarks(pairs: Path) -> list[Benchmark]:
    """Return the benchmarks.

    Args:
        pairs: A file of generated pairs.
    """
    return [
        Benchmark("startup", [], [Row("seconds of `continual --help`", lambda found: found["help_seconds"], "<= 0.2")]),
        Benchmark(
            "ingest",
            ["--rows", "300000", "--runs", "1"],
            [
                Row("ingest of 300,000 rows, of DuckDB's bare copy", lambda found: found["ratio"], "<= 3"),
                Row("peak memory of that ingest, MB", lambda found: found["peak_mb"], "<= 1500"),
            ],
        ),
        Benchmark(
            "draw",
            ["--rows", "200000", "2000000", "--runs", "1"],
            [
                Row("draw of 100,000 rows, of 2 M against 200 k", lambda found: found["growth"], "<= 1.5"),
                Row("ORDER BY random(), of a draw from 2 M rows", lambda found: found["speedup"], ">= 10 at 50 M"),
            ],
        ),
        Benchmark(
            "encode",
            ["--texts", "400"],
            [Row("encoding, of SentenceTransformer.encode", lambda found: found["ratio"], ">= 1.5")],
        ),
        Benchmark(
            "train",
            ["--data", str(pairs), "--rows", "128", "--repeats", "1", "--tuned"],
            [
                Row("training, of SentenceTransformerTrainer", lambda found: found["ratio"], ">= 3"),
                Row("training, of that trainer tuned", lambda found: found["ratio_tuned"], ">= 1.5"),
            ],
        ),
        Benchmark(
            "merge",
            ["--gigabytes", "0.5", "--repeats", "1", "--methods", "linear"],
            [Row("linear merge, of mergekit", lambda found: found["ratio"]["linear"], ">= 1")],
        ),
        Benchmark(
            "growth",
            ["--steps", "25"],
            [Row("update, step 25 of step 20 (aim: step 200)", lambda found: found["growth"]["update_s"], "<= 1.2")],
        ),
    ]


def main() -> None:
    figures: dict[str, float] = {}
    lines = ["| what | figure | aim | seconds |", "|---|---:|---:|---:|"]
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder, "pairs.parquet")
        write_pairs(pairs, 256, 256, negatives=True)
        known = benchmarks(pairs)
        chosen = sys.argv[1:] or [each.script for each in known]
        if unknown := set(chosen) - {each.script for each in known}:
            raise SystemExit(f"There is no benchmark {min(unknown)!r}. Choose of {', '.join(e.script for e in known)}.")
        for benchmark in (each for each in known if each.script in chosen):
            began = time.perf_counter()
            command = [sys.executable, str(HERE / f"{benchmark.script}.py"), *benchmark.arguments]
            print(f"{benchmark.script}.py {' '.join(benchmark.arguments)}", file=sys.stderr, flush=True)
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            print(done.stdout, file=sys.stderr, flush=True)
            if done.returncode:
                raise SystemExit(f"{benchmark.script}.py failed; what it said is above.")
            found = json.loads(done.stdout.strip().splitlines()[-1])
            for row in benchmark.rows:
                figures[row.name] = row.value(found)
                took = f"{time.perf_counter() - began:.0f}" if row is benchmark.rows[0] else ""
                lines.append(f"| {row.name} | {figures[row.name]:g} | {row.aim} | {took} |")
    print("\n".join(lines))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
