"""Training in several processes that torchrun or `accelerate launch` started with the same command.

The first process runs the command and sends its trainings to the others, which do nothing else. Each process encodes a
share of the texts of a batch and gets the embeddings of all texts. So a row's negatives are those of the whole batch
(cross-device negatives), and the gradient is that of a single process.
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
from continual.models.tokens import Indices
from continual.train.job import Job

_PATIENCE = timedelta(days=30)
"""How long the others wait for the first process, which may evaluate for hours between two trainings."""

LEFT_TRAINING = threading.Event()
"""Set when the first process left a training with an error of its own, while the others still wait in a step."""


@dataclass(frozen=True)
class Team:
    """The processes that train together; a single process is a team too.

    Attributes:
        rank: Rank of this process, 0 or more.
        size: Number of processes.
        device: Device of this process.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process runs the command."""
        return self.rank == 0

    def shares(self, lengths: Indices) -> list[Indices]:
        """Divide texts among the processes, so that all get about the same number of tokens.

        Args:
            lengths: Number of tokens of each text, [texts].

        Returns:
            Indices of texts by rank, each exactly once; for a single process all texts in their order.
        """
        if self.size == 1:
            return [np.arange(len(lengths))]
        order = np.argsort(-lengths, kind="stable")
        return [order[rank :: self.size] for rank in range(self.size)]

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the embeddings of all processes, in the order of their ranks: [sum of counts, dimensions].

        Args:
            own: Embeddings of this process, fp32 without a graph, [counts[rank], dimensions].
            counts: Number of embeddings of each process.
        """
        if self.size == 1:
            return own
        from torch import distributed

        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        gathered = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(gathered, padded)
        return torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients by their sum over all processes."""
        if self.size == 1:
            return
        from torch import distributed

        gradients = [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters
        ]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        start = 0
        for parameter in parameters:
            parameter.grad = flat[start : start + parameter.numel()].view_as(parameter).clone()
            start += parameter.numel()

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            from torch import distributed

            distributed.barrier()

    def share(self, job: Job | None) -> Job | None:
        """Send a training from the first process to the others, or None after the last one; return it."""
        if self.size == 1:
            return job
        from torch import distributed

        box: list[Any] = [job]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        received: Job | None = box[0]
        return received

    @contextmanager
    def training(self, job: Job) -> Iterator[None]:
        """Send a training to the other processes, and take part in it in the body of the `with` statement.

        A `ContinualError` occurs in every process. Any other error, such as a full disk, occurs only in this one: the
        others then wait for it in the middle of a step until it ends.
        """
        self.share(job)
        try:
            yield
        except ContinualError:
            raise
        except BaseException:
            LEFT_TRAINING.set()
            raise


def find_team() -> Team:
    """Return the team of this process from the launcher's environment variables."""
    from accelerate import PartialState

    # On a machine without an accelerator, PartialState joins the other processes only with `cpu`.
    state = PartialState(cpu=_on_cpu(), timeout=_PATIENCE) if launched() else PartialState()
    return Team(state.process_index, state.num_processes, torch.device(state.device))


def single_process_team() -> Team:
    """Return a team of only this process, for work that only the first process does."""
    return Team(0, 1, find_team().device)


def _on_cpu() -> bool:
    return not torch.accelerator.is_available()


def launched() -> bool:
    """Return whether a launcher such as torchrun started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
