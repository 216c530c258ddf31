"""Step rules: how a step merges its update with the current version, and which state the next step needs.

There are two families. Updates trained *from the root base* are merged side by side: `equal` as BOOM published
it (https://arxiv.org/abs/2602.05787), `running-mean`, `opcm`. An update trained *from current* moves the current
version along a path: `interpolate`, where a number is the weight of the update. Every other merge method is a rule too:
it merges the current version (weight 1 - w) with the update (weight w), as task vectors from the root base if the
method takes a base.

Two rules find their coefficients after training, on rows held out of it: `search` interpolates with the best weight
(`continual.merge.search`), `self-positioning` joins the task vectors by slerp at the best position and scale
(`continual.merge.positioning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from continual.errors import InputError, NotFoundError, did_you_mean

State = Mapping[str, Any]

SEARCH = "search"
"""The rule that searches the weight after training."""

POSITION = "self-positioning"
"""The rule of phased training: it finds the mixture of task vectors and its scale by gradient, after training."""


@dataclass(frozen=True)
class Coefficient:
    """The weight of an update, and the state of its rule.

    Attributes:
        weight: Weight of the update, 0 to 1; the current version has 1 - weight.
        state: The state for the next step, without what only the merge itself can add.
    """

    weight: float
    state: dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """A step rule.

    Attributes:
        name: Its name for `--merge`.
        method: Name of the merge method.
        start: The model that its updates must be trained from: "base", "current", or None for either.
        stateful: Whether it depends on earlier steps, so that it cannot continue after another rule.
        decide: Maps (configured weight, state of the last step) to the coefficient.
        searches: Whether it finds its coefficients on held-out rows after training.
        sets: Method parameters that the rule sets, so that the settings must not.
    """

    name: str
    method: str
    start: str | None
    stateful: bool
    decide: Callable[[float, State], Coefficient]
    searches: bool = False
    sets: frozenset[str] = frozenset()


def _fixed(weight: float, state: State) -> Coefficient:
    return Coefficient(weight, {})


def _equal(weight: float, state: State) -> Coefficient:
    """Weight 1/2 at every step. After n steps update k keeps (1/2)^(n-k+1), so the newest counts most."""
    return Coefficient(0.5, {})


def _running_mean(weight: float, state: State) -> Coefficient:
    """Weight 1 / (n + 1) for the update after n others, so that all updates count the same."""
    merged = int(state.get("merged", 0))
    return Coefficient(1.0 / (merged + 1), {"merged": merged + 1})


def _carried(weight: float, state: State) -> Coefficient:
    """Ignore the weight, and pass the state on to the merge (OPCM: lambda and the norms of all updates so far)."""
    return Coefficient(weight, dict(state))


_SPECIAL = {
    rule.name: rule
    for rule in (
        Rule("interpolate", "wise", None, False, _fixed),
        Rule("running-mean", "wise", "base", True, _running_mean),
        Rule("equal", "wise", "base", False, _equal),
        Rule(SEARCH, "wise", "current", False, _fixed, searches=True),
        Rule(POSITION, "pairwise_slerp", None, False, _fixed, searches=True, sets=frozenset({"lambda"})),
        Rule("opcm", "opcm", "base", True, _carried),
    )
}


def find_rule(name: str) -> Rule:
    """Return a rule by name.

    Raises:
        NotFoundError: There is no such rule; the message suggests the closest name.
        InputError: The name is of a merge method that cannot be a rule.
    """
    if name in _SPECIAL:
        return _SPECIAL[name]
    from continual.merge.methods import methods

    if name == "model_stock":
        raise InputError(
            "model_stock cannot be a merge rule: the first step has only one task vector, so the result is always the "
            "root base. Use it with `continual merge`, or choose another rule with --merge."
        )
    if name in methods() and methods()[name].needs_texts:
        raise InputError(
            f"{name} cannot be a merge rule: it needs texts for each model. Use it with `continual merge`, or choose "
            "another rule with --merge."
        )
    if name in methods():
        return Rule(name, name, None, False, _fixed)
    rules = {*_SPECIAL, *(name for name, method in methods().items() if not method.needs_texts)} - {"model_stock"}
    raise NotFoundError(f"There is no merge rule {name!r}.{did_you_mean(name, rules)}")


def check_rule(name: str, start: str) -> Rule:
    """Return a rule that merges updates trained from `start`, "current" or "base".

    Raises:
        NotFoundError: There is no such rule.
        InputError: The rule needs another start; the message says which.
    """
    rule = find_rule(name)
    if rule.start == "base" and start != "base":
        raise InputError(
            f"--merge {name} merges updates that were trained from the root base, but this one would start from "
            f"{start}. Use --from base, or choose another rule such as --merge interpolate."
        )
    if rule.start == "current" and start != "current":
        raise InputError(
            f"--merge {name} needs an update that was trained from the current version, but this one would start from "
            f"{start}. Use --from current."
        )
    return rule
