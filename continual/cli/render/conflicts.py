"""What analyze conflicts prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.report.figures.numbers import duration

if TYPE_CHECKING:
    from continual.conflicts.analysis import Conflicts
    from continual.conflicts.plan import ConflictPlan


MANY = 6
"""Most domains whose names head the columns of the matrix; with more, the rows' numbers do."""

PAIRS = 6
"""Most pairs of domains that are listed with their conflicts."""


def cost(plan: ConflictPlan) -> str:
    """Return the cost of an analysis in one line."""
    count = len(plan.rows)
    pairs = plan.trainings - 2 * count
    both = f"{pairs} pair{'s' * (pairs != 1)} of domains"
    what = f"{plan.trainings} trainings ({count} domains alone, in two orders, and {both})"
    if plan.known == plan.trainings:
        return f"{what}: all were done before, so nothing is trained."
    known = f", {plan.known} of them done before" if plan.known else ""
    return f"{what}{known}: {plan.pairs:,} pairs to train, about {duration(plan.seconds)}."


def print_conflict_plan(plan: ConflictPlan) -> None:
    """Print what an analysis would train, and its cost."""
    rows = table("domain", "rows", "held out", numbers=(1, None))
    for domain, count in plan.rows.items():
        rows.add_row(escape(domain), f"{count:,}", f"{plan.held[domain]:,}")
    console.print(rows)
    say(f"From {plan.start}: {cost(plan)}")
    say("Nothing was changed. Run it without --plan.")


def print_conflicts(found: Conflicts) -> None:
    """Print the matrix in the order of the tree, the clusters, and the conclusion."""
    names = [found.domains[place] for place in found.order]
    numbers = [f"{number} " if len(names) > MANY else "" for number in range(1, len(names) + 1)]
    heads = [number.strip() or f"with {escape(name)}" for number, name in zip(numbers, names, strict=True)]
    rows = table("loss of", "before", "alone", *heads, numbers=(1, None))
    for place, name, number in zip(found.order, names, numbers, strict=True):
        losses = (f"{found.before[name]:.3f}", f"{found.alone[name]:.3f}")
        entries = (found.matrix[place][other] for other in found.order)
        rows.add_row(number + escape(name), *losses, *("" if each is None else f"{each:+.3f}" for each in entries))
    console.print(rows)
    say("columns: loss together minus loss alone, on held-out rows; above zero the domains hurt each other")
    ranked = found.ranked
    means = "; ".join(f"{first} and {second} {conflict:+.3f}" for conflict, first, second in ranked)
    say(f"the conflict of a pair is the mean of its two entries{f': {means}' if len(ranked) <= PAIRS else ''}")
    for name, members in found.clusters.items():
        say(f"{name}: {', '.join(members)}")
    say(found.verdict)
    say(f"The clusters are in {found.file}.")
