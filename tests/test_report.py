"""The report: its numbers on a hand-made stream, its forms, and names that try to be markup."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from continual.config import CompatConfig
from continual.errors import InputError, NothingToDoError
from continual.eval.charts import charts, plain
from continual.eval.compat import MapUsed, TaskCompatibility, judge
from continual.eval.html import render_html, write_html
from continual.eval.report import Report, build_report
from continual.eval.summary import bills
from continual.eval.terminal import print_report
from continual.registry import Batch, Registry, Score, Task, Version

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
EVIL = "<img src=x onerror=alert(1)>"


def make_registry(root: Path) -> Registry:
    registry = Registry(root / ".continual")
    registry.catalog.create()
    return registry


def add_domain(registry: Registry, name: str) -> str:
    """Register a batch of a domain with its task, and return the batch's id."""
    batch = Batch("", 0, name, f"{name}.parquet", "0", f"data/{name}/0.parquet", 9, 9, 0, 0, 0, 0, None, {}, START)
    return registry.add_batch(batch, make_task(name, name)).id


def make_task(name: str, domain: str | None) -> Task:
    return Task(name, 0, domain, f"tasks/{name}", 300, 1500, 300, "holdout", "0", START)


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
) -> None:
    number = int(name[1:])
    version = Version(
        id=name,
        position=0,
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
        recipe={"base": "packaged"} if parent is None else {"merge": "interpolate", "weight": 0.6, "seed": 0},
        verdict=None
        if parent is None
        else {
            "passed": status == "accepted",
            "reasons": list(reasons),
            "figures": {"tasks": changes or {}, "confidence": 0.9},
        },
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


def test_the_json_form_is_the_documented_one(stream: Registry) -> None:
    data = build_report(stream).to_json()
    assert json.loads(json.dumps(data)) == data
    keys = ["schema", "current", "versions", "tasks", "matrix", "metrics", "intervals", "joint", "ood_set", "flags"]
    assert list(data) == [*keys, "compatibility"]
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
    more = Batch("", 0, "med", "more.parquet", "1", "data/med/1.parquet", 9, 9, 0, 0, 0, 0, None, {}, START)
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
    assert "No update was made yet" in shown(report, 200)


def shown(report: Report, width: int = 80, **options: Any) -> str:
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=width, highlight=False, **options))
    return stream.getvalue()


def test_the_terminal_shows_what_matters(stream: Registry) -> None:
    text = shown(build_report(stream))
    assert max(map(len, text.splitlines())) <= 80
    assert "v3 is in service since" in text
    assert "55.0●▲" in text
    assert "✗ v2" in text
    assert "8,400" in text
    assert "70%" in text
    for word in ("ACC", "BWT", "FWT", "forgetting", "OOD mean"):
        assert f"{word}: " in text


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
        self.text = ""
        self.inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = tag
            if tag == "script":
                self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside is None:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_holds_every_number_and_needs_nothing_else(stream: Registry) -> None:
    report = build_report(stream)
    page = render_html(report)
    parsed = Page(page)
    for row in report.matrix:
        for score in row:
            assert score is None or f"{score:.1f}" in parsed.text
    for words in (
        "v3 is in service since",
        "med fell by 6.0 points",
        "8,400 of 12,000 pairs",
        "lineage",
        "interpolate",
    ):
        assert words in parsed.text
    for tag, name in (("img", "src"), ("script", "src"), ("iframe", "src"), ("object", "data")):
        assert not any(name in attributes for attributes in parsed.all(tag))
    assert all((link.get("href") or "").startswith(("#", "data:")) for link in parsed.all("a") + parsed.all("link"))
    # Every chart has its place, its words, and its data.
    figures = json.loads(parsed.scripts[0])
    places = {str(each["id"]): each for each in parsed.all("div") if each.get("role") == "img"}
    assert set(places) == {f"chart-{name}" for name in figures} == {f"chart-{name}" for name in charts(report)}
    assert all("table below" in str(each["aria-label"]) for each in places.values())
    assert {"gain", "since", "ood", "cost", "total"} <= set(figures)
    # Every header cell says what it heads, every table what it is, and every anchor leads somewhere.
    assert all(each.get("scope") in ("col", "row", "colgroup") for each in parsed.all("th"))
    assert len(parsed.all("caption")) == len(parsed.all("table"))
    ids = {each["id"] for _, each in parsed.elements if "id" in each}
    assert {str(each["href"])[1:] for each in parsed.all("a")} <= ids


def test_the_policy_lets_the_two_scripts_run_and_no_other(stream: Registry) -> None:
    page = render_html(build_report(stream))
    parsed = Page(page)
    policy = next(str(each["content"]) for each in parsed.all("meta") if "http-equiv" in each)
    allowed = re.search(r"script-src ([^;]*);", policy)
    assert allowed
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in parsed.scripts[1:]]
    assert allowed[1].split() == [f"'sha256-{digest}'" for digest in digests]
    assert len(parsed.scripts) == 3
    assert "default-src 'none'" in policy


def test_markup_in_names_is_text_everywhere(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    evil = [EVIL, "<script>alert(2)</script>", "--ink", "%{x} $a$ &lt;"]
    batches = [add_domain(registry, name) for name in evil]
    task = "<b onclick=alert(3)>"
    registry.add_task(make_task(task, None))
    scores = dict.fromkeys([*evil, task], 50.0)
    add_version(registry, "v0", None, scores)
    change = {"kind": "new", "new": 60.0, "old": 50.0, "difference": 10.0, "low": 9.0, "high": 11.0, "p": 0.001}
    better = dict.fromkeys(scores, 60.0)
    reasons = tuple(f"{name} gained" for name in evil)
    changes = dict.fromkeys(scores, change)
    add_version(
        registry, "v1", "v0", better, batches=tuple(batches), pairs=1, joint=1, reasons=reasons, changes=changes
    )
    registry.set_alias("current", "v1", "</script><script>alert(4)</script>")
    report = build_report(registry)
    parsed = Page(render_html(report))
    assert not parsed.all("img")
    assert not parsed.all("b")
    assert len(parsed.scripts) == 3
    assert not any(name.startswith("on") for _, attributes in parsed.elements for name in attributes)
    for name in (*evil, task):
        assert name in parsed.text
    assert "alert(4)" in parsed.text
    assert "90 % interval" in parsed.text
    # Plotly reads tags, entities and TeX in any text, so none may reach it.
    texts = json.dumps(charts(report), ensure_ascii=False)
    assert "<" not in texts
    assert "$" not in texts
    assert plain(EVIL) in texts


def test_a_page_without_tasks_or_steps(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    registry.add_task(make_task("wiki", None))
    add_version(registry, "v0", None, {"med": 1.0, "wiki": 2.0})
    assert "No update was made yet" in Page(render_html(build_report(registry))).text
    assert charts(build_report(registry)) == {}
    bare = make_registry(tmp_path / "bare")
    add_version(bare, "v0", None, {})
    add_version(bare, "v1", "v0", {}, batches=(batch,))
    text = Page(render_html(build_report(bare))).text
    assert "v1 is in service" in text
    assert "no evaluation task yet" in shown(build_report(bare))


def test_the_file_is_written_whole_or_not_at_all(stream: Registry, tmp_path: Path) -> None:
    report = build_report(stream)
    target = tmp_path / "out" / "report.html"
    write_html(report, target)
    assert target.read_text(encoding="utf-8") == render_html(report)
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    with pytest.raises(InputError, match="is a folder"):
        write_html(report, target.parent)
    assert target.exists()
    with pytest.raises(InputError, match="cannot be written"):
        write_html(report, target / "inside.html")


def test_labels_at_line_ends_stay_apart_and_on_the_chart(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    names = [f"d{number}" for number in range(8)]
    batches = tuple(add_domain(registry, name) for name in names)
    add_version(registry, "v0", None, dict.fromkeys(names, 50.0))
    add_version(registry, "v1", "v0", dict.fromkeys(names, 60.0), batches=batches, pairs=1, joint=1)
    layout = charts(build_report(registry))["gain"]["layout"]
    places = sorted(label["y"] for label in layout["annotations"])
    low, high = layout["yaxis"]["range"]
    assert low <= places[0]
    assert places[-1] <= high
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert min(gaps) > 0.9 * 17 * (high - low) / 330


def test_a_large_report_stays_light(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    names = [f"domain-{number:02d}" for number in range(24)] + [f"ood-{number}" for number in range(6)]
    batches = [add_domain(registry, name) for name in names[:24]]
    for name in names[24:]:
        registry.add_task(make_task(name, None))
    for number in range(25):
        scores = {name: 50.0 + place + number / 10 for place, name in enumerate(names)}
        learned = (batches[number - 1],) if number else ()
        add_version(registry, f"v{number}", f"v{number - 1}" if number else None, scores, batches=learned, pairs=10)
    page = render_html(build_report(registry))
    assert len(page.encode()) < 6e6
    assert charts(build_report(registry))["gain"]["layout"]["showlegend"]


def test_what_a_refused_step_tried_is_retrained_once(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batches = {"med": add_domain(registry, "med")}
    add_version(registry, "v0", None, {"med": 60.0})
    for name, status in (("v1", "refused"), ("v2", "refused"), ("v3", "accepted")):
        add_version(registry, name, "v0", {"med": 61.0}, batches=(batches["med"],), status=status, pairs=10, joint=40)
    steps, total = bills(build_report(registry))
    assert [(step.refused, step.again) for step in steps] == [(True, False), (True, True), (False, True)]
    assert (total.pairs, total.joint_pairs) == (30, 40)
