"""The report as text for a terminal of any width, with or without colour."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from continual.eval.intervals import Ends
from continual.report.figures.numbers import duration
from continual.report.figures.thin import ROWS
from continual.report.report import (
    DEFINITIONS,
    METRIC_NAMES,
    Report,
    ReportTask,
)
from continual.report.summary import (
    acc_domains,
    extremes,
    headline,
    joint_note,
    learned_domains,
    over_base,
    since_learned,
    step_costs,
    task_groups,
    version_title,
)
from continual.storage.terminal import make_console

MARKS = {"learned": "●", "best": "▲", "worst": "▼", "current": "▸", "refused": "✗", "flagged": "!", "carried": "~"}
ASCII = {"learned": "*", "best": "^", "worst": "v", "current": ">", "refused": "x", "flagged": "!", "carried": "~"}

WIDEST = 14
"""Most characters of a task's column; longer names are folded."""

LEAD = 10
"""Least characters of the version column."""


def print_tables(report: Report, console: Console | None = None) -> None:
    """Print the headline, the R matrix, the metrics with their definitions, intervals, index effects and costs.

    Args:
        console: By default standard output.
    """
    console = console or make_console(highlight=False)
    marks = ASCII if console.options.ascii_only else MARKS
    console.print(Text(headline(report)))
    left_out = len(report.versions) - len(_places(report))
    if left_out:
        about = (
            f"The tables leave out {left_out:,} of {len(report.versions):,} versions, between the first and the last"
        )
        console.print(Text(f"{about} ones. 'continual report --csv' prints all."))
    _print_matrix(report, console, marks)
    _print_metrics(report, console, marks)
    _print_intervals(report, console)
    if report.index:
        console.print()
        console.print(Text("Effect of each step on the index of its parent", style="bold"))
        console.print(_indexes(report, marks))
        console.print(Text(_KEPT, style="dim"))
    if len(report.versions) > 1:
        console.print()
        console.print(Text("Training cost", style="bold"))
        console.print(_cost(report, marks))


def _places(report: Report) -> list[int]:
    """Return the positions of the versions that the tables show: the first, the current and the last ones."""
    last = range(max(0, len(report.versions) - ROWS + 1), len(report.versions))
    return sorted({0, report.path[-1], *last})


def _print_matrix(report: Report, console: Console, marks: dict[str, str]) -> None:
    for title, tasks in task_groups(report):
        for number, part in enumerate(_parts(tasks, _lead(report), console.width)):
            console.print()
            console.print(
                Text(f"{title}, {report.measure} in points" + (", continued" if number else ""), style="bold")
            )
            console.print(_matrix(report, part, marks))
    if report.tasks:
        console.print(Text(_legend(report, marks), style="dim"))
        for why in dict.fromkeys(flag.why for flag in report.flags.values()):
            console.print(Text(f"{marks['flagged']} {why}", style="yellow"))
    else:
        console.print(Text("There is no evaluation task yet. Add one with `continual task add`."))


def _print_metrics(report: Report, console: Console, marks: dict[str, str]) -> None:
    console.print()
    console.print(Text("Metrics along each version's lineage, in points", style="bold"))
    console.print(_metrics(report, marks))
    for name in _metric_names(report):
        console.print(Text(f"{DEFINITIONS[name][0]}: {DEFINITIONS[name][1]}", style="dim"))
    if joint_note(report):
        console.print(Text(joint_note(report), style="dim"))


def _print_intervals(report: Report, console: Console) -> None:
    tables = [table for table in (_metric_intervals(report), _task_intervals(report)) if table.row_count]
    if tables:
        level = f"{100 * report.intervals.confidence:g} % intervals over the queries"
        console.print()
        console.print(Text(f"Current version {report.current}, with {level}", style="bold"))
    for number, table in enumerate(tables):
        if number:
            console.print()
        console.print(table)


def _lead(report: Report) -> int:
    """Return the characters of the version column, with the names of recipes."""
    return max(LEAD, *(Text(version_title(version)).cell_len + 4 for version in report.versions))


def _parts(tasks: list[ReportTask], lead: int, width: int) -> list[list[ReportTask]]:
    """Split tasks into groups whose columns fit the width."""
    parts: list[list[ReportTask]] = [[]]
    used = lead
    for task in tasks:
        need = _width(task) + 2
        if parts[-1] and used + need > width:
            parts.append([])
            used = lead
        parts[-1].append(task)
        used += need
    return parts


def _width(task: ReportTask) -> int:
    return min(max(Text(task.name).cell_len, 7), WIDEST)


def _table() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("version", no_wrap=True, min_width=LEAD - 2)
    return table


def _matrix(report: Report, tasks: list[ReportTask], marks: dict[str, str]) -> Table:
    table = _table()
    for task in tasks:
        table.add_column(Text(task.name), justify="right", width=_width(task), overflow="fold")
    best = {task.name: extremes(report, task.name) for task in tasks}
    for place in _places(report):
        version = report.versions[place]
        cells = []
        for task in tasks:
            score = version.scores.get(task.name)
            if score is None:
                cells.append(Text("-  ", style="dim"))
                continue
            high, low = best[task.name]
            rounded = round(score, 1)
            extreme = "best" if rounded == high else "worst" if rounded == low else ""
            learned = task.name in report.learned[place]
            style = {"best": "bold green", "worst": "red", "": ""}[extreme]
            tail = (marks["learned"] if learned else " ") + (marks[extreme] if extreme else " ")
            if (version.id, task.name) in report.flags:
                tail = tail.replace(" ", "", 1) + marks["flagged"]
            elif task.name in version.carried:
                tail = tail.replace(" ", "", 1) + marks["carried"]
            cells.append(Text(f"{score:.1f}{tail}", style=style))
        table.add_row(_name(report, place, marks, recipe=True), *cells)
    return table


def _name(report: Report, place: int, marks: dict[str, str], *, recipe: bool = False) -> Text:
    version = report.versions[place]
    current, refused = version.id == report.current, version.status == "refused"
    mark = marks["current"] if current else marks["refused"] if refused else " "
    name = version_title(version) if recipe else version.id
    return Text(f"{mark} {name}", style="bold" if current else "dim" if refused else "")


def _legend(report: Report, marks: dict[str, str]) -> str:
    meanings = {
        "learned": "learned in this step",
        "best": "best",
        "worst": "worst of a column with three or more different scores",
        "current": "current version",
        "refused": "refused by the gate",
        "flagged": "trained on, so not an OOD score",
        "carried": "score of an earlier version: the update did not score the task in full",
    }
    if not report.flags:
        del meanings["flagged"]
    if not any(version.carried for version in report.versions):
        del meanings["carried"]
    if all(version.status != "refused" for version in report.versions):
        del meanings["refused"]
    if all(extremes(report, task.name) == (None, None) for task in report.tasks):
        del meanings["best"], meanings["worst"]
    return ", ".join(f"{marks[mark]} {meaning}" for mark, meaning in meanings.items())


def _metrics(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    for name in _metric_names(report):
        table.add_column(DEFINITIONS[name][0], justify="right")
    for place in _places(report):
        cells = {name: _value(name, report.metrics[name][place]) for name in _metric_names(report)}
        if acc_domains(report, place):
            cells["acc"] += f" ({acc_domains(report, place)})"
        cells["retained"] = _value("retained", report.significant_retained(place))
        table.add_row(_name(report, place, marks), *cells.values())
    return table


def _metric_names(report: Report) -> list[str]:
    """Return the names of the metrics; intransigence needs a joint version."""
    return [name for name in METRIC_NAMES if name != "intransigence" or report.joint is not None]


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} %" if name == "retained" else f"{value:+.1f}" if name in ("bwt", "fwt") else f"{value:.1f}"


def _metric_intervals(report: Report) -> Table:
    """Return the metrics of the current version that have an interval."""
    table, place = _plain_table("", "value", "interval"), report.path[-1]
    for name in _metric_names(report):
        ends = report.intervals.metrics[name][place]
        if ends is not None:
            value, low, high = (_value(name, number) for number in (report.metrics[name][place], *ends))
            table.add_row(DEFINITIONS[name][0], value, f"{low} to {high}")
    return table


def _task_intervals(report: Report) -> Table:
    """Return the changes of the current version on every task, with intervals."""
    table = _plain_table("task", "over root base", "interval", "since learned", "interval")
    place = report.path[-1]
    for column, task in enumerate(report.tasks):
        cells = []
        for value, ends in (
            (over_base(report, report.versions[place], task.name), report.intervals.over_base[place][column]),
            (since_learned(report, place, task.name), report.intervals.since_learned[place][column]),
        ):
            cells += ["" if value is None or ends is None else f"{value:+.1f}", _ends(ends)]
        if any(cells):
            table.add_row(Text(task.name), *cells)
    return table


def _ends(ends: Ends) -> str:
    return "" if ends is None else f"{ends[0]:+.1f} to {ends[1]:+.1f}"


def _plain_table(*names: str) -> Table:
    table = Table(*names, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    return table


_KEPT = (
    "kept: score of new queries on the old index, as a share of the score after re-embedding everything, on the task "
    "that loses most; map: the same with queries mapped into the old space"
)


def _indexes(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    for name in ("index of", "cosine", "overlap", "kept", "map", "re-index"):
        table.add_column(name, justify="right", no_wrap=True)
    for place in _places(report):
        version = report.versions[place]
        if version.id in report.index:
            result = report.index[version.id]
            mapped = "" if result.kept_mapped is None else f"{result.kept_mapped:.1%}"
            figures = (f"{result.mean('canary'):.3f}", f"{result.mean('overlap'):.0%}", f"{result.kept:.1%}", mapped)
            table.add_row(_name(report, place, marks), result.old, *figures, result.needs_reindex)
    return table


def _cost(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    table.add_column("learned", overflow="fold", max_width=24)
    for title in ("pairs", "time", "full retraining", "ratio"):
        table.add_column(title, justify="right", no_wrap=True)
    steps, total = step_costs(report)
    shown = {report.versions[place].id for place in _places(report)}
    for bill in [*(step for step in steps if step.version in shown), total]:
        version = next((version for version in report.versions if version.id == bill.version), None)
        name = _name(report, report.position(bill.version), marks) if version else Text("  total", style="bold")
        ratio = "-" if bill.ratio is None else f"{bill.ratio:.0%}"
        learned = Text(learned_domains(version) if version else "")
        cells = (f"{bill.pairs:,}", duration(bill.seconds), f"{bill.joint_pairs:,} pairs", ratio)
        table.add_row(name, learned, *cells, style="" if version else "bold")
    return table
