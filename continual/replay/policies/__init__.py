"""Replay policies: pure functions from what is there to how many rows of each domain to replay.

A policy is registered with `@policy(name=..., reference_url=...)`. Its contract, checked by `allot` and not by
the policy: quotas are whole numbers, none above what the domain has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from continual.errors import InputError, NotFoundError, did_you_mean

Quota = Callable[[Mapping[str, int], int], dict[str, int]]


@dataclass(frozen=True)
class Policy:
    """A registered replay policy.

    Attributes:
        name: What `--replay-policy` calls it.
        reference_url: Where it was described.
        quota: Maps (rows available per domain, rows wanted in all) to rows per domain.
    """

    name: str
    reference_url: str
    quota: Quota


_POLICIES: dict[str, Policy] = {}


def policy(name: str, reference_url: str) -> Callable[[Quota], Quota]:
    """Register the decorated function as a replay policy."""

    def register(quota: Quota) -> Quota:
        if name in _POLICIES:
            raise ValueError(f"a replay policy called {name!r} is registered already")
        _POLICIES[name] = Policy(name, reference_url, quota)
        return quota

    return register


def get_policy(name: str) -> Policy:
    """Return a policy by name.

    Raises:
        NotFoundError: There is none; the message names the nearest.
    """
    if name not in _POLICIES:
        raise NotFoundError(f"There is no replay policy {name!r}.{did_you_mean(name, _POLICIES)}")
    return _POLICIES[name]


def allot(name: str, available: Mapping[str, int], share: float, rows: int | None = None) -> dict[str, int]:
    """Return how many historical rows to replay from each domain.

    Args:
        name: Name of a policy.
        available: Training rows of each domain in the lineage.
        share: Share of them to replay, 0 to 1; used when `rows` is None.
        rows: A fixed number in all; more than there are means all of them.

    Raises:
        InputError: `share` is outside [0, 1], or `rows` is negative.
    """
    check_share(share)
    if rows is not None and rows < 0:
        raise InputError(f"--replay-rows takes a number from 0 up, not {rows}.")
    total = sum(available.values())
    wanted = min(total, round(share * total) if rows is None else rows)
    quotas = get_policy(name).quota(available, wanted)
    assert all(0 <= quotas[domain] <= available[domain] for domain in quotas), f"policy {name} broke its contract"
    return quotas


def check_share(share: float) -> None:
    """Refuse a share outside [0, 1].

    Raises:
        InputError: It is outside, or not a number.
    """
    if not 0.0 <= share <= 1.0:
        raise InputError(f"--replay takes a share from 0 to 1, and {share:g} is outside it. Try --replay 0.1.")


from continual.replay.policies import balanced, uniform  # noqa: E402, F401 - registers them
