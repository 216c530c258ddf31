"""A training as plain data: what `train` takes, what other processes of a team get, and what an executor maps over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import TrainConfig

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Job:
    """A LoRA training.

    Attributes:
        start: The sentence-transformers folder to train from.
        table: The rows. Columns: query, positive (string); negatives (list of string); doc_id (string or null);
            domain (string); replayed (bool, default false): the row comes from history; in_batch (bool, default
            true): the other rows of the batch give negatives too, otherwise the row uses only its own negatives and
            has no loss without any; instruction (string or null): put before the query instead of the model's prompt.
        config: Settings of the training.
        seed: Seed of LoRA's start values and of the order of the rows, 0 or more.
        run_dir: Folder of the checkpoint; the caller removes it when the step is done.
        adapter_dir: Folder to publish the adapter in; peft's `PeftModel` loads it.
        anchor: The model whose embeddings of new rows distillation keeps, and the guide that masks their false
            negatives; None: `start`. For replayed rows it is `start`, unless `config.anchor` is "current".
        resume: Continue from the checkpoint in `run_dir`, if there is one.
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
