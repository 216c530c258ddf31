"""The same chance for every historical row: quotas are proportional to the sizes of the domains."""

from __future__ import annotations

from continual.replay.policies import History, policy


@policy(name="uniform", reference_url="https://arxiv.org/abs/1902.10486")
def uniform(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes, rounded by largest remainder so that the sum is exact."""
    available = history.available
    total = sum(available.values())
    if not total:
        return dict.fromkeys(available, 0)
    quotas = {domain: wanted * rows // total for domain, rows in available.items()}
    remainders = {domain: wanted * rows % total for domain, rows in available.items()}
    missing = wanted - sum(quotas.values())
    for domain in sorted(available, key=lambda domain: (-remainders[domain], domain))[:missing]:
        quotas[domain] += 1
    return quotas
