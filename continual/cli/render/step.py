"""What update prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from continual.cli.bars import per_second
from continual.cli.render.console import console, say, table
from continual.cli.render.words import (
    describe_kept,
    describe_replay,
    describe_rows,
    describe_skipped,
    describe_training,
)
from continual.report.figures.numbers import duration
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.step.update import StepResult


def print_step(step: StepResult) -> None:
    """Print the scores of a step beside its parent's, its cost, and the gate's decision."""
    version, made = step.version, step.version.provenance
    _print_scores(step)
    speed = version.pairs_trained / version.seconds if version.seconds else 0.0
    say(
        f"Trained {version.pairs_trained:,} pairs from {made.start} in {duration(version.seconds)} "
        f"({per_second(speed)} pairs/s, with loading). A full retraining would train {version.joint_pairs:,} pairs."
    )
    if made.replay:
        replayed, chosen = describe_rows(made.replay), describe_replay(made.config["replay"])
        say(f"Replayed {replayed} rows: {chosen}.")
    if made.skipped:
        say(describe_skipped(made.skipped, "Skipped"))
    for sentence in [*describe_training(made), *describe_kept(made)]:
        say(sentence)
    if step.current == version.id:
        say(f"{version.id} passed the gate and is now the current version; it was {step.parent.id}.")
    elif step.passed:
        say(
            f"{version.id} passed the gate, but {step.current} was promoted during the update and stays the current "
            f"version. `continual promote {version.id}` makes {version.id} current."
        )
    for reason in version.verdict.reasons if version.verdict is not None else []:
        say(f"  {reason}")
    if step.index is not None:
        say(f"Re-index the vectors of {step.index.old}: {step.index.needs_reindex}. {' '.join(step.index.reasons)}")
    if made.search is not None:
        found = made.search
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in found.best.coefficients.items())
        kept = "" if found.floor_kept else "; all raise a domain's loss by more than merge.floor, this one least"
        say(f"The search chose {chosen} from {len(found.candidates)} fully evaluated candidates{kept}.")


def _print_scores(step: StepResult) -> None:
    if not step.scores:
        say("There is no evaluation task, so the gate had nothing to check. Add one with `continual task add`.")
        return
    scores = table("task", "", step.parent.id, step.version.id, "change", numbers=(2, None))
    changes = step.version.verdict.tasks if step.version.verdict is not None else {}
    for task, role in step.roles.items():
        change = changes.get(task)
        old, new = step.previous.get(task), step.scores.get(task)
        shown = [f"{score.score:.1f}" if score else "" for score in (old, new)]
        if change is not None and change.probe:
            shown = ["", ""]
        elif old is not None and old.version != step.parent.id:
            shown[0] += f" ({old.version})"
        note = " (probe)" if change is not None and change.probe else ""
        scores.add_row(escape(task), role, *shown, f"{change.difference:+.1f}{note}" if change is not None else "")
    say(f"{measured(score.metric for score in step.scores.values())}, points")
    console.print(scores)
