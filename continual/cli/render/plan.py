"""What update --plan prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.render.console import console, say, table
from continual.cli.render.words import describe_cuts, describe_merge, describe_replay, describe_skipped
from continual.report.figures.numbers import duration

if TYPE_CHECKING:
    from continual.step.plan import Plan


def print_plan(plan: Plan) -> None:
    """Print what an update would do, and its cost beside a full retraining."""
    spec, made = plan.spec, plan.spec.provenance
    say(f"{spec.version} would be trained from {made.start} and merged with {spec.parent} ({describe_merge(made)}).")
    rows = table("rows", "domain", "what", numbers=(0, 1), header_style="bold")
    for what, windows in (("new", made.new), ("replay", made.replay)):
        for window in windows:
            rows.add_row(f"{window.rows:,}", escape(window.domain), what)
    console.print(rows)
    say(f"replay: {describe_replay(made.config['replay'])}")
    if made.skipped:
        say(describe_skipped(made.skipped, "It would skip"))
    for sentence in describe_cuts(plan.cuts):
        say(sentence)
    cost = table("", "this update", "full retraining", "ratio", numbers=(1, None))
    pairs, tokens = plan.pairs / plan.joint_pairs, plan.tokens / plan.joint_tokens
    cost.add_row("pairs trained", f"{plan.pairs:,}", f"{plan.joint_pairs:,}", f"{pairs:.0%}")
    cost.add_row("tokens (estimate)", f"{plan.tokens:,}", f"{plan.joint_tokens:,}", f"{tokens:.0%}")
    cost.add_row("training (estimate)", duration(plan.seconds), duration(plan.joint_seconds), f"{tokens:.0%}")
    console.print(cost)
    if plan.candidates:
        say(
            f"Before that, {spec.parent} would embed {plan.candidates:,} rows to choose the replay from "
            f"(about {duration(plan.choice_seconds)})."
        )
    texts = sum(plan.tasks.values())
    tasks = "1 task" if len(plan.tasks) == 1 else f"{len(plan.tasks)} tasks"
    limit = ""
    if plan.texts is not None and texts > plan.texts:
        limit = f" About {plan.texts:,} texts would be scored (eval.step_texts), so some tasks only on a probe."
    say(f"It would be evaluated on {tasks} ({texts:,} texts): {', '.join(plan.tasks) or '-'}.{limit}")
    say("Nothing was changed. Run it without --plan.")
