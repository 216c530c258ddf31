"""Every domain has the same chance: small domains are not drowned by large ones."""

from __future__ import annotations

from continual.replay.policies import History, policy


@policy(name="balanced", reference_url="https://arxiv.org/abs/1902.10486")
def balanced(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` equally; what a small domain cannot give, the larger ones share.

    Going from the smallest domain up, each takes an equal part of what is still wanted, or all it has.
    """
    available = history.available
    quotas: dict[str, int] = {}
    order = sorted(available, key=lambda domain: (available[domain], domain))
    for position, domain in enumerate(order):
        quotas[domain] = min(available[domain], wanted // (len(order) - position))
        wanted -= quotas[domain]
    return quotas
