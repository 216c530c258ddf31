"""The same number of rows from every domain, so that large domains don't crowd out small ones."""

from __future__ import annotations

from continual.replay.policies import History, policy


@policy(name="balanced", reference_url="https://arxiv.org/abs/1902.10486")
def balanced(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` equally; if a small domain has too few rows, the larger ones share the rest.

    From the smallest domain up, each gives an equal part of the rows still wanted, or all its rows.
    """
    available = history.available
    quotas: dict[str, int] = {}
    order = sorted(available, key=lambda domain: (available[domain], domain))
    for position, domain in enumerate(order):
        quotas[domain] = min(available[domain], wanted // (len(order) - position))
        wanted -= quotas[domain]
    return quotas
