"""Charts and tables as plain data. A colour is the name of one in the style sheet, such as "series-1"."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any

from continual.report.figures.numbers import Kind, shown

Ends = tuple[float, float]

TRAINED_ON = "trained on"
"""What is said of a score on texts that were trained on."""


@dataclass(frozen=True)
class Column:
    """A column of a table, with how its values are shown."""

    title: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """A table; the first column heads its rows.

    Attributes:
        name: Of its file.
        caption: What it shows, a sentence.
        columns: From left to right.
        rows: Values as `Column.kind` says; None where unknown.
        total: Whether the last row is a sum.
    """

    name: str
    caption: str
    columns: list[Column]
    rows: list[list[Any]]
    total: bool = False

    def to_csv(self) -> str:
        """Return the raw values; both ends of an interval have a column, and an unknown value is an empty cell."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        head: list[str] = []
        for column in self.columns:
            ends = (f"{column.title} low", f"{column.title} high")
            head += ends if column.kind == "interval" else (column.title,)
        writer.writerow(head)
        for row in self.rows:
            cells: list[Any] = []
            for column, value in zip(self.columns, row, strict=True):
                cells += (value or ("", "")) if column.kind == "interval" else ("" if value is None else value,)
            writer.writerow(cells)
        return text.getvalue()

    def to_markdown(self) -> str:
        """Return the table as Markdown: names are text there, whatever is in them, and lines stay lines."""
        lines = [[plain(column.title) for column in self.columns]]
        lines.append(["---" if column.kind == "text" else "--:" for column in self.columns])
        for row in self.rows:
            cells = zip(self.columns, row, strict=True)
            texts = [shown(value, column.kind) for column, value in cells]
            lines.append(["<br>".join(map(plain, text.splitlines())) for text in texts])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plain(text: str) -> str:
    """Return text in which Markdown and HTML see nothing but text."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*_[]|~#!$" else character for character in text)


@dataclass(frozen=True)
class Series:
    """A line: a value for each place of the axis, None where it is unknown.

    Attributes:
        name: Beside its end.
        values: One for each place.
        colour: Of the line.
        number: Its symbol and its dash, so that colour is never all that tells it from another.
        bounds: Both ends of the interval around each value.
        marks: Places with a large mark.
        heavy: Whether it is a mean over others.
        quiet: Whether it is drawn thin and without a name, since others matter more.
        flagged: Places with a cross: the value is of texts that were trained on.
    """

    name: str
    values: list[float | None]
    colour: str
    number: int = 0
    bounds: list[Ends | None] | None = None
    marks: frozenset[int] = frozenset()
    heavy: bool = False
    quiet: bool = False
    flagged: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Lines:
    """Lines over versions, or over a number.

    Attributes:
        name: Of its file and its place.
        title: Above it.
        about: What it shows, for whoever does not see it.
        labels: The places of the axis, as text.
        series: The lines.
        unit: Of the values, beside the axis.
        kind: How values are shown.
        places: The places as numbers; None: one after the other.
        axis: What the axis is, if `labels` do not say it.
        level: A dotted line across, at a value.
        chosen: A dotted line upright, at a place.
        zero: Whether zero belongs to the picture.
    """

    name: str
    title: str
    about: str
    labels: list[str]
    series: list[Series]
    unit: str = "points"
    kind: Kind = "change"
    places: list[float] | None = None
    axis: str = ""
    level: float | None = None
    chosen: float | None = None
    zero: bool = True

    def table(self) -> Table:
        """Return the values, a row for each place."""
        columns = [Column(self.axis or "version")]
        for each in self.series:
            columns.append(Column(each.name, self.kind))
            if each.bounds is not None:
                columns.append(Column(f"{each.name} interval", "interval"))
            if each.flagged:
                columns.append(Column(f"{each.name} {TRAINED_ON}"))
        rows: list[list[Any]] = []
        for place, label in enumerate(self.labels):
            row: list[Any] = [label]
            for each in self.series:
                row.append(each.values[place])
                if each.bounds is not None:
                    row.append(each.bounds[place])
                if each.flagged:
                    row.append("yes" if place in each.flagged else "no")
            rows.append(row)
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class Bars:
    """Bars for each label: beside each other, or stacked.

    Attributes:
        series: Name, colour and values of each part, from the bottom up or from left to right.
        kind: How values are shown.
    """

    name: str
    title: str
    about: str
    labels: list[str]
    series: list[tuple[str, str, list[float]]]
    unit: str
    stacked: bool = False
    kind: Kind = "count"

    def table(self) -> Table:
        """Return the values, a row for each label."""
        columns = [Column("version"), *(Column(name, self.kind) for name, _, _ in self.series)]
        rows = [[label, *(values[place] for _, _, values in self.series)] for place, label in enumerate(self.labels)]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class Forest:
    """Differences with their intervals, one row each: name, note, colour, value, interval or None."""

    name: str
    title: str
    about: str
    rows: list[tuple[str, str, str, float, Ends | None]]
    unit: str = "points"

    def table(self) -> Table:
        """Return the rows."""
        columns = [Column("task"), Column("kind"), Column("difference", "change"), Column("interval", "interval")]
        rows = [[name, note, value, ends] for name, note, _, value, ends in self.rows]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class Node:
    """A version in the tree of descent.

    Attributes:
        name: Its id.
        parent: The version it was made from; None for the root base.
        state: "root", "accepted", "refused", "trained" or "current".
        note: What it learned.
        recipe: Name of the recipe that trained it beside the stream; "" of all others.
    """

    name: str
    parent: str | None
    state: str
    note: str
    recipe: str = ""


@dataclass(frozen=True)
class Tree:
    """Which version was made from which, in the order they were made."""

    name: str
    title: str
    about: str
    nodes: list[Node]

    def table(self) -> Table:
        """Return one row for each version."""
        columns = [Column("version"), Column("from"), Column("state"), Column("learned")]
        return Table(
            self.name,
            f"{self.title}.",
            columns,
            [[node.name, node.parent or "", node.state, node.note] for node in self.nodes],
        )


@dataclass(frozen=True)
class Heat:
    """A matrix of scores, coloured by their change.

    Attributes:
        groups: Titles over neighbouring columns, with how many each spans.
        columns: Names of the tasks.
        rows: Names of the versions, each with a note and a state as in `Node`.
        scores: A row for each version, None where it was not measured.
        changes: Against the first row, in points.
        learned: Cells with a frame, as (row, column).
        flagged: Cells with an exclamation mark: the score is of texts that were trained on.
        strongest: Change from which on a cell has its full colour.
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
    strongest: float = 15.0

    def strength(self, row: int, column: int) -> int:
        """Return the colour of a cell in twentieths, below zero for a fall."""
        change = self.changes[row][column] or 0.0
        # The root of the share, because most changes are small and must be seen.
        share: float = min(1.0, abs(change) / self.strongest) ** 0.5
        return round(20 * share) * (1 if change > 0 else -1)

    def table(self) -> Table:
        """Return the scores, a row for each version."""
        columns = [Column("version"), *(Column(name, "points") for name in self.columns)]
        rows: list[list[Any]] = [[name, *scores] for (name, _, _), scores in zip(self.rows, self.scores, strict=True)]
        if self.flagged:
            columns.append(Column(TRAINED_ON))
            for number, row in enumerate(rows):
                row.append(
                    "; ".join(name for place, name in enumerate(self.columns) if (number, place) in self.flagged)
                )
        return Table(self.name, f"{self.title}.", columns, rows)


@dataclass(frozen=True)
class Pairs:
    """A square matrix of what each column does to each row: above zero is bad, below it good.

    Attributes:
        labels: Of the rows and, in the same order, of the columns.
        values: A row for each label; None where there is nothing to say, as on the diagonal.
        groups: Sizes of neighbouring groups; each has a frame.
        words: What a value below zero and one above it are called.
        unit: Of the values.
        kind: How they are shown.
    """

    name: str
    title: str
    about: str
    labels: list[str]
    values: list[list[float | None]]
    groups: list[int]
    words: tuple[str, str]
    unit: str
    kind: Kind = "shift"

    @property
    def strongest(self) -> float:
        """Return the largest distance from zero."""
        return max((abs(each) for row in self.values for each in row if each is not None), default=0.0)

    def table(self) -> Table:
        """Return the values, a row for each label."""
        columns = [Column(self.unit), *(Column(label, self.kind) for label in self.labels)]
        rows: list[list[Any]] = [[label, *values] for label, values in zip(self.labels, self.values, strict=True)]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


@dataclass(frozen=True)
class Dendrogram:
    """Groups that are joined into larger ones, the closest first.

    Attributes:
        leaves: What is grouped, from the top down, so that branches do not cross.
        groups: The number of each leaf's group, from 0.
        joins: Two groups and the value at which they are joined: a number below the count of the leaves is the leaf in
            that place, count + k the k-th join.
        unit: Of the values.
        cut: Value at which the tree was cut into groups; None where it was not cut at a value.
        kind: How values are shown.
    """

    name: str
    title: str
    about: str
    leaves: list[str]
    groups: list[int]
    joins: list[tuple[int, int, float]]
    unit: str
    cut: float | None = None
    kind: Kind = "shift"

    @property
    def members(self) -> list[list[int]]:
        """Return the places of the leaves of each group that a join names, the single leaves first."""
        found = [[place] for place in range(len(self.leaves))]
        for left, right, _ in self.joins:
            found.append(found[left] + found[right])
        return found

    def table(self) -> Table:
        """Return the joins."""
        columns = [Column("joined"), Column("with"), Column(self.unit, self.kind)]
        names = ["; ".join(self.leaves[place] for place in sorted(members)) for members in self.members]
        rows = [[names[left], names[right], value] for left, right, value in self.joins]
        return Table(self.name, f"{self.title}, {self.unit}.", columns, rows)


Chart = Lines | Bars | Forest | Tree | Heat | Pairs | Dendrogram
