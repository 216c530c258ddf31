"""Split a number of rows over domains in proportion to weights."""

from __future__ import annotations

from collections.abc import Mapping


def split_by_weight(weights: Mapping[str, float], available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Return whole numbers of rows by domain, in proportion to weights and never above the rows of a domain.

    Rounding is by largest remainder, so the numbers add up to `wanted`. If a domain has too few rows, the others share
    the rest in proportion. Domains with weight 0 are used only if all others have too few rows.

    Args:
        weights: Weight by domain, 0 or more.
        available: Rows by domain.
        wanted: Total number of rows, at most the sum of `available`.
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
        weights_of_rest = {domain: float(rows) for domain, rows in rest.items()}
        for domain, rows in split_by_weight(weights_of_rest, rest, wanted).items():
            quotas[domain] += rows
    return quotas
