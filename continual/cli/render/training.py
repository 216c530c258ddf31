"""What train prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.cli.render.words import describe_cuts, describe_skipped
from continual.registry import ROOT
from continual.report.figures.numbers import duration
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.recipes.result import RecipeResult


def print_trained(trained: RecipeResult) -> None:
    """Print what a recipe made, its cost, and its scores beside those of the root base and the current version."""
    version = trained.version
    phases = table("phase", "version", "pairs", "tokens", "time", "", numbers=(2, 5))
    for phase in trained.phases:
        counts = [f"{phase.pairs:,}", f"{phase.tokens:,}", duration(phase.seconds)] if phase.pairs else [""] * 3
        notes = ["search"] * bool(phase.pairs and not phase.rows) + ["existed"] * phase.again
        notes += [f"continued from step {phase.resumed:,}"] * bool(phase.resumed)
        phases.add_row(escape(phase.name), phase.version, *counts, ", ".join(notes))
    console.print(phases)
    for phase in trained.phases:
        for sentence in describe_cuts(phase.cuts):
            say(f"{phase.name}: {sentence}")
    if trained.skipped:
        say(describe_skipped(trained.skipped, "Left out"))
    _print_cost(trained)
    names = list(dict.fromkeys([ROOT, trained.current, version.id]))
    if trained.roles:
        say(f"{measured(trained.metrics)}, points")
        scores = table("task", "", *names, numbers=(2, None))
        for task, role in trained.roles.items():
            cells = [trained.scores[name].get(task) for name in names]
            scores.add_row(escape(task), role, *("" if cell is None else f"{cell:.1f}" for cell in cells))
        console.print(scores)
    say(
        f"{version.id} is the result of {trained.recipe}; {trained.current} stays the current version. "
        f"`continual compare {trained.current} {version.id}` compares their scores, and `continual promote "
        f"{version.id}` makes {version.id} current."
    )


def _print_cost(trained: RecipeResult) -> None:
    """Print pairs, tokens and time beside those of a joint training, measured if there was one."""
    cost, joint = trained.cost, trained.joint
    about = "" if joint.version else "about "
    rows = table("", trained.recipe, "joint", "ratio", numbers=(1, None))
    rows.add_row("pairs", f"{cost.pairs:,}", f"{joint.pairs:,}", f"{cost.pairs / joint.pairs:.0%}")
    if joint.tokens and joint.seconds:
        ratio = f"{about}{cost.tokens / joint.tokens:.0%}"
        rows.add_row("tokens", f"{cost.tokens:,}", f"{about}{joint.tokens:,}", ratio)
        ratio = f"{about}{cost.seconds / joint.seconds:.0%}"
        rows.add_row("time", duration(cost.seconds), f"{about}{duration(joint.seconds)}", ratio)
    else:
        rows.add_row("tokens", f"{cost.tokens:,}", "", "")
        rows.add_row("time", duration(cost.seconds), "", "")
    console.print(rows)
    say("Time counts trainings and searches, with the loading of the model for each.")
    if cost.forward_pairs:
        say(
            f"The search encoded {cost.forward_pairs:,} pairs ({cost.forward_tokens:,} tokens) without gradients. "
            "The table counts their time but not their pairs."
        )
    if joint.version is None and joint.tokens:
        say(
            "Tokens and time of joint are estimated from these trainings. `continual train --recipe joint` measures "
            "them."
        )
