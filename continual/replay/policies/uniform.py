"""Every historical row has the same chance: quotas follow the sizes of the domains."""

from __future__ import annotations

from collections.abc import Mapping

from continual.replay.policies import policy


@policy(name="uniform", reference_url="https://arxiv.org/abs/1902.10486")
def uniform(available: Mapping[str, int], wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to `available`, by largest remainder so that the sum is exact."""
    total = sum(available.values())
    if not total:
        return dict.fromkeys(available, 0)
    quotas = {domain: wanted * rows // total for domain, rows in available.items()}
    remainders = {domain: wanted * rows % total for domain, rows in available.items()}
    missing = wanted - sum(quotas.values())
    for domain in sorted(available, key=lambda domain: (-remainders[domain], domain))[:missing]:
        quotas[domain] += 1
    return quotas
