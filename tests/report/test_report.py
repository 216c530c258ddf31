"""The report: its numbers on a hand-made stream, its forms, and names that try to be markup."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from continual import Workspace
from continual.config import IndexConfig
from continual.errors import NotFoundError, NothingToDoError
from continual.index.result import IndexedTask, MapUsed, judge_index
from continual.registry import (
    Batch,
    Registry,
    Score,
)
from continual.registry.provenance import Window
from continual.report.build import build_report
from continual.report.figures import (
    BarChart,
    HeatMap,
    LineChart,
)
from continual.report.files import markdown
from continual.report.html import render_html
from continual.report.sections import sections
from continual.report.summary import step_costs
from tests.reports import START, Page, add_domain, add_version, chart, make_registry, make_task, shown


def test_the_json_form_is_the_documented_one(stream: Registry) -> None:
    data = build_report(stream).to_json()
    assert json.loads(json.dumps(data)) == data
    keys = ["schema", "current", "versions", "tasks", "matrix", "metrics", "intervals", "joint", "ood_set"]
    assert list(data) == [*keys, "carried", "flags", "index", "conflicts"]
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
    task = IndexedTask("wiki", None, "ndcg_at_10", 300, canary=0.987, overlap=0.8, **scores)
    for old, new in (("v0", "v1"), ("v0", "v3")):
        stream.add_compatibility(judge_index(old, new, [task], MapUsed("affine", {}, 80, 20), IndexConfig()).to_json())
    report = build_report(stream)
    assert list(report.index) == ["v1"]  # v0 is not the parent of v3
    assert report.to_json()["index"] == [None, report.index["v1"].to_json(), None, None]
    text = shown(report)
    assert max(map(len, text.splitlines())) <= 80
    (line,) = [line for line in text.splitlines() if "with a query map" in line]
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


def test_names_in_csv_are_no_formulas(stream: Registry) -> None:
    report = build_report(stream)
    evil = [replace(report.tasks[0], name="=cmd|' /C calc'!A0"), *report.tasks[1:]]
    versions = [*report.versions[:-1], replace(report.versions[-1], domains=["@SUM(A1)", "b"])]
    rows = list(csv.DictReader(io.StringIO(replace(report, tasks=evil, versions=versions).to_csv())))
    assert "task:=cmd|' /C calc'!A0" in rows[0]  # the prefix makes it harmless
    assert rows[-1]["domains"] == "'@SUM(A1); b"


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


def test_what_a_refused_step_tried_is_retrained_once(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batches = {"med": add_domain(registry, "med")}
    add_version(registry, "v0", None, {"med": 60.0})
    for name, status in (("v1", "refused"), ("v2", "refused"), ("v3", "accepted")):
        add_version(registry, name, "v0", {"med": 61.0}, batches=(batches["med"],), status=status, pairs=10, joint=40)
    steps, total = step_costs(build_report(registry))
    assert [(step.refused, step.repeats) for step in steps] == [(True, False), (True, True), (False, True)]
    assert (total.pairs, total.joint_pairs) == (30, 40)


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
            report.versions[place].provenance, new=[windows["x"]], replay=[windows[domain] for domain in replay]
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


def test_the_report_of_a_real_stream(learned: Workspace) -> None:
    report: dict[str, Any] = learned.report().to_json()
    assert [version["id"] for version in report["versions"]] == ["v0", "v1", "v2"]
    assert [version["domains"] for version in report["versions"]] == [[], ["first"], ["second"]]
    assert [task["name"] for task in report["tasks"]] == ["first", "second"]
    assert len(report["matrix"]) == 3
    assert report["metrics"]["bwt"][0] is None
    assert report["metrics"]["bwt"][2] == pytest.approx(report["matrix"][2][0] - report["matrix"][1][0])
