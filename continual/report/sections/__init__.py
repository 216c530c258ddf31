"""The sections of a report: each a small function from data to texts, charts and tables. No layout, no markup.

What is read here becomes the page, the live dashboard, and the files for a pull request alike. A section that has
nothing to show is left out.
"""

from __future__ import annotations

from collections.abc import Callable

from continual.report.report import Report
from continual.report.sections.base import Figure, Section
from continual.report.sections.conflicts import conflicts
from continual.report.sections.index import index
from continual.report.sections.queries import queries
from continual.report.sections.scores import (
    domains,
    last_update,
    matrix,
    ood,
)
from continual.report.sections.steps import (
    cost,
    lineage,
    merging,
    replay,
)
from continual.report.sections.terms import made, terms

__all__ = ["Figure", "Section", "sections"]

SECTIONS: tuple[Callable[[Report], Section | None], ...] = (
    domains,
    ood,
    last_update,
    queries,
    matrix,
    index,
    lineage,
    merging,
    replay,
    conflicts,
    cost,
    made,
    terms,
)
"""In the order of the page."""


def sections(report: Report) -> list[Section]:
    """Return the sections that have something to show."""
    return [section for make in SECTIONS if (section := make(report)) is not None]
