"""Training in several processes, which torchrun or `accelerate launch` started with the same command.

The first one does all that the command does, and hands its trainings to the others, which do nothing else. Of every
batch each encodes a share of the texts, and all see the embeddings of all: a row's negatives are those of the whole
batch, whatever the device that encoded them (cross-device negatives), and the gradient is that of one process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from continual.errors import ContinualError
from continual.train.batching import Indices
from continual.train.job import Job

_PATIENCE = timedelta(days=30)
"""How long the others wait for the first: it may evaluate for hours between two trainings."""

TORN = threading.Event()
"""Set when the first process left a training that the others are still in: it can tell them nothing any more."""


@dataclass(frozen=True)
class Team:
    """The processes that train together; one process alone is a team too.

    Attributes:
        rank: Of this process, from 0.
        size: How many there are.
        device: Where this one computes.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process is the one that runs the command."""
        return self.rank == 0

    def shares(self, lengths: Indices) -> list[Indices]:
        """Deal texts to the processes, so that each has about as many tokens.

        Args:
            lengths: Tokens of each text, [texts].

        Returns:
            Indices of texts by rank, every one exactly once; of one process alone, all in their order.
        """
        if self.size == 1:
            return [np.arange(len(lengths))]
        order = np.argsort(-lengths, kind="stable")
        return [order[rank :: self.size] for rank in range(self.size)]

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the embeddings of all processes, in the order of their ranks: [sum of counts, dimensions].

        Args:
            own: Those of this process, fp32 without a graph, [counts[rank], dimensions].
            counts: How many each process has.
        """
        if self.size == 1:
            return own
        from torch import distributed

        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        found = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(found, padded)
        return torch.cat([each[:count] for each, count in zip(found, counts, strict=True)])

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up the gradients of all processes; each has them all afterwards."""
        if self.size == 1:
            return
        from torch import distributed

        parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        flat = torch.cat([part.reshape(-1) for part in parts])
        distributed.all_reduce(flat)
        start = 0
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier()

    def share(self, job: Job | None) -> Job | None:
        """Hand a training from the first process to the others, or None when there are no more; return it."""
        if self.size == 1:
            return job
        from torch import distributed

        box: list[Any] = [job]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        found: Job | None = box[0]
        return found

    @contextmanager
    def training(self, job: Job) -> Iterator[None]:
        """Hand a training to the others, and do it meanwhile: all that is done together is done in the body.

        An error of ours is one that every process meets. Any other, such as a full disk, is this one's alone: the
        others wait for it in the middle of a step, and end when it does.
        """
        self.share(job)
        try:
            yield
        except ContinualError:
            raise
        except BaseException:
            TORN.set()
            raise


def find_team() -> Team:
    """Return the team of this process, as the launcher's environment says."""
    from accelerate import PartialState

    # Without `cpu` it sees no other processes where there is no accelerator.
    state = PartialState(cpu=_on_cpu(), timeout=_PATIENCE) if launched() else PartialState()
    return Team(state.process_index, state.num_processes, torch.device(state.device))


def alone() -> Team:
    """Return the team of this process without the others, for work that only the first does."""
    return Team(0, 1, find_team().device)


def _on_cpu() -> bool:
    return not torch.accelerator.is_available()


def launched() -> bool:
    """Return whether a launcher such as torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
