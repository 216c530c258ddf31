"""What a section is, and the colours of tasks and domains, the same in every chart."""

from __future__ import annotations

from dataclasses import dataclass, field

from continual.report.figures import Chart, Table
from continual.report.report import Report

SERIES = 7
"""Distinct colours; beyond them dash and symbol change."""


@dataclass(frozen=True)
class Figure:
    """A chart on its place.

    Attributes:
        chart: What is drawn.
        table: The table behind it, where it is not the chart's own.
        wide: Whether it takes the whole width.
    """

    chart: Chart
    table: Table | None = None
    wide: bool = False

    @property
    def behind(self) -> Table:
        """The numbers of the chart."""
        return self.table or self.chart.table()


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: Of its anchor.
        short: Its name in the list of sections.
        title: Above it.
        about: Sentences below the title.
        figures: Charts, each with its table.
        tables: Tables that stand for themselves.
        facts: Names and values.
        notes: Sentences in a list.
        code: A long text that is folded away, with its title first.
    """

    name: str
    short: str
    title: str
    about: str = ""
    figures: list[Figure] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    code: tuple[str, str] | None = None


def number(report: Report, domain: str) -> int:
    """Return the place of a domain among those of the tasks: the number of its line in every chart."""
    names = list(dict.fromkeys(task.domain for task in report.tasks if task.domain is not None))
    return names.index(domain) if domain in names else len(names)


def colour(place: int) -> str:
    """Return the colour of the line with a number."""
    return f"series-{place % SERIES + 1}"
