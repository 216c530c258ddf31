"""Charts and tables as plain data. A colour is a name from the style sheet, such as "series-1"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from continual.report.figures.cells import to_csv
from continual.report.figures.numbers import Format, format_value

Interval = tuple[float, float]

TRAINED_ON = "trained on"
CARRIED = "of an earlier version"
"""Label of a score on texts that a version was trained on."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table: its title, and how its values are written."""

    title: str
    format: Format = "text"


@dataclass(frozen=True)
class Table:
    """A table; the first column holds the row headers.

    Attributes:
        name: File name, without suffix.
        caption: One sentence.
        columns: From left to right.
        rows: Raw values, one per column; None if unknown.
        total: Whether the last row is the total.
    """

    name: str
    caption: str
    columns: list[TableColumn]
    rows: list[list[Any]]
    total: bool = False

    def to_csv(self) -> str:
        """Return the raw values; an interval takes two columns, and an unknown value is an empty cell."""
        header: list[str] = []
        for column in self.columns:
            ends = (f"{column.title} low", f"{column.title} high")
            header += ends if column.format == "interval" else (column.title,)
        lines: list[list[Any]] = [header]
        for row in self.rows:
            cells: list[Any] = []
            for column, value in zip(self.columns, row, strict=True):
                cells += (value or ("", "")) if column.format == "interval" else ("" if value is None else value,)
            lines.append(cells)
        return to_csv(lines)

    def to_markdown(self) -> str:
        """Return the table as Markdown, with markup in names escaped and line breaks as `<br>`."""
        lines = [[escape_markdown(column.title) for column in self.columns]]
        lines.append(["---" if column.format == "text" else "--:" for column in self.columns])
        for row in self.rows:
            cells = zip(self.columns, row, strict=True)
            texts = [format_value(value, column.format) for column, value in cells]
            lines.append(["<br>".join(map(escape_markdown, text.splitlines())) for text in texts])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def escape_markdown(text: str) -> str:
    """Escape all Markdown and HTML in a text, and put it on one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|~#!$" else character for character in text)


@dataclass(frozen=True)
class Series:
    """One line of a `LineChart`.

    Attributes:
        name: Written at the right end of the line.
        values: One per position of the axis; None if unknown.
        colour: Name from the style sheet.
        number: Selects the symbol and the dash pattern, so that lines don't differ by colour alone.
        bounds: The interval of each value.
        marks: Positions with a large symbol.
        heavy: Whether it is a mean of other lines.
        quiet: Whether it is drawn thin and without a name.
        flagged: Positions with a cross: scores on texts that the version was trained on.
    """

    name: str
    values: list[float | None]
    colour: str
    number: int = 0
    bounds: list[Interval | None] | None = None
    marks: frozenset[int] = frozenset()
    heavy: bool = False
    quiet: bool = False
    flagged: frozenset[int] = frozenset()


@dataclass(frozen=True)
class LineChart:
    """Lines over versions, or over a number.

    Attributes:
        name: File name without suffix, and id on the page.
        title: Heading.
        about: Description for screen readers.
        labels: The positions of the horizontal axis as text.
        series: The lines.
        unit: Unit of the values, written at the vertical axis.
        format: How values are written.
        places: The positions as numbers; None for equal distances.
        axis: Name of the horizontal axis; "" for versions.
        level: Value of a horizontal dotted line.
        chosen: Position of a vertical dotted line.
        zero: Whether the vertical axis must include zero.
    """

    name: str
    title: str
    about: str
    labels: list[str]
    series: list[Series]
    unit: str = "points"
    format: Format = "change"
    places: list[float] | None = None
    axis: str = ""
    level: float | None = None
    chosen: float | None = None
    zero: bool = True

    def table(self) -> Table:
        """Return the values, one row per position."""
        columns = [TableColumn(self.axis or "version")]
        for series in self.series:
            columns.append(TableColumn(series.name, self.format))
            if series.bounds is not None:
                columns.append(TableColumn(f"{series.name} interval", "interval"))
            if series.flagged:
                columns.append(TableColumn(f"{series.name} {TRAINED_ON}"))
        rows: list[list[Any]] = []
        for place, label in enumerate(self.labels):
            row: list[Any] = [label]
            for series in self.series:
                row.append(series.values[place])
                if series.bounds is not None:
                    row.append(series.bounds[place])
                if series.flagged:
                    row.append("yes" if place in series.flagged else "no")
            rows.append(row)
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class BarChart:
    """Bars per label, side by side or stacked.

    Attributes:
        series: Name, colour and values of each part, from left to right or from the bottom up.
        format: How values are written.
    """

    name: str
    title: str
    about: str
    labels: list[str]
    series: list[tuple[str, str, list[float]]]
    unit: str
    stacked: bool = False
    format: Format = "count"

    def table(self) -> Table:
        """Return the values, one row per label."""
        columns = [TableColumn("version"), *(TableColumn(name, self.format) for name, _, _ in self.series)]
        rows = [[label, *(values[place] for _, _, values in self.series)] for place, label in enumerate(self.labels)]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class ForestPlot:
    """Differences with intervals, one per row: task, role, colour, value, and interval or None."""

    name: str
    title: str
    about: str
    rows: list[tuple[str, str, str, float, Interval | None]]
    unit: str = "points"

    def table(self) -> Table:
        """Return the rows without their colours."""
        columns = [
            TableColumn("task"),
            TableColumn("role"),
            TableColumn("difference", "change"),
            TableColumn("interval", "interval"),
        ]
        rows = [[task, role, value, interval] for task, role, _, value, interval in self.rows]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class Node:
    """A version in the version tree.

    Attributes:
        name: Id of the version.
        parent: Id of its parent; None for the root base.
        state: "root", "accepted", "refused", "trained" or "current".
        note: The domains it learned.
        recipe: The recipe of `continual train` that made it; "" for updates and the root base.
    """

    name: str
    parent: str | None
    state: str
    note: str
    recipe: str = ""


@dataclass(frozen=True)
class VersionTree:
    """The versions in the order of creation, each with an edge from its parent."""

    name: str
    title: str
    about: str
    nodes: list[Node]

    def table(self) -> Table:
        """Return one row per version."""
        columns = [TableColumn("version"), TableColumn("from"), TableColumn("state"), TableColumn("learned")]
        return Table(
            self.name,
            f"{self.title}.",
            columns,
            [[node.name, node.parent or "", node.state, node.note] for node in self.nodes],
        )


@dataclass(frozen=True)
class HeatMap:
    """A matrix of scores, coloured by their change against the first row.

    Attributes:
        groups: Titles above neighbouring columns, with the number of columns.
        columns: Names of the tasks.
        rows: Name, note and state (as in `Node`) of each version.
        scores: One row per version, in points; None if not measured.
        changes: Change against the first row, in points.
        learned: Cells with a frame, as (row, column).
        flagged: Cells with an exclamation mark: scores on texts that the version was trained on.
        carried: Cells with a tilde: scores of an earlier version.
        strongest: Change in points from which a cell has its full colour.
    """

    name: str
    title: str
    about: str
    groups: list[tuple[str, int]]
    columns: list[str]
    rows: list[tuple[str, str, str]]
    scores: list[list[float | None]]
    changes: list[list[float | None]]
    learned: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    flagged: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    carried: frozenset[tuple[int, int]] = field(default_factory=frozenset)
    strongest: float = 15.0

    def strength(self, row: int, column: int) -> int:
        """Return the strength of a cell's colour, -20 (full colour of a fall) to 20."""
        change = self.changes[row][column] or 0.0
        # Most changes are small: the square root keeps them visible.
        share: float = min(1.0, abs(change) / self.strongest) ** 0.5
        return round(20 * share) * (1 if change > 0 else -1)

    def table(self) -> Table:
        """Return the scores, one row per version."""
        columns = [TableColumn("version"), *(TableColumn(name, "points") for name in self.columns)]
        rows: list[list[Any]] = [[name, *scores] for (name, _, _), scores in zip(self.rows, self.scores, strict=True)]
        for title, cells in ((TRAINED_ON, self.flagged), (CARRIED, self.carried)):
            if cells:
                columns.append(TableColumn(title))
                for number, row in enumerate(rows):
                    row.append("; ".join(name for place, name in enumerate(self.columns) if (number, place) in cells))
        return Table(self.name, f"{self.title}.", columns, rows)


@dataclass(frozen=True)
class PairMatrix:
    """A square matrix of the effect of each column on each row: positive values are bad, negative ones good.

    Attributes:
        labels: Of the rows and of the columns, in the same order.
        values: One row per label; None without a value, as on the diagonal.
        groups: Sizes of neighbouring groups; each group has a frame.
        words: What negative and positive values are called.
        unit: Unit of the values.
        format: How values are written.
    """

    name: str
    title: str
    about: str
    labels: list[str]
    values: list[list[float | None]]
    groups: list[int]
    words: tuple[str, str]
    unit: str
    format: Format = "shift"

    @property
    def strongest(self) -> float:
        """Return the largest absolute value."""
        return max((abs(value) for row in self.values for value in row if value is not None), default=0.0)

    def table(self) -> Table:
        """Return the values, one row per label."""
        columns = [TableColumn(self.unit), *(TableColumn(label, self.format) for label in self.labels)]
        rows: list[list[Any]] = [[label, *values] for label, values in zip(self.labels, self.values, strict=True)]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class Dendrogram:
    """A tree of groups, joined from the closest to the most distant.

    Attributes:
        leaves: The items that are grouped, from the top down, in an order in which branches don't cross.
        groups: The number of each leaf's group, from 0.
        joins: The two joined groups and the value at which they are joined. With n leaves, group i < n is leaf i, and
            group n + k is the result of join k.
        unit: Unit of the values.
        cut: Value at which the tree was cut into groups; None if it was not cut at a value.
        format: How values are written.
    """

    name: str
    title: str
    about: str
    leaves: list[str]
    groups: list[int]
    joins: list[tuple[int, int, float]]
    unit: str
    cut: float | None = None
    format: Format = "shift"

    @property
    def members(self) -> list[list[int]]:
        """Return the leaves of every group in `joins`: the single leaves, then the result of each join."""
        members = [[place] for place in range(len(self.leaves))]
        for left, right, _ in self.joins:
            members.append(members[left] + members[right])
        return members

    def table(self) -> Table:
        """Return one row per join."""
        columns = [TableColumn("joined"), TableColumn("with"), TableColumn(self.unit, self.format)]
        names = ["; ".join(self.leaves[place] for place in sorted(members)) for members in self.members]
        rows = [[names[left], names[right], value] for left, right, value in self.joins]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


Chart = LineChart | BarChart | ForestPlot | VersionTree | HeatMap | PairMatrix | Dendrogram
