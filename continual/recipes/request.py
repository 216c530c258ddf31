"""Options of a training by a recipe, shared by its plan, the training and the command line."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pydantic import Field

from continual.config import Config, Options, Seed
from continual.conflicts.clusters import FILE, read_clusters
from continual.errors import InputError
from continual.executors.choose import open_executor
from continual.executors.protocol import Executor
from continual.progress import SILENT, Progress
from continual.recipes import find_recipe
from continual.recipes.cost import RecipePlan, cost_of
from continual.recipes.plan import Layout, lay_out
from continual.recipes.recipe import Recipe
from continual.recipes.result import RecipeResult
from continual.recipes.run import run_recipe
from continual.registry import Registry
from continual.storage.locks import UPDATE_LOCK


class TrainRequest(Options):
    """Options of a training by a recipe.

    Attributes:
        recipe: Name of the recipe, such as "joint" or "phased".
        options: Options of the recipe, as text by name: `{"ratios": "0.5,1"}`.
        domains: Domains to train on; by default all.
        clusters: File with clusters of domains; by default `conflicts.toml` of the workspace. Without that file, each
            domain is a cluster.
        settings: Settings by section and name, such as `{"train": {"learning_rate": 3e-4}}`; they replace those of
            the recipe. `merge.parameters` applies to the merges of the recipe.
        seed: Seed of the draws and the trainings, 0 or more.
    """

    call = "train"
    takes = {"seed": "--seed must be an integer of 0 or more, below 2^63"}  # noqa: RUF012  pydantic reads the base's annotation

    recipe: str
    options: dict[str, str] = Field(default_factory=dict)
    domains: list[str] | None = None
    clusters: Path | None = None
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    seed: Seed = 0


def plan_training(
    registry: Registry, config: Config, directory: Path, request: TrainRequest, progress: Progress = SILENT
) -> RecipePlan:
    """Return the phases of a recipe with their rows and cost, and change nothing; see `Workspace.plan_training`."""
    return cost_of(registry, config, _lay_out(registry, config, directory, request, progress), progress)


def train_recipe(
    registry: Registry,
    config: Config,
    directory: Path,
    request: TrainRequest,
    *,
    executor: Executor | None = None,
    progress: Progress = SILENT,
) -> RecipeResult:
    """Run a recipe under the update lock; see `Workspace.train`."""
    opened = nullcontext() if executor is None else open_executor(executor, progress)
    with opened as execute, registry.lock(UPDATE_LOCK, "train"):
        layout = _lay_out(registry, config, directory, request, progress)
        return run_recipe(registry, config, layout, execute=execute, progress=progress)


def _lay_out(registry: Registry, config: Config, directory: Path, request: TrainRequest, progress: Progress) -> Layout:
    recipe = find_recipe(request.recipe)
    settings = {section: dict(values) for section, values in request.settings.items()}
    parameters = settings.get("merge", {}).pop("parameters", None)
    if parameters is not None:  # validated like those of continual.toml
        alone = config.replace("merge", parameters={})  # those of continual.toml belong to the rule of updates
        parameters = alone.change({"merge": {"parameters": parameters}}).merge.parameters
    file = _clusters_file(recipe, request, directory)
    domains = [domain.name for domain in registry.domains()]
    return lay_out(
        registry,
        config,
        recipe,
        options=request.options,
        parameters=parameters,
        domains=request.domains,
        clusters=None if file is None else read_clusters(file, domains),
        settings=settings,
        seed=request.seed,
        progress=progress,
    )


def _clusters_file(recipe: Recipe, request: TrainRequest, directory: Path) -> Path | None:
    """Return the file of the clusters, or None if the recipe does not use clusters or there is no file.

    Raises:
        InputError: The request names a file, but the recipe does not use clusters.
    """
    if recipe.by_clusters(request.options):
        default = directory / FILE
        return request.clusters.expanduser() if request.clusters is not None else default if default.is_file() else None
    if request.clusters is not None:
        takes = "by" in recipe.options and "cluster" in recipe.options["by"].choices
        hint = "uses clusters only with --option by=cluster" if takes else "does not use clusters"
        raise InputError(f"{recipe.name} {hint}, so --clusters would have no effect. Leave it out.")
    return None
