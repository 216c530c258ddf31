"""Registries made by hand for reports, and what pages and terminals show of them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from continual.registry import (
    Batch,
    Provenance,
    Registry,
    Score,
    Task,
    Verdict,
    Version,
)
from continual.report.figures import Chart
from continual.report.report import Report
from continual.report.sections import sections
from continual.report.terminal import print_tables
from tests.registries import empty_registry

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "--ink", "%{x} $a$ &lt; ]]> `b`"]
HOSTILE_TASK = "<b onclick=alert(3)>"
HOSTILE_QUERY = "<img src=x onerror=alert(1)>"
HOSTILE_DOCUMENT = "</td></table><iframe src=javascript:alert(5)>"


def make_registry(root: Path) -> Registry:
    return empty_registry(root)


def add_domain(registry: Registry, name: str) -> str:
    """Register a batch of a domain with its task, and return the batch's id."""
    number = registry.next_batch_id()
    batch = Batch(number, name, f"{name}.parquet", "0", f"data/{name}/0.parquet", 9, 9, 0, 0, 0, 0, None, {}, START)
    return registry.add_batch(batch, make_task(name, name)).id


def make_task(name: str, domain: str | None) -> Task:
    return Task(name, domain, f"tasks/{name}", 300, 1500, 300, "holdout", "0", START)


def add_version(
    registry: Registry,
    name: str,
    parent: str | None,
    scores: dict[str, float],
    *,
    batches: tuple[str, ...] = (),
    status: str = "accepted",
    pairs: int = 0,
    joint: int = 0,
    reasons: tuple[str, ...] = (),
    changes: dict[str, Any] | None = None,
    recipe: str = "",
) -> None:
    number = int(name[1:])
    version = Version(
        id=name,
        parent=parent,
        status="root" if parent is None else status,
        path=f"versions/{name}",
        adapter=None if parent is None else f"adapters/{name}",
        sha256="0" * 64,
        batches=list(batches),
        pairs_trained=pairs,
        tokens_trained=pairs * 60,
        seconds=pairs / 25,
        joint_pairs=joint,
        provenance=Provenance(base="packaged")
        if parent is None
        else Provenance(
            merge="interpolate", weight=0.6, recipe=recipe or "continual", phase="merged" if recipe else None
        ),
        verdict=None
        if parent is None
        else Verdict.from_json(
            {
                "passed": status == "accepted",
                "reasons": list(reasons),
                "figures": {"tasks": changes or {}, "confidence": 0.9},
            }
        ),
        created_at=START + timedelta(days=7 * number),
    )
    records = [Score(name, task, "ndcg_at_10", score, 300, None) for task, score in scores.items()]
    registry.add_version(version, records, promote=f"update to {name}" if status == "accepted" else None)


def write_texts(registry: Registry, task: str, queries: dict[str, str], documents: dict[str, str]) -> None:
    """Write the texts of a task in which the first document is relevant to every query."""
    folder = registry.path(f"tasks/{task}")
    folder.mkdir(parents=True)
    first = next(iter(documents))
    for name, key, texts in (("queries", "query_id", queries), ("corpus", "doc_id", documents)):
        pq.write_table(pa.table({key: list(texts), "text": list(texts.values())}), folder / f"{name}.parquet")
    qrels = {"query_id": list(queries), "doc_id": [first] * len(queries), "score": [1.0] * len(queries)}
    pq.write_table(pa.table(qrels), folder / "qrels.parquet")
    pq.write_table(pa.table({"key": pa.array([], pa.string())}), folder / "keys.parquet")


def write_scores(
    registry: Registry, version: str, task: str, points: dict[str, float], ranked: dict[str, list[str]]
) -> None:
    """Record the score of a version on a task with those of its queries, in points, and their first documents."""
    path = f"scores/{version}/{task}.parquet"
    file = registry.path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    shares = [value / 100 for value in points.values()]
    columns = {"query_id": list(points), "score": shares, "documents": [ranked[query] for query in points]}
    pq.write_table(pa.table(columns), file)
    registry.add_scores([Score(version, task, "ndcg_at_10", 100 * sum(shares) / len(shares), len(points), path)])


def hostile_registry(root: Path) -> Registry:
    """Two versions whose names, texts, reasons and alias try to be markup; ingest refuses some of these names."""
    registry = make_registry(root)
    batches = [add_domain(registry, name) for name in HOSTILE]
    registry.add_task(make_task(HOSTILE_TASK, None))
    scores = dict.fromkeys(HOSTILE, 50.0)
    add_version(registry, "v0", None, scores)
    change = {"kind": "new", "new": 60.0, "old": 50.0, "difference": 10.0, "low": 9.0, "high": 11.0, "p": 0.001}
    better = dict.fromkeys(scores, 60.0)
    reasons = tuple(f"{name} gained" for name in HOSTILE)
    changes = dict.fromkeys([*scores, HOSTILE_TASK], change)
    learned = tuple(batches)
    add_version(registry, "v1", "v0", better, batches=learned, pairs=1, joint=1, reasons=reasons, changes=changes)
    registry.set_alias("current", "v1", "</script><script>alert(4)</script>")
    write_texts(registry, HOSTILE_TASK, {"q": HOSTILE_QUERY, "r": "plain"}, {"d": HOSTILE_DOCUMENT, "e": "x"})
    write_scores(registry, "v0", HOSTILE_TASK, {"q": 70.0, "r": 30.0}, {"q": ["d"], "r": ["d"]})
    write_scores(registry, "v1", HOSTILE_TASK, {"q": 30.0, "r": 90.0}, {"q": ["e"], "r": ["d"]})
    return registry


def shown(report: Report, width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    print_tables(report, Console(file=stream, width=width, highlight=False, **options))
    return stream.getvalue()


class Page(HTMLParser):
    """The elements of a page with their attributes, the texts of its scripts, and all other text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self.inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = tag
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside is not None:
            (self.scripts if self.inside == "script" else self.styles)[-1] += data
        else:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def chart(report: Report, name: str) -> Chart:
    return next(each.chart for section in sections(report) for each in section.figures if each.chart.name == name)
