"""Embeddings and losses of rows under a model, for the replay policies that choose rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from continual.config import TrainConfig
from continual.errors import ModelError
from continual.models.encoder import embed, load_encoder
from continual.models.tokens import Indices, micro_batches
from continual.progress import SILENT, Progress
from continual.train.hardware import micro_batch_limit
from continual.train.rows import read_rows
from continual.train.similarity import similarity_of

Floats = NDArray[np.float32]

OTHERS = 1024
"""Number of rows of a domain, the first ones, whose positives are the negatives of all its rows."""


@torch.no_grad()
def embed_pairs(
    model_path: Path,
    table: pa.Table,
    config: TrainConfig,
    *,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Return the embeddings and the losses of the rows of a table in fp32. Each distinct text is encoded once.

    The loss of a row is InfoNCE with the positives of the first 1,024 rows of its domain as negatives, so that it does
    not depend on batches. Positives of the same document or the same query, or with the text of the row's own
    positive, are left out. For rows that use only their own negatives it is InfoNCE with these. For a graded pair it is
    CoSENT with the first 1,024 pairs of its domain, over the comparisons that the pair is part of.

    Args:
        model_path: A sentence-transformers folder.
        table: Columns query, positive: string; negatives: list of string; doc_id: string or null; domain: string;
            optional in_batch: bool, default true; score: double or null, that of a graded pair.
        config: Uses max_length, max_negatives, temperature, dot_temperature and micro_batch_tokens.
        trust_remote_code: Run code that the model brings with it.
        progress: Counts distinct texts.

    Returns:
        The embeddings of the queries and of the positives, [rows, dimensions], normalised if the model compares by
        cosine; and the losses of the rows by domain, in the order of the table.

    Raises:
        ModelError: The model cannot be loaded, or its embeddings are not finite.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_encoder(model_path, trust_remote_code=trust_remote_code, device=str(device))
    similarity = similarity_of(model, config, folder=model_path)
    only_given = "in_batch" in table.column_names and not pc.all(table["in_batch"]).as_py()
    if only_given:
        table = _without_unused_negatives(table)
    rows = read_rows(table, model, config.max_length, config.max_negatives if only_given else 0)
    tokens = rows.tokens
    micros = micro_batches(tokens.lengths, micro_batch_limit(config, device), tokens.groups)
    parts = []
    progress.start("embedding candidates for replay", len(tokens.lengths), "texts")
    for micro in micros:
        parts.append(similarity.cut(embed(model, tokens.features(micro, device))).float().cpu())
        progress.advance(len(micro))
    progress.finish()
    order = torch.from_numpy(np.argsort(np.concatenate(micros)))
    encoded = torch.cat(parts)[order]
    vectors = (torch.nn.functional.normalize(encoded, dim=-1) if similarity.name == "cosine" else encoded).numpy()
    if not np.isfinite(vectors).all():
        raise ModelError(
            f"{model_path} gives embeddings that are not finite, so it cannot choose replay rows. Choose another "
            "policy, such as --set replay.policy=uniform, or go back to an earlier version with `continual rollback`."
        )
    queries, positives = vectors[rows.query], vectors[rows.positive]
    codes = np.stack([rows.same[rows.query], rows.same[rows.positive], rows.document], axis=1)
    names = sorted(set(table["domain"].to_pylist()))  # in the order of the codes of `read_rows`
    losses = {}
    for code, name in enumerate(names):
        own = np.flatnonzero(rows.domains == code)
        if rows.graded[own].all():
            losses[name] = graded_losses(queries[own], positives[own], rows.scores[own], similarity.temperature)
        elif rows.in_batch[own].all():
            losses[name] = row_losses(queries[own], positives[own], codes[own], similarity.temperature)
        else:
            owner = np.repeat(np.arange(len(own)), np.diff(rows.offsets)[own])
            given = rows.given(own)
            differs = rows.same[given] != codes[own, 1][owner]  # from the text of the positive
            negatives = vectors[given[differs]]
            pairs = queries[own], positives[own]
            losses[name] = given_losses(*pairs, negatives, owner[differs], similarity.temperature)
    return queries, positives, losses


def _without_unused_negatives(table: pa.Table) -> pa.Table:
    """Remove the given negatives of rows with in-batch negatives: their loss does not use them."""
    empty = pa.scalar([], table["negatives"].type)
    negatives = pc.if_else(table["in_batch"], empty, table["negatives"])
    return table.set_column(table.column_names.index("negatives"), "negatives", negatives)


def given_losses(queries: Floats, positives: Floats, negatives: Floats, owner: Indices, temperature: float) -> Floats:
    """Return the InfoNCE loss of each row against its own negatives, [rows]; 0 for a row without any.

    Args:
        queries: Embeddings, normalised if compared by cosine, [rows, dimensions].
        positives: Embeddings, likewise, [rows, dimensions].
        negatives: Embeddings, likewise, [negatives, dimensions].
        owner: Row of each negative, [negatives].
        temperature: Divisor of the similarities, above 0.
    """
    gaps = (queries[owner] * (negatives - positives[owner])).sum(axis=1, dtype=np.float64) / temperature
    losses = np.zeros(len(queries))
    np.logaddexp.at(losses, owner, gaps)  # the initial 0 is log 1, the term of the positive
    return losses.astype(np.float32)


def graded_losses(queries: Floats, positives: Floats, scores: NDArray[np.float64], temperature: float) -> Floats:
    """Return how far each graded pair of a domain is out of order with the domain's first 1,024 pairs, [rows].

    With s_i the similarity of pair i divided by the temperature, the loss of pair i is log(1 + sum exp(d_ij)) over the
    pairs j with another score, where d_ij is s_i - s_j if pair i has the lower score, and s_j - s_i otherwise.

    Args:
        queries: Embeddings, normalised if compared by cosine, [rows, dimensions].
        positives: Embeddings, likewise, [rows, dimensions].
        scores: Score of each pair, [rows].
        temperature: Divisor of the similarities, above 0.
    """
    similar = (queries * positives).sum(axis=1, dtype=np.float64) / temperature
    losses = np.zeros(len(queries))
    for start in range(0, len(queries), OTHERS):
        part = slice(start, start + OTHERS)
        signs = np.sign(scores[None, :OTHERS] - scores[part, None])  # [part, others]
        gaps = np.where(signs == 0, -np.inf, signs * (similar[part, None] - similar[None, :OTHERS]))
        losses[part] = np.logaddexp(0, np.logaddexp.reduce(gaps, axis=1))
    return losses.astype(np.float32)


def row_losses(queries: Floats, positives: Floats, codes: Indices, temperature: float) -> Floats:
    """Return the InfoNCE loss of each row of a domain against the positives of its first 1,024 rows, [rows].

    Args:
        queries: Embeddings, normalised if compared by cosine, [rows, dimensions].
        positives: Embeddings, likewise, [rows, dimensions].
        codes: Integer codes of query text, positive text and document id, [rows, 3]; equal codes mean equal texts or
            documents. The document code is negative if a row has no document id.
        temperature: Divisor of the similarities, above 0.
    """
    others = codes[:OTHERS]
    losses = np.zeros(len(queries), np.float32)
    for start in range(0, len(queries), OTHERS):
        part = slice(start, start + OTHERS)
        scores = queries[part] @ positives[:OTHERS].T / temperature  # [part, others]
        same = codes[part, None, :] == others[None, :, :]  # [part, others, 3]
        relevant = same[..., 0] | same[..., 1] | (same[..., 2] & (others[None, :, 2] >= 0))
        scores[relevant] = -np.inf  # includes the row's own positive, which is added below
        own = (queries[part] * positives[part]).sum(axis=1) / temperature
        top = np.maximum(own, scores.max(axis=1))
        losses[part] = top + np.log(np.exp(own - top) + np.exp(scores - top[:, None]).sum(axis=1)) - own
    return losses
