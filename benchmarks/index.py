"""Run one update, and measure what a query map recovers on the old index.

    python benchmarks/index.py --data DIR [--domain medquad] [--seed N] [--method auto] [--keep DIR]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. The commands are run as
a person would type them: `init`, `task add` for the OOD tasks, `ingest`, `update` with the defaults, `index fit v0 v1`.

Prints a table. The last line is one JSON object: `worst` (the smallest share, over the tasks, of full re-embedding's
nDCG@10 that new queries reach on the old index through the map), `worst_unmapped` (without the map), `method`, and the
figures of each task.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from stream import OOD, continual


def run(args: argparse.Namespace, workspace: Path, out: Path) -> dict[str, Any]:
    """Run the commands in a new workspace and return the JSON of `index fit`."""
    continual("init", "--base", args.base, workspace=workspace)
    if args.toml:
        settings = "".join(setting.replace("\\n", "\n") + "\n" for setting in args.toml)
        (workspace / "continual.toml").write_text(settings, encoding="utf-8")
    for task in args.ood:
        continual("task", "add", task, str(args.data / task / "test"), workspace=workspace)
    folder = args.data / args.domain
    words = ["--domain", args.domain, "--task", str(folder / "test")]
    continual("ingest", str(folder / "train.parquet"), *words, workspace=workspace)
    # A version that the gate refused can be measured too.
    continual("update", "--seed", str(args.seed), workspace=workspace, allow=(0, 3))
    words = ["fit", "v0", "v1", "-o", str(out), "--method", args.method, "--json"]
    return dict(json.loads(continual("index", *words, workspace=workspace)))


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| task | cosine | overlap@10 | old on old | new on new | new on old | mapped on old | kept | kept, map |",
        "|" + "---|" * 9,
    ]
    scores = ("old_on_old", "new_on_new", "new_on_old", "mapped_on_old")
    for task in found["tasks"]:
        points = " | ".join(f"{task[name]:.1f}" for name in scores)
        shares = f"{task['kept']:.1%} | {task['kept_mapped']:.1%}"
        lines.append(f"| {task['task']} | {task['canary']:.3f} | {task['overlap']:.0%} | {points} | {shares} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--domain", default="medquad")
    parser.add_argument("--ood", nargs="+", default=OOD)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="auto")
    parser.add_argument(
        "--toml", action="append", default=[], help="Text for continual.toml, such as '[train]\\nepochs = 1'."
    )
    parser.add_argument("--keep", type=Path, help="Folder to keep the workspace and the fitted model in.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        began = time.perf_counter()
        found = run(args, folder / "workspace", folder / "fitted")
        print(table(found))
        print(f"needs_reindex: {found['needs_reindex']}; wall {time.perf_counter() - began:.0f} s")
        tried = ", ".join(f"{each['method']} {each['settings']} {each['agreement']:.3f}" for each in found["tried"])
        print(f"agreement on held-out rows: {tried}\n")
    keys = ("canary", "overlap", "old_on_old", "new_on_new", "new_on_old", "old_on_new", "mapped_on_old", "kept_mapped")
    result = {
        "seed": args.seed,
        "worst": found["kept_mapped"],
        "worst_unmapped": found["kept"],
        "method": found["map"]["method"],
        "settings": found["map"]["settings"],
        "needs_reindex": found["needs_reindex"],
        "tasks": {task["task"]: {key: task[key] for key in (*keys, "kept")} for task in found["tasks"]},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
