"""Sections about scores: gain and forgetting, out of domain, the last update, the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from continual.eval.intervals import Ends
from continual.report.figures import (
    Column,
    Forest,
    Heat,
    Lines,
    Series,
    Table,
)
from continual.report.figures.numbers import Kind
from continual.report.report import DEFINITIONS, METRIC_NAMES, Report
from continual.report.sections.base import (
    SERIES,
    Figure,
    Section,
    colour,
    number,
)
from continual.report.summary import (
    ceiling,
    counted,
    groups,
    latest,
    names,
    over_base,
    retained,
    since_learned,
    titled,
)

LOUD = 5
"""Lines that keep their colour where there are more than colours: those that fell most, and the best one."""

Value = Callable[[int, str], float | None]


def domains(report: Report) -> Section | None:
    """What was gained on each domain, and what of it was kept."""
    tasks = [task.name for task in report.tasks if task.domain is not None]
    gain = _lines(
        report,
        tasks,
        lambda place, task: over_base(report, report.versions[place], task),
        report.intervals.over_base,
        ("gain", "Gain over the root base", "Change of each domain's score over the root base, version by version."),
    )
    since = _lines(
        report,
        tasks,
        lambda place, task: since_learned(report, place, task),
        report.intervals.since_learned,
        (
            "forgetting",
            "Change since it was learned",
            "Change of each domain's score since the step that learned it; below zero is forgetting.",
        ),
    )
    if gain is None:
        return None
    if since is not None and not any(_later(each) for each in since.series):
        since = None
    about = (
        f"{report.measure} on the held-out task of each domain, from the root base to what is in service. A ring is "
        "the step that learned the domain." + _sure(report, gain) + _flagged(gain) + _quiet(gain)
    )
    figures = [Figure(chart) for chart in (gain, since) if chart is not None]
    return Section("domains", "Gain and forgetting", "What was gained, and what of it was kept", about, figures)


def ood(report: Report) -> Section | None:
    """What became of the tasks that belong to no domain."""
    tasks = [task.name for task in report.tasks if task.domain is None]
    chart = _lines(
        report,
        tasks,
        lambda place, task: over_base(report, report.versions[place], task),
        report.intervals.over_base,
        ("ood", "Change over the root base", "Change of each out-of-domain task over the root base, and their mean."),
        mean=True,
    )
    if chart is None:
        return None
    known = any(each.flagged for each in chart.series)
    about = f"Tasks that belong to no domain{'' if known else ': nothing of them was ever trained on'}."
    if len(report.ood_set) > 1:
        about += f" The heavy line is the mean of {_some(report.ood_set)}, the same tasks for every version."
    return Section(
        "ood",
        "Out of domain",
        "Out of domain",
        about + _sure(report, chart) + _flagged(chart) + _quiet(chart),
        [Figure(chart, wide=True)],
    )


def last_update(report: Report) -> Section | None:
    """How the last update differs from its parent, task by task."""
    last = latest(report)
    known = [task for task in report.tasks if task.name in last.changes]
    if not known:
        return None
    rows: list[tuple[str, str, str, float, tuple[float, float] | None]] = []
    table = []
    for task in known:
        change = last.changes[task.name]
        ends = None if change.low is None or change.high is None else (change.low, change.high)
        tone = colour(number(report, task.domain)) if task.domain is not None else "ink"
        rows.append((task.name, change.role, tone, change.difference, ends))
        table.append([task.name, change.role, change.old, change.new, change.difference, ends, change.p])
    columns = [
        Column("task"),
        Column("to this step"),
        Column(str(last.parent), "points"),
        Column(last.id, "points"),
        Column("difference", "change"),
        Column("interval", "interval"),
        Column("p", "number"),
    ]
    level = f"{100 * last.confidence:g} %"
    chart = Forest(
        "last",
        f"{last.id} minus {last.parent}",
        f"Difference of {last.id} to {last.parent} on every task, with its {level} interval.",
        rows,
    )
    about = (
        f"Difference on every task with its {level} interval over the queries. An interval that crosses zero may be "
        "the luck of the queries."
    )
    behind = Table("last", "Points; p is two-sided.", columns, table)
    title = f"The last update: {last.id} against {last.parent}"
    return Section("last", "The last update", title, about, [Figure(chart, behind, wide=True)])


def matrix(report: Report) -> Section | None:
    """The R matrix, and the metrics along each version's lineage."""
    if not report.tasks:
        return None
    grouped = groups(report)
    order = [task.name for _, tasks in grouped for task in tasks]
    rows, learned, flagged = [], set(), set()
    for place, row in enumerate(report.versions):
        state = "current" if row.id == report.current else row.verdict
        rows.append((titled(row), ", ".join(row.domains) or ("root base" if row.parent is None else ""), state))
        learned |= {(place, column) for column, task in enumerate(order) if task in report.learned[place]}
        flagged |= {(place, column) for column, task in enumerate(order) if (row.id, task) in report.flags}
    chart = Heat(
        "matrix",
        f"Score of every version on every task, {report.measure} in points",
        "One row a version, one column a task; blue is above the root base, orange below.",
        [(title, len(tasks)) for title, tasks in grouped],
        order,
        rows,
        [[row.scores.get(task) for task in order] for row in report.versions],
        [[over_base(report, row, task) for task in order] for row in report.versions],
        frozenset(learned),
        frozenset(cell for cell in flagged if report.versions[cell[0]].scores.get(order[cell[1]]) is not None),
    )
    metrics = _metrics(report)
    about = (
        f"The R matrix: each version on each task, {report.measure} in points. Colour is the change over the root "
        "base, the first row; a frame is what a step learned."
    )
    notes = list(dict.fromkeys(flag.why for flag in report.flags.values()))
    if notes:
        about += " An exclamation mark is a score on texts that were trained on: it says nothing about unseen ones."
    return Section("matrix", "Every score", "Every score", about, [Figure(chart, wide=True)], [metrics], notes=notes)


def _metrics(report: Report) -> Table:
    """Return the metrics of every version; without a joint version there is no intransigence to show."""
    names = [name for name in METRIC_NAMES if name != "intransigence" or report.joint is not None]
    kinds: dict[str, Kind] = {"bwt": "change", "fwt": "change", "retained": "percent"}
    columns = [Column("version"), Column("domains", "count")]
    columns += [Column(DEFINITIONS[name][0], kinds.get(name, "points")) for name in names]
    rows: list[list[Any]] = []
    for place, row in enumerate(report.versions):
        values = {name: report.metrics[name][place] for name in names} | {"retained": retained(report, place)}
        rows.append([titled(row), counted(report, place) or None, *values.values()])
    caption = f"Metrics along each version's own lineage, in points; defined at the end. {ceiling(report)}"
    return Table("metrics", caption.rstrip(), columns, rows)


def _lines(
    report: Report,
    tasks: list[str],
    value: Value,
    intervals: list[list[Ends]],
    words: tuple[str, str, str],
    mean: bool = False,
) -> Lines | None:
    """Return one line a task over the versions from the root base to the one in service."""
    path = report.path
    columns = {task.name: column for column, task in enumerate(report.tasks)}
    found: list[Series] = []
    for place, task in enumerate(tasks):
        values = [value(row, task) for row in path]
        if len(path) < 2 or all(each is None for each in values):
            continue
        marks = frozenset(step for step, row in enumerate(path) if task in report.learned[row])
        domain = next(each.domain for each in report.tasks if each.name == task)
        line = number(report, domain) if domain is not None else place
        ends = _known([intervals[row][columns[task]] for row in path])
        flagged = frozenset(
            step
            for step, row in enumerate(path)
            if (report.versions[row].id, task) in report.flags and values[step] is not None
        )
        found.append(Series(task, values, colour(line), line, ends, marks, flagged=flagged))
    if not found:
        return None
    found = hush(found)
    if mean and len(report.ood_set) > 1:
        base = report.metrics["ood_mean"][0]
        means = [report.metrics["ood_mean"][row] for row in path]
        shifted = [None if each is None or base is None else each - base for each in means]
        ends = _known([report.intervals.ood_change[row] for row in path])
        found.append(Series(f"mean of {len(report.ood_set)}", shifted, "ink", len(tasks), ends, heavy=True))
    name, title, about = words
    return Lines(name, title, about, [report.versions[row].id for row in path], found)


def _later(series: Series) -> bool:
    """Whether a value is known from after the step that a ring marks."""
    return any(value is not None and place not in series.marks for place, value in enumerate(series.values))


def _known(ends: list[Ends]) -> list[Ends] | None:
    return ends if any(each is not None for each in ends) else None


def hush(series: list[Series], *, low_is_bad: bool = True) -> list[Series]:
    """Let only those lines have a colour and a name that matter most, where there are more than colours."""
    if len(series) <= SERIES:
        return series
    last = [next((value for value in reversed(each.values) if value is not None), 0.0) for each in series]
    order = sorted(range(len(series)), key=lambda place: last[place], reverse=not low_is_bad)
    loud = [*order[: LOUD - 1], order[-1]]
    return [
        replace(each, colour=colour(loud.index(place)), number=loud.index(place))
        if place in loud
        else replace(each, quiet=True)
        for place, each in enumerate(series)
    ]


def _sure(report: Report, chart: Lines) -> str:
    if not any(each.bounds for each in chart.series):
        return ""
    return f" The pale areas are {100 * report.intervals.confidence:g} % intervals over the queries."


def _flagged(chart: Lines) -> str:
    if not any(each.flagged for each in chart.series):
        return ""
    return ' A cross is a score on texts that were trained on; "Every score" says why.'


def _quiet(chart: Lines) -> str:
    grey = sum(each.quiet for each in chart.series)
    if not grey:
        return ""
    return f" Named are the {LOUD - 1} lowest and the highest; the {grey} grey ones say their names when pointed at."


def _some(items: list[str]) -> str:
    return names(items) if len(items) <= 6 else f"{len(items)} tasks"
