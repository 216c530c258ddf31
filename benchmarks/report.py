"""Measure time and size of the report, for a generated registry of 100 versions and 30 tasks.

    python benchmarks/report.py [--versions 100] [--tasks 30] [--keep DIR]

Fills a registry as updates do: versions, verdicts, draws, searches, and the scores and rankings of 300 queries per
task. Then runs `continual report --html FILE` twice and `continual report --figures DIR` once, as whole commands.

The last line is one JSON object:

- `cold_seconds`: the first `--html`, which opens the 3,000 files of scores; `warm_seconds`: the second, which uses the
  cache (limit: 3 s); `render_seconds`: warm, without the start of Python;
- `megabytes`: size of the page (limit: 8 MB);
- `figures_seconds`, `figures_megabytes`: of `--figures`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.config import Config, IndexConfig
from continual.eval.query_scores import CACHE
from continual.eval.suites import SCORES
from continual.index.result import IndexedTask, MapUsed, judge_index
from continual.registry import (
    Batch,
    Registry,
    Score,
    Task,
    Version,
)
from continual.registry.provenance import Provenance
from continual.registry.verdict import Verdict

START = datetime(2024, 1, 1, 9, tzinfo=UTC)
OUTSIDE = 6
"""Number of OOD tasks."""

QUERIES = 300
"""Number of queries per task."""

IDS = [f"q{number:03d}" for number in range(QUERIES)]
DOCUMENTS = [f"d{number:04d}" for number in range(2000)]


def fill(workspace: Path, versions: int, tasks: int) -> Registry:
    """Make a workspace whose registry holds versions and scores as updates write them, without models."""
    (workspace / ".continual").mkdir(parents=True)
    (workspace / "continual.toml").write_text("")
    registry = Registry(workspace / ".continual")
    registry.catalog.create()
    rng = np.random.default_rng(0)
    names = [f"domain-{number:02d}" for number in range(tasks - OUTSIDE)]
    outside = [f"ood-{number}" for number in range(OUTSIDE)]
    batches: list[str] = []
    for number in range(versions - 1):
        domain = names[number % len(names)]
        task = _task(registry, domain, domain) if number < len(names) else None
        batches.append(registry.add_batch(_batch(domain, number), task).id)
    registry.add_task(*(_task(registry, name, None) for name in outside))
    base = {name: np.clip(rng.normal(rng.uniform(0.35, 0.7), 0.3, QUERIES), 0, 1) for name in [*names, *outside]}
    parent, scores = None, dict(base)
    for number in range(versions):
        refused = number % 13 == 9
        learned = names[(number - 1) % len(names)] if number else None
        new = {name: _moved(rng, values, 0.0) for name, values in scores.items()}
        if learned is not None:
            new[learned] = _moved(rng, base[learned], -0.01 if refused else 0.08)
        batch = [batches[number - 1]] if number else []
        version = _version(f"v{number}", parent, number, batch, names, _points(new), _points(scores), refused)
        records = [_score(registry, rng, version.id, name, values) for name, values in new.items()]
        measured = None if parent is None else _compatibility(parent, version.id, _points(new))
        registry.add_version(
            version, records, promote=None if refused else "passed the gate", compatibility=measured
        )  # fmt: skip
        if not refused:
            parent, scores = version.id, new
    return registry


def _moved(rng: np.random.Generator, values: NDArray[np.float64], by: float) -> NDArray[np.float64]:
    """Return scores of the same queries under another version; most hardly change."""
    noise = rng.normal(by, 0.1, QUERIES) * (rng.random(QUERIES) < 0.3) + by
    return np.clip(values + noise, 0, 1)


def _points(values: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    return {name: 100 * float(each.mean()) for name, each in values.items()}


def _score(registry: Registry, rng: np.random.Generator, version: str, task: str, values: NDArray[np.float64]) -> Score:
    """Write the scores and rankings of every query, and return their mean."""
    path = f"scores/{version}/{task}.parquet"
    ranked = pa.array(DOCUMENTS).take(pa.array(rng.integers(0, len(DOCUMENTS), 10 * QUERIES)))
    documents = pa.ListArray.from_arrays(pa.array(range(0, 10 * QUERIES + 1, 10), pa.int32()), ranked)
    file = registry.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {"query_id": pa.array(IDS), "score": pa.array(values), "documents": documents}
    pq.write_table(pa.table(columns), file, compression="zstd")
    return Score(version, task, "ndcg_at_10", 100 * float(values.mean()), QUERIES, path)


def _compatibility(old: str, new: str, points: dict[str, float]) -> dict[str, Any]:
    tasks = []
    for name, value in points.items():
        figures = {
            "old_on_old": value,
            "new_on_new": value,
            "new_on_old": 0.94 * value,
            "old_on_new": 0.93 * value,
            "mapped_on_old": 0.98 * value,
        }
        tasks.append(IndexedTask(name, None, "ndcg_at_10", QUERIES, canary=0.98, overlap=0.8, **figures))
    return judge_index(old, new, tasks, MapUsed("affine", {}, 1600, 200), IndexConfig()).to_json()


def _batch(domain: str, number: int) -> Batch:
    place = f"data/{domain}/{number}.parquet"
    return Batch(
        f"b{number + 1}", domain, f"{domain}.parquet", str(number), place, 2000, 1800, 0, 0, 0, 200, None, {}, START
    )


def _task(registry: Registry, name: str, domain: str | None) -> Task:
    """Write a task's texts, and return it."""
    folder = registry.path(f"tasks/{name}")
    folder.mkdir(parents=True)
    texts = {
        "corpus": {
            "doc_id": DOCUMENTS,
            "text": [f"What is said about {document} in {name}. " * 8 for document in DOCUMENTS],
        },
        "queries": {"query_id": IDS, "text": [f"what is known of {query} in {name}" for query in IDS]},
        "keys": {"key": pa.array([], pa.string())},
        "qrels": {"query_id": IDS, "doc_id": DOCUMENTS[:QUERIES], "score": [1.0] * QUERIES},
    }
    for file, columns in texts.items():
        pq.write_table(pa.table(columns), folder / f"{file}.parquet", compression="zstd")
    return Task(name, domain, f"tasks/{name}", 300, 2000, 300, "holdout", "0", START)


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
    made: dict[str, Any] = {"base": "packaged"}
    if parent is not None:
        domain = names[(number - 1) % len(names)]
        made = {
            "start": "current", "merge": "search", "weight": 0.55, "seed": 0,
            "parameters": {}, "new": [_window(domain, 1800)], "replay": [_window(each, 180) for each in known],
            "search": _search([*known, domain]),
            "config": Config().model_dump(mode="json"), "libraries": {"torch": "2.13.0"},
        }  # fmt: skip
    verdict = {
        "passed": not refused,
        "reasons": [f"{names[0]} fell by 9.0 points, more than gate.max_forgetting = 2.0"] if refused else ["gained"],
        "figures": {"tasks": changes, "confidence": 0.95},
    }
    return Version(
        id=name,
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
        provenance=Provenance.from_json(made),
        verdict=None if parent is None else Verdict.from_json(verdict),
        created_at=START + timedelta(days=7 * number),
    )


def _window(domain: str, rows: int) -> dict[str, Any]:
    return {"domain": domain, "start": "0" * 32, "stop": "f" * 32, "rows": rows, "digest": "0" * 64}


def _change(task: str, number: int, names: list[str], new: float, old: float) -> dict[str, Any]:
    learned = task in names and names.index(task) < number
    role = "OOD" if not learned else "new" if names.index(task) == (number - 1) % len(names) else "learned"
    difference = new - old
    ends = {"low": difference - 1.2, "high": difference + 1.2}
    return {"kind": role, "new": new, "old": old, "difference": difference, **ends, "p": 0.2}


def _search(domains: list[str]) -> dict[str, Any]:
    """Return a search of the weight as `--merge search` records it."""

    def point(weight: float) -> dict[str, Any]:
        losses = {name: 1 - 0.1 * math.sin(math.pi * weight) + 0.002 * place for place, name in enumerate(domains)}
        return {"coefficients": {"weight": weight}, "losses": losses, "loss": sum(losses.values()) / len(losses)}

    curve = [point(place / 10) for place in range(11)]
    return {
        "reference": point(0.0),
        "curve": curve,
        "candidates": curve,
        "best": curve[5],
        "floor": 0.02,
        "floor_kept": True,
    }


def timed(folder: Path, *words: str) -> float:
    """Run one command and return its wall time in seconds; modules are compiled once, as in an installation."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    command = [sys.executable, "-m", "continual", *words, "-w", str(folder / "w")]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="new folder that keeps the workspace and the output")
    args = parser.parse_args()
    from continual.report.build import build_report
    from continual.report.html import render_html

    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        registry = fill(folder / "w", args.versions, args.tasks)
        page, figures = folder / "report.html", folder / "figures"
        timed(folder, "report", "--html", str(page))
        (registry.root / SCORES / CACHE).unlink()
        cold, warm = (timed(folder, "report", "--html", str(page)) for _ in range(2))
        began = time.perf_counter()
        render_html(build_report(registry))
        render_seconds = time.perf_counter() - began
        figures_seconds = timed(folder, "report", "--figures", str(figures))
        result = {
            "versions": args.versions,
            "tasks": args.tasks,
            "cold_seconds": round(cold, 2),
            "warm_seconds": round(warm, 2),
            "render_seconds": round(render_seconds, 2),
            "megabytes": round(page.stat().st_size / 1e6, 2),
            "figures_seconds": round(figures_seconds, 2),
            "figures_megabytes": round(sum(file.stat().st_size for file in figures.iterdir()) / 1e6, 2),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
