"""Checks of a recipe before its first training: nothing without effect, and no merge that would fail at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from continual.errors import InputError, NothingToDoError
from continual.merge.methods import find_method
from continual.recipes.recipe import START, Merge, Phase, Recipe, needed_phases
from continual.registry import Window


def check_settings(recipe: Recipe, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Reject settings of the call that have no effect in a recipe.

    Raises:
        InputError: A setting has no effect.
    """
    names = [f"{section}.{name}" for section, values in settings.items() for name in values]
    searched = ("merge.search_rows", "merge.floor") if recipe.searches else ()
    idle = [name for name in names if not name.startswith("train.") and name not in searched]
    if idle:
        takes = ", ".join(["the settings of [train]", *searched])
        own = "; its own options are set with --option (`continual train --list`)" if recipe.options else ""
        scores = any(name.startswith(("eval.", "suites.")) for name in idle)
        toml = " Settings of the evaluation belong in continual.toml." if scores else ""
        raise InputError(
            f"{', '.join(idle)} would have no effect: {recipe.name} takes only {takes}{own}. Leave "
            f"{'them' if len(idle) > 1 else 'it'} out.{toml}"
        )


def check_parameters(recipe: Recipe, phases: Sequence[Phase]) -> None:
    """Reject parameters of the call that no merge takes.

    Raises:
        InputError: The recipe has no merge, or searches the parameters of all its merges.
    """
    merges = [phase for phase in phases if isinstance(phase, Merge)]
    if all(phase.search for phase in merges):
        why = "searches the parameters of its merge" if merges else "has no merge"
        raise InputError(f"{recipe.name} {why}, so merge.parameters would have no effect. Leave it out.")


def check_held(recipe: Recipe, clusters: Mapping[str, Sequence[str]], held: Sequence[Window]) -> None:
    """Reject a search if a cluster has no rows held out for it.

    Raises:
        NothingToDoError: No domain of a cluster has two rows held out.
    """
    searchable = {window.domain for window in held if window.rows > 1}
    missing = [name for name, domains in clusters.items() if searchable.isdisjoint(domains)]
    if missing:
        raise NothingToDoError(
            f"{recipe.name} searches merge coefficients on a tenth of each domain and needs two such rows in every "
            f"cluster, but no domain of {', '.join(missing)} has twenty rows, or merge.search_rows is 1. Add rows with "
            "`continual ingest`, leave domains out with --domain, or join clusters with --clusters FILE."
        )


def check_phases(recipe: Recipe, phases: Sequence[Phase]) -> None:
    """Check the phases of a recipe.

    Raises:
        InputError: A merge method does not take the number of models, the weights or the parameters.
    """
    earlier = {START}
    for phase in phases:
        assert phase.name not in earlier, f"two phases are called {phase.name}"
        assert earlier.issuperset(needed_phases(phase)), f"phase {phase.name} comes before what it needs"
        earlier.add(phase.name)
        if isinstance(phase, Merge):
            method = find_method(phase.method)
            if method.needs_texts:
                raise InputError(
                    f"{method.name} needs texts for each model, which {recipe.name} does not give it. Use it with "
                    "`continual merge`, or choose another method with --option method=..."
                )
            if not method.fits(len(phase.members), method.base != "none"):
                raise _wrong_count(recipe, phase)
            if phase.weights is not None and not method.weighted:
                raise InputError(
                    f"{method.name} takes no weights: they would have no effect. Leave --option weights=size out."
                )
            weights = list(phase.weights or [1.0] * len(phase.members))
            method.rehearse([0.0, *weights] if method.base == "first" else weights, method.resolve(phase.parameters))


def _wrong_count(recipe: Recipe, phase: Merge) -> InputError:
    """Return the error that a merge method does not take as many models as a recipe has."""
    method, count = find_method(phase.method), len(phase.members)
    first = method.base == "first"
    options = ["method", *(name for name in recipe.options if name not in ("method", "weights"))]
    return InputError(
        f"{method.name} merges {method.wanted} models{', and the base is the first of them' if first else ''}, but "
        f"{recipe.name} has {count}{' more' if first else ''} ({', '.join(phase.members)}). Choose another method or "
        f"another number of models with {' or '.join(f'--option {name}=...' for name in options)}; see `continual "
        "merge --list` and `continual train --list`."
    )
