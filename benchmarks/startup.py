"""Measure how long `continual --help` takes, and list what it imports.

    python benchmarks/startup.py

Limit: 0.5 s (median of five), and none of the heavy libraries.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 5
BAR_SECONDS = 0.5
HEAVY = {"torch", "transformers", "sentence_transformers", "mteb", "datasets", "peft", "accelerate", "duckdb"}
COMMAND = Path(sys.executable).with_name("continual")


def help_seconds() -> float:
    """Return the wall time of one `continual --help`, in seconds."""
    began = time.perf_counter()
    subprocess.run([COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def imported() -> dict[str, float]:
    """Return the modules that `continual --help` imports, with their own import time in milliseconds."""
    command = [sys.executable, "-X", "importtime", COMMAND, "--help"]
    trace = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    modules = {}
    for line in trace.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdigit():  # the first line is a heading
            modules[name.strip()] = int(own) / 1000
    return modules


def main() -> None:
    help_seconds()  # fill the caches of the file system and of compiled modules
    median = statistics.median(help_seconds() for _ in range(RUNS))
    modules = imported()
    heavy = sorted(HEAVY & {name.partition(".")[0] for name in modules})

    print(f"continual --help: median of {RUNS} {median:.3f} s (limit {BAR_SECONDS} s)")
    print(f"imported: {len(modules)} modules; heavy ones: {', '.join(heavy) or 'none'}")
    print("slowest modules, own time:")
    for name, own in sorted(modules.items(), key=lambda item: -item[1])[:8]:
        print(f"  {own:7.1f} ms  {name}")
    print(json.dumps({"help_seconds": round(median, 4), "heavy_imports": heavy}))


if __name__ == "__main__":
    main()
