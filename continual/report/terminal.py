"""The report for a terminal of any width, with or without colour."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from continual.eval.intervals import Ends
from continual.report.figures.numbers import duration
from continual.report.report import (
    DEFINITIONS,
    METRIC_NAMES,
    Column,
    Report,
)
from continual.report.summary import (
    bills,
    ceiling,
    counted,
    extremes,
    groups,
    headline,
    over_base,
    retained,
    since_learned,
    titled,
    what,
)

MARKS = {"learned": "●", "best": "▲", "worst": "▼", "service": "▸", "refused": "✗", "flagged": "!"}
ASCII = {"learned": "*", "best": "^", "worst": "v", "service": ">", "refused": "x", "flagged": "!"}

WIDEST = 14
"""Characters of a task's column; a longer name is folded."""

LEAD = 10
"""Characters of the version's column."""


def print_report(report: Report, console: Console | None = None) -> None:
    """Print the headline, the R matrix, the metrics with their definitions, and the bill.

    Args:
        report: What to print.
        console: Where to; by default standard output.
    """
    console = console or Console(highlight=False)
    marks = ASCII if console.options.ascii_only else MARKS
    console.print(Text(headline(report)))
    for title, tasks in groups(report):
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
        console.print(Text("There is no evaluation task yet; `continual task add` registers one."))
    console.print()
    console.print(Text("Along each version's own lineage, in points", style="bold"))
    console.print(_metrics(report, marks))
    for name in _shown(report):
        console.print(Text(f"{DEFINITIONS[name][0]}: {DEFINITIONS[name][1]}", style="dim"))
    if ceiling(report):
        console.print(Text(ceiling(report), style="dim"))
    bounded = [rows for rows in (_metric_intervals(report), _task_intervals(report)) if rows.row_count]
    if bounded:
        level = f"{100 * report.intervals.confidence:g} % intervals over the queries"
        console.print()
        console.print(Text(f"{report.current}, in service, with {level}", style="bold"))
    for number, rows in enumerate(bounded):
        if number:
            console.print()
        console.print(rows)
    if report.index:
        console.print()
        console.print(Text("What each step did to the index of its parent", style="bold"))
        console.print(_indexes(report, marks))
        console.print(Text(_KEPT, style="dim"))
    if len(report.versions) > 1:
        console.print()
        console.print(Text("Cost of training", style="bold"))
        console.print(_cost(report, marks))


def _lead(report: Report) -> int:
    """Return the characters of the column of versions with the names of their recipes."""
    return max(LEAD, *(Text(titled(row)).cell_len + 4 for row in report.versions))


def _parts(tasks: list[Column], lead: int, width: int) -> list[list[Column]]:
    """Cut tasks into runs whose columns fit beside the versions'."""
    parts: list[list[Column]] = [[]]
    used = lead
    for task in tasks:
        need = _width(task) + 2
        if parts[-1] and used + need > width:
            parts.append([])
            used = lead
        parts[-1].append(task)
        used += need
    return parts


def _width(task: Column) -> int:
    return min(max(Text(task.name).cell_len, 7), WIDEST)


def _table() -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("version", no_wrap=True, min_width=LEAD - 2)
    return table


def _matrix(report: Report, tasks: list[Column], marks: dict[str, str]) -> Table:
    table = _table()
    for task in tasks:
        table.add_column(Text(task.name), justify="right", width=_width(task), overflow="fold")
    best = {task.name: extremes(report, task.name) for task in tasks}
    for place, row in enumerate(report.versions):
        cells = []
        for task in tasks:
            score = row.scores.get(task.name)
            if score is None:
                cells.append(Text("-  ", style="dim"))
                continue
            high, low = best[task.name]
            shown = round(score, 1)
            extreme = "best" if shown == high else "worst" if shown == low else ""
            learned = task.name in report.learned[place]
            style = {"best": "bold green", "worst": "red", "": ""}[extreme]
            tail = (marks["learned"] if learned else " ") + (marks[extreme] if extreme else " ")
            if (row.id, task.name) in report.flags:
                tail = tail.replace(" ", "", 1) + marks["flagged"]
            cells.append(Text(f"{score:.1f}{tail}", style=style))
        table.add_row(_name(report, place, marks, recipe=True), *cells)
    return table


def _name(report: Report, place: int, marks: dict[str, str], *, recipe: bool = False) -> Text:
    row = report.versions[place]
    current = row.id == report.current
    mark = marks["service"] if current else marks["refused"] if row.verdict == "refused" else " "
    name = titled(row) if recipe else row.id
    return Text(f"{mark} {name}", style="bold" if current else "dim" if row.verdict == "refused" else "")


def _legend(report: Report, marks: dict[str, str]) -> str:
    meanings = {
        "learned": "learned in this step",
        "best": "best",
        "worst": "worst of the column",
        "service": "in service",
        "refused": "refused by the gate",
        "flagged": "trained on, so no OOD score",
    }
    if not report.flags:
        del meanings["flagged"]
    if all(row.verdict != "refused" for row in report.versions):
        del meanings["refused"]
    if all(extremes(report, task.name) == (None, None) for task in report.tasks):
        del meanings["best"], meanings["worst"]
    return ", ".join(f"{marks[mark]} {meaning}" for mark, meaning in meanings.items())


def _metrics(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    for name in _shown(report):
        table.add_column(DEFINITIONS[name][0], justify="right")
    for place in range(len(report.versions)):
        shown = {name: _value(name, report.metrics[name][place]) for name in _shown(report)}
        if counted(report, place):
            shown["acc"] += f" ({counted(report, place)})"
        shown["retained"] = _value("retained", retained(report, place))
        table.add_row(_name(report, place, marks), *shown.values())
    return table


def _shown(report: Report) -> list[str]:
    """Return the names of the metrics; without a joint version there is no intransigence to show."""
    return [name for name in METRIC_NAMES if name != "intransigence" or report.joint is not None]


def _value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} %" if name == "retained" else f"{value:+.1f}" if name in ("bwt", "fwt") else f"{value:.1f}"


def _metric_intervals(report: Report) -> Table:
    """Return the metrics of the version in service with their intervals, those that have one."""
    table, place = _plain("", "value", "interval"), report.path[-1]
    for name in _shown(report):
        ends = report.intervals.metrics[name][place]
        if ends is not None:
            shown = [_value(name, value) for value in (report.metrics[name][place], *ends)]
            table.add_row(DEFINITIONS[name][0], shown[0], f"{shown[1]} to {shown[2]}")
    return table


def _task_intervals(report: Report) -> Table:
    """Return what the version in service changed on every task, with intervals."""
    table = _plain("task", "over the base", "interval", "since learned", "interval")
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


def _plain(*names: str) -> Table:
    table = Table(*names, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    return table


_KEPT = (
    "kept, map: shares of full re-embedding's score that new queries have on the old index, as they are and through a "
    "map, each on the task that loses most"
)


def _indexes(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    for name in ("index of", "cosine", "overlap", "kept", "map", "re-index"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(report.versions):
        if row.id in report.index:
            found = report.index[row.id]
            mapped = "" if found.kept_mapped is None else f"{found.kept_mapped:.1%}"
            figures = (f"{found.mean('canary'):.3f}", f"{found.mean('overlap'):.0%}", f"{found.kept:.1%}", mapped)
            table.add_row(_name(report, place, marks), found.old, *figures, found.needs_reindex)
    return table


def _cost(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    table.add_column("learned", overflow="fold", max_width=24)
    for name in ("pairs", "time", "full retraining", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    steps, total = bills(report)
    for bill in [*steps, total]:
        row = next((row for row in report.versions if row.id == bill.version), None)
        lead = _name(report, report.position(bill.version), marks) if row else Text("  total", style="bold")
        ratio = "-" if bill.ratio is None else f"{bill.ratio:.0%}"
        learned = Text(what(row) if row else "")
        cells = (f"{bill.pairs:,}", duration(bill.seconds), f"{bill.joint_pairs:,} pairs", ratio)
        table.add_row(lead, learned, *cells, style="" if row else "bold")
    return table
