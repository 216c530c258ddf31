"""Sections about how versions came about: their descent, their merges, what was replayed, and what it cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from continual.registry.registry import utc
from continual.report.figures import (
    Bars,
    Column,
    Lines,
    Node,
    Series,
    Table,
    Tree,
)
from continual.report.report import Report, Row
from continual.report.sections.base import (
    SERIES,
    Figure,
    Section,
    colour,
    number,
)
from continual.report.sections.scores import hush
from continual.report.summary import bills, what


def lineage(report: Report) -> Section | None:
    """Which version came from which, and what the gate said."""
    if len(report.versions) < 2:
        return None
    nodes = [
        Node(
            row.id,
            row.parent,
            "current" if row.id == report.current else row.verdict,
            ", ".join(row.domains),
            row.trained,
        )
        for row in report.versions
    ]
    tree = Tree("lineage", "Lineage", "Which version was made from which, from left to right in time.", nodes)
    columns = [Column("version"), Column("from"), Column("learned"), Column("made"), Column("verdict"), Column("why")]
    rows: list[list[Any]] = [
        [row.id, row.parent, what(row), utc(row.made), row.verdict, "\n".join(row.reasons)]
        for row in report.versions
        if row.parent is not None
    ]
    table = Table("steps", "Every version in the order they were made, with the gate's reasons.", columns, rows)
    about = "The upper line leads to what is in service; what was refused, or gone back from, branches off."
    if any(row.trained for row in report.versions):
        about += " What 'continual train' made has the name of its recipe; no gate judged it."
    return Section("lineage", "Lineage and verdicts", "Lineage and verdicts", about, [Figure(tree, table, wide=True)])


def merging(report: Report) -> Section | None:
    """How each update was merged, and the newest search of coefficients."""
    made = [row for row in report.versions if row.verdict in ("accepted", "refused")]
    if not made:
        return None
    columns = [
        Column("version"),
        Column("rule"),
        Column("weight", "number"),
        Column("parameters"),
        Column("trained from"),
        Column("coefficients tried", "count"),
    ]
    rows: list[list[Any]] = []
    for row in made:
        made_by = row.provenance
        given = ", ".join(f"{name} {value:.3g}" for name, value in made_by.parameters.items())
        tried = None if made_by.search is None else len(made_by.search.candidates)
        rows.append([row.id, made_by.merge, made_by.weight, given, made_by.start, tried])
    table = Table("merging", "How each update joined what was in service.", columns, rows)
    figures = [Figure(chart) for chart in (_weights(made), _search(report)) if chart is not None]
    about = "An update model is merged with what is in service; the weight is the update's."
    row_searched = searched(report)
    if row_searched is not None:
        about += " " + _chosen(row_searched)
    return Section("merging", "Merging", "How updates were merged", about, figures, [table])


def searched(report: Report) -> Row | None:
    """Return the newest version on the way to the one in service whose coefficients were searched."""
    return next(
        (report.versions[place] for place in reversed(report.path) if report.versions[place].provenance.search), None
    )


def replay(report: Report) -> Section | None:
    """Which rows each step trained on: new ones, and which of the old ones again."""
    made = [row for row in report.versions if row.parent is not None and row.verdict != "trained"]
    if not made:
        return None
    drawn = {row.id: {window.domain: window.rows for window in row.provenance.replay} for row in made}
    totals: dict[str, int] = {}
    for windows in drawn.values():
        for domain, rows in windows.items():
            totals[domain] = totals.get(domain, 0) + rows
    # Beyond the colours, what is small is one part; the table has all.
    shown = sorted(totals, key=lambda name: -totals[name])[: SERIES - 1]
    shown = [name for name in totals if name in shown]
    fresh = [float(sum(window.rows for window in row.provenance.new)) for row in made]
    series = [("new", "faint", fresh)]
    series += [
        (f"{name}, again", colour(number(report, name)), [float(drawn[row.id].get(name, 0)) for row in made])
        for name in shown
    ]
    if len(totals) > len(shown):
        rest = [float(sum(count for name, count in drawn[row.id].items() if name not in shown)) for row in made]
        series.append(("others, again", "quiet", rest))
    series = [(name, tone, [int(value) for value in values]) for name, tone, values in series]
    labels = [row.id for row in made]
    chart = Bars(
        "replay", "Rows of each step", "Rows that each step drew: new ones, and those of learned domains again.",
        labels, series, "rows", stacked=True,
    )  # fmt: skip
    columns = [Column("version"), Column("new", "count"), *(Column(f"{name}, again", "count") for name in totals)]
    cells = [
        [row.id, int(new), *(drawn[row.id].get(name, 0) for name in totals)]
        for row, new in zip(made, fresh, strict=True)
    ]
    table = Table("replay", "Rows drawn by each step.", columns, cells)
    about = "What each step trained on: all new rows, and a sample of those of every domain learned before."
    return Section("replay", "Replay", "What was replayed", about, [Figure(chart, table, wide=True)])


def cost(report: Report) -> Section | None:
    """What training cost, beside a full retraining at every step."""
    steps, total = bills(report)
    if not steps:
        return None
    labels = [bill.version for bill in steps]
    each = Bars(
        "cost", "Each step", "Pairs trained in each step beside a full retraining.", labels,
        [("full retraining", "faint", [bill.joint_pairs for bill in steps]),
         ("this step", "series-1", [bill.pairs for bill in steps])],
        "pairs",
    )  # fmt: skip
    figures = [Figure(each, _bill(report))]
    if len(steps) > 1:
        figures.append(Figure(_cumulative(report)))
    about = (
        "Pairs trained, replay and epochs included, beside what retraining on the whole lineage would have trained at "
        "the same step. Refused steps were paid for too; the total counts no full retraining for a step that tried "
        "again what a refused one had."
    )
    if total.ratio is not None:
        about = f"All steps together cost {total.ratio:.0%} of retraining. " + about
    return Section("cost", "Cost", "What it cost", about, figures)


def _bill(report: Report) -> Table:
    steps, total = bills(report)
    columns = [
        Column("step"), Column("pairs", "count"), Column("time", "seconds"),
        Column("pairs of a full retraining", "count"), Column("ratio", "share"),
    ]  # fmt: skip
    rows: list[list[Any]] = [
        [
            f"{bill.version}{' (refused)' if bill.refused else ''}",
            bill.pairs,
            bill.seconds,
            bill.joint_pairs,
            bill.ratio,
        ]
        for bill in steps
    ]
    rows.append(["total", total.pairs, total.seconds, total.joint_pairs, total.ratio])
    return Table("cost", "Cost of training by step.", columns, rows, total=True)


def _cumulative(report: Report) -> Lines:
    steps, _ = bills(report)
    found = []
    for place, (name, tone, values) in enumerate(
        (
            ("retraining", "soft", [0 if bill.again else bill.joint_pairs for bill in steps]),
            ("steps", "series-1", [bill.pairs for bill in steps]),
        )
    ):
        sums: list[float | None] = [sum(values[: end + 1]) for end in range(len(values))]
        found.append(Series(name, sums, tone, 1 - place))
    return Lines(
        "cost-total", "All steps so far", "Pairs trained in all steps so far, beside a full retraining at each.",
        [bill.version for bill in steps], found, "pairs", "count",
    )  # fmt: skip


def _weights(made: list[Row]) -> Lines | None:
    """Return the weight of each update, where the rule has one."""
    known = [row for row in made if row.provenance.weight is not None]
    if len(known) < 2:
        return None
    series = Series("weight", [row.provenance.weight for row in known], "series-1")
    return Lines(
        "weights", "Weight of each update", "The weight with which each update was merged, 0 to 1.",
        [row.id for row in known], [series], "0 to 1", "number",
    )  # fmt: skip


def _chosen(row: Row) -> str:
    found = row.provenance.search
    assert found is not None, "the row has a search"
    best = ", ".join(f"{name} {value:.3g}" for name, value in found.best.coefficients.items())
    kept = "" if found.floor_kept else "; no coefficient kept every domain within its floor"
    return (
        f"The search for {row.id} took the lowest mean loss on rows held out of training at which no domain is above "
        f"the dotted line across: {best}{kept}."
    )


def _search(report: Report) -> Lines | None:
    """Return the loss per domain over the weights that a search tried, against what was in service."""
    row = searched(report)
    if row is None:
        return None
    found = row.provenance.search
    assert found is not None, "the row has a search"
    reference, curve = found.reference.losses, found.curve
    line = "weight" in curve[0].coefficients  # else every point is a step of a gradient search
    places = [float(point.coefficients["weight"] if line else step) for step, point in enumerate(curve)]
    series = []
    for domain in reference:
        values = [
            100 * (point.losses[domain] / reference[domain] - 1)
            if domain in point.losses and reference[domain]
            else None
            for point in curve
        ]
        place = number(report, domain)
        series.append(Series(domain, values, colour(place), place))
    series = hush(series, low_is_bad=False)
    before = found.reference.loss
    if len(reference) > 1:
        means: list[float | None] = [100 * (point.loss / before - 1) for point in curve]
        series.append(Series("mean", means, "ink", len(series), heavy=True))
    order = sorted(range(len(places)), key=lambda place: places[place])
    series = [replace(each, values=[each.values[place] for place in order]) for each in series]
    chosen = found.best.coefficients["weight"] if line else None
    return Lines(
        "search",
        f"Search for {row.id}",
        "Change of the loss on held-out rows, per domain, over the coefficients that the search tried.",
        [f"{places[place]:.3g}" for place in order],
        series,
        "change of the loss, %",
        places=[places[place] for place in order],
        axis="weight of the update" if line else "step of the search",
        level=100 * found.floor,
        chosen=chosen,
    )
