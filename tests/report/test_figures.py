"""Charts and tables: what is drawn, what is written to files, and that names stay text in all of them."""

from __future__ import annotations

import csv
import io
import itertools
import re
import struct
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.errors import InputError
from continual.report.build import build_report
from continual.report.figures import (
    BarChart,
    Dendrogram,
    ForestPlot,
    HeatMap,
    LineChart,
    Node,
    PairMatrix,
    Series,
    Table,
    TableColumn,
    VersionTree,
    draw_chart,
)
from continual.report.figures.data import escape_markdown
from continual.report.figures.lines import spread_labels
from continual.report.figures.numbers import format_value, tick_label, ticks
from continual.report.figures.svg import text_width
from continual.report.figures.tree import place_in_lanes
from continual.report.files import write_figures
from continual.report.html import palette
from tests.reports import HOSTILE, HOSTILE_DOCUMENT, HOSTILE_QUERY, HOSTILE_TASK, hostile_registry

SVG = "{http://www.w3.org/2000/svg}"

LINES = LineChart(
    "gain", "Gain", "What was gained.", ["v0", "v1", "v2"],
    [Series("med", [0.0, 10.0, 8.0], "series-1", bounds=[None, (8.0, 12.0), (6.0, 10.0)]),
     Series("bash", [0.0, None, 4.0], "series-2", 1)],
)  # fmt: skip
CHARTS = [
    LINES,
    BarChart("cost", "Cost", "Pairs.", ["v1", "v2"], [("a", "series-1", [1, 2]), ("b", "faint", [3, 0])], "pairs"),
    BarChart("mix", "Mix", "Rows.", ["v1"], [("a", "series-1", [1]), ("b", "faint", [3])], "rows", stacked=True),
    ForestPlot(
        "last", "Last", "Differences.", [("med", "new", "series-1", 2.0, (1.0, 3.0)), ("x", "OOD", "ink", -1, None)]
    ),
    VersionTree("tree", "Tree", "Descent.", [Node("v0", None, "current", ""), Node("v1", "v0", "refused", "med")]),
    PairMatrix(
        "pairs", "Pairs", "What does what.", ["med", "bash", "table"],
        [[None, -0.1, 0.2], [0.0, None, 0.3], [0.1, 0.4, None]], [2, 1], ("good", "bad"), "loss",
    ),
    Dendrogram(
        "dendrogram", "Dendrogram", "What is with what.", ["med", "bash", "table"], [0, 0, 1],
        [(0, 1, -0.05), (2, 3, 0.25)], "mean", 0.0,
    ),
    HeatMap("matrix", "Matrix", "Scores.", [("all", 1)], ["med"], [("v0", "", "root")], [[50.0]], [[0.0]]),
]  # fmt: skip


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize("chart", CHARTS, ids=lambda chart: chart.name)
@pytest.mark.parametrize("width", [340, 1040])
def test_a_drawing_says_what_it_is_and_stays_on_its_ground(chart, width: int) -> None:
    root = parse(draw_chart(chart, width))
    title, about = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert title is not None
    assert about is not None
    assert (title.text, about.text) == (chart.title, chart.about)
    assert root.get("aria-labelledby") == f"{title.get('id')} {about.get('id')}"
    wide, high = (float(each) for each in str(root.get("viewBox")).split()[2:])
    for each in root.iter(f"{SVG}circle"):
        assert 0 <= float(str(each.get("cx"))) <= wide
        assert 0 <= float(str(each.get("cy"))) <= high
    for each in root.iter(f"{SVG}rect"):
        assert float(str(each.get("x"))) + float(str(each.get("width"))) <= wide + 0.1
        assert float(str(each.get("y"))) + float(str(each.get("height"))) <= high + 0.1


def test_lines_are_where_their_values_are() -> None:
    root = parse(draw_chart(LINES, 560))
    frame = {name: float(str(root.get(f"data-{name}"))) for name in ("left", "right", "top", "bottom")}
    first = next(each for each in root.iter(f"{SVG}path") if "l0" in str(each.get("class")))
    spots = [tuple(map(float, spot.split())) for spot in str(first.get("d"))[1:].split("L")]
    xs, ys = zip(*spots, strict=True)
    assert frame["left"] < xs[0] < xs[1] < xs[2] < frame["right"]
    # Values 0, 10, 8: the second is highest, and distances keep their ratio.
    assert (ys[0] - ys[1]) / (ys[0] - ys[2]) == pytest.approx(10 / 8, rel=0.01)
    gap = next(each for each in root.iter(f"{SVG}path") if "l1" in str(each.get("class")))
    assert str(gap.get("d")).count("M") == 2  # what was not measured interrupts the line


def test_intervals_are_areas_between_their_ends() -> None:
    root = parse(draw_chart(LINES, 560))
    (line,) = [each for each in root.iter(f"{SVG}path") if "l0" in str(each.get("class"))]
    (area,) = [each for each in root.iter(f"{SVG}path") if each.get("fill-opacity")]
    spots = [tuple(map(float, spot.split())) for spot in str(line.get("d"))[1:].split("L")]
    edge = [tuple(map(float, spot.split())) for spot in str(area.get("d"))[1:-1].split("L")]
    # The first place has none; the upper edge goes there, the lower one back.
    xs, (zero, ten, eight) = [x for x, _ in spots], (y for _, y in spots)
    assert [x for x, _ in edge] == [xs[1], xs[2], xs[2], xs[1]]
    point = (zero - ten) / 10
    ends = [zero - point * value for value in (12.0, 10.0, 6.0, 8.0)]
    assert [y for _, y in edge] == pytest.approx(ends, abs=0.2)
    assert edge[0][1] < ten < edge[3][1]
    assert edge[1][1] < eight < edge[2][1]


def test_scores_on_what_was_trained_on_are_crosses() -> None:
    series = replace(LINES.series[0], flagged=frozenset({2}))
    chart = replace(LINES, series=[series, LINES.series[1]])
    root = parse(draw_chart(chart, 560))
    (cross,) = [each for each in root.iter(f"{SVG}path") if each.get("class") == "cross"]
    line = next(each for each in root.iter(f"{SVG}path") if "l0" in str(each.get("class")))
    corners = [tuple(map(float, spot.split())) for spot in re.findall(r"[\d.]+ [\d.]+", str(cross.get("d")))]
    middle = tuple(float(each) for each in str(line.get("d")).split("L")[-1].split())
    assert np.mean(corners, 0) == pytest.approx(middle, abs=0.1)
    assert len(list(root.iter(f"{SVG}circle"))) == 2  # the cross stands for the third
    rows = list(csv.reader(io.StringIO(chart.table().to_csv())))
    assert [row[4] for row in rows] == ["med trained on", "no", "no", "yes"]
    heat = replace(CHARTS[-1], rows=[("v0", "", "root"), ("v1", "", "current")], scores=[[50.0], [52.0]])
    heat = replace(heat, changes=[[0.0], [2.0]], flagged=frozenset({(1, 0)}))
    drawn = ["".join(each.itertext()) for each in parse(draw_chart(heat, 560)).iter(f"{SVG}text")]
    assert {"50.0", "52.0!"} <= set(drawn)
    assert heat.table().to_csv().splitlines() == ["version,med,trained on", "v0,50.0,", "v1,52.0,med"]


def test_a_join_is_where_its_value_is_and_halfway_between_what_it_joins() -> None:
    chart = next(each for each in CHARTS if isinstance(each, Dendrogram))
    root = parse(draw_chart(chart, 560))
    (cut,) = [each for each in root.iter(f"{SVG}line") if each.get("stroke-dasharray")]
    zero = float(str(cut.get("x1")))
    first, second = ((float(str(each.get("cx"))), float(str(each.get("cy")))) for each in root.iter(f"{SVG}circle"))
    assert first[0] < zero < second[0]
    assert (second[0] - zero) / (zero - first[0]) == pytest.approx(0.25 / 0.05, rel=0.02)
    rows = [float(str(each.get("y"))) - 4 for each in root.iter(f"{SVG}text") if each.text in ("med", "bash", "table")]
    assert first[1] == pytest.approx((rows[0] + rows[1]) / 2, abs=0.1)
    assert second[1] == pytest.approx((first[1] + rows[2]) / 2, abs=0.1)
    strokes = [each.get("stroke") for each in root.iter(f"{SVG}path")]
    assert strokes == ["var(--series-1)", "var(--axis)"]  # within a cluster, and across


def test_a_pair_is_coloured_by_its_sign_and_as_strongly_as_it_is_large() -> None:
    chart = next(each for each in CHARTS if isinstance(each, PairMatrix))
    cells = {
        str(each.get("data-tip")): (each.get("fill"), float(str(each.get("fill-opacity"))))
        for each in parse(draw_chart(chart, 560)).iter(f"{SVG}rect")
        if each.get("data-tip")
    }
    assert len(cells) == 6
    assert cells["med with bash: −0.100"] == ("var(--up)", 0.15)
    assert cells["table with bash: +0.400"] == ("var(--down)", 0.6)
    assert cells["bash with med: +0.000"][1] == 0
    texts = ["".join(each.itertext()) for each in parse(draw_chart(chart, 560)).iter(f"{SVG}text")]
    assert {"−0.100", "good", "bad"} <= set(texts)


def test_names_at_the_ends_stay_apart_and_on_the_plot() -> None:
    for wanted in ([50.0] * 8, [0.0, 1.0, 250.0], [300.0, 300.0, 301.0]):
        found = spread_labels(wanted, 16, 30, 270)
        gaps = [after - before for before, after in itertools.pairwise(found)]
        assert min(gaps) >= 16 - 1e-9
        assert found[0] >= 30 - 1e-9
        assert found[-1] <= 270


def test_lines_of_descent_that_overlap_have_lanes_of_their_own() -> None:
    nodes = [
        Node("v0", None, "root", ""),
        Node("v1", "v0", "accepted", ""),
        Node("v2", "v1", "refused", ""),
        Node("v3", "v1", "accepted", ""),
        Node("v4", "v3", "current", ""),
        Node("v5", "v1", "accepted", ""),  # after going back to v1
        Node("v6", "v3", "refused", ""),
        Node("v7", "v5", "accepted", ""),
    ]
    lanes = place_in_lanes(nodes)
    assert [lanes[place] for place in (0, 1, 3, 4)] == [0, 0, 0, 0]
    assert lanes[5] == lanes[7] != 0
    assert lanes[6] not in (0, lanes[5])


@given(st.lists(st.integers(0, 10**6), max_size=14), st.integers(0, 10**6))
def test_no_edge_runs_through_another_version_or_along_another_edge(choices: list[int], served: int) -> None:
    parents = [None, *(choice % place for place, choice in enumerate(choices, 1))]
    service = served % len(parents)
    nodes = [
        Node(f"v{place}", None if parent is None else f"v{parent}", "current" if place == service else "accepted", "")
        for place, parent in enumerate(parents)
    ]
    lanes = place_in_lanes(nodes)
    taken: set[tuple[int, int]] = set()
    for place, parent in enumerate(parents):
        if parent is not None:
            assert lanes[place] not in lanes[parent + 1 : place]
            pieces = {(lanes[place], step) for step in range(parent, place)}
            assert not pieces & taken
            taken |= pieces


def test_what_recipes_trained_has_its_name_and_an_edge_of_its_own() -> None:
    trained = ((3, "joint"), (5, "boom"), (7, "phased"))
    nodes = [
        Node("v0", None, "current", ""),
        *(Node(f"v{n}", "v0", "trained", "med, bash", name) for n, name in trained),
    ]
    assert place_in_lanes(nodes) == [0, 1, 2, 3]
    drawing = draw_chart(VersionTree("tree", "Tree", "Descent.", nodes), 560)
    texts = ["".join(each.itertext()) for each in parse(drawing).iter(f"{SVG}text")]
    assert {"joint", "boom", "phased"} <= set(texts)
    assert "v5: trained by the recipe boom, learned med, bash, from v0" in drawing


def test_the_room_for_a_text_is_enough_for_its_broad_letters() -> None:
    # Its advances in DejaVu Sans, per 2048: m 1995, e 1260, d 1300, q 1300, u 1298, a 1255.
    assert text_width("medquad", 1) >= (1995 + 1260 + 3 * 1300 + 1298 + 1255) / 2048
    assert text_width("ill", 1) < text_width("med", 1) < text_width("法学部", 1) + 1


def test_ticks_are_round_and_within() -> None:
    for low, high in ((-3.2, 9.1), (0, 1), (12345, 99999), (-0.004, 0.003)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 11
        assert low <= found[0]
        assert found[-1] <= high
        np.testing.assert_allclose(np.diff(found), found[1] - found[0], rtol=1e-6)
    assert [tick_label(each) for each in (0.0, -2.5, 1500, 999_999, 2_000_000)] == ["0", "−2.5", "1.5k", "1M", "2M"]


def test_numbers_as_people_read_them() -> None:
    assert [format_value(-0.04, "change"), format_value(-0.04, "points"), format_value(-2.25, "points")] == [
        "+0.0",
        "0.0",
        "−2.2",
    ]
    assert [format_value(1234567, "count"), format_value(0.704, "share"), format_value(3725.0, "seconds")] == [
        "1,234,567",
        "70 %",
        "1 h 02 min",
    ]
    assert [format_value(None, "count"), format_value("", "text")] == ["–", "–"]


def test_a_table_as_csv_keeps_every_digit() -> None:
    columns = [TableColumn("task"), TableColumn("gain", "change"), TableColumn("sure", "interval")]
    table = Table("t", "About.", columns, [["a,b", 1.23456, (0.5, 2.0)], ["c", None, None]])
    rows = list(csv.reader(io.StringIO(table.to_csv())))
    assert rows == [["task", "gain", "sure low", "sure high"], ["a,b", "1.23456", "0.5", "2.0"], ["c", "", "", ""]]
    assert [column.title for column in LINES.table().columns] == ["version", "med", "med interval", "bash"]


def test_markdown_shows_names_as_text() -> None:
    assert escape_markdown("<b>|*_`$") == "&lt;b&gt;\\|\\*\\_\\`\\$"
    table = Table("t", "About.", [TableColumn("task"), TableColumn("n", "count")], [["a|b\n<i>", 3]])
    assert table.to_markdown().splitlines() == ["| task | n |", "| --- | --: |", "| a\\|b<br>&lt;i&gt; | 3 |"]


def test_figures_as_files(tmp_path: Path) -> None:
    report = build_report(hostile_registry(tmp_path))
    folder = tmp_path / "out"
    files = write_figures(report, folder)
    assert files[0].name == "report.md"
    assert sorted(files) == sorted(folder.iterdir())
    names = {file.stem for file in files if file.suffix == ".png"}
    assert {"gain", "ood", "last", "matrix", "lineage", "cost"} <= names
    assert "forgetting" not in names  # no step came after the one that learned
    for name in names:
        root = parse((folder / f"{name}.svg").read_text(encoding="utf-8"))
        texts = "".join(root.itertext())
        assert not set(root.iter(f"{SVG}script")) | set(root.iter(f"{SVG}image"))
        assert "var(" not in "".join(
            value for each in root.iter() for value in (each.get("fill"), each.get("stroke")) if value
        )
        assert texts
        png = (folder / f"{name}.png").read_bytes()
        assert png[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", png[16:24])
        assert (width, height) == tuple(round(2 * float(str(root.get(side)))) for side in ("width", "height"))
        assert (folder / f"{name}.csv").read_text(encoding="utf-8").count("\n") > 1
    page = (folder / "report.md").read_text(encoding="utf-8")
    assert {line.partition("](")[2].rstrip(")") for line in page.splitlines() if line.startswith("![")} == {
        f"{name}.png" for name in names
    }
    for name in (*HOSTILE, HOSTILE_TASK, HOSTILE_QUERY, HOSTILE_DOCUMENT):
        assert escape_markdown(name) in page
    assert not any(tag in page for tag in ("<script", "<img", "<iframe"))
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="can't be written"):
        write_figures(report, tmp_path / "taken")


def test_files_have_the_colours_of_the_style_sheet() -> None:
    colours = palette()
    assert {"ink", "card", "rule", "series-1", "series-7", "good", "bad"} <= set(colours)
    root = parse(draw_chart(LINES, 560, colours))
    strokes = {each.get("stroke") for each in root.iter(f"{SVG}path")}
    assert {colours["series-1"], colours["series-2"]} <= strokes


def test_a_spreadsheet_runs_no_cell() -> None:
    texts = ["=1+1", "+A1", "-A1", "@SUM(A1)", "\tx", "\n=x", '=HYPERLINK("a","b")', "+1-2"]
    plain = ["-1.5", "+2", "-1,000", "-1e-05", "a=b", ""]
    table = Table(
        "t",
        "About.",
        [TableColumn("=title"), TableColumn("n", "change")],
        [[text, -1.5] for text in [*texts, *plain, "\r=x"]],
    )
    rows = list(csv.reader(io.StringIO(table.to_csv(), newline="")))
    assert rows == [
        ["'=title", "n"],
        *([f"'{text}", "-1.5"] for text in texts),
        *([text, "-1.5"] for text in [*plain, r"\x0d=x"]),
    ]
