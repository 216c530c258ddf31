"""What train --plan prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.cli.render.words import describe_skipped
from continual.recipes.recipe import START
from continual.report.figures.numbers import duration

if TYPE_CHECKING:
    from pathlib import Path

    from continual.recipes.cost import PhaseCost, RecipePlan


def print_plan(plan: RecipePlan, clusters: Path | None = None) -> None:
    """Print the phases that a recipe would run, and their cost.

    Args:
        plan: The phases.
        clusters: The file of its clusters; None if each domain is a cluster.
    """
    domains = list(dict.fromkeys(domain for phase in plan.phases for domain in phase.rows))
    columns = ("phase", "from", *map(escape, domains), "epochs", "pairs", "")
    rows = table(*columns, numbers=(2, -1), header_style="bold")
    for phase in plan.phases:
        shares = [f"{phase.rows[domain]:,}" if domain in phase.rows else "" for domain in domains]
        counts = ["", ""] if phase.members else [str(phase.epochs), f"{phase.pairs:,}"]
        note = f"exists ({phase.made})" if phase.made else f"merges {len(phase.members)}" if phase.members else ""
        note += ", searched" if phase.searches else ""
        rows.add_row(escape(phase.name), escape(_from(phase)), *shares, *counts, note)
    console.print(rows)
    if plan.clusters:
        say(_clusters(plan, clusters))
    if plan.skipped:
        say(describe_skipped(plan.skipped, "It would leave out"))
    share = plan.pairs / plan.joint_pairs if plan.joint_pairs else 0.0
    say(f"{plan.pairs:,} pairs in all, {share:.0%} of a joint training's {plan.joint_pairs:,}.")
    if plan.new_pairs:
        left = "To train" if plan.new_pairs == plan.pairs else "Still to train"
        tokens = f"about {plan.new_tokens:,} tokens and {duration(plan.new_seconds)} (estimate)"
        say(f"{left}: {plan.new_pairs:,} pairs, {tokens}.")
    else:
        say(f"Every {'training' if any(phase.made is None for phase in plan.phases) else 'phase'} exists already.")
    if plan.search_pairs:
        say(
            f"The search for the merge's coefficients adds at most {plan.search_pairs:,} pairs of held-out rows with "
            f"gradients and {plan.search_forward_pairs:,} without, about {duration(plan.search_seconds)} (a rough "
            "estimate)."
        )
    say(f"The result would be scored on {len(plan.tasks)} tasks: {', '.join(plan.tasks) or '-'}.")
    say("Nothing was changed. Run it without --plan.")


def clusters_file(given: Path | None, directory: Path) -> Path | None:
    """Return the file that the clusters of a plan come from, if there is one.

    Args:
        given: From the command line.
        directory: The workspace.
    """
    from continual.conflicts.clusters import FILE

    file = given.expanduser() if given else directory / FILE
    return file if file.is_file() else None


def _clusters(plan: RecipePlan, file: Path | None) -> str:
    """Return the clusters and their file, and a hint if there is only one."""
    if file is None:
        said = "Clusters: each domain is one. `continual analyze conflicts` finds which domains belong together."
    else:
        listed = "; ".join(f"{name} ({', '.join(domains)})" for name, domains in plan.clusters.items())
        said = f"Clusters of {file}: {listed}."
    if len(plan.clusters) == 1:
        less = ", which costs less" if any(phase.searches for phase in plan.phases) else ""
        said += (
            " With one cluster there is one specialist and little to merge: `continual train --recipe joint` trains on "
            f"the same rows at once{less}."
        )
    return said


def _from(phase: PhaseCost) -> str:
    return "root base" if phase.start == START else phase.start
