"""The commands about vector indexes: index show, index fit, index fill, index check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from continual.cli.bars import Bars
from continual.cli.groups import index_app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)


@index_app.command("show")
def show(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show every index comparison so far, a line each.

    Every update compares its version with its parent; `continual compare A B --index` compares any two.
    """
    from continual.cli.render import index as render

    found = open_workspace(workspace).index_comparisons()
    print_json({"pairs": [each.to_json() for each in found]}) if json else render.print_pairs(found)


@index_app.command("fit")
def fit(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Version that filled the index: an id or alias.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Version whose queries should search it.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="New folder for the query encoder.")],
    method: Annotated[
        str, typer.Option(metavar="NAME", help="identity, procrustes, affine, mlp; or auto, chosen on held-out rows.")
    ] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the hidden layer of mlp.")] = 0,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make an encoder of NEW's queries for OLD's index.

    It is NEW with a map into OLD's embedding space, fitted on learned rows, as its last modules; SentenceTransformer
    loads it. Encode queries with it until the index is rebuilt with NEW.
    """
    from continual.cli.render import index as render

    with Bars() as bars:
        fitted = open_workspace(workspace).fit_index(old, new, out, method=method, seed=seed, progress=bars)
    print_json(fitted.to_json()) if json else render.print_fitted(fitted)


@index_app.command("fill")
def fill(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="File with a column of documents, and one of ids if it has them.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder for the vectors; made if it is missing.")],
    version: Annotated[
        str, typer.Option(metavar="V", help="Version that embeds them; by default the current one.")
    ] = "current",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Embed texts into a folder of Parquet files, with a manifest.

    Run it again after the texts changed: only new and changed ones are embedded, and those that are gone are removed. A
    killed call goes on where it stopped.
    """
    from continual.cli.render import index as render

    with Bars() as bars:
        filled = open_workspace(workspace).fill_index(source, target, version, progress=bars)
    print_json(filled.to_json()) if json else render.print_filled(filled)


@index_app.command("check")
def check(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder that `index fill` made.")],
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", help="Version whose queries should search it.")
    ] = "current",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Say whether queries of a version may search an index.

    Compares the index's manifest with the version, and embeds 32 of its texts again.
    """
    from continual.cli.render import index as render

    with Bars() as bars:
        found = open_workspace(workspace).check_index(target, version, progress=bars)
    print_json(found.to_json()) if json else render.print_checked(found)
    if found.verdict != "yes":
        raise typer.Exit(2)
