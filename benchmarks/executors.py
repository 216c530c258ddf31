"""Compare BOOM with four subsets in one worker and in two, each on one core, alternately.

    python benchmarks/executors.py --data TRAIN.parquet [--rows N] [--repeats K] [--executor ray]

Each run trains in a new copy of the workspace, in a process of its own that is tied to one core for one worker and to
two cores for two. Times are those of the trainings and of recording their versions: the start of the workers and the
import of the libraries are not counted, the evaluation isn't run. Fails if two merged models differ.

The last line is one JSON object: `ratio` (median of one worker divided by that of two), `one_s`, `two_s`, `sha256`.
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
import time
from pathlib import Path

OPTIONS = {"ratios": "0.25,0.5,0.75,1"}


class Clock:
    """A progress bar that remembers when the trainings' bar first moved and when it ended."""

    def __init__(self) -> None:
        self.label, self.began, self.ended = "", 0.0, 0.0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if self.label.startswith("training"):
            self.began = self.began or time.perf_counter()

    def finish(self) -> None:
        if self.label.startswith("training"):
            self.ended = time.perf_counter()


def train(directory: Path, executor: str, workers: int) -> None:
    """Train in this process and print the seconds and the sha256 of the merged model."""
    from continual import Workspace

    if executor == "ray":
        import ray

        ray.init(num_cpus=workers, logging_level="warning")
    clock = Clock()
    name = "ray" if executor == "ray" else f"processes:{workers}"
    done = Workspace(directory).train("boom", options=OPTIONS, executor=name, progress=clock)
    print(json.dumps({"seconds": clock.ended - clock.began, "sha256": done.version.sha256}))


def measure(workspace: Path, folder: Path, executor: str, workers: int) -> dict[str, float | str]:
    """Run `train` on a copy of a workspace, on as many cores as workers."""
    copy = folder / "run"
    shutil.copytree(workspace, copy)
    cores = sorted(os.sched_getaffinity(0))[:workers]
    pinned = ["taskset", "-c", ",".join(map(str, cores))]
    done = subprocess.run(
        [*pinned, sys.executable, __file__, "--run", copy, "--executor", executor, "--workers", str(workers)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(copy)
    found: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="packaged")
    parser.add_argument("--executor", choices=["processes", "ray"], default="processes")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        train(given.run, given.executor, given.workers)
        return
    import pyarrow.parquet as pq

    from continual import Workspace

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(pq.read_table(given.data).slice(0, given.rows), folder / "rows.parquet")
        workspace = Workspace.init(folder / "w", given.model)
        workspace.ingest(folder / "rows.parquet", domain="rows", holdout=0.0)
        found: dict[int, list[dict[str, float | str]]] = {1: [], 2: []}
        for _ in range(given.repeats):
            for workers, runs in found.items():
                runs.append(measure(folder / "w", folder, given.executor, workers))
                print(f"{workers} worker{'s' * (workers > 1)}: {runs[-1]['seconds']:.1f} s", flush=True)
    hashes = {str(each["sha256"]) for runs in found.values() for each in runs}
    if len(hashes) > 1:
        sys.exit(f"The merged models differ: {sorted(hashes)}")
    one, two = (statistics.median(float(each["seconds"]) for each in found[workers]) for workers in (1, 2))
    print(json.dumps({"ratio": one / two, "one_s": one, "two_s": two, "sha256": hashes.pop()}))


if __name__ == "__main__":
    main()
