"""Process tensors block by block, so that intermediate results are small and stay in the CPU cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


BLOCK = 1 << 16
"""Elements per block: 256 KiB in fp32. Random numbers are drawn per block, so another size changes seeded merges."""


def flat(vectors: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors with one dimension; contiguous ones share their memory with the result."""
    return [vector.reshape(-1) for vector in vectors]


def blocks(size: int) -> Iterator[slice]:
    """Yield the slices of the blocks of `size` elements."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def stacked(vectors: Sequence[Tensor], block: slice) -> Tensor:
    """Return a copy of one block of every vector, of shape (vectors, elements)."""
    import torch

    return torch.stack([vector[block] for vector in vectors])
