"""Run the standard stream through the command line, and compare ours, sequential fine-tuning and joint training.

    python benchmarks/stream.py --data DIR [--seed N] [--runs ours sequential joint]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. Each run has its
own workspace and uses the commands that a person would type:

- ours: for each domain, `ingest` and `update` with the defaults;
- sequential: the same LoRA, one domain after the other, without replay, merge and distillation;
- joint: all domains ingested, then one `update --replay 0 --merge 1` of two epochs from the root base, without
  distillation.

Prints a table per run. The last line is one JSON object: `ratio` (ours' gain of ACC over the base, as a share of
joint's), `ood_change` (ours' mean OOD change against the base, in points), `worst_gain` (ours' smallest gain of a
domain, in points), and the figures of each run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DOMAINS = ["nl2bash", "medquad", "tatqa", "metatool", "banking77"]
OOD = ["squad_en", "gsm8k", "scitldr"]
PLAIN = ["--replay", "0", "--merge", "1", "--set", "train.distillation=0"]
RUNS: dict[str, list[str]] = {
    "ours": [],
    "sequential": PLAIN,
    "joint": [*PLAIN, "--set", "train.epochs=2"],
}
OPEN_GATE = "[gate]\nmax_forgetting = 100\nmax_ood_loss = 100\nmin_gain = -100\n"


def continual(*words: str, workspace: Path, allow: tuple[int, ...] = (0,)) -> str:
    """Run one command in a workspace and return what it printed."""
    command = [sys.executable, "-m", "continual", *words, "-w", str(workspace)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in allow:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def run(name: str, args: argparse.Namespace, workspace: Path) -> dict[str, Any]:
    """Drive one workspace through the stream and return its report."""
    continual("init", "--base", args.base, workspace=workspace)
    settings = workspace / "continual.toml"
    text = settings.read_text().splitlines(keepends=True)
    # The gate must not stop a baseline. Settings of the call go into continual.toml, as a person would write them.
    extra = ([] if name == "ours" else [OPEN_GATE]) + [setting.replace("\\n", "\n") + "\n" for setting in args.toml]
    kept = [line for line in text if not line.startswith("[")] if extra else text
    settings.write_text("".join([*kept, *extra]))
    for task in args.ood:
        continual("task", "add", task, str(args.data / task / "test"), workspace=workspace)
    for domain in args.domains:
        folder = args.data / domain
        words = ["ingest", str(folder / "train.parquet"), "--domain", domain, "--task", str(folder / "test")]
        print(continual(*words, workspace=workspace), file=sys.stderr)
        if name != "joint":
            step(name, args, workspace)
    if name == "joint":
        step(name, args, workspace)
    return dict(json.loads(continual("report", "--json", workspace=workspace)))


def step(name: str, args: argparse.Namespace, workspace: Path) -> None:
    words = ["update", *RUNS[name], "--seed", str(args.seed)]
    if name == "ours":
        words += args.update
    print(continual(*words, workspace=workspace, allow=(0, 3)), file=sys.stderr)


def summary(report: dict[str, Any]) -> dict[str, float]:
    """Return the figures of the current version."""
    position = [version["id"] for version in report["versions"]].index(report["current"])
    base, last = report["matrix"][0], report["matrix"][position]
    changes = {task["name"]: last[i] - base[i] for i, task in enumerate(report["tasks"])}
    inside = [changes[task["name"]] for task in report["tasks"] if task["domain"]]
    outside = [changes[task["name"]] for task in report["tasks"] if not task["domain"]]
    return {
        "acc_gain": sum(inside) / len(inside),
        "ood_change": sum(outside) / len(outside),
        "worst_gain": min(inside),
        "bwt": report["metrics"]["bwt"][position],
        "pairs": sum(version["pairs_trained"] for version in report["versions"]),
        "seconds": sum(version["seconds"] for version in report["versions"]),
    }


def table(name: str, report: dict[str, Any]) -> str:
    """Return a Markdown table of a run's R matrix."""
    tasks = [task["name"] + ("" if task["domain"] else " (OOD)") for task in report["tasks"]]
    lines = [f"{name} | " + " | ".join(tasks) + " | pairs", "|".join(["---"] * (len(tasks) + 2))]
    for version, row in zip(report["versions"], report["matrix"], strict=True):
        cells = ["" if score is None else f"{score:.1f}" for score in row]
        what = "base" if version["verdict"] == "root" else f"{version['id']} +{', '.join(version['domains'])}"
        mark = " (refused)" if version["verdict"] == "refused" else ""
        lines.append(f"{what}{mark} | " + " | ".join(cells) + f" | {version['pairs_trained']:,}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=["ours", "sequential", "joint"])
    parser.add_argument("--domains", nargs="+", default=DOMAINS)
    parser.add_argument("--ood", nargs="+", default=OOD)
    parser.add_argument(
        "--toml", action="append", default=[], help="Text for continual.toml, such as '[train]\\nepochs = 1'."
    )
    parser.add_argument(
        "--update",
        nargs=argparse.REMAINDER,
        default=[],
        help="Further options for the updates of ours; must come last.",
    )
    parser.add_argument("--keep", type=Path, help="Folder to keep the workspaces in.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        figures: dict[str, Any] = {}
        for name in args.runs:
            began = time.perf_counter()
            report = run(name, args, folder / name)
            figures[name] = summary(report)
            print(table(name, report))
            line = ", ".join(f"{key} {value:.2f}" for key, value in figures[name].items() if value is not None)
            print(f"{line}; wall {time.perf_counter() - began:.0f} s\n", flush=True)
    result: dict[str, Any] = {"seed": args.seed, "runs": figures}
    if "ours" in figures:
        result |= {key: figures["ours"][key] for key in ("ood_change", "worst_gain")}
        if "joint" in figures:
            result["ratio"] = figures["ours"]["acc_gain"] / figures["joint"]["acc_gain"]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
