"""The command that trains by a recipe, beside the stream of updates: train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.bars import Bars
from continual.cli.groups import app
from continual.cli.options import (
    ExecutorOption,
    JsonOption,
    SettingOption,
    WorkspaceOption,
    open_workspace,
    print_json,
)
from continual.cli.parse import parse_pairs, parse_settings
from continual.errors import InputError
from continual.executors.choose import parse_executor
from continual.storage.terminal import warn


@app.command()
def train(
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="Recipe; --list shows them.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Option of the recipe, repeatable; --list shows them."),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Domain to train on, repeatable; by default all."),
    ] = None,
    clusters: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Clusters of domains, as `continual analyze conflicts` writes them; by default conflicts.toml in the "
            "workspace, and without that file each domain is a cluster.",
        ),
    ] = None,
    setting: SettingOption = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed, 0 or more; 0 by default.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the phases and the cost, and change nothing.")] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes with their options.")] = False,
    executor: ExecutorOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Train a model on all domains at once, by a recipe.

    Recipes are published systems and their baselines: joint, boom, phased and others. Each phase makes a version; a
    finished phase is not trained again. The current version stays: `continual promote` makes the result current.
    """
    from continual.cli.render import recipe_plan, training

    if list_recipes:
        from continual.cli.render import recipes as render
        from continual.recipes import recipes

        print_json(render.recipes_json(recipes())) if json else render.print_recipes(recipes())
        return
    if recipe is None:
        raise InputError("Name a recipe with --recipe; `continual train --list` shows them.")
    if executor is not None:
        parse_executor(executor)  # also for a plan, which trains nothing
    opened = open_workspace(workspace)
    call: dict[str, Any] = {
        "options": parse_pairs(option, "--option", "ratios=0.5,1"),
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
                trained = opened.train(recipe, **call, executor=executor, progress=bars)
    except KeyboardInterrupt:
        warn("interrupted. Run the same command again to continue.")
        raise typer.Exit(130) from None
    if plan:
        file = recipe_plan.clusters_file(clusters, opened.directory)
        print_json(planned.to_json()) if json else recipe_plan.print_plan(planned, file)
    else:
        print_json(trained.to_json()) if json else training.print_trained(trained)
