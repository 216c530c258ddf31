"""Measure the commands that only read or write records, on a generated registry of 1,000 versions.

    python benchmarks/scale.py [--versions 1000] [--tasks 100] [--domains 500] [--repeats 5] [--keep DIR]

Fills a registry as updates do: domains, batches, runs, versions with parents, draws, searches and verdicts, scores,
index comparisons and alias events. One version in 13 is refused, one in 40 is a phase of a recipe. There are no models:
the snapshots of the last two versions are a few small files, the others count as dropped by `continual gc`. Scores per
query exist for the last `--scored` versions; the report reads them for its intervals. Then runs every command as a
process of its own and takes the median. `--keep` keeps the workspace, and measures it again if it exists.

The last line is one JSON object: by command, `seconds` (wall time, median), `cpu_seconds` (of the same run) and
`peak_mb` (largest resident memory); `html_mb` (size of the page); `catalog_mb`; `status_small` (`status` on a workspace
of 5 versions, 3 tasks and 3 domains). Limits: 0.2 s for `--help`, 0.5 s for `promote` and `status_small`, 1 s for the
other commands, 5 s and 5 MB for `report --html`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.config import Config, IndexConfig
from continual.index.result import IndexedTask, MapUsed, judge_index
from continual.registry import CURRENT, Batch, Domain, Provenance, Registry, Run, Score, Spec, Task, Version, Window
from continual.registry.digests import FileDigest
from continual.registry.provenance import Cost, SearchPoint, SearchResult
from continual.registry.records import Alias
from continual.registry.rows import encode_value
from continual.registry.verdict import TaskChange, Verdict

START = datetime(2024, 1, 1, 9, tzinfo=UTC)
QUERIES = 300
PIECE = 50
"""Versions that are inserted at once."""

SMALL = (5, 3, 3)
"""Versions, tasks and domains of an ordinary small workspace."""

LIMITS = {"--help": 0.2, "promote": 0.5, "report --html": 5.0, "status_small": 0.5}
SECOND = 1.0

LAUNCHER = """
import os, resource, subprocess, sys, time
began = time.perf_counter()
state = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
print([seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024])
sys.exit(state)
"""
"""Runs a command and prints what it used. A process inherits the peak memory of the one that starts it, so that one
must be small."""


@dataclass(frozen=True)
class Size:
    """The size of a generated registry; the last `scored` versions have scores per query."""

    versions: int
    tasks: int
    domains: int
    scored: int

    @property
    def domain_names(self) -> list[str]:
        """Names of the domains, in the order of the stream."""
        return [f"domain-{number:03d}" for number in range(min(self.domains, max(1, self.versions - 1)))]

    @property
    def task_domains(self) -> dict[str, str | None]:
        """The domain of each task; a tenth of the tasks, and at least one, has none."""
        outside = max(1, self.tasks // 10)
        names = self.domain_names
        step = max(1, len(names) // max(1, self.tasks - outside))
        inside = names[::step][: self.tasks - outside]
        return {name: name for name in inside} | {f"ood-{number}": None for number in range(outside)}


def fill(workspace: Path, size: Size) -> Registry:
    """Make a workspace whose registry holds what many updates would have recorded, without models."""
    (workspace / ".continual").mkdir(parents=True)
    (workspace / "continual.toml").write_text("")
    registry = Registry(workspace / ".continual")
    registry.catalog.create()
    names, tasks = size.domain_names, size.task_domains
    batches = [_batch(names[number % len(names)], number) for number in range(size.versions - 1)]
    insert(registry, "domains", [Domain(name, place + 1, START) for place, name in enumerate(names)])
    insert(registry, "batches", batches, position=range(1, len(batches) + 1))
    records = [_task(registry, name, domain) for name, domain in tasks.items()]
    insert(registry, "tasks", records, position=range(1, len(records) + 1))
    made = _versions(registry, size, batches)
    events: list[Alias] = []
    place = 0
    while piece := list(islice(made, PIECE)):
        versions = [version for version, _, _ in piece]
        insert(registry, "versions", versions, position=range(place, place + len(versions)))
        place += len(versions)
        scores = [score for _, records, _ in piece for score in records]
        insert(registry, "scores", scores, created_at=[START] * len(scores))
        insert(registry, "runs", [_run(version, list(tasks)) for version in versions if version.verdict is not None])
        compared = [compared for _, _, compared in piece if compared is not None]
        insert_rows(
            registry,
            "compatibility",
            {
                "old": [each["old"] for each in compared],
                "new": [each["new"] for each in compared],
                "result": [json.dumps(each) for each in compared],
                "created_at": [START.replace(tzinfo=None)] * len(compared),
            },
        )
        for version in versions:
            if version.status in ("root", "accepted"):
                previous = events[-1].version if events else None
                at = version.created_at
                events.append(Alias(len(events) + 1, CURRENT, version.id, previous, at, f"update to {version.id}"))
    insert(registry, "alias_events", events)
    _files(registry, size, records)
    return registry


def insert(registry: Registry, table: str, records: list[Any], **more: Iterable[Any]) -> None:
    """Insert records of one type into a table at once."""
    if not records:
        return
    rows = {
        field.name: [encode_value(field.name, getattr(record, field.name)) for record in records]
        for field in fields(records[0])
    }
    insert_rows(registry, table, rows | {name: list(values) for name, values in more.items()})


def insert_rows(registry: Registry, table: str, columns: dict[str, list[Any]]) -> None:
    """Insert columns of encoded values into a table at once."""
    values = {
        name: [value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in column]
        for name, column in columns.items()
    }
    with registry.catalog.transaction() as connection:
        connection.register("generated", pa.table(values))
        connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM generated")
        connection.unregister("generated")


def _versions(
    registry: Registry, size: Size, batches: list[Batch]
) -> Iterator[tuple[Version, list[Score], dict[str, Any] | None]]:
    """Yield each version with its scores and its index comparison; refused ones have no children."""
    rng = np.random.default_rng(0)
    tasks, names = size.task_domains, size.domain_names
    base = {task: float(rng.uniform(35, 70)) for task in tasks}
    parent, old = "v0", base
    parameters = Config().model_dump(mode="json")
    for number in range(size.versions):
        name = f"v{number}"
        status = "accepted" if number else "root"
        if number % 40 == 39:
            status = "trained"
        elif number % 13 == 9:
            status = "refused"
        learned = [batches[number - 1]] if number else []
        new = {task: float(np.clip(score + rng.normal(0, 0.4), 0, 100)) for task, score in old.items()}
        for batch in learned:
            if batch.domain in new:
                new[batch.domain] = min(100.0, base[batch.domain] + (8.0 if status != "refused" else -3.0))
        version = Version(
            id=name,
            parent=parent if number else None,
            status=status,
            path=f"versions/{name}",
            adapter=f"adapters/{name}" if number else None,
            sha256=f"{number:064x}",
            batches=[batch.id for batch in learned],
            pairs_trained=3600 * bool(number),
            tokens_trained=400_000 * bool(number),
            seconds=120.0 * bool(number),
            joint_pairs=3600 * number,
            provenance=_provenance(number, names, list(tasks), status, parameters),
            verdict=_verdict(status, new, old, tasks, learned) if status in ("accepted", "refused") else None,
            created_at=START + timedelta(hours=number),
        )
        scored = status != "trained"
        files = scored and number >= size.versions - size.scored
        scores = [
            _score(registry, rng, name, task, points, write=files) for task, points in new.items() if scored
        ]  # fmt: skip
        compared = _compared(parent, name, new) if number and scored else None
        yield version, scores, compared
        if status in ("root", "accepted"):
            parent, old = name, new


def _provenance(
    number: int, names: list[str], tasks: list[str], status: str, config: dict[str, Any]
) -> Provenance:  # fmt: skip
    if not number:
        return Provenance(base="packaged")
    known = names[: number - 1]
    domain = names[(number - 1) % len(names)]
    search = number % 10 == 1
    phase = status == "trained"
    replay = [_window(number, name, 540) for name in known]
    return Provenance(
        start="current",
        merge="search" if search else "interpolate",
        weight=0.8,
        new=[_window(number, domain, 1800)],
        replay=replay,
        held=[_window(number, name, 60) for name in known] if search else [],
        cursors=dict.fromkeys(known, "7f" * 16),
        guarded=tasks,
        config=config,
        libraries={"continual": "0.1.0", "torch": "2.13.0", "transformers": "5.0.0"},
        recipe="phased" if phase else "continual",
        phase=f"phase-{number}" if phase else None,
        search=_search([*known, domain][:50]) if search else None,
        cost=Cost(3600, 400_000, 120.0),
    )


def _window(number: int, domain: str, rows: int) -> Window:
    digest = hashlib.sha256(f"{number} {domain} {rows}".encode()).hexdigest()
    return Window(domain, digest[:32], digest[32:], rows, digest[::-1])


def _search(domains: list[str]) -> SearchResult:
    def point(weight: float) -> SearchPoint:
        losses = {name: 1 - 0.1 * math.sin(math.pi * weight) for name in domains}
        return SearchPoint({"weight": weight}, sum(losses.values()) / len(losses), losses)

    curve = [point(place / 10) for place in range(11)]
    return SearchResult(curve[5], curve, point(0.0), curve, 0.02, floor_kept=True)


def _verdict(
    status: str, new: dict[str, float], old: dict[str, float], tasks: dict[str, str | None], learned: list[Batch]
) -> Verdict:
    fresh = {batch.domain for batch in learned}
    changes = {}
    for task, score in new.items():
        difference, domain = score - old[task], tasks[task]
        role: Any = "OOD" if domain is None else "new" if domain in fresh else "learned"
        changes[task] = TaskChange(difference, difference - 1, difference + 1, None, role, score, old[task], 0.2)
    passed = status == "accepted"
    reasons = ["gained"] if passed else ["domain-000 fell by 3.0 points, more than gate.max_forgetting = 2.0"]
    return Verdict(passed, reasons, limits={"max_forgetting": 2.0}, comparisons=len(changes), tasks=changes)


def _compared(old: str, new: str, points: dict[str, float]) -> dict[str, Any]:
    tasks = [
        IndexedTask(name, None, "ndcg_at_10", QUERIES, 0.98, 0.8, full, full, 0.94 * full, 0.93 * full, 0.98 * full)
        for name, full in points.items()
    ]
    return judge_index(old, new, tasks, MapUsed("affine", {}, 1600, 200), IndexConfig()).to_json()


def _score(registry: Registry, rng: np.random.Generator, version: str, task: str, points: float, write: bool) -> Score:
    path = f"scores/{version}/{task}.parquet" if write else None
    if path is not None:
        values = np.clip(rng.normal(points / 100, 0.2, QUERIES), 0, 1)
        _write_scores(registry.path(path), values)
    return Score(version, task, "ndcg_at_10", points, QUERIES, path, {"recall_at_10": points, "mrr_at_10": points})


def _write_scores(file: Path, values: NDArray[np.float64]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    documents = [[f"d{place:04d}" for place in range(10)]] * len(values)
    ids = [f"q{place:03d}" for place in range(len(values))]
    pq.write_table(pa.table({"query_id": ids, "score": values, "documents": documents}), file, compression="zstd")


def _batch(domain: str, number: int) -> Batch:
    path = f"data/{domain}/b{number + 1}.parquet"
    return Batch(
        f"b{number + 1}", domain, f"{domain}.parquet", "0" * 64, path, 2000, 1800, 0, 0, 0, 200, None, {}, START
    )


def _task(registry: Registry, name: str, domain: str | None) -> Task:
    folder = registry.path(f"tasks/{name}")
    folder.mkdir(parents=True)
    ids = [f"q{place:03d}" for place in range(QUERIES)]
    documents = [f"d{place:04d}" for place in range(QUERIES)]
    texts: dict[str, dict[str, Any]] = {
        "corpus": {"doc_id": documents, "text": [f"What is said about {each} in {name}." for each in documents]},
        "queries": {"query_id": ids, "text": [f"what is known of {each} in {name}" for each in ids]},
        "keys": {"key": pa.array([], pa.string())},
        "qrels": {"query_id": ids, "doc_id": documents, "score": [1.0] * QUERIES},
    }
    for file, columns in texts.items():
        pq.write_table(pa.table(columns), folder / f"{file}.parquet", compression="zstd")
    return Task(name, domain, f"tasks/{name}", QUERIES, len(documents), QUERIES, "holdout", "0" * 64, START)


def _run(version: Version, tasks: list[str]) -> Run:
    spec = Spec(version.id, version.parent or "", version.batches, tasks, version.joint_pairs, version.provenance)
    return Run(version.id, "done", spec, version.created_at, version.created_at)


def _files(registry: Registry, size: Size, tasks: list[Task]) -> None:
    """Write the snapshots of two versions that `promote` can name, and record the digests of all files."""
    accepted = [version.id for version in registry.versions() if version.status == "accepted"][-2:]
    for name in accepted:
        folder = registry.path(f"versions/{name}")
        folder.mkdir(parents=True)
        for number in range(12):
            (folder / f"file-{number}").write_text(f"{name} {number}\n" * 100)
    artifacts = [*(f"versions/{name}" for name in accepted), *(task.path for task in tasks)]
    scored = [score.path for score in registry.all_scores() if score.path is not None]
    measured = registry.digests.measure(*artifacts, *scored)
    gone = [
        FileDigest(f"adapters/v{number}/{name}", f"adapters/v{number}", 1000, "0" * 64)
        for number in range(1, size.versions)
        for name in ("adapter_config.json", "adapter_model.safetensors", "README.md")
    ]
    insert(registry, "files", [*measured, *gone])


@dataclass(frozen=True)
class Used:
    """Wall and processor time of one process, in seconds, and its largest resident memory, in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def run(folder: Path, *words: str) -> Used:
    """Run one command; modules are compiled once, as in an installation."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    command = [sys.executable, "-S", "-c", LAUNCHER, sys.executable, "-m", "continual", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"continual {' '.join(words)} ended with {done.returncode}")
    return Used(*json.loads(done.stdout))


def median(folder: Path, repeats: int, *calls: tuple[str, ...]) -> Used:
    """Run calls in turn, once to fill the caches and then `repeats` times, and return the run of median wall time."""
    run(folder, *calls[-1])
    costs = [run(folder, *calls[number % len(calls)]) for number in range(repeats)]
    return sorted(costs, key=lambda cost: cost.seconds)[len(costs) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=100)
    parser.add_argument("--domains", type=int, default=500)
    parser.add_argument("--scored", type=int, default=10, help="versions with scores per query, the newest ones")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", help="commands to measure, as in the output, with commas; by default all")
    parser.add_argument("--keep", type=Path, help="folder that keeps the workspace and the output")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        sizes = {"w": Size(args.versions, args.tasks, args.domains, args.scored), "small": Size(*SMALL, SMALL[0])}
        for name, size in sizes.items():
            if not (folder / name).exists():
                began = time.perf_counter()
                fill(folder / name, size)
                print(f"filled {size} in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        result = measure(folder, args.repeats, args.only.split(",") if args.only else [])
        print(json.dumps(result))


def measure(folder: Path, repeats: int, only: list[str]) -> dict[str, Any]:
    """Run every command, print a table, and return the figures."""
    registry = Registry(folder / "w" / ".continual")
    current = registry.alias(CURRENT)
    assert current is not None
    last = current.version
    other = next(
        entry.id
        for entry in reversed(registry.versions())
        if entry.id != last and registry.path(entry.path).is_dir() and entry.status == "accepted"
    )
    page = folder / "report.html"
    there = ("-w", str(folder / "w"))
    calls: dict[str, list[tuple[str, ...]]] = {
        "--help": [("--help",)],
        "status_small": [("status", "-w", str(folder / "small"))],
        "status": [("status", *there)],
        "versions list": [("versions", "list", *there)],
        "versions list --json": [("versions", "list", "--json", *there)],
        "versions show": [("versions", "show", last, *there)],
        "versions history": [("versions", "history", *there)],
        "promote": [("promote", last, *there), ("promote", other, *there)],
        "task list": [("task", "list", *there)],
        "report": [("report", *there)],
        "report --json": [("report", "--json", *there)],
        "report --html": [("report", "--html", str(page), *there)],
    }
    result: dict[str, Any] = {}
    print(f"{'command':22} {'wall, s':>8} {'limit':>6} {'CPU, s':>7} {'peak, MB':>9}")
    for name, words in calls.items():
        if only and name not in only:
            continue
        cost = median(folder, repeats | 1, *words)
        result[name] = {
            "seconds": round(cost.seconds, 3),
            "cpu_seconds": round(cost.cpu_seconds, 3),
            "peak_mb": round(cost.peak_mb),
        }
        limit = LIMITS.get(name, SECOND)
        print(f"{name:22} {cost.seconds:8.2f} {limit:6.1f} {cost.cpu_seconds:7.2f} {cost.peak_mb:9.0f}", flush=True)
    result["html_mb"] = round(page.stat().st_size / 1e6, 2) if page.exists() else None
    result["catalog_mb"] = round((folder / "w" / ".continual" / "catalog.duckdb").stat().st_size / 1e6, 1)
    result["load"] = round(os.getloadavg()[0], 1)
    return result


if __name__ == "__main__":
    main()
