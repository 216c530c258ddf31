"""The rows with the highest loss under the current version."""

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
    """Return the rows with the highest losses; among equal losses, the first."""
    del seed
    return np.sort(np.argsort(-candidates.losses, kind="stable")[:rows])


@policy(name="hardest", reference_url="https://arxiv.org/abs/1511.06343", choose=highest_losses)
def hardest(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes; within a domain, pick the candidates with the highest loss.

    Losses are not compared across domains, because they depend on how similar the documents of a domain are.
    """
    return uniform(history, wanted)
