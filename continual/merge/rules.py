"""Step rules: how the update of a step joins what is in service, and what must be remembered until the next step.

Two families. An update trained *from the root base* is one more member of a bag: `equal`, as BOOM published it
(https://arxiv.org/abs/2602.05787), `running-mean`, `opcm`. An update trained *from current* is a move along a path:
`interpolate`; a number is its weight. Every other merge method can be a rule too: it merges what is in service
(weight 1 - w) with the update (weight w), as task vectors from the root base where the method takes a base.

Two rules decide after training, on rows held out of it: `search` interpolates with the best weight
(`continual.merge.search`), `self-positioning` joins the task vectors by slerp with the best position and scale
(`continual.merge.positioning`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from continual.errors import InputError, NotFoundError, did_you_mean

State = Mapping[str, Any]

SEARCH = "search"
"""The rule whose weight is found after training, by a search over one number."""

POSITION = "self-positioning"
"""The rule of phased training: a mixture of task vectors and its scale, found after training by gradient."""


@dataclass(frozen=True)
class Coefficient:
    """What a rule decided.

    Attributes:
        weight: Weight of the update, 0 to 1; what is in service has 1 - weight.
        state: What the rule must be given at the next step, as far as it is known before the merge.
    """

    weight: float
    state: dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """A step rule.

    Attributes:
        name: What `--merge` calls it.
        method: Name of the merge method that it computes with.
        start: The model that its updates must be trained from: "base", "current", or None for either.
        remembers: Whether it depends on the steps before, so that it cannot go on from another rule's.
        sets: Parameters of the method that the rule finds, so that nobody else may set them.
        searches: Whether its coefficients are found on held-out rows after training.
        decide: Maps (configured weight, state of the last step) to the coefficient.
    """

    name: str
    method: str
    start: str | None
    remembers: bool
    decide: Callable[[float, State], Coefficient]
    searches: bool = False
    sets: frozenset[str] = frozenset()


def _fixed(weight: float, state: State) -> Coefficient:
    return Coefficient(weight, {})


def _equal(weight: float, state: State) -> Coefficient:
    """Half and half at every step: update k of n keeps (1/2)^(n-k+1), so the newest counts most."""
    return Coefficient(0.5, {})


def _running_mean(weight: float, state: State) -> Coefficient:
    """Weight 1 / (n + 1) for the update after n others: all updates count the same, in any number of steps."""
    merged = int(state.get("merged", 0))
    return Coefficient(1.0 / (merged + 1), {"merged": merged + 1})


def _carried(weight: float, state: State) -> Coefficient:
    """The weight does nothing; the state is the merge's own (OPCM: lambda, and the norms of the updates so far)."""
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
        NotFoundError: There is none; the message names the nearest.
        InputError: It is a method that makes no rule.
    """
    if name in _SPECIAL:
        return _SPECIAL[name]
    from continual.merge.methods import methods

    if name == "model_stock":
        raise InputError(
            "model_stock cannot be the rule of a stream: before the first step nothing was learned, and the mean of "
            "an update with nothing is the root base, for ever. Use it with `continual merge`."
        )
    if name in methods():
        return Rule(name, name, None, False, _fixed)
    known = {*_SPECIAL, *methods()} - {"model_stock"}
    raise NotFoundError(f"There is no merge rule {name!r}.{did_you_mean(name, known)}")


def check_rule(name: str, start: str) -> Rule:
    """Return a rule, or refuse one that does not go with where training starts.

    Args:
        name: Of the rule.
        start: "current" or "base".

    Raises:
        InputError: They do not go together; the message says what does.
    """
    rule = find_rule(name)
    if rule.start == "base" and start != "base":
        raise InputError(
            f"--merge {name} joins updates that were all trained from the root base, and this one would start "
            f"from {start}. Call it with --from base, or merge with --merge interpolate."
        )
    if rule.start == "current" and start != "current":
        raise InputError(f"--merge {name} moves on from what is in service. Call it with --from current.")
    return rule
