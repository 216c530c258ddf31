"""The same rows at every step: a memory that only makes room for new domains."""

from __future__ import annotations

from continual.replay.policies import History, policy
from continual.replay.policies.uniform import uniform


@policy(name="reservoir", reference_url="https://arxiv.org/abs/1902.10486", fixed=True)
def reservoir(history: History, wanted: int) -> dict[str, int]:
    """Split `wanted` in proportion to the sizes; the rows are those with the lowest hashes of each domain.

    The hash is the random number that reservoir sampling draws for a row: every row of history has the same
    chance. With a share, each domain keeps that share of itself, the same rows until it gets more of them: then
    new rows come in by their hashes, and may push a few old ones out. Where the number of rows is limited, what is in
    makes room for other domains too.
    """
    return uniform(history, wanted)
