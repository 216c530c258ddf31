"""What compare prints about scores and about weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.report.figures.numbers import probability
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.eval.compare import Comparison
    from continual.versions.diff import Diff


def print_scores(found: Comparison) -> None:
    """Print the scores of two versions side by side."""
    say(f"{measured(each.metric or '' for each in found.tasks)}, points")
    level = f"{100 * found.confidence:g} % interval"
    columns = ("task", found.first, found.second, "change", level, "p", "of all", "better", "worse", "of")
    rows = table(*columns, numbers=(1, None))
    rows.columns[0].overflow, rows.columns[0].min_width = "fold", 8
    for column in rows.columns[1:]:
        column.no_wrap = True
    for each in [*found.tasks, *([found.mean] if len(found.tasks) > 1 else [])]:
        aside = "" if each is found.mean or each.domain else " (OOD)" if each.flag is None else " (trained on)"
        points = [f"{each.first:.1f}", f"{each.second:.1f}", f"{each.difference:+.1f}"]
        interval = "" if each.low is None else f"{each.low:+.1f} to {each.high:+.1f}"
        p = ["" if value is None else probability(value) for value in (each.p, each.adjusted)]
        known = each.low is not None or each is found.mean  # otherwise it has no score per query
        counts = [f"{number:,}" if known else "" for number in (each.better, each.worse)] + [f"{each.queries:,}"]
        style = "bold" if each is found.mean else ""
        rows.add_row(escape(f"{each.task}{aside}"), *points, interval, *p, *counts, style=style)
    console.print(rows)
    say("p: of a permutation test; of all: the same, adjusted (Holm) for the number of tasks")
    say(f"better, worse: queries whose score rose or fell from {found.first} to {found.second}, of how many")
    for each in found.tasks:
        if each.flag is not None:
            say(f"{each.task}: {each.flag}")


def print_weights(found: Diff) -> None:
    """Print how far two versions are from the root base and from each other."""
    columns = ("group", f"|{found.first} - v0|", f"|{found.second} - v0|", "angle", f"|{found.second} - {found.first}|")
    rows = table(*columns, numbers=(1, None))
    for group in found.groups:
        angle = "" if group.angle is None else f"{group.angle:.1f} deg"
        rows.add_row(escape(group.group), f"{group.first:.4g}", f"{group.second:.4g}", angle, f"{group.change:.4g}")
    console.print(rows)
    if found.drift is None:
        say("There is no evaluation task to take texts from, so the embeddings were not compared.")
    else:
        say(
            f"cosine of a text's embeddings in {found.first} and {found.second}: mean {found.drift.mean:.4f}, 5th "
            f"percentile {found.drift.low:.4f}, minimum {found.drift.least:.4f} ({found.drift.texts} task texts)"
        )
