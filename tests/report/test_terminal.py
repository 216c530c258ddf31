"""The report in a terminal."""

from __future__ import annotations

from pathlib import Path

from continual.registry import Registry
from continual.report.build import build_report
from continual.report.sections import sections
from tests.reports import add_domain, add_version, make_registry, shown


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
