"""Merge rules: which weight an update gets, and what a rule must remember until the next step.

Two families, which do not mix. An update trained *from the root base* is one more member of a bag: `equal`, as
BOOM published it (https://arxiv.org/abs/2602.05787), or `running-mean`. An update trained *from current* is a
move along a path: `interpolate`. A number fixes the weight and goes with both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from continual.errors import InputError

State = Mapping[str, Any]


@dataclass(frozen=True)
class Coefficient:
    """What a rule decided.

    Attributes:
        weight: Weight of the update, 0 to 1; what is in service has 1 - weight.
        state: What the rule must be given at the next step.
    """

    weight: float
    state: dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """A merge rule.

    Attributes:
        name: What `--merge` calls it.
        start: The model that its updates must be trained from: "base", "current", or None for either.
        remembers: Whether its weight depends on the steps before, so that it cannot go on from another rule's.
        decide: Maps (configured weight, state of the last step) to the coefficient.
    """

    name: str
    start: str | None
    remembers: bool
    decide: Callable[[float, State], Coefficient]


def interpolate(weight: float, state: State) -> Coefficient:
    """Move from current towards the update by a fixed weight."""
    return Coefficient(weight, {})


def equal(weight: float, state: State) -> Coefficient:
    """Half and half at every step: update k of n keeps (1/2)^(n-k+1), so the newest counts most."""
    return Coefficient(0.5, {})


def running_mean(weight: float, state: State) -> Coefficient:
    """Weight 1 / (n + 1) for the update after n others: all updates count the same, in any number of steps."""
    merged = int(state.get("merged", 0))
    return Coefficient(1.0 / (merged + 1), {"merged": merged + 1})


RULES = {
    rule.name: rule
    for rule in (
        Rule("interpolate", None, False, interpolate),
        Rule("running-mean", "base", True, running_mean),
        Rule("equal", "base", False, equal),
    )
}


def check_rule(name: str, start: str) -> None:
    """Refuse a rule that does not go with where training starts.

    Args:
        name: A rule of `RULES`.
        start: "current" or "base".

    Raises:
        InputError: They do not go together; the message says what does.
    """
    if RULES[name].start not in (None, start):
        raise InputError(
            f"--merge {name} averages updates that were all trained from the root base, and this one would start "
            f"from {start}. Call it with --from {RULES[name].start}, or merge with --merge interpolate."
        )


def coefficient(name: str, weight: float, state: State) -> Coefficient:
    """Return the weight of this step's update and the state for the next step.

    Args:
        name: A rule of `RULES`.
        weight: The configured weight, 0 to 1; used by `interpolate`.
        state: What the same rule left in the parent version; empty at the first step.
    """
    return RULES[name].decide(weight, state)
