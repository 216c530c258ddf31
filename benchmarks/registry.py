"""Measure the disk space of a stream, and check that every version can be rebuilt after `gc`.

    python benchmarks/registry.py [--steps 12] [--base packaged] [--merge RULE]

Runs small updates on generated pairs with the commands that a person would type, drops snapshots with `continual gc`,
measures the store, and rebuilds every version with `continual versions rebuild`.

The last line is one JSON object: `excess_mb` (size of the store without data, tasks, adapters, and the snapshots of the
root base and the current version), `rebuilt` (versions with the recorded sha256), `steps`, `snapshot_mb`, `adapter_mb`,
`rebuild_seconds` (median).
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
from pathlib import Path

WORDS = [
    a + b for a in ("amber", "cedar", "ember", "grove", "islet", "marsh") for b in ("ford", "gate", "hill", "mere")
]


def continual(*words: str, workspace: Path) -> str:
    """Run one command in a workspace and return what it printed."""
    command = [sys.executable, "-m", "continual", *words, "-w", str(workspace)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def size(*paths: Path) -> int:
    """Return the bytes of some files and folders."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path])]
    return sum(file.stat().st_size for file in files if file.is_file())


def write_pairs(path: Path, rng: random.Random, rows: int) -> None:
    """Write generated pairs that share words."""
    with path.open("w") as file:
        for _ in range(rows):
            topic = " ".join(rng.sample(WORDS, 4))
            row = {"query": topic, "positive": f"{topic} {' '.join(rng.sample(WORDS, 6))}"}
            file.write(json.dumps(row) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--merge", default="interpolate")
    args = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Path(scratch) / "w"
        continual("init", "--base", args.base, workspace=workspace)
        for step in range(args.steps):
            write_pairs(Path(scratch) / f"d{step}.jsonl", rng, args.rows)
            continual("ingest", str(Path(scratch) / f"d{step}.jsonl"), "--holdout", "0", workspace=workspace)
            continual("update", "--replay", "0.1", "--merge", args.merge, workspace=workspace)
            print(f"step {step + 1} of {args.steps}", file=sys.stderr)
        print(continual("gc", workspace=workspace))
        store = workspace / ".continual"
        versions, adapters = store / "versions", store / "adapters"
        snapshot, adapter = size(versions / "v0"), size(adapters / "v1")
        whole = size(store) - size(store / "data", store / "tasks")
        excess = whole - size(versions / "v0", versions / f"v{args.steps}", adapters)
        rebuilt, seconds = 0, []
        for step in range(1, args.steps + 1):
            began = time.perf_counter()
            answer = json.loads(continual("versions", "rebuild", f"v{step}", "--json", workspace=workspace))
            seconds.append(time.perf_counter() - began)
            recorded = json.loads(continual("versions", "show", f"v{step}", "--json", workspace=workspace))["sha256"]
            rebuilt += answer["sha256"] == recorded
        result = {
            "excess_mb": round(excess / 1e6, 3),
            "rebuilt": rebuilt,
            "steps": args.steps,
            "snapshot_mb": round(snapshot / 1e6, 1),
            "adapter_mb": round(adapter / 1e6, 2),
            "rebuild_seconds": round(statistics.median(seconds), 1),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    main()
