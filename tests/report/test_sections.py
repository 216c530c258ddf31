"""Sections of the report: what each shows of a life that was measured query by query, with flags and an index."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from continual.config import IndexConfig
from continual.index.result import IndexedTask, MapUsed, judge_index
from continual.registry import Registry
from continual.registry.records import Leak
from continual.report.build import build_report
from continual.report.figures import HeatMap, LineChart, draw_chart
from continual.report.html import render_html
from continual.report.report import Report
from continual.report.sections import ReportSection, sections
from tests.reports import START, Page, add_domain, add_version, make_registry, make_task, write_scores, write_texts

QUERIES = [f"q{number:02d}" for number in range(40)]
LATE = START + timedelta(days=90)


def measured(root: Path) -> Registry:
    """v1 and v2 learned a domain; wiki was scored query by query, and rows of the domain leak into late."""
    registry = make_registry(root)
    batch = add_domain(registry, "med")
    registry.add_task(make_task("wiki", None))
    add_version(registry, "v0", None, {"med": 60.0, "late": 40.0})
    add_version(registry, "v1", "v0", {"med": 70.0, "late": 48.0}, batches=(batch,))
    add_version(registry, "v2", "v1", {"med": 69.0, "late": 47.0})
    late = dataclasses.replace(make_task("late", None), created_at=LATE)
    registry.add_task(late, leaks=[Leak("late", batch, 12, 5, LATE)])
    documents = {f"d{number}": f"text of document {number}" for number in range(12)}
    write_texts(registry, "wiki", {query: f"what about {query}?" for query in QUERIES}, documents)
    ranked = {query: [f"d{number}" for number in range(10)] for query in QUERIES}
    for version, points in wiki_points().items():
        write_scores(registry, version, "wiki", points, ranked)
    # One query lost its relevant document and another one, for two that entered.
    moved = ranked | {"q00": [*(f"d{number}" for number in range(1, 9)), "d10", "d11"]}
    write_scores(registry, "v2", "wiki", wiki_points()["v2"], moved)
    return registry


def wiki_points() -> dict[str, dict[str, float]]:
    """Return the points of every query of wiki by version."""
    rng = np.random.default_rng(5)
    base = rng.uniform(30, 90, len(QUERIES))
    first = base + rng.normal(0, 4, len(QUERIES))
    second = first.copy()
    second[0], second[1] = first[0] - 25, first[1] + 5
    return {
        version: dict(zip(QUERIES, values.tolist(), strict=True))
        for version, values in (("v0", base), ("v1", first), ("v2", second))
    }


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return build_report(measured(tmp_path))


def find(report: Report, name: str) -> ReportSection:
    return next(section for section in sections(report) if section.name == name)


def chart(report: Report, section: str) -> LineChart:
    found = find(report, section).figures[0].chart
    assert isinstance(found, LineChart)
    return found


def test_curves_have_the_intervals_of_their_queries(report: Report) -> None:
    series = next(each for each in chart(report, "ood").series if each.name == "wiki")
    assert series.bounds is not None
    points = {version: np.array(list(values.values())) for version, values in wiki_points().items()}
    for place, version in ((1, "v1"), (2, "v2")):
        differences = points[version] - points["v0"]
        assert series.values[place] == pytest.approx(differences.mean())
        ends = series.bounds[place]
        assert ends is not None
        # Student's t with three imagined queries of 20 points each, as docs/metrics.md has it.
        freedom = len(QUERIES) + 2
        variance = (3 * 20**2 + ((differences - differences.mean()) ** 2).sum()) / freedom
        wanted = stats.t.interval(0.95, freedom, differences.mean(), (variance / len(QUERIES)) ** 0.5)
        assert ends == pytest.approx(wanted)
    assert "95 % intervals over the queries" in find(report, "ood").about
    page = render_html(report).html
    assert "The shaded areas are 95 % intervals" in page
    assert page.count("shaded areas") == 1  # med was scored as a whole: its line has no area
    assert next(each for each in chart(report, "domains").series if each.name == "med").bounds is None


def test_what_was_learned_is_followed_from_the_next_step_on(report: Report) -> None:
    gain, since = (figure.chart for figure in find(report, "domains").figures)
    assert isinstance(gain, LineChart)
    assert isinstance(since, LineChart)
    assert [(each.name, each.values) for each in gain.series] == [("med", [0.0, 10.0, 9.0])]
    assert [(each.name, each.values) for each in since.series] == [("med", [None, 0.0, -1.0])]


def test_scores_on_what_was_trained_on_are_marked_and_said(report: Report) -> None:
    late = next(each for each in chart(report, "ood").series if each.name == "late")
    assert late.flagged == {1, 2}  # the root base never saw them
    about = find(report, "ood").about
    assert "A cross is a score on texts that the version was trained on" in about
    assert "no version was trained" not in about
    matrix = find(report, "matrix")
    heat = matrix.figures[0].chart
    assert isinstance(heat, HeatMap)
    column = heat.columns.index("late")
    assert heat.flagged == {(1, column), (2, column)}
    (why,) = matrix.notes
    assert (
        why
        == "v1 trained on 12 rows of med that leak into late (5 as near duplicates), before the task was registered."
    )
    page = Page(render_html(report).html)
    assert why in page.text
    assert len([each for each in page.all("span") if each.get("aria-label") == "trained on"]) == 2
    assert "on texts that the version was trained on" in page.text
    assert "+8.0, trained on" in "".join(page.scripts)


def test_without_flags_nothing_is_said_of_them(tmp_path: Path) -> None:
    registry = measured(tmp_path)
    registry.set_leaks("late", [])
    report = build_report(registry)
    assert "no version was trained on their texts" in find(report, "ood").about
    page = Page(render_html(report).html)
    assert not [each for each in page.all("span") if each.get("class") == "flag"]
    assert find(report, "matrix").notes == []


def test_the_queries_that_moved_are_shown_with_their_documents(report: Report) -> None:
    section = find(report, "queries")
    assert "Of 40 queries of wiki, v2 answers 1 worse than v1 and 1 better" in section.about
    worse, better = section.tables
    points = wiki_points()
    (row,) = worse.rows
    assert row[:2] == ["what about q00?", "wiki"]
    assert row[2:5] == pytest.approx([points["v1"]["q00"], points["v2"]["q00"], -25])
    assert row[5].splitlines() == ["✓ text of document 0", "text of document 9"]  # the relevant one first
    assert row[6].splitlines() == ["text of document 10", "text of document 11"]
    (row,) = better.rows
    assert (row[0], row[4], row[5], row[6]) == ("what about q01?", pytest.approx(5), "", "")
    text = Page(render_html(report).html).text
    assert "The largest falls" in text
    assert "✓ text of document 0" in text


def test_queries_without_rankings_are_left_out(tmp_path: Path) -> None:
    registry = measured(tmp_path)
    for file in registry.path("scores/v1").iterdir():
        file.unlink()
    report = build_report(registry)
    assert report.regressions is None
    assert "queries" not in [section.name for section in sections(report)]


def test_the_index_section_says_whether_to_re_embed(tmp_path: Path) -> None:
    registry = measured(tmp_path)
    assert "index" not in [section.name for section in sections(build_report(registry))]

    def measure(old: str, new: str, on_old: float) -> None:
        scores = {"old_on_old": 70.0, "new_on_new": 80.0, "new_on_old": on_old, "old_on_new": 75.0}
        task = IndexedTask("wiki", None, "ndcg_at_10", 40, canary=0.987, overlap=0.8, mapped_on_old=78.0, **scores)
        registry.add_compatibility(
            judge_index(old, new, [task], MapUsed("affine", {}, 80, 20), IndexConfig()).to_json()
        )

    measure("v0", "v1", 76.0)
    section = find(build_report(registry), "index")
    assert section.figures == []  # a line needs two steps
    assert section.about.endswith("v1 can use the index of v0 with mapped queries until the index is rebuilt.")
    table, tasks = section.tables
    assert table.rows == [
        ["v1", "v0", "with a query map", *map(pytest.approx, [0.987, 0.8, 76 / 80, 78 / 80, 80.0, 76.0, 75.0, 78.0])]
    ]
    assert tasks.rows[0][:2] == ["wiki", 70.0]
    measure("v1", "v2", 80.0)
    section = find(build_report(registry), "index")
    (figure,) = section.figures
    assert isinstance(figure.chart, LineChart)
    assert [each.values for each in figure.chart.series] == [
        pytest.approx([76 / 80, 1.0]),
        pytest.approx([78 / 80] * 2),
    ]
    assert section.about.endswith("v2 can use the index of v1 as it is.")
    assert {"96 %", "98 %", "100 %"} == set(re.findall(r">([^<]*%)</text>", draw_chart(figure.chart)))
    assert "95.0 %" in figure.values.to_markdown()
    assert [row["version"] for row in csv.DictReader(io.StringIO(figure.values.to_csv()))] == ["v1", "v2"]
    measure("v1", "v2", 78.0)
    assert find(build_report(registry), "index").about.endswith("the index of v1 as it is until the index is rebuilt.")
    text = Page(render_html(build_report(registry)).html).text
    for words in ("Index compatibility", "with a query map", "0.987"):
        assert words in text
