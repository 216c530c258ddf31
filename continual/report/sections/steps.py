"""The sections about steps: lineage, merging, replay and cost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from continual.registry.catalog import utc
from continual.report.figures import (
    BarChart,
    LineChart,
    Node,
    Series,
    Table,
    TableColumn,
    VersionTree,
)
from continual.report.report import Report, ReportVersion
from continual.report.sections.base import (
    SERIES,
    Figure,
    ReportSection,
    colour,
    domain_number,
)
from continual.report.sections.scores import quieten
from continual.report.summary import learned_domains, step_costs


def lineage_section(report: Report) -> ReportSection | None:
    """Build the section: the version tree, and the gate's reasons."""
    if len(report.versions) < 2:
        return None
    nodes = [
        Node(
            version.id,
            version.parent,
            "current" if version.id == report.current else version.status,
            ", ".join(version.domains),
            version.recipe,
        )
        for version in report.versions
    ]
    about = "Every version with an edge from its parent, from left to right in time."
    tree = VersionTree("lineage", "Lineage", about, nodes)
    columns = [TableColumn(title) for title in ("version", "from", "learned", "created", "status", "reasons")]
    rows: list[list[Any]] = [
        [
            version.id,
            version.parent,
            learned_domains(version),
            utc(version.created_at),
            version.status,
            "\n".join(version.reasons),
        ]
        for version in report.versions
        if version.parent is not None
    ]
    table = Table("steps", "All versions in the order of creation, with the gate's reasons.", columns, rows)
    about = "The top line leads to the current version; versions that were refused or rolled back branch off."
    if any(version.recipe for version in report.versions):
        about += " Results of 'continual train' have the name of their recipe; the gate doesn't judge them."
    return ReportSection(
        "lineage", "Lineage and verdicts", "Lineage and verdicts", about, [Figure(tree, table, wide=True)]
    )


def merging_section(report: Report) -> ReportSection | None:
    """Build the section: how each update was merged, and the newest search of coefficients."""
    updates = [version for version in report.versions if version.status in ("accepted", "refused")]
    if not updates:
        return None
    columns = [
        TableColumn("version"),
        TableColumn("rule"),
        TableColumn("weight", "number"),
        TableColumn("parameters"),
        TableColumn("trained from"),
        TableColumn("coefficients tried", "count"),
    ]
    rows: list[list[Any]] = []
    for version in updates:
        provenance = version.provenance
        parameters = ", ".join(f"{name} {value:.3g}" for name, value in provenance.parameters.items())
        tried = None if provenance.search is None else len(provenance.search.candidates)
        rows.append([version.id, provenance.merge, provenance.weight, parameters, provenance.start, tried])
    table = Table("merging", "How each update was merged into the current version of its time.", columns, rows)
    figures = [Figure(chart) for chart in (_weights(updates), _search(report)) if chart is not None]
    about = "Each step merges its update model with the current version; the weight is that of the update."
    searched = last_searched(report)
    if searched is not None:
        about += " " + _chosen(searched)
    return ReportSection("merging", "Merging", "Merging", about, figures, [table])


def last_searched(report: Report) -> ReportVersion | None:
    """Return the newest version in the current version's lineage whose merge coefficients were searched."""
    return next(
        (report.versions[place] for place in reversed(report.path) if report.versions[place].provenance.search), None
    )


def replay_section(report: Report) -> ReportSection | None:
    """Build the section: the new and the replayed rows of each step."""
    updates = [version for version in report.versions if version.parent is not None and version.status != "trained"]
    if not updates:
        return None
    drawn = {version.id: {window.domain: window.rows for window in version.provenance.replay} for version in updates}
    totals: dict[str, int] = {}
    for windows in drawn.values():
        for domain, rows in windows.items():
            totals[domain] = totals.get(domain, 0) + rows
    # With more domains than colours, the smallest domains share one bar; the table lists all.
    largest = sorted(totals, key=lambda domain: -totals[domain])[: SERIES - 1]
    shown = [domain for domain in totals if domain in largest]
    new = [float(sum(window.rows for window in version.provenance.new)) for version in updates]
    series = [("new", "faint", new)]
    series += [
        (
            f"{domain}, replayed",
            colour(domain_number(report, domain)),
            [float(drawn[version.id].get(domain, 0)) for version in updates],
        )
        for domain in shown
    ]
    if len(totals) > len(shown):
        rest = [
            float(sum(rows for domain, rows in drawn[version.id].items() if domain not in shown)) for version in updates
        ]
        series.append(("other domains, replayed", "quiet", rest))
    series = [(name, tone, [int(value) for value in values]) for name, tone, values in series]
    labels = [version.id for version in updates]
    chart = BarChart(
        "replay", "Rows of each step", "Rows that each step trained on: new rows, and replayed rows by domain.",
        labels, series, "rows", stacked=True,
    )  # fmt: skip
    columns = [TableColumn("version"), TableColumn("new", "count")]
    columns += [TableColumn(f"{domain}, replayed", "count") for domain in totals]
    cells = [
        [version.id, int(rows), *(drawn[version.id].get(domain, 0) for domain in totals)]
        for version, rows in zip(updates, new, strict=True)
    ]
    table = Table("replay", "Rows that each step trained on.", columns, cells)
    about = "Each step trains on all new rows, and on a sample of the rows of the domains learned before."
    return ReportSection("replay", "Replay", "Replay", about, [Figure(chart, table, wide=True)])


def cost_section(report: Report) -> ReportSection | None:
    """Build the section: the cost of training, compared with full retraining at every step."""
    steps, total = step_costs(report)
    if not steps:
        return None
    labels = [bill.version for bill in steps]
    chart = BarChart(
        "cost", "By step", "Pairs trained in each step, and pairs of full retraining.", labels,
        [("full retraining", "faint", [bill.joint_pairs for bill in steps]),
         ("this step", "series-1", [bill.pairs for bill in steps])],
        "pairs",
    )  # fmt: skip
    figures = [Figure(chart, _cost_table(report))]
    if len(steps) > 1:
        figures.append(Figure(_cumulative(report)))
    about = (
        "Pairs trained, with replay and all epochs, compared with retraining on the whole lineage at the same step. "
        "Refused steps count as well. If a step repeats the batches of a refused one, the total counts their full "
        "retraining only once."
    )
    if total.ratio is not None:
        about = f"All steps together cost {total.ratio:.0%} of full retraining. " + about
    return ReportSection("cost", "Cost", "Training cost", about, figures)


def _cost_table(report: Report) -> Table:
    steps, total = step_costs(report)
    columns = [
        TableColumn("step"), TableColumn("pairs", "count"), TableColumn("time", "seconds"),
        TableColumn("pairs of full retraining", "count"), TableColumn("ratio", "share"),
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
    return Table("cost", "Training cost by step.", columns, rows, total=True)


def _cumulative(report: Report) -> LineChart:
    steps, _ = step_costs(report)
    lines = []
    for place, (name, tone, values) in enumerate(
        (
            ("full retraining", "soft", [0 if step.repeats else step.joint_pairs for step in steps]),
            ("steps", "series-1", [bill.pairs for bill in steps]),
        )
    ):
        sums: list[float | None] = [sum(values[: end + 1]) for end in range(len(values))]
        lines.append(Series(name, sums, tone, 1 - place))
    return LineChart(
        "cost-total", "Cumulative", "Pairs trained in all steps so far, and pairs of full retraining at every step.",
        [bill.version for bill in steps], lines, "pairs", "count",
    )  # fmt: skip


def _weights(updates: list[ReportVersion]) -> LineChart | None:
    """Return the weight of each update; None if fewer than two have one."""
    weighted = [version for version in updates if version.provenance.weight is not None]
    if len(weighted) < 2:
        return None
    series = Series("weight", [version.provenance.weight for version in weighted], "series-1")
    return LineChart(
        "weights", "Weight of each update", "The weight with which each update was merged, 0 to 1.",
        [version.id for version in weighted], [series], "0 to 1", "number",
    )  # fmt: skip


def _chosen(version: ReportVersion) -> str:
    search = version.provenance.search
    assert search is not None
    best = ", ".join(f"{name} {value:.3g}" for name, value in search.best.coefficients.items())
    if not search.floor_kept:
        return (
            f"The search for {version.id} chose {best}. No candidate kept the loss of every domain below the "
            "horizontal dotted line; this one exceeds it least."
        )
    return (
        f"The search for {version.id} chose {best}: the lowest mean loss on rows held out from training with every "
        "domain below the horizontal dotted line."
    )


def _search(report: Report) -> LineChart | None:
    """Return the loss of each domain over the coefficients that the newest search tried.

    Losses are in percent of the loss under the version that the update was merged with.
    """
    version = last_searched(report)
    if version is None:
        return None
    search = version.provenance.search
    assert search is not None
    reference, curve = search.reference.losses, search.curve
    line = "weight" in curve[0].coefficients  # otherwise each point is a step of a gradient search
    places = [float(point.coefficients["weight"] if line else step) for step, point in enumerate(curve)]
    series = []
    for domain in reference:
        values = [
            100 * (point.losses[domain] / reference[domain] - 1)
            if domain in point.losses and reference[domain]
            else None
            for point in curve
        ]
        number = domain_number(report, domain)
        series.append(Series(domain, values, colour(number), number))
    series = quieten(series, low_is_bad=False)
    before = search.reference.loss
    if len(reference) > 1:
        means: list[float | None] = [100 * (point.loss / before - 1) for point in curve]
        series.append(Series("mean", means, "ink", len(series), heavy=True))
    order = sorted(range(len(places)), key=lambda place: places[place])
    series = [replace(points, values=[points.values[place] for place in order]) for points in series]
    chosen = search.best.coefficients["weight"] if line else None
    return LineChart(
        "search",
        f"Search for {version.id}",
        "Change of the loss on held-out rows by domain, over the coefficients that the search tried.",
        [f"{places[place]:.3g}" for place in order],
        series,
        "change of the loss, %",
        places=[places[place] for place in order],
        axis="weight of the update" if line else "step of the search",
        level=100 * search.floor,
        chosen=chosen,
    )
