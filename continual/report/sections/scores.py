"""The sections about scores: gain and forgetting, out of domain, the last update, and the R matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from continual.eval.intervals import Ends
from continual.report.figures import (
    ForestPlot,
    HeatMap,
    LineChart,
    Series,
    Table,
    TableColumn,
)
from continual.report.figures.numbers import Format
from continual.report.report import DEFINITIONS, METRIC_NAMES, Report
from continual.report.sections.base import (
    SERIES,
    Figure,
    ReportSection,
    colour,
    domain_number,
)
from continual.report.summary import (
    acc_domains,
    join_names,
    joint_note,
    latest,
    over_base,
    since_learned,
    task_groups,
    version_title,
)

NAMED = 5
"""Lines with a colour and a name when there are more lines than colours: the lowest ones and the highest one."""

Value = Callable[[int, str], float | None]


def domains_section(report: Report) -> ReportSection | None:
    """Build the section: each domain's gain over the root base, and its change since it was learned."""
    tasks = [task.name for task in report.tasks if task.domain is not None]
    gain = _lines(
        report,
        tasks,
        lambda place, task: over_base(report, report.versions[place], task),
        report.intervals.over_base,
        ("gain", "Gain over the root base", "Score of each domain minus the root base's, version by version."),
    )
    since = _lines(
        report,
        tasks,
        lambda place, task: since_learned(report, place, task),
        report.intervals.since_learned,
        (
            "forgetting",
            "Change since it was learned",
            "Score of each domain minus its score right after the step that learned it; below zero is forgetting.",
        ),
    )
    if gain is None:
        return None
    if since is not None and not any(_has_later_value(series) for series in since.series):
        since = None
    about = (
        f"{report.measure} on the held-out task of each domain, from the root base to the current version. A ring "
        "marks the step that learned the domain." + _interval_note(report, gain) + _flag_note(gain) + _quiet_note(gain)
    )
    figures = [Figure(chart) for chart in (gain, since) if chart is not None]
    return ReportSection("domains", "Gain and forgetting", "Gain and forgetting", about, figures)


def ood_section(report: Report) -> ReportSection | None:
    """Build the section: the change of each OOD task over the root base."""
    tasks = [task.name for task in report.tasks if task.domain is None]
    chart = _lines(
        report,
        tasks,
        lambda place, task: over_base(report, report.versions[place], task),
        report.intervals.over_base,
        ("ood", "Change against the root base", "Score of each OOD task minus the root base's, and their mean."),
        mean=True,
    )
    if chart is None:
        return None
    flagged = any(series.flagged for series in chart.series)
    about = f"Tasks without a domain{'' if flagged else ': no version was trained on their texts'}."
    if len(report.ood_set) > 1:
        about += f" The heavy line is the mean of {_list(report.ood_set)}, the same tasks for every version."
    return ReportSection(
        "ood",
        "Out of domain",
        "Out of domain",
        about + _interval_note(report, chart) + _flag_note(chart) + _quiet_note(chart),
        [Figure(chart, wide=True)],
    )


def last_update_section(report: Report) -> ReportSection | None:
    """Build the section: the last update minus its parent, task by task."""
    last = latest(report)
    compared = [task for task in report.tasks if task.name in last.changes]
    if not compared:
        return None
    rows: list[tuple[str, str, str, float, tuple[float, float] | None]] = []
    cells = []
    for task in compared:
        change = last.changes[task.name]
        ends = None if change.low is None or change.high is None else (change.low, change.high)
        tone = colour(domain_number(report, task.domain)) if task.domain is not None else "ink"
        name = f"{task.name} (probe)" if change.probe else task.name
        name += f" since {change.since}" if change.since else ""
        rows.append((name, change.role, tone, change.difference, ends))
        cells.append([name, change.role, change.old, change.new, change.difference, ends, change.p])
    columns = [
        TableColumn("task"),
        TableColumn("role"),
        TableColumn(str(last.parent), "points"),
        TableColumn(last.id, "points"),
        TableColumn("difference", "change"),
        TableColumn("interval", "interval"),
        TableColumn("p", "number"),
    ]
    level = f"{100 * last.confidence:g} %"
    chart = ForestPlot(
        "last",
        f"{last.id} minus {last.parent}",
        f"Score of {last.id} minus the score of {last.parent} on every task, with its {level} interval.",
        rows,
    )
    about = (
        f"The difference on every task, with its {level} interval over the queries. If the interval includes zero, the "
        "difference may be due to chance."
    )
    if any(change.probe for change in last.changes.values()):
        about += " The update compared the tasks marked as probes on a small sample."
    values = Table("last", "In points; p is two-sided.", columns, cells)
    title = f"The last update: {last.id} compared with {last.parent}"
    return ReportSection("last", "The last update", title, about, [Figure(chart, values, wide=True)])


def matrix_section(report: Report) -> ReportSection | None:
    """Build the section: the R matrix, and the metrics along each version's lineage."""
    if not report.tasks:
        return None
    groups = task_groups(report)
    order = [task.name for _, tasks in groups for task in tasks]
    rows, learned, flagged, carried = [], set(), set(), set()
    for place, version in enumerate(report.versions):
        state = "current" if version.id == report.current else version.status
        note = ", ".join(version.domains) or ("root base" if version.parent is None else "")
        rows.append((version_title(version), note, state))
        learned |= {(place, column) for column, task in enumerate(order) if task in report.learned[place]}
        flagged |= {(place, column) for column, task in enumerate(order) if (version.id, task) in report.flags}
        carried |= {(place, column) for column, task in enumerate(order) if task in version.carried}
    chart = HeatMap(
        "matrix",
        f"Score of every version on every task, {report.measure} in points",
        "One row per version, one column per task; blue is above the root base, orange below.",
        [(title, len(tasks)) for title, tasks in groups],
        order,
        rows,
        [[version.scores.get(task) for task in order] for version in report.versions],
        [[over_base(report, version, task) for task in order] for version in report.versions],
        frozenset(learned),
        frozenset(cell for cell in flagged if report.versions[cell[0]].scores.get(order[cell[1]]) is not None),
        frozenset(carried),
    )
    metrics = _metrics(report)
    about = (
        f"The R matrix: every version on every task, {report.measure} in points. Colours show the change against the "
        "root base, which is the first row. A frame marks the tasks of domains that the step learned."
    )
    notes = list(dict.fromkeys(flag.why for flag in report.flags.values()))
    if chart.carried:
        about += (
            " A tilde is the score of an earlier version, because the update did not score the task in full. The "
            "interval of such a score grows with every step."
        )
    if notes:
        about += " An exclamation mark is a score on texts that the version was trained on, so it isn't an OOD score."
    return ReportSection(
        "matrix", "All scores", "All scores", about, [Figure(chart, wide=True)], [metrics], notes=notes
    )


def _metrics(report: Report) -> Table:
    """Return the metrics of every version; intransigence needs a joint version."""
    names = [name for name in METRIC_NAMES if name != "intransigence" or report.joint is not None]
    formats: dict[str, Format] = {"bwt": "change", "fwt": "change", "retained": "percent"}
    columns = [TableColumn("version"), TableColumn("domains", "count")]
    columns += [TableColumn(DEFINITIONS[name][0], formats.get(name, "points")) for name in names]
    rows: list[list[Any]] = []
    for place, version in enumerate(report.versions):
        values = {name: report.metrics[name][place] for name in names}
        values["retained"] = report.significant_retained(place)
        rows.append([version_title(version), acc_domains(report, place) or None, *values.values()])
    caption = f"Metrics along each version's lineage, in points; see Definitions. {joint_note(report)}"
    return Table("metrics", caption.rstrip(), columns, rows)


def _lines(
    report: Report,
    tasks: list[str],
    value: Value,
    intervals: list[list[Ends]],
    words: tuple[str, str, str],
    mean: bool = False,
) -> LineChart | None:
    """Return one line per task over the lineage of the current version.

    Args:
        value: Returns the value of a version, by its position, on a task.
        intervals: The intervals of the values, one row per version, one column per task.
        words: Name, title and description of the chart.
        mean: Whether to add the change of the OOD mean.
    """
    path = report.path
    columns = {task.name: column for column, task in enumerate(report.tasks)}
    lines: list[Series] = []
    for place, task in enumerate(tasks):
        values = [value(position, task) for position in path]
        if len(path) < 2 or all(number is None for number in values):
            continue
        marks = frozenset(step for step, position in enumerate(path) if task in report.learned[position])
        domain = report.tasks[columns[task]].domain
        number = domain_number(report, domain) if domain is not None else place
        bounds = _if_any([intervals[position][columns[task]] for position in path])
        flagged = frozenset(
            step
            for step, position in enumerate(path)
            if (report.versions[position].id, task) in report.flags and values[step] is not None
        )
        lines.append(Series(task, values, colour(number), number, bounds, marks, flagged=flagged))
    if not lines:
        return None
    lines = quieten(lines)
    if mean and len(report.ood_set) > 1:
        base = report.metrics["ood_mean"][0]
        means = [report.metrics["ood_mean"][position] for position in path]
        changes = [None if score is None or base is None else score - base for score in means]
        bounds = _if_any([report.intervals.ood_change[position] for position in path])
        lines.append(Series(f"mean of {len(report.ood_set)}", changes, "ink", len(tasks), bounds, heavy=True))
    name, title, about = words
    return LineChart(name, title, about, [report.versions[position].id for position in path], lines)


def _has_later_value(series: Series) -> bool:
    """Whether the series has a value at another position than the marked ones."""
    return any(value is not None and place not in series.marks for place, value in enumerate(series.values))


def _if_any(intervals: list[Ends]) -> list[Ends] | None:
    return intervals if any(interval is not None for interval in intervals) else None


def quieten(lines: list[Series], *, low_is_bad: bool = True) -> list[Series]:
    """Make all but the most important lines quiet if there are more lines than colours.

    The lines that stay are those with the worst last values, and the one with the best.
    """
    if len(lines) <= SERIES:
        return lines
    last = [next((value for value in reversed(series.values) if value is not None), 0.0) for series in lines]
    order = sorted(range(len(lines)), key=lambda place: last[place], reverse=not low_is_bad)
    named = [*order[: NAMED - 1], order[-1]]
    return [
        replace(series, colour=colour(named.index(place)), number=named.index(place))
        if place in named
        else replace(series, quiet=True)
        for place, series in enumerate(lines)
    ]


def _interval_note(report: Report, chart: LineChart) -> str:
    if not any(series.bounds for series in chart.series):
        return ""
    return f" The shaded areas are {100 * report.intervals.confidence:g} % intervals over the queries."


def _flag_note(chart: LineChart) -> str:
    if not any(series.flagged for series in chart.series):
        return ""
    return ' A cross is a score on texts that the version was trained on; "All scores" gives the reason.'


def _quiet_note(chart: LineChart) -> str:
    grey = sum(series.quiet for series in chart.series)
    if not grey:
        return ""
    return (
        f" Only the {NAMED - 1} lowest lines and the highest one have names. "
        f"Point at one of the {grey} grey lines for its name."
    )


def _list(tasks: list[str]) -> str:
    return join_names(tasks) if len(tasks) <= 6 else f"{len(tasks)} tasks"
