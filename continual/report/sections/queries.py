"""The section about single queries: those that the last update answers worse, and those that it answers better."""

from __future__ import annotations

from typing import Any

from continual.eval.regressions import MovedDocument, QueryChange
from continual.report.figures import Table, TableColumn
from continual.report.figures.numbers import short
from continual.report.report import Report
from continual.report.sections.base import ReportSection
from continual.report.summary import join_names

DOCUMENTS = 3
"""Most documents shown per query and direction: those that left the first ten, and those that entered."""

LETTERS = 90
"""Most letters shown of a document."""


def queries_section(report: Report) -> ReportSection | None:
    """Build the section: the queries whose scores fell and rose most, with the documents that moved."""
    regressions = report.regressions
    if regressions is None or not regressions.losses + regressions.gains:
        return None
    tasks = join_names(regressions.tasks) if len(regressions.tasks) <= 6 else f"{len(regressions.tasks)} tasks"
    about = (
        f"Of {regressions.queries:,} queries of {tasks}, {regressions.second} answers {regressions.worse:,} worse than "
        f"{regressions.first} and {regressions.better:,} better. Single queries move by chance: "
        "'continual compare --queries' groups them by topic, with intervals."
    )
    tables = [
        Table(f"queries-{name}", caption, _COLUMNS, [_row(change) for change in changes])
        for name, caption, changes in (
            ("worse", "The largest falls, in points.", regressions.losses),
            ("better", "The largest rises, in points.", regressions.gains),
        )
        if changes
    ]
    return ReportSection("queries", "Changed queries", "Queries that got worse or better", about, tables=tables)


_COLUMNS = [
    TableColumn("query"),
    TableColumn("task"),
    TableColumn("before", "points"),
    TableColumn("after", "points"),
    TableColumn("change", "change"),
    TableColumn("left the first ten"),
    TableColumn("entered"),
]


def _row(change: QueryChange) -> list[Any]:
    left = [document for document in change.documents if document.after is None]
    entered = [document for document in change.documents if document.before is None]
    text = change.text or change.id
    return [text, change.task, change.before, change.after, change.change, _excerpts(left), _excerpts(entered)]


def _excerpts(documents: list[MovedDocument]) -> str:
    """Return the beginnings of the first documents, one per line, relevant documents first."""
    ordered = sorted(documents, key=lambda document: not document.relevant)
    lines = [
        ("✓ " if document.relevant else "") + short(" ".join(document.text.split()) or document.id, LETTERS)
        for document in ordered
    ]
    more = [f"and {len(lines) - DOCUMENTS} more"] if len(lines) > DOCUMENTS else []
    return "\n".join([*lines[:DOCUMENTS], *more])
