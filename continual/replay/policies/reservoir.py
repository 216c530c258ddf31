"""The same rows at every step: a memory that only makes room for new domains."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies.uniform import uniform


@policy(name="reservoir", reference_url="https://arxiv.org/abs/1902.10486", fixed=True)
def reservoir(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes; the rows are those with the lowest hashes of each domain.

    The hash is the random number that reservoir sampling draws for a row: every row of history has the same
    chance. With a share, each domain keeps that share of itself for good; where the number of rows is limited,
    what is in stays in until it must make room.
    """
    return uniform(history, wanted)
