"""Replay policies: how many rows of each domain to replay, and for some policies which rows.

A policy is a pure function from a `History` to a number of rows by domain, registered with
`@policy(name=..., reference_url=...)`. `allot` checks its contract: quotas are whole numbers and never above the rows
of the domain. The rows of a quota are the next window of the domain's hash space, with two exceptions. A `fixed` policy
takes the window that starts at the lowest hash in every step. A policy with `choose` picks rows from a larger window by
their embeddings and losses under the current version; `choose` is a pure function of arrays.

To add a policy, add a module to this package.
"""

from __future__ import annotations

import pkgutil
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
    """The learned domains, as a policy sees them.

    Attributes:
        available: Training rows by domain.
        falls: Points by which the tasks of a domain are below their best earlier score, 0 or more; domains without
            scores are left out.
        temperature: The setting `replay.temperature`, 1 or more.
    """

    available: Mapping[str, int]
    falls: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 2.0


@dataclass(frozen=True)
class Candidates:
    """Embeddings and losses of rows of one domain under the current version, in hash order.

    Attributes:
        queries: Embeddings, of norm 1 if the model compares by cosine, float32, [rows, dimensions].
        positives: Likewise, [rows, dimensions].
        losses: InfoNCE loss of each row against documents of its domain, float32, [rows].
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
        name: The name for the setting `replay.policy`.
        reference_url: A paper that describes the policy or a similar one.
        quota: Maps (history, total rows wanted) to rows by domain.
        choose: Maps (candidates of a domain, rows wanted from it, seed) to the indices of distinct candidates, in
            ascending order; None: the rows are the whole window.
        fixed: Whether every step takes the same window of a domain instead of the next one.
        scored: Whether the quotas depend on scores, `History.falls`.
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
    """Return a decorator that registers a function as a replay policy; see `Policy` for the arguments.

    Raises:
        ValueError: The name is taken.
    """

    def register(quota: Quota) -> Quota:
        if name in _POLICIES:
            raise ValueError(f"the replay policy {name!r} is already registered")
        _POLICIES[name] = Policy(name, reference_url, quota, choose, fixed, scored)
        return quota

    return register


def policies() -> list[str]:
    """Return the names of all policies."""
    return list(_POLICIES)


def get_policy(name: str) -> Policy:
    """Return a policy by name.

    Raises:
        NotFoundError: There is no policy of this name; the message suggests the nearest one.
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
    """Return the number of historical rows to replay, by domain.

    Args:
        name: Name of a policy.
        available: Training rows by domain of the lineage.
        share: Share of these rows to replay, 0 to 1. A `fixed` policy applies it to each domain separately, rounding
            halves up, so that the rows of one domain don't depend on the others.
        rows: Largest total; None: no limit.
        falls: Points by which the tasks of a domain are below their best earlier score; None: no scores.
        temperature: The setting `replay.temperature`.

    Raises:
        InputError: `share` is outside [0, 1], or `rows` is negative.
    """
    check_share(share)
    if rows is not None:
        check_rows(rows)
    replay_policy, wanted = get_policy(name), round(share * sum(available.values()))
    if replay_policy.fixed:
        quotas = {domain: int(share * number + 0.5) for domain, number in available.items()}
        wanted = sum(quotas.values())
        if rows is None or wanted <= rows:
            return quotas
    if rows is not None:
        wanted = min(rows, wanted)
    quotas = replay_policy.quota(History(available, falls or {}, temperature), wanted)
    assert all(0 <= quotas[domain] <= available[domain] for domain in quotas), f"policy {name} broke its contract"
    return quotas


def check_share(share: float) -> None:
    """Check that a share is in [0, 1].

    Raises:
        InputError: It is not.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"--replay is {share:g}, but it takes a share from 0 to 1. Try --replay 0.1.")


def check_rows(rows: int) -> None:
    """Check that a number of rows is not negative.

    Raises:
        InputError: It is negative.
    """
    if rows < 0:
        raise InputError(f"replay.rows is {rows}, but it must be 0 or more. Try `--set replay.rows=1000`.")


for _info in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_info.name}")  # importing a policy registers it
