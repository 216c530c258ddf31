"""Compare scores on pools with scores on whole corpora, for the versions of a workspace.

    python benchmarks/pools.py --workspace DIR --data DIR --tasks nl2bash medquad [--depths 10 20 50 100] [--tokens 128]

The data folder holds `NAME/test/{corpus,queries,qrels}.parquet`. The workspace isn't changed. A pool has the documents
with judgements, and the first `depth` of each query that v0 finds. Every version is scored by the code of an update.

The table has a row per depth: the share of the texts, the largest difference between a score on the pool and on the
corpus, and the largest difference between the two changes from a version to the next, in points. The last line is one
JSON object with the scores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from continual import Workspace
from continual.config import EvalConfig
from continual.eval.query_scores import read_rankings
from continual.eval.run import Scorer
from continual.eval.suites import WHOLE, Pool, Sample
from continual.eval.tasks import load_task
from continual.registry import Task
from continual.registry.catalog import now


def record_of(root: Path, data: Path, name: str) -> Task:
    """Copy the files of a task below a folder, and return its record."""
    shutil.copytree(data / name / "test", root / "tasks" / name)
    texts = load_task(name, root / "tasks" / name).texts
    return Task(name, None, f"tasks/{name}", len(texts["query"]), len(texts["document"]), 0, "folder", "x", now())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", required=True)
    parser.add_argument("--depths", type=int, nargs="+", default=[10, 20, 50, 100])
    parser.add_argument("--tokens", type=int, help="Most tokens per text.")
    args = parser.parse_args()
    workspace = Workspace(args.workspace)
    registry = workspace.registry
    versions = [each for each in registry.entries() if (registry.path(each.path) / "modules.json").exists()]
    config = EvalConfig(max_length=args.tokens)
    points: dict[str, dict[str, dict[str, float]]] = {}
    shares: dict[int, list[float]] = {depth: [] for depth in args.depths}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        tasks = [record_of(root, args.data, name) for name in args.tasks]
        hard: dict[str, Any] = {}
        for version in versions:
            with Scorer(registry.path(version.path), version.id, version.sha256, root, config) as scorer:
                for task in tasks:
                    (whole,) = scorer.score([task], {task.name: WHOLE}, first=max(args.depths))
                    found = points.setdefault(task.name, {}).setdefault(version.id, {"all": whole.score})
                    if version.parent is None:
                        hard[task.name] = read_rankings(root / str(whole.path))
                    for depth in args.depths:
                        sample: Sample = Pool(None, depth, hard[task.name])
                        (score,) = scorer.score([task], {task.name: sample})
                        found[str(depth)] = score.score
                        if version.parent is None:
                            texts = load_task(task.name, root / task.path, sample).texts["document"]
                            shares[depth].append(len(texts) / task.documents)
                    print(f"{task.name} {version.id}: {found}", flush=True)
    print("| depth | share of the documents | largest error of a score | largest error of a change |")
    print("|---:|---:|---:|---:|")
    for depth in args.depths:
        errors, changes = [], []
        for of_task in points.values():
            gaps = [found[str(depth)] - found["all"] for found in of_task.values()]
            errors += map(abs, gaps)
            changes += [abs(after - before) for before, after in pairwise(gaps)]
        share = sum(shares[depth]) / len(shares[depth])
        print(f"| {depth} | {share:.2f} | {max(errors):.2f} | {max(changes, default=0):.2f} |")
    print(json.dumps(points))


if __name__ == "__main__":
    main()
