"""The rows that the model in service does worst on."""

from __future__ import annotations

import numpy as np

from continual.replay.policies import (
    Candidates,
    History,
    Picks,
    policy,
)
from continual.replay.policies.uniform import uniform


def highest_losses(candidates: Candidates, rows: int, seed: int) -> Picks:
    """Return the rows with the highest losses; of equal ones the first."""
    del seed
    return np.sort(np.argsort(-candidates.losses, kind="stable")[:rows])


@policy(name="hardest", reference_url="https://arxiv.org/abs/1511.06343", choose=highest_losses)
def hardest(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes; within a domain the candidates with the highest loss are taken.

    Not over all domains at once: losses of different domains say how alike their documents are, not how well they
    are known.
    """
    return uniform(history, wanted)
