"""What versions show prints: how a version was made."""

from __future__ import annotations

from continual.cli.render.console import say
from continual.cli.render.words import describe_kept, describe_replay, describe_rows, describe_training
from continual.merge.methods import find_method
from continual.merge.rules import find_rule
from continual.registry import Version
from continual.registry.catalog import utc
from continual.report.figures.numbers import duration


def print_version(version: Version, lineage: list[Version]) -> None:
    """Print how a version was made, and its lineage as a tree.

    Args:
        lineage: From the root base to the version, both included.
    """
    say(f"{version.id}: {version.status}, made {utc(version.created_at)}")
    say(f"weights sha256: {version.sha256}")
    made = version.provenance
    if made.replaces is not None:
        say(f"repeats the step of {made.replaces}, without rows that were forgotten")
    if made.forgotten:
        say(f"trained on {made.forgotten:,} row{'s' * (made.forgotten > 1)} that were forgotten since")
    if made.base is None:
        if made.phase is not None:
            say(f"phase {made.phase} of the recipe {made.recipe}")
        elif made.recipe != "continual":
            say(f"step of the recipe {made.recipe}")
        say(f"new rows: {describe_rows(made.new) or '-'}")
        chosen = f" ({describe_replay(made.config['replay'])})" if made.replay else ""
        say(f"replay rows: {describe_rows(made.replay) or '-'}{chosen}")
        say(
            f"trained {version.pairs_trained:,} pairs, {version.tokens_trained:,} tokens in "
            f"{duration(version.seconds)}, seed {made.seed}"
        )
        for sentence in [*describe_training(made), *describe_kept(made)]:
            say(sentence)
        search, cost = made.search_cost, made.cost
        if search is not None:
            trained = f"{search.pairs:,} pairs, {search.tokens:,} tokens, and " if search.pairs else ""
            say(
                f"searched merge coefficients with {trained}{search.forward_pairs:,} pairs without gradients, in "
                f"{duration(search.seconds)}"
            )
        if cost is not None and cost.pairs > version.pairs_trained:
            say(f"with the phases before it: {cost.pairs:,} pairs, {cost.tokens:,} tokens in {duration(cost.seconds)}")
    for reason in version.verdict.reasons if version.verdict is not None else []:
        say(f"gate: {reason}")
    _print_lineage(lineage)


def _print_lineage(lineage: list[Version]) -> None:
    """Print a lineage as a tree, the newest version first: each merges an update into the version below it."""
    for version in reversed(lineage):
        made = version.provenance
        if made.merge is None:
            say(f"o {version.id}  the root base, {made.base}")
            return
        if made.weight is None:
            listed = zip(made.members, made.weights, strict=True)
            say(f"o {version.id}  {made.merge} of {', '.join(f'{name} x {weight:.3g}' for name, weight in listed)}")
            say(f"| {version.parent}, from which their task vectors are measured")
            continue
        weighed = find_method(find_rule(made.merge).method).weighted
        update, parent = (f" x {share:.3g}" if weighed else "" for share in (made.weight, 1 - made.weight))
        known = made.parameters | made.state_next
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if not isinstance(value, list))
        learned = ", ".join(window.domain for window in made.new)
        say(f"o {version.id}  {made.merge}{f' ({numbers})' if numbers else ''}")
        say(rf"|\_ update{update}, trained from {made.start} on {learned}")
        say(f"| {version.parent}{parent}")
