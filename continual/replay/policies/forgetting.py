"""More of the domains whose tasks have fallen."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies._shares import split_by_weight


@policy(name="forgetting", reference_url="https://arxiv.org/abs/1908.04742", scored=True)
def by_forgetting(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to n (1 + f), with f the points that a domain's tasks lie below their best.

    So a domain that lost one point is replayed twice as densely as one that lost none; where none did, or nothing
    was scored, it is `uniform`. The reference retrieves the rows that an update would hurt most; this looks at the
    tasks instead, which costs nothing.
    """
    weights = {domain: rows * (1 + history.falls.get(domain, 0.0)) for domain, rows in history.available.items()}
    return split_by_weight(weights, history.available, wanted)
