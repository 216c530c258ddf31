"""The section about the index in production: what each step did to the vectors that are stored."""

from __future__ import annotations

from typing import Any

from continual.index.result import IndexComparison
from continual.report.figures import (
    Column,
    Lines,
    Series,
    Table,
)
from continual.report.report import Report
from continual.report.sections.base import Figure, Section


def index(report: Report) -> Section | None:
    """What each step did to the index of its parent, and whether to re-embed."""
    found = {row.id: report.index[row.id] for row in report.versions if row.id in report.index}
    if not found:
        return None
    columns = [
        Column("version"), Column("index of"), Column("re-index"), Column("canary cosine", "number"),
        Column("overlap of the first ten", "share"), Column("kept", "kept"), Column("kept, map", "kept"),
        Column("new on new", "points"), Column("new on old", "points"), Column("old on new", "points"),
        Column("map on old", "points"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            name, each.old, each.needs_reindex, each.mean("canary"), each.mean("overlap"), each.kept, each.kept_mapped,
            *(each.mean(figure) for figure in ("new_on_new", "new_on_old", "old_on_new", "mapped_on_old")),
        ]
        for name, each in found.items()
    ]  # fmt: skip
    table = Table("index", "Means over the tasks; kept is the share of the task that loses most.", columns, rows)
    last = next(reversed(found.values()))
    about = (
        "Vectors in an index were made by an older version. Kept is the share of full re-embedding's score that new "
        "queries have on the index as it is; with a map, what they have through one. "
        f"{last.new} {_verdict(last)}."
    )
    figures = [Figure(chart, table, wide=True)] if (chart := _kept(found)) is not None else []
    return Section(
        "index",
        "Index compatibility",
        "What it did to the index",
        about,
        figures,
        [_tasks(last)] if figures else [table, _tasks(last)],
        notes=last.reasons,
    )


def _verdict(found: IndexComparison) -> str:
    if found.needs_reindex == "yes":
        return f"needs the index of {found.old} to be rebuilt"
    how = f"can ask the index of {found.old}"
    if found.needs_reindex == "no":
        return f"{how} as it is"
    return f"{how} {'through a map of its queries' if found.map_helps else 'as it is'} until it is rebuilt"


def _kept(found: dict[str, IndexComparison]) -> Lines | None:
    if len(found) < 2:
        return None
    series = [Series("as it is", [each.kept for each in found.values()], "series-1")]
    mapped = [each.kept_mapped for each in found.values()]
    if any(each is not None for each in mapped):
        series.append(Series("through a map", mapped, "series-3", 1))
    return Lines(
        "index", "Kept of full re-embedding", "Share of full re-embedding's score that new queries keep on the old "
        "index, on the task that loses most, version by version.", list(found), series, "share", "kept", zero=False,
    )  # fmt: skip


def _tasks(last: IndexComparison) -> Table:
    columns = [
        Column("task"), Column("old on old", "points"), Column("new on new", "points"), Column("new on old", "points"),
        Column("old on new", "points"), Column("map on old", "points"), Column("kept", "kept"),
        Column("kept, map", "kept"), Column("overlap", "share"), Column("canary", "number"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            task.task, task.old_on_old, task.new_on_new, task.new_on_old, task.old_on_new, task.mapped_on_old,
            task.kept, task.kept_mapped, task.overlap, task.canary,
        ]
        for task in last.tasks
    ]  # fmt: skip
    return Table("index-tasks", f"{last.new} on the index of {last.old}, task by task.", columns, rows)
