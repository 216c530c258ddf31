"""The section about single queries: what the last update answers worse, and what better."""

from __future__ import annotations

from typing import Any

from continual.eval.regressions import MovedDocument, QueryChange
from continual.report.figures import Column, Table
from continual.report.figures.numbers import short
from continual.report.report import Report
from continual.report.sections.base import Section
from continual.report.summary import names

DOCUMENTS = 3
"""Documents that are shown of those that left the first ten, and of those that entered."""

LETTERS = 90
"""Letters of a document."""


def queries(report: Report) -> Section | None:
    """The queries that the last update answers worse and better, with the documents that moved."""
    found = report.regressions
    if found is None or not found.losses + found.gains:
        return None
    tasks = names(found.tasks) if len(found.tasks) <= 6 else f"{len(found.tasks)} tasks"
    about = (
        f"Of {found.queries:,} queries of {tasks}, {found.second} answers {found.worse:,} worse than {found.first} and "
        f"{found.better:,} better. Single queries move by chance: 'continual compare --queries' groups them by "
        "subject, with intervals."
    )
    tables = [
        Table(f"queries-{name}", caption, _COLUMNS, [_row(each) for each in changes])
        for name, caption, changes in (
            ("worse", "The largest falls, in points.", found.losses),
            ("better", "The largest rises, in points.", found.gains),
        )
        if changes
    ]
    return Section("queries", "What got worse", "What got worse, and what better", about, tables=tables)


_COLUMNS = [
    Column("query"),
    Column("task"),
    Column("before", "points"),
    Column("after", "points"),
    Column("change", "change"),
    Column("left the first ten"),
    Column("entered"),
]


def _row(change: QueryChange) -> list[Any]:
    left = [each for each in change.documents if each.after is None]
    entered = [each for each in change.documents if each.before is None]
    text = change.text or change.id
    return [text, change.task, change.before, change.after, change.change, _some(left), _some(entered)]


def _some(documents: list[MovedDocument]) -> str:
    """Return the first of some documents, those that answer the query before others."""
    chosen = sorted(documents, key=lambda each: not each.relevant)
    lines = [
        ("✓ " if each.relevant else "") + short(" ".join(each.text.split()) or each.id, LETTERS) for each in chosen
    ]
    more = [f"and {len(lines) - DOCUMENTS} more"] if len(lines) > DOCUMENTS else []
    return "\n".join([*lines[:DOCUMENTS], *more])
