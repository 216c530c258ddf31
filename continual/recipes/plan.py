"""A recipe planned over the rows of a workspace: its phases with their rows, settings and keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from continual.config import Config
from continual.errors import InputError, NothingToDoError
from continual.models.folder import start_key
from continual.progress import SILENT, Progress
from continual.recipes.checks import check_held, check_parameters, check_phases, check_settings
from continual.recipes.recipe import PLAIN, START, Merge, Phase, Recipe, RecipeInput, Train, Value
from continual.recipes.reuse import earlier_rows, usable
from continual.recipes.rows import RecipeRows, read_training_rows
from continual.registry import ROOT, Batch, Registry, Version, Window
from continual.registry.provenance import libraries
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class PlannedPhase:
    """A phase with everything that decides its weights.

    Attributes:
        phase: The phase.
        key: sha256 of everything that decides its weights. A version with this key makes the phase unnecessary.
        keeps: For a phase that keeps its rows: sha256 by which a later run finds its rows. None for others.
        config: Settings of a training.
        table: Rows of a training, in the form that training reads; None for a merge.
        windows: Windows of these rows.
        batches: Ids of the batches that the model learns in this phase or in the phases it depends on.
        seed: Seed of the training. It is the layout's seed, unless an earlier phase would have the same key.
        existing: The version with this key, if there is one that can be used.
    """

    phase: Phase
    key: str
    keeps: str | None
    config: Config
    table: pa.Table | None
    windows: list[Window]
    batches: list[str]
    seed: int
    existing: Version | None

    @property
    def pairs(self) -> int:
        """Training pairs: rows times epochs; 0 for a merge."""
        return 0 if self.table is None else self.table.num_rows * self.config.train.epochs

    @property
    def rows(self) -> dict[str, int]:
        """Number of training rows by domain; empty for a merge."""
        counts: dict[str, int] = {}
        for window in self.windows:
            counts[window.domain] = counts.get(window.domain, 0) + window.rows
        return counts


@dataclass(frozen=True)
class Layout:
    """A recipe planned over the rows of a workspace.

    Attributes:
        recipe: The recipe.
        options: Value of every option.
        phases: The phases in their order; the last one makes the result.
        training_rows: The rows that phases draw from.
        seed: Seed of the draws, and of most trainings; see `PlannedPhase`.
        joint_pairs: Training pairs of one training on all rows, including those held out for a search.
        clusters: Domains by cluster, without domains that have no rows.
        plain: The settings that affect the weights in the recipe joint on the same rows.
    """

    recipe: Recipe
    options: dict[str, Value]
    phases: list[PlannedPhase]
    training_rows: RecipeRows
    seed: int
    joint_pairs: int
    clusters: dict[str, list[str]]
    plain: dict[str, Any]

    @property
    def clustered(self) -> bool:
        """Whether the phases are formed by clusters of domains."""
        return self.recipe.clustered or self.options.get("by") == "cluster"


def lay_out(
    registry: Registry,
    config: Config,
    recipe: Recipe,
    *,
    options: Mapping[str, str],
    parameters: Mapping[str, float] | None = None,
    domains: Sequence[str] | None,
    clusters: Mapping[str, Sequence[str]] | None,
    settings: Mapping[str, Mapping[str, Any]],
    seed: int,
    progress: Progress = SILENT,
) -> Layout:
    """Plan a recipe: fix everything that decides the weights, and change nothing.

    Args:
        recipe: The recipe to plan.
        options: Options of the recipe, as text by name.
        parameters: Parameters of the merge method.
        domains: Names of the domains to train on; None for all.
        clusters: Domains by cluster; None makes every domain a cluster.
        settings: Settings by section and name; they replace those of the recipe.
        seed: 0 or more.

    Raises:
        InputError: Only `continual update` takes the recipe; or an option, parameter or setting is out of its range
            or would have no effect.
        NotFoundError: A domain does not exist.
        NothingToDoError: There are no rows, or too few for a search.
    """
    if recipe.phases is None:
        raise InputError(
            f"The recipe {recipe.name} describes an update, not a training. Run `continual update --recipe "
            f"{recipe.name}`."
        )
    if seed < 0:
        raise InputError(f"--seed must be an integer of 0 or more, not {seed}.")
    values = recipe.resolve(options)
    plain = config.change(PLAIN).change(settings)
    config = config.change(recipe.settings).change(settings)
    check_settings(recipe, settings)
    batches = _batches(registry, domains)
    rows = read_training_rows(registry, batches, config.merge.search_rows if recipe.searches else 0)
    if not rows.tables:
        raise NothingToDoError(
            "There are no rows to train on: every row is in an evaluation task. Add rows with `continual ingest FILE`."
        )
    by_cluster = _clusters(clusters, rows)
    inputs = RecipeInput(rows.counts, _kinds(registry), by_cluster, lambda: _dimensions(registry, config, progress))
    asked = settings.get("train", {})
    phases = [_override(phase, asked, parameters or {}) for phase in recipe.phases(inputs, values)]
    check_phases(recipe, phases)
    if parameters:
        check_parameters(recipe, phases)
    if any(isinstance(phase, Merge) and phase.search for phase in phases):
        check_held(recipe, by_cluster, rows.held_windows)
    planner = _Planner(registry, config, recipe, values, rows, batches, by_cluster, seed)
    held = sum(window.rows for window in rows.held_windows)
    return Layout(
        recipe=recipe,
        options=values,
        phases=planner.plan(phases),
        training_rows=rows,
        seed=seed,
        joint_pairs=(sum(rows.counts.values()) + held) * config.train.epochs,
        clusters=by_cluster,
        plain=plain.train.deciding(),
    )


@dataclass
class _Draft:
    """What a phase is planned to do, before its key is known.

    Attributes:
        facts: Everything that decides the weights, as JSON data.
        learned: Ids of batches that the model learns, in any order.
    """

    facts: dict[str, Any]
    config: Config
    learned: list[str]
    table: pa.Table | None = None
    windows: list[Window] = field(default_factory=list)
    keeps: str | None = None


class _Planner:
    """Plans the phases of a recipe, one after the other."""

    def __init__(
        self,
        registry: Registry,
        config: Config,
        recipe: Recipe,
        options: Mapping[str, Value],
        rows: RecipeRows,
        batches: Sequence[Batch],
        clusters: Mapping[str, Sequence[str]],
        seed: int,
    ) -> None:
        self._registry, self._config, self._recipe, self._options = registry, config, recipe, options
        self._rows, self._batches, self._clusters, self._seed = rows, batches, clusters, seed
        self._versions = registry.versions()
        root = registry.version(ROOT)
        self._keys = {START: start_key(registry.path(root.path), root.sha256)}
        self._planned: dict[str, PlannedPhase] = {}

    def plan(self, phases: Sequence[Phase]) -> list[PlannedPhase]:
        """Return the phases with their rows, settings, keys and usable versions."""
        by_key = {version.provenance.key: version for version in self._versions if version.provenance.key}
        for phase in phases:
            draft = self._draft_merge(phase) if isinstance(phase, Merge) else self._draft_training(phase)
            # Two subsets with the same rows would be one training, and a merge would join a model with itself.
            attempts = 0
            while (key := _digest(draft.facts)) in self._keys.values():
                attempts += 1
                draft.facts["seed"] = _derived_seed(self._seed, attempts)
            self._keys[phase.name] = key
            self._planned[phase.name] = PlannedPhase(
                phase=phase,
                key=key,
                keeps=draft.keeps,
                config=draft.config,
                table=draft.table,
                windows=draft.windows,
                batches=[batch.id for batch in self._batches if batch.id in draft.learned],
                seed=draft.facts["seed"],
                existing=usable(self._registry, by_key.get(key)),
            )
        return list(self._planned.values())

    def _draft_merge(self, phase: Merge) -> _Draft:
        facts: dict[str, Any] = {
            "seed": self._seed,
            "libraries": libraries(),
            "members": [self._keys[name] for name in phase.members],
            "base": self._keys[phase.base],
            "method": [phase.method, phase.weights, dict(phase.parameters)],
        }
        if phase.search:
            facts["search"] = [
                [window.to_json() for window in self._rows.held_windows],
                self._config.train.deciding(),
                self._config.merge.floor,
            ]
        learned = [batch for name in phase.members for batch in self._planned[name].batches]
        return _Draft(facts, self._config, learned)

    def _draft_training(self, phase: Train) -> _Draft:
        config = self._config.change({"train": phase.settings} if phase.settings else {})
        facts: dict[str, Any] = {
            "seed": self._seed,
            "libraries": libraries(),
            "start": self._keys[phase.start],
            "train": config.train.deciding(),
        }
        keeps = None
        if phase.keeps_rows:
            keeps = _digest([self._recipe.name, phase.name, dict(self._options), facts])
            table, windows = self._kept_rows(keeps) or self._rows.take(phase.portions, self._seed)
        elif phase.same_rows is not None:
            other = self._planned[phase.same_rows]
            assert other.table is not None, f"phase {phase.same_rows} has no rows"
            table, windows = other.table, other.windows
        else:
            table, windows = self._rows.take(phase.portions, self._seed)
        facts["rows"] = [window.to_json() for window in windows]
        domains = {window.domain for window in windows}
        learned = [batch.id for batch in self._batches if batch.domain in domains]
        if phase.start in self._planned:
            learned += self._planned[phase.start].batches
        return _Draft(facts, config, learned, table, windows, keeps)

    def _kept_rows(self, keeps: str) -> tuple[pa.Table, list[Window]] | None:
        """Return the rows of the newest version that kept its rows under a key and whose rows are still usable."""
        for version in reversed(self._versions):
            if version.provenance.keeps == keeps:
                rows = earlier_rows(self._registry, version, self._rows, self._clusters, self._seed)
                if rows is not None:
                    return rows
        return None


def _derived_seed(seed: int, number: int) -> int:
    """Return a further seed of a seed. It is large, so that it differs from seeds that people choose.

    Args:
        number: Number of the further seed, from 1.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _override(phase: Phase, asked: Mapping[str, Any], parameters: Mapping[str, float]) -> Phase:
    """Return a training without its own values of settings in the call, or a merge with the call's parameters."""
    if isinstance(phase, Merge):
        return phase if phase.search else replace(phase, parameters={**phase.parameters, **parameters})
    return replace(phase, settings={name: value for name, value in phase.settings.items() if name not in asked})


def _clusters(clusters: Mapping[str, Sequence[str]] | None, rows: RecipeRows) -> dict[str, list[str]]:
    """Return domains with rows, by cluster. Without any such cluster, every domain is one."""
    with_rows = {
        name: [domain for domain in domains if domain in rows.tables] for name, domains in (clusters or {}).items()
    }
    return {name: domains for name, domains in with_rows.items() if domains} or {name: [name] for name in rows.tables}


def _batches(registry: Registry, domains: Sequence[str] | None) -> list[Batch]:
    names = registry.domain_names(domains or None)
    batches = [batch for batch in registry.batches() if batch.kept and batch.domain in names]
    if not batches:
        raise NothingToDoError("There are no rows to train on. Add rows with `continual ingest FILE`.")
    return sorted(batches, key=lambda batch: names.index(batch.domain))


def _kinds(registry: Registry) -> dict[str, str]:
    return {domain.name: domain.kind for domain in registry.domains()}


def _dimensions(registry: Registry, config: Config, progress: Progress) -> int:
    from continual.models.encoder import load_encoder

    with kept(registry, ROOT, progress=progress) as (folder,):
        return int(load_encoder(folder, trust_remote_code=config.trust_remote_code).get_embedding_dimension())


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
