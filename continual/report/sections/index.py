"""The section about index compatibility: the effect of each step on the stored vectors."""

from __future__ import annotations

from typing import Any

from continual.index.result import IndexComparison
from continual.report.figures import (
    LineChart,
    Series,
    Table,
    TableColumn,
)
from continual.report.report import Report
from continual.report.sections.base import Figure, ReportSection


def index_section(report: Report) -> ReportSection | None:
    """Build the section: the effect of each step on the index of its parent, and whether to re-embed."""
    results = {version.id: report.index[version.id] for version in report.versions if version.id in report.index}
    if not results:
        return None
    columns = [
        TableColumn("version"), TableColumn("index of"), TableColumn("re-index"),
        TableColumn("canary cosine", "number"), TableColumn("overlap of the first ten", "share"),
        TableColumn("kept", "kept"), TableColumn("kept, map", "kept"),
        TableColumn("new on new", "points"), TableColumn("new on old", "points"), TableColumn("old on new", "points"),
        TableColumn("map on old", "points"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            name, result.old, result.needs_reindex, result.mean("canary"), result.mean("overlap"), result.kept,
            result.kept_mapped,
            *(result.mean(figure) for figure in ("new_on_new", "new_on_old", "old_on_new", "mapped_on_old")),
        ]
        for name, result in results.items()
    ]  # fmt: skip
    caption = "Means over the tasks, except kept: the share on the task that loses most."
    table = Table("index", caption, columns, rows)
    last = next(reversed(results.values()))
    about = (
        "The vectors in an index were made by an older version. Kept is the score of new queries on the old index, as "
        "a share of their score after full re-embedding; with a map, new queries are mapped into the old space first. "
        f"{_advice(last)}"
    )
    figures = [Figure(chart, table, wide=True)] if (chart := _kept(results)) is not None else []
    return ReportSection(
        "index",
        "Index compatibility",
        "Index compatibility",
        about,
        figures,
        [_tasks(last)] if figures else [table, _tasks(last)],
        notes=last.reasons,
    )


def _advice(result: IndexComparison) -> str:
    if result.needs_reindex == "yes":
        return f"Rebuild the index of {result.old} before {result.new} uses it."
    use = f"{result.new} can use the index of {result.old}"
    if result.needs_reindex == "no":
        return f"{use} as it is."
    return f"{use} {'with mapped queries' if result.map_helps else 'as it is'} until the index is rebuilt."


def _kept(results: dict[str, IndexComparison]) -> LineChart | None:
    if len(results) < 2:
        return None
    series = [Series("as it is", [result.kept for result in results.values()], "series-1")]
    mapped = [result.kept_mapped for result in results.values()]
    if any(share is not None for share in mapped):
        series.append(Series("with a map", mapped, "series-3", 1))
    return LineChart(
        "index", "Share of the score kept on the old index", "Score of new queries on the old index as a share of "
        "their score after full re-embedding, on the task that loses most, version by version.", list(results), series,
        "share", "kept", zero=False,
    )  # fmt: skip


def _tasks(last: IndexComparison) -> Table:
    columns = [
        TableColumn("task"), TableColumn("old on old", "points"), TableColumn("new on new", "points"),
        TableColumn("new on old", "points"), TableColumn("old on new", "points"), TableColumn("map on old", "points"),
        TableColumn("kept", "kept"), TableColumn("kept, map", "kept"), TableColumn("overlap", "share"),
        TableColumn("canary", "number"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            task.task, task.old_on_old, task.new_on_new, task.new_on_old, task.old_on_new, task.mapped_on_old,
            task.kept, task.kept_mapped, task.overlap, task.canary,
        ]
        for task in last.tasks
    ]  # fmt: skip
    caption = f"{last.new} on the index of {last.old}, by task. X on Y: queries encoded by X, documents by Y."
    return Table("index-tasks", caption, columns, rows)
