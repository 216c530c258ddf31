"""How long the report of a long life takes, and how heavy it is: a made-up registry of 100 versions and 30 tasks.

    python benchmarks/report.py [--versions 100] [--tasks 30] [--keep DIR]

Fills a registry with versions, scores, verdicts, draws and searches as updates leave them, then runs
`continual report --html FILE` and `continual report --figures DIR` as a person would, Python's start included.

The last line is one JSON object: `seconds` of the command with --html and `megabytes` of its file (bars: 3 s and
8 MB), `render_seconds` of these without Python's start, and `figures_seconds` and `figures_megabytes` of the other.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from continual.config import Config
from continual.registry import Batch, Registry, Score, Task, Version

START = datetime(2024, 1, 1, 9, tzinfo=UTC)
OUTSIDE = 6
"""Tasks of no domain."""


def fill(workspace: Path, versions: int, tasks: int) -> Registry:
    """Make a workspace whose registry has versions and scores as updates leave them, but no models."""
    (workspace / ".continual").mkdir(parents=True)
    (workspace / "continual.toml").write_text("")
    registry = Registry(workspace / ".continual")
    registry.catalog.create()
    rng = random.Random(0)
    names = [f"domain-{number:02d}" for number in range(tasks - OUTSIDE)]
    outside = [f"ood-{number}" for number in range(OUTSIDE)]
    batches: list[str] = []
    for number in range(versions - 1):
        domain = names[number % len(names)]
        task = _task(domain, domain) if number < len(names) else None
        batches.append(registry.add_batch(_batch(domain, number), task).id)
    registry.add_task(*(_task(name, None) for name in outside))
    base = {name: rng.uniform(35, 70) for name in [*names, *outside]}
    parent, scores = None, dict(base)
    for number in range(versions):
        refused = number % 13 == 9
        learned = names[(number - 1) % len(names)] if number else None
        new = {name: value + rng.gauss(0, 0.25) for name, value in scores.items()}
        if learned is not None:
            new[learned] = base[learned] + 8 + rng.gauss(0, 1) - (9 if refused else 0)
        batch = [batches[number - 1]] if number else []
        version = _version(f"v{number}", parent, number, batch, names, new, scores, refused)
        records = [Score(version.id, name, "ndcg_at_10", value, 300, None) for name, value in new.items()]
        registry.add_version(version, records, promote=None if refused else "passed the gate")
        if not refused:
            parent, scores = version.id, new
    return registry


def _batch(domain: str, number: int) -> Batch:
    place = f"data/{domain}/{number}.parquet"
    return Batch("", 0, domain, f"{domain}.parquet", str(number), place, 2000, 1800, 0, 0, 0, 200, None, {}, START)


def _task(name: str, domain: str | None) -> Task:
    return Task(name, 0, domain, f"tasks/{name}", 300, 2000, 300, "holdout", "0", START)


def _version(
    name: str,
    parent: str | None,
    number: int,
    batches: list[str],
    names: list[str],
    new: dict[str, float],
    old: dict[str, float],
    refused: bool,
) -> Version:
    known = names[: max(0, number - 1)]
    changes = {task: _change(task, number, names, new[task], old[task]) for task in new}
    recipe: dict[str, Any] = {"base": "packaged"}
    if parent is not None:
        domain = names[(number - 1) % len(names)]
        recipe = {
            "version": name, "parent": parent, "start": parent, "merge": "search", "weight": 0.55, "seed": 0,
            "parameters": {}, "new": [{"domain": domain, "rows": 1800}],
            "replay": [{"domain": each, "rows": 180} for each in known], "search": _search([*known, domain]),
            "config": Config().model_dump(mode="json"), "libraries": {"torch": "2.13.0"},
        }  # fmt: skip
    verdict = {
        "passed": not refused,
        "reasons": [f"{names[0]} fell by 9.0 points, more than gate.max_forgetting = 2.0"] if refused else ["gained"],
        "figures": {"tasks": changes, "confidence": 0.95},
    }
    return Version(
        id=name,
        position=0,
        parent=parent,
        status="root" if parent is None else "refused" if refused else "accepted",
        path=f"versions/{name}",
        adapter=None if parent is None else f"adapters/{name}",
        sha256="0" * 64,
        batches=batches,
        pairs_trained=0 if parent is None else 3600 + 360 * len(known),
        tokens_trained=0 if parent is None else 400_000,
        seconds=0.0 if parent is None else 120.0,
        joint_pairs=3600 * number,
        recipe=recipe,
        verdict=None if parent is None else verdict,
        created_at=START + timedelta(days=7 * number),
    )


def _change(task: str, number: int, names: list[str], new: float, old: float) -> dict[str, Any]:
    learned = task in names and names.index(task) < number
    kind = "OOD" if not learned else "new" if names.index(task) == (number - 1) % len(names) else "learned"
    difference = new - old
    ends = {"low": difference - 1.2, "high": difference + 1.2}
    return {"kind": kind, "new": new, "old": old, "difference": difference, **ends, "p": 0.2}


def _search(domains: list[str]) -> dict[str, Any]:
    """Return a search of the weight as `--merge search` records it."""

    def point(weight: float) -> dict[str, Any]:
        losses = {name: 1 - 0.1 * math.sin(math.pi * weight) + 0.002 * place for place, name in enumerate(domains)}
        return {"coefficients": {"weight": weight}, "losses": losses, "loss": sum(losses.values()) / len(losses)}

    curve = [point(place / 10) for place in range(11)]
    return {"reference": point(0.0), "curve": curve, "candidates": curve, "best": curve[5], "floor_kept": True}


def timed(*words: str) -> float:
    """Run one command and return its wall time in seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "continual", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="new folder to keep the workspace and what was written in")
    args = parser.parse_args()
    from continual.eval.html import render_html
    from continual.eval.report import build_report

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        registry = fill(folder / "w", args.versions, args.tasks)
        began = time.perf_counter()
        render_html(build_report(registry))
        render_seconds = time.perf_counter() - began
        page, figures = folder / "report.html", folder / "figures"
        seconds = timed("report", "--html", str(page), "-w", str(folder / "w"))
        figures_seconds = timed("report", "--figures", str(figures), "-w", str(folder / "w"))
        result = {
            "versions": args.versions,
            "tasks": args.tasks,
            "seconds": round(seconds, 2),
            "render_seconds": round(render_seconds, 2),
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "figures_seconds": round(figures_seconds, 2),
            "figures_megabytes": round(sum(file.stat().st_size for file in figures.iterdir()) / 1e6, 2),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
