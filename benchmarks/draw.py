"""Measure the draw of replayed rows from a domain of many rows, against samples by DuckDB and by `datasets`.

    python benchmarks/draw.py [--rows 200000 2000000] [--draw 100000] [--datasets]

The stored rows are generated, short, and in the layout of an ingest; see `generated.add_stored`. Each figure is of a
process of its own, in turn:

- window: the rows that `RowReader.draw` takes of the domain, without the check of its files;
- check: the comparison of the files with their digests, which reads them in full before every draw;
- order by: DuckDB's `ORDER BY random() LIMIT`, on the same file;
- shuffle: `shuffle` and `select` of the `datasets` library, on a copy in its own format that is made before (with
  `--datasets`).

The last line is one JSON object: seconds by name for each number of rows, `growth` (the window of the most rows over
that of the fewest), `bytes_ratio` (bytes read for the window over the bytes that its rows take in the file, most rows),
and `speedup` (order by over window, most rows).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

START = """
import json, sys, time
from pathlib import Path
root, count, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
file = str(root / "data" / "bench" / "b1.parquet")

def bytes_read():
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])

def timed(work):
    read, begun = bytes_read(), time.perf_counter()
    rows = work()
    print(json.dumps({"seconds": time.perf_counter() - begun, "bytes": bytes_read() - read, "rows": rows}))
"""

WAYS = {
    "window": """
from continual.registry import Registry
from continual.replay import RowReader
registry = Registry(root)
with RowReader(registry) as reader:
    reader._session.execute("SET enable_progress_bar = false")
    reader._read_in_full = {batch.id for batch in registry.batches()}
    cursor = f"{seed * 37 % 256:02x}" + "0" * 30
    timed(lambda: reader.draw([], registry.batches(), {"bench": count}, {"bench": cursor}).rows)
""",
    "check": """
from continual.registry import Registry
registry = Registry(root)
timed(lambda: len(registry.rows_files(registry.batches(), full=True)))
""",
    "order by": """
import duckdb
duckdb.execute("SET enable_progress_bar = false").fetchall()
duckdb.execute(f"SELECT setseed({seed / 100})").fetchall()
query = f"SELECT query, positive, negatives, doc_id FROM read_parquet('{file}') ORDER BY random() LIMIT {count}"
timed(lambda: duckdb.sql(query).to_arrow_table().num_rows)
""",
    "shuffle": """
import datasets
datasets.disable_progress_bars()
rows = datasets.load_from_disk(str(root / "datasets"))
timed(lambda: rows.shuffle(seed=seed).select(range(count)).with_format("arrow")[:].num_rows)
""",
}

STORE = """
import sys
from pathlib import Path
from generated import make_store

root = Path(sys.argv[1])
make_store(root, int(sys.argv[2]), 2)
if sys.argv[3]:
    import datasets

    file = str(root / "data" / "bench" / "b1.parquet")
    columns = ["query", "positive", "negatives", "doc_id"]
    rows = datasets.Dataset.from_parquet(file, columns=columns, cache_dir=str(root / "cache"))
    rows.save_to_disk(str(root / "datasets"))
"""


def run(code: str, *words: str) -> str:
    """Run code in a process of its own."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 2_000_000])
    parser.add_argument("--draw", type=int, default=100_000, help="rows to draw")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--datasets", action="store_true", help="also measure the datasets library")
    arguments = parser.parse_args()
    ways = [way for way in WAYS if way != "shuffle" or arguments.datasets]
    medians: dict[int, dict[str, float]] = {}
    print(f"{'rows':>12} {'way':10} {'seconds':>9} {'MB read':>9} {'of drawn':>9} {'load':>6}")
    with tempfile.TemporaryDirectory() as temporary:
        ratios: dict[int, float] = {}
        for rows in arguments.rows:
            root = Path(temporary) / str(rows) / ".continual"
            run(STORE, str(root), str(rows), "datasets" if arguments.datasets else "")
            drawn = (root / "data" / "bench" / "b1.parquet").stat().st_size * arguments.draw / rows
            seconds: dict[str, list[float]] = {way: [] for way in ways}
            for number in range(arguments.runs):
                for way in ways:
                    found = json.loads(run(START + WAYS[way], str(root), str(arguments.draw), str(number)))
                    seconds[way].append(found["seconds"])
                    ratio = found["bytes"] / drawn
                    ratios |= {rows: ratio} if way == "window" else {}
                    line = f"{found['seconds']:>9.2f} {found['bytes'] / 1e6:>9,.0f} {ratio:>9.1f}"
                    print(f"{rows:>12,} {way:10} {line} {os.getloadavg()[0]:>6.1f}", flush=True)
            medians[rows] = {way: round(statistics.median(own), 3) for way, own in seconds.items()}
    fewest, most = medians[min(medians)], medians[max(medians)]
    figures = {
        "seconds": medians,
        "growth": round(most["window"] / fewest["window"], 2),
        "bytes_ratio": round(ratios[max(medians)], 2),
        "speedup": round(most["order by"] / most["window"], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
