"""What versions show prints: how a version was made."""

from __future__ import annotations

from continual.cli.render.console import say
from continual.cli.render.words import describe_replay, describe_rows
from continual.merge.methods import find_method
from continual.merge.rules import find_rule
from continual.registry import Version
from continual.registry.registry import utc
from continual.report.figures.numbers import duration


def print_version(version: Version, lineage: list[Version]) -> None:
    """Print how a version was made, and its lineage as a tree.

    Args:
        lineage: From the root base to the version, both included.
    """
    say(f"{version.id}: {version.status}, made {utc(version.created_at)}")
    say(f"weights sha256: {version.sha256}")
    recipe = version.recipe
    if "base" not in recipe:
        if "phase" not in recipe and recipe.get("recipe", "continual") != "continual":
            say(f"step of the recipe {recipe['recipe']}")
        if "phase" in recipe:
            say(f"phase {recipe['phase']} of the recipe {recipe['recipe']}")
        for kind in ("new", "replay"):
            rows = describe_rows(recipe[kind]) or "-"
            chosen = f" ({describe_replay(recipe['config']['replay'])})" if kind == "replay" and recipe[kind] else ""
            say(f"{kind} rows: {rows}{chosen}")
        say(
            f"trained {version.pairs_trained:,} pairs, {version.tokens_trained:,} tokens in "
            f"{duration(version.seconds)}, seed {recipe['seed']}"
        )
        if "search_cost" in recipe:
            search = recipe["search_cost"]
            trained = f"{search['pairs']:,} pairs, {search['tokens']:,} tokens, and " if search["pairs"] else ""
            say(
                f"searched merge coefficients with {trained}{search['forward_pairs']:,} pairs without gradients, in "
                f"{duration(search['seconds'])}"
            )
        if "cost" in recipe and recipe["cost"]["pairs"] > version.pairs_trained:
            cost = recipe["cost"]
            say(
                f"with the phases before it: {cost['pairs']:,} pairs, {cost['tokens']:,} tokens in "
                f"{duration(cost['seconds'])}"
            )
    for reason in (version.verdict or {}).get("reasons", []):
        say(f"gate: {reason}")
    _print_lineage(lineage)


def _print_lineage(lineage: list[Version]) -> None:
    """Print a lineage as a tree, the newest version first: each merges an update into the version below it."""
    for version in reversed(lineage):
        recipe = version.recipe
        if version.parent is None:
            say(f"o {version.id}  the root base, {recipe['base']}")
            return
        if "members" in recipe:
            listed = zip(recipe["members"], recipe["weights"], strict=True)
            say(
                f"o {version.id}  {recipe['merge']} of {', '.join(f'{name} x {weight:.3g}' for name, weight in listed)}"
            )
            say(f"| {version.parent}, from which their task vectors are measured")
            continue
        rule = find_rule(recipe["merge"])
        weighed = find_method(rule.method).weighted
        update, parent = (f" x {share:.3g}" if weighed else "" for share in (recipe["weight"], 1 - recipe["weight"]))
        known = recipe.get("parameters", {}) | recipe.get("state_next", {})
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if not isinstance(value, list))
        learned = ", ".join(window["domain"] for window in recipe["new"])
        say(f"o {version.id}  {recipe['merge']}{f' ({numbers})' if numbers else ''}")
        say(f"|\\_ update{update}, trained from {recipe['start']} on {learned}")
        say(f"| {version.parent}{parent}")
