"""Replay policies: how many rows of each domain to replay, and for some which.

A policy is a pure function from what is known of history to a number of rows by domain, registered with
`@policy(name=..., reference_url=...)`. Its contract, checked by `allot` and not by the policy: quotas are whole
numbers, none above what the domain has. The rows of a quota are the next window of the domain's hash space, with two
exceptions: a `fixed` policy takes the window that starts at the lowest hash at every step; one with `choose` takes
some of a larger window by what the model in service makes of its rows, a pure function of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from continual.errors import InputError, NotFoundError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Picks = NDArray[np.int64]
else:
    Picks = "Picks"


@dataclass(frozen=True)
class History:
    """What a policy knows of the domains that were learned.

    Attributes:
        available: Training rows by domain.
        falls: Points by which the tasks of a domain lie below their best earlier score, 0 or more; a domain without
            scores is left out.
        temperature: The setting `replay.temperature`, 1 or more.
    """

    available: Mapping[str, int]
    falls: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 2.0


@dataclass(frozen=True)
class Candidates:
    """What the model in service makes of some rows of one domain, in hash order.

    Attributes:
        queries: Embeddings of norm 1, float32, [rows, dimensions].
        positives: Embeddings of norm 1, float32, [rows, dimensions].
        losses: InfoNCE of each row against documents of its domain, float32, [rows].
    """

    queries: NDArray[np.float32]
    positives: NDArray[np.float32]
    losses: NDArray[np.float32]


Quota = Callable[[History, int], dict[str, int]]
Choose = Callable[[Candidates, int, int], Picks]


@dataclass(frozen=True)
class Policy:
    """A registered replay policy.

    Attributes:
        name: What `replay.policy` calls it.
        reference_url: Where it, or what it is like, was described.
        quota: Maps (history, rows wanted in all) to rows per domain.
        choose: Maps (candidates of a domain, rows wanted of it, seed) to the indices of different candidates, in
            ascending order; None: the rows are not looked at.
        fixed: Whether every step takes the same window of a domain instead of the next one.
        scored: Whether the quotas follow scores: `History.falls`.
    """

    name: str
    reference_url: str
    quota: Quota
    choose: Choose | None = None
    fixed: bool = False
    scored: bool = False


_POLICIES: dict[str, Policy] = {}


def policy(
    name: str, reference_url: str, *, choose: Choose | None = None, fixed: bool = False, scored: bool = False
) -> Callable[[Quota], Quota]:
    """Register the decorated function as a replay policy."""

    def register(quota: Quota) -> Quota:
        if name in _POLICIES:
            raise ValueError(f"a replay policy called {name!r} is registered already")
        _POLICIES[name] = Policy(name, reference_url, quota, choose, fixed, scored)
        return quota

    return register


def policies() -> list[str]:
    """Return the names of all policies."""
    return list(_POLICIES)


def get_policy(name: str) -> Policy:
    """Return a policy by name.

    Raises:
        NotFoundError: There is none; the message names the nearest.
    """
    if name not in _POLICIES:
        raise NotFoundError(f"There is no replay policy {name!r}.{did_you_mean(name, _POLICIES)}")
    return _POLICIES[name]


def allot(
    name: str,
    available: Mapping[str, int],
    share: float,
    rows: int | None = None,
    *,
    falls: Mapping[str, float] | None = None,
    temperature: float = 2.0,
) -> dict[str, int]:
    """Return how many historical rows to replay from each domain.

    Args:
        name: Name of a policy.
        available: Training rows of each domain in the lineage.
        share: Share of them to replay, 0 to 1. A `fixed` policy takes it of each domain, halves rounded up, so that
            what is drawn of one does not depend on the others.
        rows: How many in all, at most; None: no limit.
        falls: Points by which the tasks of a domain lie below their best; None: nothing is known.
        temperature: The setting `replay.temperature`.

    Raises:
        InputError: `share` is outside [0, 1], or `rows` is negative.
    """
    check_share(share)
    if rows is not None:
        check_rows(rows)
    found, wanted = get_policy(name), round(share * sum(available.values()))
    if found.fixed:
        quotas = {domain: int(share * number + 0.5) for domain, number in available.items()}
        wanted = sum(quotas.values())
        if rows is None or wanted <= rows:
            return quotas
    if rows is not None:
        wanted = min(rows, wanted)
    quotas = found.quota(History(available, falls or {}, temperature), wanted)
    assert all(0 <= quotas[domain] <= available[domain] for domain in quotas), f"policy {name} broke its contract"
    return quotas


def check_share(share: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        InputError: It is outside, or not a number.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"--replay takes a share from 0 to 1, and {share:g} is outside it. Try --replay 0.1.")


def check_rows(rows: int) -> None:
    """Refuse a negative number of rows.

    Raises:
        InputError: It is negative.
    """
    if rows < 0:
        raise InputError(f"replay.rows takes a number from 0 up, not {rows}.")


for _name in ("uniform", "balanced", "temperature", "reservoir", "forgetting", "hardest", "diverse"):
    import_module(f"{__name__}.{_name}")  # each registers itself
