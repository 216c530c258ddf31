"""The same rows in every step: a fixed memory that only makes room for new domains."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies.uniform import uniform


@policy(name="reservoir", reference_url="https://arxiv.org/abs/1902.10486", fixed=True)
def reservoir(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes; the rows are those with the lowest hashes of each domain.

    The hash takes the place of the random number that reservoir sampling draws for a row, so every row has the same
    chance. With a share, each domain keeps that share of its rows. The rows stay the same until the domain gets new
    ones, which enter by their hashes and can replace a few old ones. With a limit on the number of rows, old rows also
    make room for new domains.
    """
    return uniform(history, wanted)
