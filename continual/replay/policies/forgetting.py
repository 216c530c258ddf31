"""More rows from the domains whose tasks were forgotten."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies._shares import split_by_weight


@policy(name="forgetting", reference_url="https://arxiv.org/abs/1908.04742", scored=True)
def by_forgetting(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to n (1 + f): n rows, and tasks f points below their best earlier score.

    A domain that lost one point is replayed twice as densely as a domain that lost none. Without scores or losses, this
    is `uniform`. The reference retrieves the rows that an update would hurt most; this policy uses the scores of the
    tasks instead, which need no extra computation.
    """
    weights = {domain: rows * (1 + history.falls.get(domain, 0.0)) for domain, rows in history.available.items()}
    return split_by_weight(weights, history.available, wanted)
