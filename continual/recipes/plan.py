"""A recipe laid out over the rows of a workspace: its phases, their rows and settings, and what each is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from continual.config import Config
from continual.errors import InputError, NothingToDoError
from continual.merge.methods import find_method
from continual.progress import SILENT, Progress
from continual.recipes.recipe import (
    PLAIN,
    START,
    Merge,
    Phase,
    Portion,
    Recipe,
    Stock,
    Value,
)
from continual.recipes.rows import Material, read_material
from continual.registry import Batch, Registry, Version, Window
from continual.registry.provenance import libraries
from continual.registry.registry import ROOT
from continual.versions.build import kept

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Planned:
    """A phase, and all that decides what comes of it.

    Attributes:
        phase: The phase.
        key: sha256 of all that decides its weights: a version that has it need not be made again.
        keeps: For a phase that keeps its rows, by what a later run finds it though there are more rows; else None.
        config: The settings, for a training.
        table: The rows of a training, as training reads them; None of a merge.
        windows: What they are.
        batches: Ids of the batches that it, or what it is made of, learns.
        seed: Of the training: the layout's, or one that follows from it where an earlier phase is the same but for it.
        made: The version that has its key already.
    """

    phase: Phase
    key: str
    keeps: str | None
    config: Config
    table: pa.Table | None
    windows: list[Window]
    batches: list[str]
    seed: int
    made: Version | None

    @property
    def pairs(self) -> int:
        """Pairs that it trains: rows times epochs; 0 of a merge."""
        return 0 if self.table is None else self.table.num_rows * self.config.train.epochs

    @property
    def rows(self) -> dict[str, int]:
        """Rows by domain that it trains on; none for a merge."""
        found: dict[str, int] = {}
        for window in self.windows:
            found[window.domain] = found.get(window.domain, 0) + window.rows
        return found


@dataclass(frozen=True)
class Layout:
    """A recipe over the rows of a workspace.

    Attributes:
        recipe: The recipe.
        options: Its options.
        phases: In their order; the last makes the result.
        material: The rows.
        seed: Of draws and, with few exceptions (see `Planned`), of trainings.
        joint_pairs: Pairs that one training on all rows trains, those held out included.
        clusters: Domains by cluster, as far as they have rows.
        plain: The deciding settings with which the recipe joint would train on the same rows.
    """

    recipe: Recipe
    options: dict[str, Value]
    phases: list[Planned]
    material: Material
    seed: int
    joint_pairs: int
    clusters: dict[str, list[str]]
    plain: dict[str, Any]

    @property
    def clustered(self) -> bool:
        """Whether its phases go by clusters of domains."""
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
    """Fix all that decides the weights of a recipe. Changes nothing.

    Args:
        registry: The workspace's registry.
        config: Its settings.
        recipe: What to run.
        options: Of the recipe, as text by name.
        parameters: Of the method of its merges.
        domains: Those to train on; None: all.
        clusters: Domains by cluster; None: each domain is one.
        settings: By section, over those of the recipe.
        seed: 0 or more.
        progress: Shows how far it is.

    Raises:
        InputError: The recipe is one of `update` alone, or an option, parameter or setting is out of its range or
            decides nothing.
        NotFoundError: A domain is not known.
        NothingToDoError: There are no rows, or too few for a search.
    """
    if recipe.phases is None:
        raise InputError(
            f"The recipe {recipe.name} is one of steps: `continual update --recipe {recipe.name}` takes one."
        )
    if seed < 0:
        raise InputError(f"--seed takes an integer from 0 up, not {seed}.")
    given = recipe.resolve(options)
    plain = config.change(PLAIN).change(settings)
    config = config.change(recipe.settings).change(settings)
    _check_settings(recipe, settings)
    batches = _batches(registry, domains)
    held = config.merge.search_rows if recipe.searches else 0
    material = read_material(registry, batches, held)
    if not material.tables:
        raise NothingToDoError(
            "There are no rows to train on: every row is in an evaluation task. Register more with `continual ingest`."
        )
    grouped = {name: [each for each in names if each in material.tables] for name, names in (clusters or {}).items()}
    grouped = {name: names for name, names in grouped.items() if names} or {name: [name] for name in material.tables}
    stock = Stock(material.rows, _kinds(registry), grouped, lambda: _dimensions(registry, config, progress))
    asked = settings.get("train", {})
    phases = [_told(phase, asked, parameters or {}) for phase in recipe.phases(stock, given)]
    _check(recipe, phases)
    if parameters:
        _check_parameters(recipe, phases)
    windows = material.held[0] if material.held else []
    if any(isinstance(phase, Merge) and phase.search for phase in phases):
        _check_held(recipe, grouped, windows)
    return Layout(
        recipe=recipe,
        options=given,
        phases=_plan(registry, config, recipe, given, phases, material, batches, grouped, seed),
        material=material,
        seed=seed,
        joint_pairs=(sum(material.rows.values()) + sum(window.rows for window in windows)) * config.train.epochs,
        clusters=grouped,
        plain=plain.train.deciding(),
    )


def _plan(
    registry: Registry,
    config: Config,
    recipe: Recipe,
    options: Mapping[str, Value],
    phases: Sequence[Phase],
    material: Material,
    batches: Sequence[Batch],
    clusters: Mapping[str, Sequence[str]],
    seed: int,
) -> list[Planned]:
    versions = registry.versions()
    known = {version.provenance.key: version for version in versions if version.provenance.key}
    by_domain: dict[str, list[str]] = {}
    for batch in batches:
        by_domain.setdefault(batch.domain, []).append(batch.id)
    keys, planned = {START: registry.version(ROOT).sha256}, dict[str, Planned]()
    for phase in phases:
        facts: dict[str, Any] = {"seed": seed, "libraries": libraries()}
        alike = 0
        own, table, windows, kept_as = config, None, list[Window](), None
        if isinstance(phase, Merge):
            facts |= {
                "members": [keys[name] for name in phase.members],
                "base": keys[phase.base],
                "method": [phase.method, phase.weights, dict(phase.parameters)],
            }
            if phase.search:
                facts["search"] = [
                    [window.to_json() for window in (material.held[0] if material.held else [])],
                    config.train.deciding(),
                    config.merge.floor,
                ]
            learned = [batch for name in phase.members for batch in planned[name].batches]
        else:
            own = config.change({"train": phase.settings} if phase.settings else {})
            facts |= {"start": keys[phase.start], "train": own.train.deciding()}
            rows = None
            if phase.keeps_rows:
                kept_as = _digest([recipe.name, phase.name, dict(options), facts])
                earlier = [each for each in reversed(versions) if each.provenance.keeps == kept_as]
                found = (_again(registry, each, material, clusters, seed) for each in earlier)
                rows = next((each for each in found if each is not None), None)
            elif phase.same_rows is not None:
                rows = planned[phase.same_rows].table, planned[phase.same_rows].windows
            table, windows = rows or material.take(phase.portions, seed)
            facts["rows"] = [window.to_json() for window in windows]
            learned = [batch for window in windows for batch in by_domain[window.domain]]
            learned += planned[phase.start].batches if phase.start in planned else []
        # Two subsets of all rows are one training; they are to be two models, or a merge would join one with itself.
        while (key := _digest(facts)) in keys.values():
            alike += 1
            facts["seed"] = _another_seed(seed, alike)
        keys[phase.name] = key
        planned[phase.name] = Planned(
            phase=phase,
            key=key,
            keeps=kept_as,
            config=own,
            table=table,
            windows=windows,
            batches=[batch.id for batch in batches if batch.id in learned],
            seed=facts["seed"],
            made=_usable(registry, known.get(key)),
        )
    return list(planned.values())


def _another_seed(seed: int, number: int) -> int:
    """Return a seed that follows from another, and that nobody gives by hand: that of seed 0 is not seed 1.

    Args:
        seed: 0 or more.
        number: Which one, from 1 up.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _again(
    registry: Registry, version: Version, material: Material, clusters: Mapping[str, Sequence[str]], seed: int
) -> tuple[pa.Table, list[Window]] | None:
    """Return the rows that a version was trained on, or None where they would not do any more.

    They are not what they were, or the clusters share out its domains otherwise, or some of them are held out now.
    """
    windows = version.provenance.new
    before = {frozenset(names) for names in version.provenance.clusters.values()}
    old: frozenset[str] = frozenset().union(*before)
    now = [old.intersection(names) for names in clusters.values()]
    if set(now) != before or not all(now):
        return None
    held = {window.domain: window.start for window in (material.held[0] if material.held else [])}
    if any(window.domain in held and window.stop >= held[window.domain] for window in windows):
        return None
    batches = [batch for batch in registry.batches() if batch.id in version.batches]
    earlier = read_material(registry, batches)
    if any(earlier.rows.get(window.domain, 0) < window.rows for window in windows):
        return None
    found = earlier.take([Portion(window.domain, window.rows) for window in windows], seed)
    return found if found[1] == windows else None


def _usable(registry: Registry, version: Version | None) -> Version | None:
    """Return a version if its model is there or can be built from what is there."""
    if version is None or registry.path(version.path).is_dir():
        return version
    if version.provenance.members:
        needed = [version.parent, *version.provenance.members]
    else:
        needed = [version.parent]
        if version.adapter is None or not registry.path(version.adapter).is_dir():
            return None
    there = all(name is not None and _usable(registry, registry.version(name)) for name in needed)
    return version if there else None


def _told(phase: Phase, asked: Mapping[str, Any], parameters: Mapping[str, float]) -> Phase:
    """Return a training without the settings of its own that the call gives, or a merge with the call's parameters."""
    if isinstance(phase, Merge):
        return phase if phase.search else replace(phase, parameters={**phase.parameters, **parameters})
    return replace(phase, settings={name: value for name, value in phase.settings.items() if name not in asked})


def _check_settings(recipe: Recipe, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse settings of the call that would decide nothing.

    Raises:
        InputError: There are some.
    """
    names = [f"{section}.{name}" for section, values in settings.items() for name in values]
    searched = ("merge.search_rows", "merge.floor") if recipe.searches else ()
    idle = [name for name in names if not name.startswith("train.") and name not in searched]
    if idle:
        takes = ", ".join(["those of [train]", *searched])
        own = ", and its own options with --option; `continual train --list` shows them" if recipe.options else ""
        scores = any(name.startswith(("eval.", "suites.")) for name in idle)
        toml = " How a result is scored is set in continual.toml." if scores else ""
        raise InputError(
            f"{', '.join(idle)} would change nothing: of the settings {recipe.name} takes {takes}{own}.{toml}"
        )


def _check_parameters(recipe: Recipe, phases: Sequence[Phase]) -> None:
    """Refuse parameters that no merge takes.

    Raises:
        InputError: The recipe has no merge, or all of its merges find their own.
    """
    merges = [phase for phase in phases if isinstance(phase, Merge)]
    if all(phase.search for phase in merges):
        why = "finds the parameters of its merge by a search" if merges else "has no merge"
        raise InputError(f"{recipe.name} {why}, so merge.parameters would do nothing. Leave it out.")


def _check_held(recipe: Recipe, clusters: Mapping[str, Sequence[str]], held: Sequence[Window]) -> None:
    """Refuse a search that a cluster would have no say in, before anything is trained.

    Raises:
        NothingToDoError: No domain of a cluster has two rows held out.
    """
    heard = {window.domain for window in held if window.rows > 1}
    silent = [name for name, domains in clusters.items() if heard.isdisjoint(domains)]
    if silent:
        raise NothingToDoError(
            f"{recipe.name} searches its coefficients on a tenth of each domain, and needs two such rows of each "
            f"cluster; no domain of {', '.join(silent)} has twenty rows, or merge.search_rows is 1. Register more with "
            "`continual ingest`, leave domains out with --domain, or join clusters with --clusters FILE."
        )


def _check(recipe: Recipe, phases: Sequence[Phase]) -> None:
    """Check what a recipe returned, and refuse a merge that its method would refuse after the trainings."""
    known = {START}
    for phase in phases:
        asked = [*phase.members, phase.base] if isinstance(phase, Merge) else [phase.start]
        assert phase.name not in known, f"two phases are called {phase.name}"
        assert known.issuperset(asked), f"phase {phase.name} comes before what it needs"
        known.add(phase.name)
        if isinstance(phase, Merge):
            method = find_method(phase.method)
            if not method.fits(len(phase.members), method.base != "none"):
                raise _unfit(recipe, phase)
            if phase.weights is not None and not method.weighted:
                raise InputError(f"{method.name} takes no weights: the models decide. Leave --option weights=size out.")
            weights = list(phase.weights or [1.0] * len(phase.members))
            method.rehearse([0.0, *weights] if method.base == "first" else weights, method.resolve(phase.parameters))


def _unfit(recipe: Recipe, phase: Merge) -> InputError:
    """Return that a method does not merge as many models as a recipe has, and by what that can be changed."""
    method, count = find_method(phase.method), len(phase.members)
    first = method.base == "first"
    options = ["method", *(name for name in recipe.options if name not in ("method", "weights"))]
    return InputError(
        f"{method.name} merges {method.wanted} models{', and the base is the first of them' if first else ''}: "
        f"{recipe.name} has {count}{' more' if first else ''} ({', '.join(phase.members)}). Give another method or "
        f"another number of models with {' or '.join(f'--option {name}=...' for name in options)}; `continual merge "
        "--list` and `continual train --list` show what there is."
    )


def _batches(registry: Registry, domains: Sequence[str] | None) -> list[Batch]:
    names = registry.domain_names(domains or None)
    found = [batch for batch in registry.batches() if batch.kept and batch.domain in names]
    if not found:
        raise NothingToDoError("There is nothing to train on. Register rows with `continual ingest FILE`.")
    return sorted(found, key=lambda batch: names.index(batch.domain))


def _kinds(registry: Registry) -> dict[str, str]:
    return {domain.name: domain.kind for domain in registry.domains()}


def _dimensions(registry: Registry, config: Config, progress: Progress) -> int:
    from continual.models.encoder import load_encoder

    with kept(registry, ROOT, progress=progress) as (folder,):
        return int(load_encoder(folder, trust_remote_code=config.trust_remote_code).get_embedding_dimension())


def _digest(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
