"""How the conflicts of domains look in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from continual.cli.render import console, say
from continual.errors import InputError
from continual.report.figures.numbers import duration

if TYPE_CHECKING:
    from continual.conflicts.analysis import Conflicts
    from continual.conflicts.plan import ConflictPlan


MANY = 6
"""Domains up to which the columns of the matrix have names; beyond, they have the numbers of the rows."""

PAIRS = 6
"""Pairs of domains up to which each is named with its conflict."""


def parse_rows(text: str) -> int:
    """Return `--rows` as a number; 0 for all.

    Raises:
        InputError: It is neither a number nor "all".
    """
    if text == "all":
        return 0
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--rows takes a number, or all; not {text!r}.") from None


def cost(plan: ConflictPlan) -> str:
    """Return what an analysis will cost, in one line."""
    count = len(plan.rows)
    pairs = plan.trainings - 2 * count
    both = f"{pairs} pair{'s' * (pairs != 1)} of domains"
    what = f"{plan.trainings} trainings ({count} domains alone, in two orders, and {both})"
    if plan.known == plan.trainings:
        return f"{what}: all are known, so nothing is trained."
    known = f", {plan.known} of them known" if plan.known else ""
    return f"{what}{known}: {plan.pairs:,} pairs to train, about {duration(plan.seconds)}."


def print_conflict_plan(plan: ConflictPlan) -> None:
    """Print what an analysis would train, and its cost."""
    rows = Table("domain", "rows", "to measure on", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in rows.columns[1:]:
        column.justify = "right"
    for domain, count in plan.rows.items():
        rows.add_row(escape(domain), f"{count:,}", f"{plan.held[domain]:,}")
    console.print(rows)
    say(f"From {plan.start}: {cost(plan)}")
    say("Nothing was changed. Run it without --plan.")


def print_conflicts(found: Conflicts) -> None:
    """Print the matrix in the order of the tree, the clusters, and the verdict."""
    names = [found.domains[place] for place in found.order]
    numbers = [f"{number} " if len(names) > MANY else "" for number in range(1, len(names) + 1)]
    heads = [number.strip() or f"with {escape(name)}" for number, name in zip(numbers, names, strict=True)]
    head = ("loss of", "before", "alone", *heads)
    table = Table(*head, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for place, name, number in zip(found.order, names, numbers, strict=True):
        losses = (f"{found.before[name]:.3f}", f"{found.alone[name]:.3f}")
        entries = (found.matrix[place][other] for other in found.order)
        table.add_row(number + escape(name), *losses, *("" if each is None else f"{each:+.3f}" for each in entries))
    console.print(table)
    say("columns: loss trained together minus alone, on rows that no training saw; + is worse together")
    ranked = found.ranked
    means = "; ".join(f"{first} and {second} {conflict:+.3f}" for conflict, first, second in ranked)
    say(f"the conflict of a pair is the mean of its two entries{f': {means}' if len(ranked) <= PAIRS else ''}")
    for name, members in found.clusters.items():
        say(f"{name}: {', '.join(members)}")
    say(found.verdict)
    say(f"The clusters are in {found.file}.")
