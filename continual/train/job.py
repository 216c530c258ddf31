"""A training as plain data: the input of `train`, which is also sent to other processes and to executors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import TrainConfig

if TYPE_CHECKING:
    import pyarrow as pa

PROOF_TEXTS = 16
"""Number of texts on which the fold of an adapter is checked."""


@dataclass(frozen=True)
class Job:
    """The inputs of a LoRA training.

    Attributes:
        start: The sentence-transformers folder to train from.
        table: The rows. Columns: query, positive (string); negatives (list of string); doc_id (string or null);
            domain (string). Optional columns: replayed (bool, default false), whether the row is a replayed one;
            in_batch (bool, default true), whether the other rows of a batch are negatives too, otherwise the row uses
            only its own negatives and has no loss without any; instruction (string or null), put before the query
            instead of the model's prompt.
        config: Settings of the training.
        seed: Seed of LoRA's start values and of the order of the rows, 0 or more.
        run_dir: Folder of the checkpoint; the caller removes it after the step.
        adapter_dir: Folder to publish the adapter in, in peft's format.
        anchor: The model that embeds the texts of new rows before training, for distillation and for the guide that
            masks false negatives; None: `start`. Texts of replayed rows are embedded by `start`, unless `config.anchor`
            is "current".
        resume: Continue from the checkpoint in `run_dir` if there is one.
        trust_remote_code: Run code that the model brings with it.
    """

    start: Path
    table: pa.Table
    config: TrainConfig
    seed: int
    run_dir: Path
    adapter_dir: Path
    anchor: Path | None = None
    resume: bool = False
    trust_remote_code: bool = False
