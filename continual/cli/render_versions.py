"""What the commands about versions and merges print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from continual.cli.render import (
    console,
    describe_replay,
    describe_rows,
    say,
)
from continual.merge.methods import find_method
from continual.merge.rules import find_rule
from continual.registry import Alias, Version
from continual.registry.registry import utc
from continual.report.figures.numbers import duration, probability
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.eval.compare import Comparison
    from continual.merge.methods import Method, Parameter
    from continual.versions.collect import Collected
    from continual.versions.diff import Diff


def print_versions(versions: list[Version], current: str, dropped: set[str]) -> None:
    """Print a line per version."""
    columns = ("", "version", "parent", "made (UTC)", "status", "pairs", "sha256", "snapshot")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[5].justify = "right"
    for column in table.columns:
        column.no_wrap = True
    for version in versions:
        table.add_row(
            "*" if version.id == current else "",
            version.id,
            version.parent or "",
            utc(version.created_at).removesuffix(" UTC"),
            version.status,
            f"{version.pairs_trained:,}",
            version.sha256[:12],
            "dropped" if version.id in dropped else "pinned" if version.pinned else "",
        )
    console.print(table)
    say("* in service")


def print_version(version: Version, lineage: list[Version]) -> None:
    """Print how a version was made, and its lineage as a tree."""
    say(f"{version.id}: {version.status}, made {utc(version.created_at)}")
    say(f"weights sha256: {version.sha256}")
    made = version.provenance
    if made.base is None:
        if made.phase is not None:
            say(f"phase {made.phase} of the recipe {made.recipe}")
        elif made.recipe != "continual":
            say(f"a step of the recipe {made.recipe}")
        say(f"new rows: {describe_rows(made.new) or 'none'}")
        chosen = f" ({describe_replay(made.config['replay'])})" if made.replay else ""
        say(f"replay rows: {describe_rows(made.replay) or 'none'}{chosen}")
        say(
            f"trained {version.pairs_trained:,} pairs, {version.tokens_trained:,} tokens in "
            f"{duration(version.seconds)}, seed {made.seed}"
        )
        search, cost = made.search_cost, made.cost
        if search is not None:
            trained = f"{search.pairs:,} pairs, {search.tokens:,} tokens, and " if search.pairs else ""
            say(
                f"searched how it is merged with {trained}{search.forward_pairs:,} pairs forward alone, in "
                f"{duration(search.seconds)}"
            )
        if cost is not None and cost.pairs > version.pairs_trained:
            say(f"with the phases behind it: {cost.pairs:,} pairs, {cost.tokens:,} tokens in {duration(cost.seconds)}")
    for reason in version.verdict.reasons if version.verdict is not None else []:
        say(f"gate: {reason}")
    _print_lineage(lineage)


def _print_lineage(lineage: list[Version]) -> None:
    """Print a lineage as a tree, the newest version first: each was joined from an update and the version below."""
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
        say(f"|\\_ update{update}, trained from {made.start} on {learned}")
        say(f"| {version.parent}{parent}")


def print_history(events: list[Alias]) -> None:
    """Print what was in service, the newest last."""
    table = Table("since (UTC)", "version", "before", "reason", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].no_wrap = True
    for event in events:
        when = utc(event.at).removesuffix(" UTC")
        table.add_row(when, event.version, event.previous or "", escape(event.reason))
    console.print(table)


def print_comparison(found: Comparison) -> None:
    """Print the scores of two versions side by side."""
    say(f"{measured(each.metric or '' for each in found.tasks)}, points")
    level = f"{100 * found.confidence:g} % interval"
    columns = ("task", found.first, found.second, "change", level, "p", "of all", "better", "worse", "of")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[0].overflow, table.columns[0].min_width = "fold", 8
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    for each in [*found.tasks, *([found.mean] if len(found.tasks) > 1 else [])]:
        aside = "" if each is found.mean or each.domain else " (OOD)" if each.flag is None else " (trained on)"
        name = f"{each.task}{aside}"
        points = [f"{each.first:.1f}", f"{each.second:.1f}", f"{each.difference:+.1f}"]
        interval = "" if each.low is None else f"{each.low:+.1f} to {each.high:+.1f}"
        p = ["" if value is None else probability(value) for value in (each.p, each.adjusted)]
        known = each.low is not None or each is found.mean  # else it has no score per query
        counts = [f"{number:,}" if known else "" for number in (each.better, each.worse)] + [f"{each.queries:,}"]
        table.add_row(escape(name), *points, interval, *p, *counts, style="bold" if each is found.mean else "")
    console.print(table)
    say("p: of a permutation test; of all: the same, adjusted (Holm) for the number of tasks")
    say(f"better, worse: queries whose score rose or fell from {found.first} to {found.second}, of how many")
    for each in found.tasks:
        if each.flag is not None:
            say(f"{each.task}: {each.flag}")


def print_diff(found: Diff) -> None:
    """Print how far two versions are from the root base and from each other."""
    columns = ("group", f"|{found.first} - v0|", f"|{found.second} - v0|", "angle", f"|{found.second} - {found.first}|")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[1:]:
        column.justify = "right"
    for group in found.groups:
        angle = "" if group.angle is None else f"{group.angle:.1f} deg"
        table.add_row(escape(group.group), f"{group.first:.4g}", f"{group.second:.4g}", angle, f"{group.change:.4g}")
    console.print(table)
    if found.drift is None:
        say("There is no evaluation task to take probe texts from, so the drift of embeddings is not known.")
    else:
        say(
            f"cosine of a text's embedding in {found.first} and in {found.second}: mean {found.drift.mean:.4f}, "
            f"5 % are below {found.drift.low:.4f}, least {found.drift.least:.4f} ({found.drift.texts} texts of the "
            "tasks)"
        )


def print_collected(found: Collected, dry_run: bool) -> None:
    """Print which snapshots and checkpoints were dropped, and why the other snapshots stay."""
    verb = "would be dropped" if dry_run else "dropped"
    if found.dropped:
        say(f"{verb}: {', '.join(found.dropped)}; each is built again when a command needs it.")
    if found.checkpoints:
        count = "1 checkpoint" if found.checkpoints == 1 else f"{found.checkpoints} checkpoints"
        say(f"{verb}: {count} of trainings that a recipe began and did not end.")
    if found.dropped or found.checkpoints:
        say(f"{found.bytes / 1e6:,.0f} MB {'would be' if dry_run else 'are'} free.")
    else:
        say(f"Nothing {'to drop' if dry_run else 'was dropped'}.")
    for version, reason in found.kept.items():
        say(f"{version} stays: {reason}")


def print_methods(methods: Mapping[str, Method]) -> None:
    """Print the merge methods with what they need, and what can be set of each with -p."""
    for method in methods.values():
        base = {"needed": "a base", "optional": "a base or none", "first": "a base as the first of them"}
        counts = f"{_models(method)} model{'' if method.most == 1 else 's'}"
        also = f", with {base[method.base]}" if method.base in base else ""
        order = ", in order" if method.rescaled else ""
        say(f"{method.name}: {counts}{order}{also}. {method.summary}")
        for name, each in method.settable.items():
            say(f"    -p {name}={_value(each.default)}  {each.what}{_range(each)}")
    say("With -p, KEY=VALUE shows the default. Formulas and when to use which: docs/merging.md.")


def _range(parameter: Parameter) -> str:
    if isinstance(parameter.default, bool):
        return ""
    return f", {'above ' * bool(parameter.zero)}{parameter.low:g} to {parameter.high:g}"


def methods_json(methods: Mapping[str, Method]) -> list[dict[str, Any]]:
    """Return the merge methods with their contracts as plain data."""
    return [
        {
            "name": method.name,
            "summary": method.summary,
            "reference": method.reference,
            "base": method.base,
            "models": [method.least, method.most],
            "seeded": method.seeded,
            "parameters": {
                name: {"default": each.default, "low": each.low, "high": each.high, "what": each.what}
                for name, each in method.settable.items()
            },
        }
        for method in methods.values()
    ]


def _models(method: Method) -> str:
    if method.most == method.least:
        return str(method.least)
    return f"{method.least} to {method.most}" if method.most else f"{method.least} or more"


def _value(value: float) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"
