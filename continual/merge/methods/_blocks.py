"""Reading tensors a block at a time: what is computed stays in the processor's cache, and temporaries stay small."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Elements of a block: 256 KiB in fp32. Part of what a seed means, because draws are made block by block."""


def flat(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors as vectors of one dimension, which share their memory where they are contiguous."""
    return [vector.reshape(-1) for vector in vectors]


def blocks(size: int) -> Iterator[slice]:
    """Yield the slices that cut `size` elements into blocks."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def stacked(vectors: Sequence[Tensor], block: slice) -> Tensor:
    """Return one block of every vector, of shape (vectors, elements): a copy that may be changed."""
    return torch.stack([vector[block] for vector in vectors])
