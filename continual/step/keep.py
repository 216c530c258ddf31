"""The texts whose embeddings a step keeps: those of `merge.keep_texts`."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from continual.config import Config
from continual.errors import InputError
from continual.models.activations import Texts
from continual.progress import SILENT, Progress
from continual.registry.provenance import Kept
from continual.registry.records import INSTRUCTED
from continual.train.job import Job

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGED = "packaged"
GENERAL = Path(__file__).parent.parent / "train" / "general.jsonl"
"""The packaged texts: pairs on many subjects, written for this project."""

ROWS = 1_000
"""Rows of the training whose texts stand for it."""


def find_texts(directory: Path, config: Config) -> tuple[Texts, Kept]:
    """Return the texts to keep and their record.

    Args:
        directory: The workspace, which the files in its settings are relative to.
        config: The settings of the step.

    Raises:
        DataError: A file cannot be read, or holds no text.
    """
    from continual.stream.sample import read_sample

    names = list(dict.fromkeys(config.merge.keep_texts))
    samples = [read_sample(str(GENERAL if name == PACKAGED else directory / Path(name).expanduser())) for name in names]
    texts = Texts(
        queries=[text for sample in samples for text in sample.texts.queries],
        documents=[text for sample in samples for text in sample.texts.documents],
    )
    digest = hashlib.sha256()
    for text in [*texts.queries, "", *texts.documents]:
        digest.update(text.encode() + b"\0")
    return texts, Kept(config.merge.keep, len(texts), digest.hexdigest())


def project_adapter(job: Job, trained: Path, kept: Kept, texts: Texts, progress: Progress = SILENT) -> Kept:
    """Project the adapter of a training for the texts to keep; see `continual.train.keep`.

    Args:
        job: The training; its adapter is replaced.
        trained: The model with the adapter folded in.
        kept: The record of the texts.
        texts: The texts to keep.

    Returns:
        The record with what was done.
    """
    from continual.train.keep import keep_texts

    began = time.monotonic()
    norm = keep_texts(
        job.start,
        trained,
        job.adapter_dir,
        trained_texts(job.table),
        texts,
        kept.weight,
        max_length=job.config.max_length,
        trust_remote_code=job.trust_remote_code,
        progress=progress,
    )
    return replace(kept, norm=norm, seconds=time.monotonic() - began)


def check_unchanged(now: Kept, then: Kept, version: str) -> None:
    """Check that the texts to keep are those that a run began with.

    Raises:
        InputError: They changed since.
    """
    if now.sha256 != then.sha256:
        raise InputError(
            f"The texts to keep (merge.keep_texts) changed since {version} was started, so resuming it now would give "
            "other weights. Restore them and resume, or start over with `continual update --restart`."
        )


def trained_texts(table: pa.Table) -> Texts:
    """Return the queries and positives of some rows of a training, evenly from all of them."""
    import numpy as np

    rows = table.take(np.unique(np.linspace(0, len(table) - 1, ROWS).round().astype(np.int64)))
    instructions = rows["instruction"].to_pylist() if "instruction" in rows.column_names else [None] * len(rows)
    queries = list(zip(rows["query"].to_pylist(), instructions, strict=True))
    return Texts(
        queries=list(dict.fromkeys(query for query, instruction in queries if instruction is None)),
        documents=list(dict.fromkeys(rows["positive"].to_pylist())),
        prompted=list(
            dict.fromkeys(
                INSTRUCTED.format(instruction) + query for query, instruction in queries if instruction is not None
            )
        ),
    )
