"""The section of conflicts in the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from continual.report.build import build_report
from continual.report.figures import Dendrogram, PairMatrix
from continual.report.html import render_html
from continual.report.sections import sections
from tests.conflicts.results import MATRIX, keep, made
from tests.reports import HOSTILE, Page, add_domain, add_version, make_registry


def test_the_page_shows_the_last_analysis_and_none_where_there_was_none(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    for name in (*HOSTILE, "later"):
        add_domain(registry, name)
    add_version(registry, "v0", None, {HOSTILE[0]: 60.0})
    report = build_report(registry)
    assert report.conflicts is None
    assert "conflicts" not in [section.name for section in sections(report)]
    assert report.to_json()["conflicts"] is None

    found = keep(registry, made(HOSTILE))
    report = build_report(registry)
    assert report.conflicts == found
    (section,) = (each for each in sections(report) if each.name == "conflicts")
    assert section.about.startswith(found.verdict)
    assert section.notes == ["The analysis doesn't include later."]
    heat, tree = (figure.chart for figure in section.figures)
    assert isinstance(heat, PairMatrix)
    assert isinstance(tree, Dendrogram)
    names = [HOSTILE[place] for place in found.order]
    assert heat.labels == tree.leaves == names
    assert heat.groups == [2, 2]
    rows = list(csv.reader(io.StringIO(heat.table().to_csv())))
    cells = [f"'{name}" if name.startswith("-") else name for name in names]  # "--ink" could be a formula
    assert rows[0] == ["loss together minus alone", *cells]
    one, other = found.order[:2]
    assert rows[1][:3] == [cells[0], "", str(MATRIX[one][other])]
    # The joins by name: the tree's numbers are places in its order now.
    joins = [set(row[:2]) for row in tree.table().rows]
    assert joins[:2] == [{HOSTILE[0], HOSTILE[2]}, {HOSTILE[1], HOSTILE[3]}]
    assert joins[2] == {"; ".join(names[:2]), "; ".join(names[2:])}
    assert [row[2] for row in tree.table().rows] == pytest.approx([-0.10, -0.02, 0.225])
    page = Page(render_html(report).html)
    assert found.verdict in page.text
    assert [each for each in page.all("script") if "alert" in str(each)] == []


def test_an_analysis_changes_the_dashboard(tmp_path: Path) -> None:
    from continual.report.board import Board

    registry = make_registry(tmp_path)
    add_domain(registry, "med")
    add_version(registry, "v0", None, {"med": 60.0})
    board = Board(registry.root)
    first = board.state()["revision"]
    keep(registry, made())
    assert board.state()["revision"] != first
    assert made().verdict in Page(board.page().html).text
