"""The command that trains by a recipe, beside the stream of updates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.app import app
from continual.cli.options import (
    JsonOption,
    ParameterOption,
    SettingOption,
    WorkspaceOption,
    open_workspace,
    parse_parameters,
    parse_settings,
    print_json,
)


@app.command()
def train(
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="The recipe; --list names them.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="Option of the recipe; once for each."),
    ] = None,
    parameter: ParameterOption = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Domain to train on, once per domain; by default all."),
    ] = None,
    clusters: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Clusters of domains, as `analyze conflicts` writes them; by default conflicts.toml of the workspace, "
            "and without it every domain is a cluster.",
        ),
    ] = None,
    setting: SettingOption = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed, from 0 up; 0 by default.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the phases and their cost, and do nothing.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes with their options.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Train a model on all domains at once, as a recipe says.

    Published systems and the baselines they were judged against: joint, boom, phased and others. Every phase is a
    version, and one that is there already is not made again. Nothing is put into service: `continual promote` does.
    """
    from continual.cli import render_training as render
    from continual.cli.bars import Bars
    from continual.conflicts.clusters import FILE
    from continual.errors import InputError

    if list_recipes:
        from continual.recipes import recipes

        print_json(render.recipes_json(recipes())) if json else render.print_recipes(recipes())
        return
    if recipe is None:
        raise InputError("Name a recipe with --recipe; `continual train --list` shows them.")
    opened = open_workspace(workspace)
    call: dict[str, Any] = {
        "options": _options(option),
        "parameters": parse_parameters(parameter),
        "domains": domain or None,
        "clusters": clusters,
        "settings": parse_settings(setting),
        "seed": seed,
    }
    try:
        with Bars() as bars:
            if plan:
                planned = opened.plan_training(recipe, **call, progress=bars)
            else:
                trained = opened.train(recipe, **call, progress=bars)
    except KeyboardInterrupt:
        print("continual: interrupted. The same command goes on with the phase that it was in.", file=sys.stderr)
        raise typer.Exit(130) from None
    if plan:
        file = clusters.expanduser() if clusters else opened.directory / FILE
        print_json(planned.to_json()) if json else render.print_plan(planned, file if file.is_file() else None)
    else:
        print_json(trained.to_json()) if json else render.print_trained(trained)


def _options(given: list[str] | None) -> dict[str, str]:
    from continual.errors import InputError

    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InputError(f"-o takes NAME=VALUE, such as -o ratios=0.5,1; not {text!r}.")
        if name in found:
            raise InputError(f"-o sets {name} twice. Give it once.")
        found[name] = value
    return found
