"""What `continual train` prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from continual.cli.render import console, say
from continual.recipes.recipe import START
from continual.registry.registry import ROOT
from continual.report.figures.numbers import duration
from continual.report.report import measured

if TYPE_CHECKING:
    from pathlib import Path

    from continual.recipes import Recipe
    from continual.recipes.cost import PhaseCost, RecipePlan
    from continual.recipes.result import RecipeResult


def recipes_json(recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """Return the recipes as plain data: what they do and cost, where they come from, and what they can be told."""
    return {
        name: {
            "summary": recipe.summary,
            "reference": recipe.reference,
            "cost": recipe.cost,
            "train": recipe.phases is not None,
            "update": recipe.step is not None,
            "options": {key: asdict(option) for key, option in recipe.options.items()},
        }
        for name, recipe in recipes.items()
    }


def print_recipes(recipes: Mapping[str, Recipe]) -> None:
    """Print a paragraph per recipe."""
    for name, recipe in recipes.items():
        runs = [word for word, does in (("train", recipe.phases), ("update", recipe.step)) if does is not None]
        say(f"{name} ({', '.join(runs)})")
        say(f"  {recipe.summary}")
        say(f"  costs {recipe.cost}")
        for key, option in recipe.options.items():
            value = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
            say(f"  -o {key}={value}: {option.what}")
        if recipe.reference:
            say(f"  {recipe.reference}")


def print_plan(plan: RecipePlan, clusters: Path | None = None) -> None:
    """Print the phases that a recipe would run, and what they cost.

    Args:
        plan: The plan.
        clusters: The file that its clusters are of, if it goes by them; None: each domain is one.
    """
    domains = list(dict.fromkeys(domain for phase in plan.phases for domain in phase.rows))
    table = Table("phase", "from", *map(escape, domains), "epochs", "pairs", "", box=None, pad_edge=False,
                  padding=(0, 2, 0, 0), header_style="bold")  # fmt: skip
    for column in table.columns[2:-1]:
        column.justify = "right"
    for phase in plan.phases:
        rows = [f"{phase.rows[domain]:,}" if domain in phase.rows else "" for domain in domains]
        counts = ["", ""] if phase.members else [str(phase.epochs), f"{phase.pairs:,}"]
        note = (
            f"there already ({phase.made})" if phase.made else f"merges {len(phase.members)}" if phase.members else ""
        )
        note += ", searched" if phase.searches else ""
        table.add_row(escape(phase.name), escape(_from(phase)), *rows, *counts, note)
    console.print(table)
    if plan.clusters:
        say(_clusters(plan, clusters))
    if plan.skipped:
        say(_skipped(plan.skipped))
    share = plan.pairs / plan.joint_pairs if plan.joint_pairs else 0.0
    say(f"{plan.pairs:,} pairs in all, {share:.0%} of a joint training's {plan.joint_pairs:,}.")
    if plan.new_pairs:
        left = "To train" if plan.new_pairs == plan.pairs else "Still to train"
        tokens = f"about {plan.new_tokens:,} tokens and {duration(plan.new_seconds)} (estimate)"
        say(f"{left}: {plan.new_pairs:,} pairs, {tokens}.")
    else:
        say(f"Every {'training' if any(phase.made is None for phase in plan.phases) else 'phase'} is there already.")
    if plan.search_pairs:
        say(
            f"The search of the merge's coefficients comes on top: at most {plan.search_pairs:,} pairs of held-out "
            f"rows with a gradient and {plan.search_forward_pairs:,} without, about {duration(plan.search_seconds)} "
            "(a rough estimate)."
        )
    say(f"The result would be scored on {len(plan.tasks)} tasks: {', '.join(plan.tasks) or 'none'}.")
    say("Nothing was changed. Run it without --plan.")


def print_trained(trained: RecipeResult) -> None:
    """Print what a recipe made, what it cost, and its scores beside the root base's and those in service."""
    version = trained.version
    table = Table("phase", "version", "pairs", "tokens", "time", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[2:5]:
        column.justify = "right"
    for phase in trained.phases:
        counts = [f"{phase.pairs:,}", f"{phase.tokens:,}", duration(phase.seconds)] if phase.pairs else [""] * 3
        notes = ["search"] * bool(phase.pairs and not phase.rows) + ["made before"] * phase.again
        notes += [f"went on from step {phase.resumed:,}"] * bool(phase.resumed)
        table.add_row(escape(phase.name), phase.version, *counts, ", ".join(notes))
    console.print(table)
    if trained.skipped:
        say(_skipped(trained.skipped))
    _print_cost(trained)
    names = list(dict.fromkeys([ROOT, trained.current, version.id]))
    if trained.roles:
        say(f"{measured(trained.metrics)}, points")
        scores = Table("task", "", *names, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in scores.columns[2:]:
            column.justify = "right"
        for task, kind in trained.roles.items():
            cells = [trained.scores[name].get(task) for name in names]
            scores.add_row(escape(task), kind, *("" if cell is None else f"{cell:.1f}" for cell in cells))
        console.print(scores)
    say(
        f"{version.id} is the result of {trained.recipe}; {trained.current} stays in service. "
        f"`continual compare {trained.current} {version.id}` shows the difference with intervals, and "
        f"`continual promote {version.id}` puts it into service."
    )


def _print_cost(trained: RecipeResult) -> None:
    """Print pairs, tokens and time beside those of a joint training: measured where there was one, else estimated."""
    cost, joint = trained.cost, trained.joint
    about = "" if joint.version else "about "
    table = Table("", trained.recipe, "joint", "ratio", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("pairs", f"{cost.pairs:,}", f"{joint.pairs:,}", f"{cost.pairs / joint.pairs:.0%}")
    if joint.tokens and joint.seconds:
        ratio = f"{about}{cost.tokens / joint.tokens:.0%}"
        table.add_row("tokens", f"{cost.tokens:,}", f"{about}{joint.tokens:,}", ratio)
        ratio = f"{about}{cost.seconds / joint.seconds:.0%}"
        table.add_row("time", duration(cost.seconds), f"{about}{duration(joint.seconds)}", ratio)
    else:
        table.add_row("tokens", f"{cost.tokens:,}", "", "")
        table.add_row("time", duration(cost.seconds), "", "")
    console.print(table)
    say("Time is that of trainings and searches, with the loading of the model for each.")
    if cost.forward_pairs:
        say(
            f"The search encoded {cost.forward_pairs:,} pairs ({cost.forward_tokens:,} tokens) without a gradient; "
            "their time is counted above, their pairs are not."
        )
    if joint.version is None and joint.tokens:
        say(
            "Tokens and time of joint are estimated from these trainings; `continual train --recipe joint` measures "
            "them."
        )


def _clusters(plan: RecipePlan, file: Path | None) -> str:
    """Return what the clusters are, where they come from, and that a single one leaves nothing to merge."""
    if file is None:
        said = "Clusters: each domain is one; `continual analyze conflicts` finds which go together."
    else:
        listed = "; ".join(f"{name} ({', '.join(domains)})" for name, domains in plan.clusters.items())
        said = f"Clusters of {file}: {listed}."
    if len(plan.clusters) == 1:
        less = ", which costs less" if any(phase.searches for phase in plan.phases) else ""
        said += (
            " It is one cluster, so there is one specialist and little to merge: `continual train --recipe joint` "
            f"trains on the same rows at once{less}."
        )
    return said


def _skipped(rows: Mapping[str, int]) -> str:
    listed = ", ".join(f"{count:,} of {domain}" for domain, count in rows.items())
    return f"Left out, because they have no negatives in a domain where only given ones are: {listed}."


def _from(phase: PhaseCost) -> str:
    return "root base" if phase.start == START else phase.start
