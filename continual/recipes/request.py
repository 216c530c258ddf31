"""Options of a training by a recipe, shared by its plan, the training and the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from continual.config import Config
from continual.conflicts.clusters import FILE, read_clusters
from continual.errors import InputError, did_you_mean
from continual.progress import SILENT, Progress
from continual.recipes import find_recipe
from continual.recipes.cost import RecipePlan, cost_of
from continual.recipes.jobs import Executor
from continual.recipes.plan import Layout, lay_out
from continual.recipes.recipe import Recipe
from continual.recipes.result import RecipeResult
from continual.recipes.run import run_recipe
from continual.registry import Registry
from continual.storage.locks import UPDATE_LOCK, exclusive


class TrainRequest(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    options: dict[str, str] = {}
    domains: list[str] | None = None
    clusters: Path | None = None
    settings: dict[str, dict[str, Any]] = {}
    seed: Annotated[int, Field(ge=0)] = 0

    @classmethod
    def of(cls, recipe: str, **options: Any) -> TrainRequest:
        """Return the request for a recipe. An option that is None keeps its default.

        Raises:
            InputError: An option is unknown or has the wrong type.
        """
        try:
            return cls(recipe=recipe, **{name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            fault = error.errors()[0]
            name = str(fault["loc"][0])
            if fault["type"] == "extra_forbidden":
                raise InputError(
                    f"There is no option {name!r} of train.{did_you_mean(name, cls.model_fields)}"
                ) from None
            if name == "seed":
                raise InputError(f"--seed must be an integer of 0 or more, not {fault['input']!r}.") from None
            raise InputError(
                f"The option {name} of train is invalid: {fault['msg']} (got {fault['input']!r})."
            ) from None


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
    with exclusive(registry.root / UPDATE_LOCK, "train"):
        layout = _lay_out(registry, config, directory, request, progress)
        return run_recipe(registry, config, layout, executor=executor, progress=progress)


def _lay_out(registry: Registry, config: Config, directory: Path, request: TrainRequest, progress: Progress) -> Layout:
    recipe = find_recipe(request.recipe)
    settings = {section: dict(values) for section, values in request.settings.items()}
    parameters = settings.get("merge", {}).pop("parameters", None)
    if parameters is not None:  # validated like those of continual.toml
        parameters = config.change({"merge": {"parameters": parameters}}).merge.parameters
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
