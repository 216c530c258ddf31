"""The report: its numbers on a hand-made stream, its forms, and names that try to be markup."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from continual.config import CompatConfig
from continual.errors import InputError, NotFoundError, NothingToDoError
from continual.index.result import MapUsed, TaskCompatibility, judge
from continual.registry import (
    Batch,
    Registry,
    Score,
    Task,
    Version,
)
from continual.registry.provenance import Provenance, Window
from continual.registry.verdict import TaskChange, Verdict
from continual.report.build import build_report
from continual.report.figures import (
    BarChart,
    Chart,
    HeatMap,
    LineChart,
)
from continual.report.files import markdown
from continual.report.html import render_html, write_html
from continual.report.report import Report
from continual.report.sections import sections
from continual.report.summary import bills
from continual.report.terminal import print_tables

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>", "--ink", "%{x} $a$ &lt; ]]> `b`"]
HOSTILE_TASK = "<b onclick=alert(3)>"
HOSTILE_QUERY = "<img src=x onerror=alert(1)>"
HOSTILE_DOCUMENT = "</td></table><iframe src=javascript:alert(5)>"


def make_registry(root: Path) -> Registry:
    registry = Registry(root / ".continual")
    registry.catalog.create()
    return registry


def add_domain(registry: Registry, name: str) -> str:
    """Register a batch of a domain with its task, and return the batch's id."""
    batch = Batch(
        registry.next_batch_id(),
        name,
        f"{name}.parquet",
        "0",
        f"data/{name}/0.parquet",
        9,
        9,
        0,
        0,
        0,
        0,
        None,
        {},
        START,
    )
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
    changes: dict[str, TaskChange] | None = None,
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
        else Verdict(status == "accepted", list(reasons), confidence=0.9, tasks=changes or {}),
        created_at=START + timedelta(days=7 * number),
    )
    records = [Score(name, task, "ndcg_at_10", score, 300, None) for task, score in scores.items()]
    registry.add_version(version, records, promote=f"update to {name}" if status == "accepted" else None)


@pytest.fixture
def stream(tmp_path: Path) -> Registry:
    """Three steps: med; bash, refused; bash and table together. Then two tasks of no domain, one added late."""
    registry = make_registry(tmp_path)
    batches = {name: add_domain(registry, name) for name in ("med", "bash", "table")}
    for name in ("wiki", "late"):
        registry.add_task(make_task(name, None))
    root = {"med": 60.0, "bash": 50.0, "table": 40.0, "wiki": 80.0}
    add_version(registry, "v0", None, root)
    first = {"med": 72.0, "bash": 52.0, "table": 39.0, "wiki": 79.5}
    add_version(registry, "v1", "v0", first, batches=(batches["med"],), pairs=2000, joint=2000)
    bad = {"med": 66.0, "bash": 65.0, "table": 38.0, "wiki": 75.0}
    reasons = ("med fell by 6.0 points (95 % interval 4.1 to 7.9), more than gate.max_forgetting = 2.0",)
    add_version(
        registry, "v2", "v1", bad, batches=(batches["bash"],), status="refused", pairs=2200, joint=4000, reasons=reasons
    )
    both = {"med": 71.0, "bash": 64.0, "table": 55.0, "wiki": 80.5, "late": 30.0}
    add_version(registry, "v3", "v1", both, batches=(batches["bash"], batches["table"]), pairs=4200, joint=6000)
    return registry


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
    change = TaskChange(difference=10.0, low=9.0, high=11.0, role="new", new=60.0, old=50.0, p=0.001)
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


def test_the_json_form_is_the_documented_one(stream: Registry) -> None:
    data = build_report(stream).to_json()
    assert json.loads(json.dumps(data)) == data
    keys = ["schema", "current", "versions", "tasks", "matrix", "metrics", "intervals", "joint", "ood_set", "flags"]
    assert list(data) == [*keys, "compatibility", "conflicts"]
    assert data["schema"] == 1
    assert data["current"] == "v3"
    assert data["versions"][0] == {
        "id": "v0",
        "parent": None,
        "domains": [],
        "pairs_trained": 0,
        "tokens_trained": 0,
        "seconds": 0.0,
        "joint_pairs": 0,
        "verdict": "root",
    }
    assert [row["verdict"] for row in data["versions"]] == ["root", "accepted", "refused", "accepted"]
    assert [row["domains"] for row in data["versions"]] == [[], ["med"], ["bash"], ["bash", "table"]]
    assert [row["parent"] for row in data["versions"]] == [None, "v0", "v1", "v1"]
    assert data["tasks"] == [
        {"name": "med", "domain": "med"},
        {"name": "bash", "domain": "bash"},
        {"name": "table", "domain": "table"},
        {"name": "wiki", "domain": None},
        {"name": "late", "domain": None},
    ]
    assert data["matrix"] == [
        [60.0, 50.0, 40.0, 80.0, None],
        [72.0, 52.0, 39.0, 79.5, None],
        [66.0, 65.0, 38.0, 75.0, None],
        [71.0, 64.0, 55.0, 80.5, 30.0],
    ]


def test_what_a_step_did_to_its_parents_index_is_shown(stream: Registry) -> None:
    scores = {"old_on_old": 70.0, "new_on_new": 80.0, "new_on_old": 76.0, "old_on_new": 75.0, "mapped_on_old": 78.0}
    task = TaskCompatibility("wiki", None, "ndcg_at_10", 300, canary=0.987, overlap=0.8, **scores)
    for old, new in (("v0", "v1"), ("v0", "v3")):
        stream.add_compatibility(judge(old, new, [task], MapUsed("affine", {}, 80, 20), CompatConfig()).to_json())
    report = build_report(stream)
    assert list(report.compatibility) == ["v1"]  # v0 is not the parent of v3
    assert report.to_json()["compatibility"] == [None, report.compatibility["v1"].to_json(), None, None]
    text = shown(report)
    assert max(map(len, text.splitlines())) <= 80
    (line,) = [line for line in text.splitlines() if "with an adapter" in line]
    assert line.split()[:6] == ["v1", "v0", "0.987", "80%", "95.0%", "97.5%"]


def test_metrics_follow_each_versions_own_lineage(stream: Registry) -> None:
    metrics = build_report(stream).metrics
    assert list(metrics) == ["acc", "bwt", "fwt", "forgetting", "retained", "ood_mean", "intransigence"]
    # v3 descends from v0 and v1; the refused v2 leaves no trace in its figures.
    assert metrics["acc"] == pytest.approx([None, 72, (66 + 65) / 2, (71 + 64 + 55) / 3])
    assert metrics["bwt"] == pytest.approx([None, None, 66 - 72, 71 - 72])
    assert metrics["forgetting"] == pytest.approx([None, None, 72 - 66, 72 - 71])
    assert metrics["fwt"] == pytest.approx([None, None, 52 - 50, ((52 - 50) + (39 - 40)) / 2])
    assert metrics["retained"] == pytest.approx([None, None, 100 * 6 / 12, 100 * 11 / 12])
    assert metrics["intransigence"] == [None] * 4  # no joint version was named
    # "late" was added after v1 was scored, so it is no part of the curve.
    assert metrics["ood_mean"] == pytest.approx([80, 79.5, 75, 80.5])
    report = build_report(stream)
    assert report.learned == [set(), {"med"}, {"bash"}, {"bash", "table"}]
    assert report.lineages == [[0], [0, 1], [0, 1, 2], [0, 1, 3]]
    assert report.ood_set == ["wiki"]


def test_a_domain_learned_in_two_steps_counts_from_the_first(stream: Registry) -> None:
    more = Batch(
        stream.next_batch_id(), "med", "more.parquet", "1", "data/med/1.parquet", 9, 9, 0, 0, 0, 0, None, {}, START
    )
    batch = stream.add_batch(more).id
    scores = {"med": 73.0, "bash": 62.0, "table": 55.0, "wiki": 80.5}
    add_version(stream, "v4", "v3", scores, batches=(batch,), pairs=100, joint=7000)
    report = build_report(stream)
    assert report.learned[-1] == set()
    assert report.metrics["bwt"][-1] == pytest.approx(((73 - 72) + (62 - 64) + (55 - 55)) / 3)


def test_a_rollback_changes_what_is_current_and_no_figure(stream: Registry) -> None:
    before = build_report(stream)
    stream.set_alias("current", "v1", "rolled back by hand")
    after = build_report(stream)
    assert after.current == "v1"
    assert after.path == [0, 1]
    assert after.metrics == before.metrics
    assert after.why == "rolled back by hand"


def test_ood_tasks_that_all_came_late_leave_a_gap(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    registry.add_task(make_task("late", None))
    add_version(registry, "v0", None, {"med": 1.0, "late": 5.0})
    add_version(registry, "v1", "v0", {"med": 2.0}, batches=(batch,))
    add_version(registry, "v2", "v1", {"med": 3.0, "late": 4.0})
    assert build_report(registry).metrics["ood_mean"] == [5.0, None, 4.0]


def test_csv(stream: Registry) -> None:
    rows = list(csv.DictReader(io.StringIO(build_report(stream).to_csv())))
    assert len(rows) == 4
    assert rows[3]["domains"] == "bash; table"
    assert float(rows[3]["task:table"]) == 55
    assert rows[0]["task:late"] == rows[0]["parent"] == rows[0]["bwt"] == ""
    assert float(rows[3]["bwt"]) == -1


def test_nothing_to_report(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    with pytest.raises(NothingToDoError, match="continual update"):
        build_report(registry)
    add_version(registry, "v0", None, {})
    with pytest.raises(NothingToDoError):
        build_report(registry)
    registry.add_task(make_task("wiki", None))
    registry.add_scores([Score("v0", "wiki", "ndcg_at_10", 80.0, 300, None)])
    report = build_report(registry)
    assert report.metrics["ood_mean"] == [80.0]
    assert "There has been no update yet" in shown(report, 200)


def shown(report: Report, width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    print_tables(report, Console(file=stream, width=width, highlight=False, **options))
    return stream.getvalue()


def test_the_terminal_shows_what_matters(stream: Registry) -> None:
    text = shown(build_report(stream))
    assert max(map(len, text.splitlines())) <= 80
    assert "v3 has been the current version since" in text
    assert "55.0●▲" in text
    assert "✗ v2" in text
    assert "8,400" in text
    assert "70%" in text
    for word in ("ACC", "BWT", "FWT", "forgetting", "OOD mean"):
        assert f"{word}: " in text


@pytest.fixture
def trial(stream: Registry) -> Registry:
    """The stream, then a refused update, and all its domains at once by `continual train`."""
    batches = tuple(batch.id for batch in stream.batches())
    scores = {"med": 70.0, "bash": 60.0, "table": 50.0, "wiki": 79.0}
    add_version(
        stream, "v4", "v3", scores, batches=batches[:1], status="refused", reasons=("table fell by 5.0 points",)
    )
    add_version(stream, "v10", "v0", scores | {"med": 73.0}, batches=batches, status="trained", recipe="joint")
    return stream


def test_the_head_is_about_the_last_update_whatever_was_trained_since(trial: Registry) -> None:
    report = build_report(trial)
    head = render_html(report).html.split('id="overview"')[1].split("</section>")[0]
    assert '<span class="chip refused">✗ refused</span> <span>The last update, v4, which' in head
    assert "<li>table fell by 5.0 points</li>" in head
    lines = markdown(report, sections(report)).splitlines()
    assert lines[2].startswith("The last update, v4")
    assert lines[4] == "- table fell by 5.0 points"


def test_what_a_recipe_made_has_its_name(trial: Registry) -> None:
    report = build_report(trial)
    text = shown(report)
    assert "v10 (joint)" in text
    assert "'continual report --joint v10' computes" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    tables = {table.name: table for section in sections(report) for table in section.tables}
    assert [row[0] for row in tables["metrics"].rows] == ["v0", "v1", "v2", "v3", "v4", "v10 (joint)"]
    (matrix,) = (figure.chart for section in sections(report) for figure in section.figures if section.name == "matrix")
    assert isinstance(matrix, HeatMap)
    assert matrix.rows[-1] == ("v10 (joint)", "med, bash, table", "trained")
    (steps,) = (
        figure.values for section in sections(report) for figure in section.figures if section.name == "lineage"
    )
    assert steps.rows[-1][:3] == ["v10", "v0", "joint: med, bash, table"]
    ceiling = build_report(trial, "v10")
    assert "compares with the joint version v10 (joint)." in shown(ceiling)
    assert "compares with the joint version v10 (joint)." in Page(render_html(ceiling).html).text


def test_an_unknown_joint_version_is_answered_with_those_there_are(trial: Registry) -> None:
    with pytest.raises(NotFoundError) as caught:
        build_report(trial, "nothing")
    text = str(caught.value)
    assert "This workspace has current, v0, v1, v2, v3, v4, v10." in text
    assert text.endswith("`continual train --recipe joint` (already trained: v10).")
    with pytest.raises(NotFoundError, match="Did you mean 'current'"):
        build_report(trial, "curent")


def test_acc_has_the_number_of_its_domains_beside_it(stream: Registry) -> None:
    report = build_report(stream)
    assert "72.0 (1)" in shown(report)
    assert "63.3 (3)" in shown(report)
    (metrics,) = (table for section in sections(report) for table in section.tables if table.name == "metrics")
    assert [column.title for column in metrics.columns[:3]] == ["version", "domains", "ACC"]
    assert [row[1] for row in metrics.rows] == [None, 1, 2, 3]


def test_the_terminal_cuts_many_tasks_into_several_tables(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    tasks = {f"a rather long task name, number {number}": 50.0 + number for number in range(12)}
    for name in tasks:
        add_domain(registry, name)
    add_version(registry, "v0", None, tasks)
    report = build_report(registry)
    for width in (40, 80, 200):
        text = shown(report, width)
        assert max(map(len, text.splitlines())) <= width
        for score in tasks.values():
            assert f"{score:.1f}" in text
    assert "continued" in shown(report)


def test_names_are_text_in_the_terminal(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "[red]x[/red]")
    add_version(registry, "v0", None, {"[red]x[/red]": 1.0})
    add_version(registry, "v1", "v0", {"[red]x[/red]": 2.0}, batches=(batch,), pairs=1, joint=1)
    assert shown(build_report(registry), 120).count("[red]x[/red]") >= 3


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


def test_the_page_holds_every_number_and_needs_nothing_else(stream: Registry) -> None:
    report = build_report(stream)
    parsed = Page(render_html(report).html)
    for row in report.matrix:
        for score in row:
            assert score is None or f"{score:.1f}" in parsed.text
    for words in (
        "v3 has been the current version since",
        "med fell by 6.0 points",
        "8,400 of 12,000 pairs",
        "lineage",
        "interpolate",
    ):
        assert words in parsed.text
    for tag, name in (("img", "src"), ("script", "src"), ("iframe", "src"), ("object", "data")):
        assert not any(name in attributes for attributes in parsed.all(tag))
    assert all((link.get("href") or "").startswith(("#", "data:")) for link in parsed.all("a") + parsed.all("link"))
    # Every chart has a title, a description, a place for the keyboard, and a table with its numbers.
    charts = [each for each in parsed.all("div") if each.get("class") == "chart"]
    assert len(charts) == len(parsed.all("figure")) >= 6
    assert all(each.get("tabindex") == "0" and "table below" in str(each["aria-label"]) for each in charts)
    drawings = [each for each in parsed.all("svg") if each.get("role") == "img"]
    assert all(str(each["aria-labelledby"]).split() for each in drawings)
    ids = [str(attributes["id"]) for _, attributes in parsed.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {name for each in drawings for name in str(each["aria-labelledby"]).split()} <= set(ids)
    # Every header cell says what it heads, every table what it is, and every anchor leads somewhere.
    assert all(each.get("scope") in ("col", "row", "colgroup") for each in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    assert {str(each["href"])[1:] for each in parsed.all("a")} <= set(ids)


def test_the_policy_lets_our_scripts_and_styles_in_and_no_other(stream: Registry) -> None:
    for live, scripts in ((False, 1), (True, 2)):
        page = render_html(build_report(stream), live=live)
        parsed = Page(page.html)
        policy = next(str(each["content"]) for each in parsed.all("meta") if "http-equiv" in each)
        assert policy == page.policy
        assert "default-src 'none'" in policy
        assert ("connect-src 'self'" in policy) == live
        assert "unsafe" not in policy
        run = [text for text, each in zip(parsed.scripts, parsed.all("script"), strict=True) if "type" not in each]
        assert len(run) == scripts
        for kind, texts in (("script", run), ("style", parsed.styles)):
            allowed = re.search(rf"{kind}-src ([^;]*);", policy)
            assert allowed
            digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
            assert allowed[1].split() == [f"'sha256-{digest}'" for digest in digests]
        assert not any("style" in attributes for _, attributes in parsed.elements)


def test_markup_in_names_is_text_everywhere(tmp_path: Path) -> None:
    report = build_report(hostile_registry(tmp_path))
    parsed = Page(render_html(report).html)
    assert not parsed.all("img")
    assert not parsed.all("b")
    assert all(each.get("type") == "application/json" for each in parsed.all("script")[:-1])
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    for name in (*HOSTILE, HOSTILE_TASK, HOSTILE_QUERY, HOSTILE_DOCUMENT):
        assert name in parsed.text
    assert not parsed.all("iframe")
    assert "alert(4)" in parsed.text
    assert "90 % interval" in parsed.text


def test_a_page_without_tasks_or_steps(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    registry.add_task(make_task("wiki", None))
    add_version(registry, "v0", None, {"med": 1.0, "wiki": 2.0})
    assert "There has been no update yet" in Page(render_html(build_report(registry)).html).text
    assert [section.name for section in sections(build_report(registry))] == ["matrix", "made", "terms"]
    bare = make_registry(tmp_path / "bare")
    add_version(bare, "v0", None, {})
    add_version(bare, "v1", "v0", {}, batches=(batch,))
    text = Page(render_html(build_report(bare)).html).text
    assert "v1 has been the current version" in text
    assert "no evaluation task yet" in shown(build_report(bare))


def test_the_file_is_written_whole_or_not_at_all(stream: Registry, tmp_path: Path) -> None:
    report = build_report(stream)
    target = tmp_path / "out" / "report.html"
    write_html(report, target)
    assert target.read_text(encoding="utf-8") == render_html(report).html
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="is a folder"):
        write_html(report, target.parent)
    assert target.exists()
    with pytest.raises(InputError, match="can't be written"):
        write_html(report, target / "inside.html")


def test_a_large_report_stays_light(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    names = [f"domain-{number:02d}" for number in range(24)] + [f"ood-{number}" for number in range(6)]
    batches = [add_domain(registry, name) for name in names[:24]]
    for name in names[24:]:
        registry.add_task(make_task(name, None))
    for number in range(25):
        scores = {name: 50.0 + place + number * (place - 11) / 100 for place, name in enumerate(names)}
        learned = (batches[number - 1],) if number else ()
        add_version(registry, f"v{number}", f"v{number - 1}" if number else None, scores, batches=learned, pairs=10)
    report = build_report(registry)
    assert len(render_html(report).html.encode()) < 2e6
    gain = chart(report, "gain")
    assert isinstance(gain, LineChart)
    # Only what matters has a name: the four lowest and the highest.
    last = {each.name: float(each.values[-1] or 0.0) for each in gain.series}
    loud = {each.name for each in gain.series if not each.quiet}
    assert loud == {*sorted(last, key=lambda name: last[name])[:4], max(last, key=lambda name: last[name])}


def test_what_a_refused_step_tried_is_retrained_once(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batches = {"med": add_domain(registry, "med")}
    add_version(registry, "v0", None, {"med": 60.0})
    for name, status in (("v1", "refused"), ("v2", "refused"), ("v3", "accepted")):
        add_version(registry, name, "v0", {"med": 61.0}, batches=(batches["med"],), status=status, pairs=10, joint=40)
    steps, total = bills(build_report(registry))
    assert [(step.refused, step.again) for step in steps] == [(True, False), (True, True), (False, True)]
    assert (total.pairs, total.joint_pairs) == (30, 40)


def chart(report: Report, name: str) -> Chart:
    return next(each.chart for section in sections(report) for each in section.figures if each.chart.name == name)


def test_curves_follow_what_is_in_service(stream: Registry) -> None:
    report = build_report(stream)
    gain, since, ood = (chart(report, name) for name in ("gain", "forgetting", "ood"))
    assert isinstance(gain, LineChart)
    assert isinstance(since, LineChart)
    assert isinstance(ood, LineChart)
    assert gain.labels == ["v0", "v1", "v3"]  # v2 was refused
    assert {each.name: each.values for each in gain.series} == {
        "med": [0.0, 12.0, 11.0],
        "bash": [0.0, 2.0, 14.0],
        "table": [0.0, -1.0, 15.0],
    }
    assert {each.name: sorted(each.marks) for each in gain.series} == {"med": [1], "bash": [2], "table": [2]}
    assert {each.name: each.values for each in since.series} == {
        "med": [None, 0.0, -1.0],
        "bash": [None, None, 0.0],
        "table": [None, None, 0.0],
    }
    assert {each.name: each.values for each in ood.series} == {"wiki": [0.0, -0.5, 0.5]}


def test_replay_is_shown_by_domain(stream: Registry) -> None:
    report = build_report(stream)
    drawn = [("v1", 100, {}), ("v2", 90, {"med": 10}), ("v3", 80, {"med": 10, "bash": 5})]
    for name, new, replay in drawn:
        place = report.position(name)
        windows = {domain: Window(domain, "", "", rows, "") for domain, rows in {"x": new, **replay}.items()}
        provenance = replace(
            report.versions[place].provenance,
            new=[windows["x"]],
            replay=[windows[domain] for domain in replay],
        )
        report.versions[place] = replace(report.versions[place], provenance=provenance)
    bars = chart(report, "replay")
    assert isinstance(bars, BarChart)
    assert bars.labels == ["v1", "v2", "v3"]
    assert [(name, values) for name, _, values in bars.series] == [
        ("new", [100, 90, 80]),
        ("med, replayed", [0, 10, 10]),
        ("bash, replayed", [0, 0, 5]),
    ]
