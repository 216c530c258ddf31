"""Charts and tables of long streams on the page."""

from __future__ import annotations

from pathlib import Path

from continual.report.build import build_report
from continual.report.figures import BarChart, HeatMap, LineChart, Series, Table, TableColumn
from continual.report.figures.thin import POINTS, ROWS, thin_chart, thin_table
from continual.report.html import render_html
from tests.reports import add_domain, add_version, make_registry, shown


def test_lines_keep_ends_marks_and_values() -> None:
    labels = [f"v{number}" for number in range(1000)]
    values = [float(number) for number in range(1000)]
    line = Series("med", list(values), "series-1", marks=frozenset({123, 457}), flagged=frozenset({801}))
    quiet = Series("bash", list(values), "series-2", marks=frozenset({500}), quiet=True)
    thinned = thin_chart(LineChart("gain", "Gain", "", labels, [line, quiet]))
    assert isinstance(thinned, LineChart)
    assert POINTS <= len(thinned.labels) <= POINTS + 3
    assert (thinned.labels[0], thinned.labels[-1]) == ("v0", "v999")
    for series in thinned.series:
        assert [f"v{value:.0f}" for value in series.values if value is not None] == thinned.labels
    assert [thinned.labels[place] for place in sorted(thinned.series[0].marks)] == ["v123", "v457"]
    assert [thinned.labels[place] for place in thinned.series[0].flagged] == ["v801"]


def test_tables_bars_and_matrices_keep_the_first_row_and_the_last_ones() -> None:
    table = Table("t", "All.", [TableColumn("version")], [[f"v{number}"] for number in range(100)])
    thinned = thin_table(table)
    assert [row[0] for row in thinned.rows] == ["v0", *(f"v{number}" for number in range(101 - ROWS, 100))]
    assert thinned.caption == f"All. {100 - ROWS} rows after the first one are left out."
    labels = [f"v{number}" for number in range(200)]
    bars = thin_chart(BarChart("b", "B", "", labels, [("x", "faint", list(map(float, range(200))))], "rows"))
    assert isinstance(bars, BarChart)
    assert bars.labels == labels[-POINTS:]
    assert bars.series[0][2] == list(map(float, range(200 - POINTS, 200)))
    rows = [(f"v{number}", "", "accepted") for number in range(100)]
    cells = [[float(number)] for number in range(100)]
    matrix = thin_chart(
        HeatMap("m", "M", "", [("t", 1)], ["t"], rows, cells, cells, frozenset({(0, 0), (20, 0), (99, 0)}))
    )
    assert isinstance(matrix, HeatMap)
    assert [row[0] for row in matrix.scores] == [0.0, *(float(number) for number in range(101 - ROWS, 100))]
    assert matrix.learned == {(0, 0), (ROWS - 1, 0)}


def test_what_is_short_stays() -> None:
    table = Table("t", "All.", [TableColumn("version")], [[f"v{number}"] for number in range(ROWS)])
    chart = LineChart("l", "L", "", ["v0", "v1"], [Series("a", [1.0, 2.0], "series-1")])
    assert thin_table(table) is table
    assert thin_chart(chart) is chart


def test_the_page_says_what_it_leaves_out(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    add_version(registry, "v0", None, {"med": 50.0})
    for number in range(1, ROWS + 5):
        add_version(
            registry, f"v{number}", f"v{number - 1}", {"med": 50.0 + number / 10}, batches=(batch,), pairs=9, joint=9
        )
        if number == 5:
            assert "The stream is long" not in render_html(build_report(registry)).html
    page = render_html(build_report(registry)).html
    assert "The stream is long" in page
    assert "5 rows after the first one are left out." in page


def test_a_report_without_draws_has_the_same_figures(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    add_version(registry, "v0", None, {"med": 50.0})
    add_version(registry, "v1", "v0", {"med": 60.0}, batches=(batch,), pairs=9, joint=9, reasons=("gained",))
    add_version(registry, "v2", "v0", {"med": 61.0}, batches=(batch,), status="trained", recipe="joint")
    short, full = build_report(registry, full=False), build_report(registry)
    assert short.to_json() == full.to_json()
    assert short.to_csv() == full.to_csv()
    assert [version.recipe for version in short.versions] == ["", "", "joint"]


def test_the_terminal_says_what_it_leaves_out(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    batch = add_domain(registry, "med")
    add_version(registry, "v0", None, {"med": 50.0})
    for number in range(1, ROWS + 5):
        status = "accepted" if number < 3 else "refused"
        add_version(
            registry, f"v{number}", f"v{min(number - 1, 2)}", {"med": 50.0}, batches=(batch,), status=status, pairs=7
        )
    text = shown(build_report(registry))
    assert f"leave out 4 of {ROWS + 5} versions" in text
    assert not {"v1", "v3", "v4", "v5"} & set(text.split())
    assert "v2" in text, "the current version stays"
    assert f"{7 * (ROWS + 4):,}" in text, "the total counts all steps"
