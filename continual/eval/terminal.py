"""The report for a terminal of any width, with or without colour."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from continual.eval.report import DEFINITIONS, METRIC_NAMES, Column, Report
from continual.eval.summary import bills, duration, extremes, groups, headline

MARKS = {"learned": "●", "best": "▲", "worst": "▼", "service": "▸", "refused": "✗"}
ASCII = {"learned": "*", "best": "^", "worst": "v", "service": ">", "refused": "x"}

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
        for number, part in enumerate(_parts(tasks, console.width)):
            console.print()
            console.print(
                Text(f"{title}, {report.measure} in points" + (", continued" if number else ""), style="bold")
            )
            console.print(_matrix(report, part, marks))
    if report.tasks:
        console.print(Text(_legend(report, marks), style="dim"))
    else:
        console.print(Text("There is no evaluation task yet; `continual task add` registers one."))
    console.print()
    console.print(Text("Along each version's own lineage, in points", style="bold"))
    console.print(_metrics(report, marks))
    for short, meaning in DEFINITIONS.values():
        console.print(Text(f"{short}: {meaning}", style="dim"))
    if report.compatibility:
        console.print()
        console.print(Text("What each step did to the index of its parent", style="bold"))
        console.print(_indexes(report, marks))
        console.print(Text(_KEPT, style="dim"))
    if len(report.versions) > 1:
        console.print()
        console.print(Text("Cost of training", style="bold"))
        console.print(_cost(report, marks))


def _parts(tasks: list[Column], width: int) -> list[list[Column]]:
    """Cut tasks into runs whose columns fit beside the version's."""
    parts: list[list[Column]] = [[]]
    used = LEAD
    for task in tasks:
        need = _width(task) + 2
        if parts[-1] and used + need > width:
            parts.append([])
            used = LEAD
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
            cells.append(Text(f"{score:.1f}{tail}", style=style))
        table.add_row(_name(report, place, marks), *cells)
    return table


def _name(report: Report, place: int, marks: dict[str, str]) -> Text:
    row = report.versions[place]
    current = row.id == report.current
    mark = marks["service"] if current else marks["refused"] if row.verdict == "refused" else " "
    return Text(f"{mark} {row.id}", style="bold" if current else "dim" if row.verdict == "refused" else "")


def _legend(report: Report, marks: dict[str, str]) -> str:
    meanings = {
        "learned": "learned in this step",
        "best": "best",
        "worst": "worst of the column",
        "service": "in service",
        "refused": "refused by the gate",
    }
    if all(row.verdict != "refused" for row in report.versions):
        del meanings["refused"]
    if all(extremes(report, task.name) == (None, None) for task in report.tasks):
        del meanings["best"], meanings["worst"]
    return ", ".join(f"{marks[mark]} {meaning}" for mark, meaning in meanings.items())


def _metrics(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    for name in METRIC_NAMES:
        table.add_column(DEFINITIONS[name][0], justify="right")
    for place in range(len(report.versions)):
        values = [report.metrics[name][place] for name in METRIC_NAMES]
        signed = {"bwt", "fwt"}
        shown = [
            "-" if value is None else f"{value:+.1f}" if name in signed else f"{value:.1f}"
            for name, value in zip(METRIC_NAMES, values, strict=True)
        ]
        table.add_row(_name(report, place, marks), *shown)
    return table


_KEPT = "kept: share of full re-embedding's score that new queries have on the old index, on the task that loses most"


def _indexes(report: Report, marks: dict[str, str]) -> Table:
    table = _table()
    for name in ("index of", "cosine", "overlap", "kept", "kept, map", "re-index"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, row in enumerate(report.versions):
        if row.id in report.compatibility:
            found = report.compatibility[row.id]
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
        learned = Text(", ".join(row.domains) if row else "")
        cells = (f"{bill.pairs:,}", duration(bill.seconds), f"{bill.joint_pairs:,} pairs", ratio)
        table.add_row(lead, learned, *cells, style="" if row else "bold")
    return table
