"""What the commands about versions and merges print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from continual.cli.render import console, describe_merge, say
from continual.eval.summary import duration
from continual.registry import Version
from continual.registry.registry import utc

if TYPE_CHECKING:
    from continual.build import Collected
    from continual.diff import Diff
    from continual.merge.methods import Method


def print_versions(versions: list[Version], current: str, dropped: set[str]) -> None:
    """Print a line per version."""
    columns = ("", "version", "parent", "made", "status", "pairs", "weights sha256", "snapshot")
    table = Table(*columns, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.columns[5].justify = "right"
    for version in versions:
        table.add_row(
            "*" if version.id == current else "",
            version.id,
            version.parent or "",
            utc(version.created_at),
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
    recipe = version.recipe
    if "base" not in recipe:
        for kind in ("new", "replay"):
            rows = ", ".join(f"{window['domain']} {window['rows']:,}" for window in recipe[kind]) or "none"
            say(f"{kind} rows: {rows}")
        say(
            f"trained {version.pairs_trained:,} pairs, {version.tokens_trained:,} tokens in "
            f"{duration(version.seconds)}, seed {recipe['seed']}"
        )
    for reason in (version.verdict or {}).get("reasons", []):
        say(f"gate: {reason}")
    say("lineage:")
    console.print(_tree(lineage))


def _tree(lineage: list[Version]) -> Tree:
    """Return a version with what it was merged from below it, down to the root base."""
    by_id = {version.id: version for version in lineage}

    def label(version: Version, weight: float | None = None) -> str:
        share = f"  x {weight:.3g}" if weight is not None else ""
        if "base" in version.recipe:
            return escape(f"{version.id} the root base, {version.recipe['base']}{share}")
        merge = describe_merge(version.recipe["merge"], version.recipe["weight"])
        return escape(f"{version.id} = {merge}{share}")

    def grow(node: Tree, version: Version) -> None:
        recipe = version.recipe
        if version.parent is None:
            return
        learned = ", ".join(window["domain"] for window in recipe["new"])
        node.add(escape(f"update from {recipe['start']} on {learned}  x {recipe['weight']:.3g}"))
        parent = by_id[version.parent]
        grow(node.add(label(parent, 1 - recipe["weight"])), parent)

    tree = Tree(label(lineage[-1]))
    grow(tree, lineage[-1])
    return tree


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
    """Print which snapshots were dropped, and why the others stay."""
    verb = "would be dropped" if dry_run else "dropped"
    if found.dropped:
        say(
            f"{verb}: {', '.join(found.dropped)} ({found.bytes / 1e6:,.0f} MB); `continual versions rebuild` makes "
            "them again."
        )
    else:
        say(f"Nothing {'to drop' if dry_run else 'was dropped'}.")
    for version, reason in found.kept.items():
        say(f"{version} stays: {reason}")


def print_methods(methods: Mapping[str, Method]) -> None:
    """Print the merge methods with what they need."""
    table = Table(
        "method", "base", "models", "what it does", "parameters", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for method in methods.values():
        parameters = ", ".join(f"{name}={_value(each.default)}" for name, each in method.parameters.items())
        table.add_row(method.name, method.base, _models(method), method.summary, parameters)
    console.print(table)
    say("base: needed, optional, first (it is the first of the models) or none. See docs/merging.md for each.")


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
                for name, each in method.parameters.items()
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
