"""Whole numbers in proportion to weights, none above what there is."""

from __future__ import annotations

from collections.abc import Mapping


def split_by_weight(weights: Mapping[str, float], available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to weights; what a domain cannot give, the others share in proportion.

    Args:
        weights: By domain, 0 or more.
        available: Rows of each domain; a domain without any gets none.
        wanted: At most the sum of `available`.

    Returns:
        Rows by domain, by largest remainder, so that they add up to `wanted` exactly where the domains with a weight
        can give so many; a domain without a weight gives only what they cannot.
    """
    quotas = dict.fromkeys(available, 0)
    open_ = {domain for domain in available if available[domain] and weights[domain] > 0}
    while wanted and open_:
        total = sum(weights[domain] for domain in sorted(open_))
        exact = {domain: wanted * weights[domain] / total for domain in open_}
        full = {domain for domain in open_ if exact[domain] >= available[domain]}
        if not full:
            rounded = {domain: int(exact[domain]) for domain in open_}
            order = sorted(open_, key=lambda domain: (rounded[domain] - exact[domain], domain))
            for domain in order[: wanted - sum(rounded.values())]:
                rounded[domain] += 1
            return quotas | rounded
        for domain in full:
            quotas[domain] = available[domain]
            wanted -= available[domain]
        open_ -= full
    if wanted:
        rest = {domain: rows - quotas[domain] for domain, rows in available.items()}
        for domain, rows in split_by_weight(
            {domain: float(left) for domain, left in rest.items()}, rest, wanted
        ).items():
            quotas[domain] += rows
    return quotas
