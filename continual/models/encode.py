"""Encode many texts: batches of similar length, and on a CPU one batch per core at a time.

sentence-transformers sorts texts by characters and cuts them into batches of a fixed number, so that a batch of long
texts leaves the caches of a CPU and padding is computed; and all cores share each small product. Here a batch has at
most some thousand tokens of nearly equal lengths, and each core computes a batch of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from continual.models.precision import Precision, computing
from continual.models.threads import in_threads, threads_for
from continual.models.tokens import Indices, Tokens, micro_batches
from continual.progress import SILENT, Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CPU_TOKENS = 2048
"""Most padded tokens that a core of a CPU encodes at a time: small enough for the caches."""

TOKENS = 256
"""Tokens of a text that a batch size in texts reckons with: a batch of shorter texts has more."""


def encode(
    model: SentenceTransformer,
    tokens: Tokens,
    *,
    max_tokens: int,
    task: str | None = None,
    precision: Precision = "fp32",
    progress: Progress = SILENT,
) -> NDArray[np.float32]:
    """Return the embeddings of texts: those of the model's own `encode`, up to rounding.

    A text's embedding can differ in the last bits with the texts beside it. With more than one batch it does not depend
    on the number of cores; a single one is computed with all of them.

    Args:
        model: A model in evaluation mode.
        tokens: The texts.
        max_tokens: Most padded tokens per batch; on a CPU at most `CPU_TOKENS`.
        task: "query" or "document"; None if the model doesn't distinguish them.
        precision: What the matrix products are computed in; see `continual.models.precision`.
        progress: Advanced by the number of texts; not started or finished here.

    Returns:
        Embeddings in the order of the texts, [texts, dimensions]: the dimensions that the model serves.
    """
    device = model.device
    if device.type == "cpu":
        max_tokens = min(max_tokens, CPU_TOKENS)
    batches = micro_batches(tokens.lengths, max_tokens, tokens.groups)
    options = {"task": task} if task is not None and "task" in model.get_model_kwargs() else {}

    def embed(batch: Indices) -> NDArray[np.float32]:
        with torch.inference_mode(), computing(precision, device):
            found: torch.Tensor = model(tokens.features(batch, device), **options)["sentence_embedding"]
            return found[:, : model.truncate_dim].float().cpu().numpy()

    embeddings: NDArray[np.float32] | None = None
    for batch, found in in_threads(embed, batches, min(threads_for(model), len(batches))):
        if embeddings is None:
            embeddings = np.empty((len(tokens.lengths), found.shape[1]), np.float32)
        embeddings[batch] = found
        progress.advance(len(batch))
    return np.empty((0, 0), np.float32) if embeddings is None else embeddings
