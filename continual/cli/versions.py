"""The commands about versions: versions list, show, history, rebuild and pin; promote, rollback, export, gc."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app, versions_app
from continual.cli.options import (
    JsonOption,
    SettingOption,
    VersionArgument,
    WorkspaceOption,
    open_workspace,
    print_json,
)
from continual.cli.parse import parse_settings
from continual.storage.terminal import say

Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Reason, kept in `continual versions history`.")]


@versions_app.command("list")
def list_versions(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List all versions, the root base first."""
    from continual.cli.render import versions as render

    found = open_workspace(workspace).list_versions(full=json)
    print_json(found.to_json()) if json else render.print_versions(found)


@versions_app.command("show")
def show_version(name: VersionArgument, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show how a version was made, and the gate's reasons."""
    from continual.cli.render import version as render

    lineage = open_workspace(workspace).lineage(name)
    print_json(lineage[-1].to_json()) if json else render.print_version(lineage[-1], lineage)


@versions_app.command("history")
def show_history(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show when and why each version became current."""
    from continual.cli.render import versions as render

    events = open_workspace(workspace).history()
    print_json([asdict(event) for event in events]) if json else render.print_history(events)


@versions_app.command("rebuild")
def rebuild_version(name: VersionArgument, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Rebuild a version from the root base and adapters, and check its sha256."""
    with Bars() as bars:
        version = open_workspace(workspace).rebuild(name, progress=bars)
    if json:
        print_json({"version": version.id, "sha256": version.sha256})
    else:
        say(f"Rebuilt {version.id}. Its weights are the recorded ones, sha256 {version.sha256[:12]}.")


@versions_app.command("pin")
def pin_version(
    name: VersionArgument,
    off: Annotated[bool, typer.Option("--off", help="Let `continual gc` drop the snapshot again.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Keep the snapshot of a version, so that gc never drops it."""
    with Bars() as bars:
        version = open_workspace(workspace).pin(name, not off, progress=bars)
    if json:
        print_json({"version": version.id, "pinned": version.pinned})
    else:
        say(f"`continual gc` {'keeps' if version.pinned else 'may drop'} the snapshot of {version.id}.")


@app.command()
def promote(
    name: VersionArgument, reason: Reason = None, workspace: WorkspaceOption = None, json: JsonOption = False
) -> None:
    """Make a version the current one, even if the gate refused it."""
    from continual.cli.render import versions as render

    with Bars() as bars:
        event = open_workspace(workspace).promote(name, **({"reason": reason} if reason else {}), progress=bars)
    print_json(asdict(event)) if json else render.print_current(event)


@app.command()
def rollback(reason: Reason = None, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Make the previous version the current one again."""
    from continual.cli.render import versions as render

    with Bars() as bars:
        event = open_workspace(workspace).rollback(**({"reason": reason} if reason else {}), progress=bars)
    print_json(asdict(event)) if json else render.print_current(event)


@app.command()
def export(
    name: VersionArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="New folder for the model.")],
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="Type of the weights: fp32, bf16, fp16, or auto, that of the base.")
    ] = "auto",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Copy a version to a folder that SentenceTransformer loads.

    The folder also holds a model card (README.md) with lineage, data, licences and scores, and mteb's result files.
    """
    with Bars() as bars:
        made = open_workspace(workspace).export(name, out, progress=bars, dtype=dtype)
    if json:
        print_json(made.to_json())
    else:
        say(f"Exported {made.version} to {made.directory}: SentenceTransformer({str(made.directory)!r}) loads it.")
        if made.rounding is not None:
            say(
                f"Its weights were rounded from fp32 to {made.dtype}: on {made.rounding.texts} texts, the largest "
                f"cosine distance is {made.rounding.largest:.1e}. --dtype fp32 keeps them exact."
            )


@app.command()
def gc(
    setting: SettingOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be dropped.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Drop the snapshots that can be rebuilt.

    Each is rebuilt and compared before it is dropped. The root base, the current version, pinned versions and every
    store.keep_every-th version keep theirs. Checkpoints of unfinished recipes are removed too.
    """
    from continual.cli.render import versions as render

    with Bars() as bars:
        found = open_workspace(workspace).gc(settings=parse_settings(setting), dry_run=dry_run, progress=bars)
    print_json(asdict(found)) if json else render.print_collected(found, dry_run)
