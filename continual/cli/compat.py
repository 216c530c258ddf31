"""The commands about an index in production: compat show, compat check, compat fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from continual.cli.app import compat_app
from continual.cli.options import (
    JsonOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)

Old = Annotated[str, typer.Argument(metavar="OLD", help="The version that filled the index: an id or an alias.")]


@compat_app.command("show")
def show(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show what every step did to the index of its parent, and what else was measured."""
    from continual.cli import render_compat as render

    found = open_workspace(workspace).compatibility()
    print_json({"pairs": [each.to_json() for each in found]}) if json else render.print_pairs(found)


@compat_app.command("check")
def check(
    old: Old,
    new: Annotated[
        str, typer.Argument(metavar="[NEW]", help="The version that would ask it; by default current.")
    ] = "current",
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Measure what NEW's queries find in OLD's index.

    On the tasks of the suite `step`, with the queries of both in the indexes of both. Says whether to re-index, and
    whether a map of the queries would do until then.
    """
    from continual.cli import render_compat as render
    from continual.cli.bars import Bars

    with Bars() as bars:
        found = open_workspace(workspace).check_compatibility(old, new, progress=bars)
    print_json(found.to_json()) if json else render.print_compatibility(found)


@compat_app.command("fit")
def fit(
    old: Old,
    new: Annotated[str, typer.Argument(metavar="NEW", help="The version whose queries the index is to answer.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to make.")],
    method: Annotated[
        str, typer.Option(metavar="NAME", help="identity, procrustes, affine, mlp; or auto, chosen on held-out rows.")
    ] = "auto",
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of what is random in fitting.")] = 0,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make an encoder of NEW's queries for OLD's index.

    A map from NEW's space to OLD's is fitted on learned rows and put after NEW's last module, as plain
    sentence-transformers modules. Encode queries with it until the index is made anew with NEW.
    """
    from continual.cli import render_compat as render
    from continual.cli.bars import Bars

    with Bars() as bars:
        fitted = open_workspace(workspace).fit_map(old, new, out, method=method, seed=seed, progress=bars)
    print_json(fitted.to_json()) if json else render.print_fitted(fitted)
