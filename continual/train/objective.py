"""The loss on held-out rows of a model with replaced parameters, for the coefficient search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from continual.config import TrainConfig
from continual.errors import ModelError, NothingToDoError
from continual.models.encoder import inner_transformer, load_encoder
from continual.models.tokens import Indices, micro_batches
from continual.progress import SILENT, Progress
from continual.train.batching import epoch_batches, length_bands
from continual.train.hardware import micro_batch_limit
from continual.train.losses import contrastive, graded
from continual.train.rows import read_rows
from continual.train.similarity import similarity_of

Encode = Callable[[dict[str, Any]], Tensor]


@dataclass
class Effort:
    """Pairs and tokens encoded so far; a batch counts every time that it is encoded.

    Attributes:
        pairs: Pairs encoded with a gradient (forward and backward), as in training.
        tokens: Tokens of their distinct texts per batch, without padding.
        forward_pairs: Pairs encoded without a gradient, at about a third of the cost.
        forward_tokens: Tokens of their distinct texts per batch, without padding.
    """

    pairs: int = 0
    tokens: int = 0
    forward_pairs: int = 0
    forward_tokens: int = 0

    def add(self, pairs: int, tokens: int, *, gradient: bool) -> None:
        """Add a batch, encoded with or without a gradient."""
        if gradient:
            self.pairs += pairs
            self.tokens += tokens
        else:
            self.forward_pairs += pairs
            self.forward_tokens += tokens


class Objective:
    """The loss of the training per domain on held-out rows, for the coefficient search of `continual.merge.search`.

    A batch has exactly `batch_size` rows of one domain, so that all rows have the same number of negatives. With
    `batch_sizes`, the size is that for the median length of the domain's rows. Rows that do not fill a batch are left
    out. A domain with fewer rows forms one batch, and a domain with a single row has no loss. The masks are those of
    training, but without a guide. The loss is computed in fp32, without dropout. Memory holds one model at a time and
    the graph of one minibatch.

    Args:
        start: The sentence-transformers folder whose modules, tokenizer and prompts are used.
        table: Columns query, positive: string; negatives: list of string; doc_id: string or null; domain: string;
            optional in_batch: bool, default true; score: double or null.
        config: Uses batch_size, batch_sizes, temperature, dot_temperature, bidirectional, matryoshka, max_length,
            max_negatives and micro_batch_tokens.
        seed: Seed of the assignment of rows to batches, 0 or more.
        device: Device to compute on; None: CUDA if available, else the CPU.
        trust_remote_code: Run code that the model brings with it.
        progress: Counts the texts that are tokenised.

    Attributes:
        batches: Row indices of each batch, by domain.
        effort: Pairs and tokens encoded so far.

    Raises:
        ModelError: The model cannot be loaded.
        NothingToDoError: No domain has two rows.
    """

    def __init__(
        self,
        start: Path,
        table: pa.Table,
        config: TrainConfig,
        *,
        seed: int = 0,
        device: torch.device | None = None,
        trust_remote_code: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        self._start, self._config = start, config
        self.effort = Effort()
        self._device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = load_encoder(start, trust_remote_code=trust_remote_code, device=str(self._device))
        self._model = model.requires_grad_(False)
        self._similarity = similarity_of(model, config, folder=start)
        self._inner = inner_transformer(model)
        self._prefix = next(name for name, module in model.named_modules() if module is self._inner)
        self._rows = read_rows(table, model, config.max_length, config.max_negatives, progress)
        names = sorted(set(table["domain"].to_pylist()))  # in the order of the codes of `read_rows`
        self.batches: dict[str, list[Indices]] = {}
        for code, name in enumerate(names):
            rows = np.flatnonzero(self._rows.domains == code)
            size = self._batch_size(rows)
            batches = epoch_batches(np.zeros_like(rows), size, seed=seed, epoch=0)
            batches = [rows[batch[:size]] for batch in batches]
            full = [batch for batch in batches if len(batch) == size] or batches
            if full:
                self.batches[name] = full
        if not self.batches:
            raise NothingToDoError(
                f"No domain has two of the {len(table)} held-out rows, so there is no loss to search with. Hold out "
                "more rows with --set merge.search_rows=N, or give the weight with `continual update --merge NUMBER`."
            )

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters of the start model's transformer by name, not copied, without gradients."""
        return {name: parameter.detach() for name, parameter in self._inner.named_parameters()}

    @torch.no_grad()
    def evaluate(self, parameters: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the mean loss per domain over all batches.

        Args:
            parameters: Parameters of the transformer by name, which replace those of the start model.

        Raises:
            ModelError: A name is not one of the transformer's.
        """
        encode = self._encoder(parameters)
        return {
            name: float(torch.stack([self._batch_loss(encode, batch) for batch in batches]).double().mean())
            for name, batches in self.batches.items()
        }

    def minibatch(self, parameters: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """Return the loss of a step's batch by its domain's name, differentiable in the parameters.

        Steps cycle through the domains, and through the batches of a domain, so that all domains count the same.

        Args:
            parameters: Parameters of the transformer by name, which replace those of the start model.
            step: 0, 1, ...

        Raises:
            ModelError: A name is not one of the transformer's.
        """
        turn, place = divmod(step, len(self.batches))
        name, batches = list(self.batches.items())[place]
        return {name: self._batch_loss(self._encoder(parameters), batches[turn % len(batches)])}

    def _batch_size(self, rows: Indices) -> int:
        config = self._config
        median = np.sort(self._rows.longest()[rows])[len(rows) // 2 : len(rows) // 2 + 1]
        (band,) = length_bands(median, [band.tokens for band in config.batch_sizes])
        return [*(band.pairs for band in config.batch_sizes), config.batch_size][int(band)]

    def _batch_loss(self, encode: Encode, batch: Indices) -> Tensor:
        rows, size = self._rows, len(batch)
        negatives = rows.given(batch)
        texts, places = np.unique(
            np.concatenate([rows.query[batch], rows.positive[batch], negatives]), return_inverse=True
        )
        limit = micro_batch_limit(self._config, self._device)
        micros = micro_batches(rows.tokens.lengths[texts], limit, rows.tokens.groups[texts])
        encoded = torch.cat([encode(rows.tokens.features(texts[micro], self._device)) for micro in micros])
        self.effort.add(size, int(rows.tokens.lengths[texts].sum()), gradient=encoded.requires_grad)
        back = np.argsort(np.concatenate(micros))[places.reshape(-1)]
        embeddings = encoded.index_select(0, torch.from_numpy(back).to(self._device))  # [b + b + m, dimensions]
        mask = rows.mask(batch).to(self._device)
        in_batch = torch.from_numpy(rows.in_batch[batch]).to(self._device)
        queries, positives, given = embeddings[:size], embeddings[size : 2 * size], embeddings[2 * size :]
        scores = rows.batch_scores(batch)
        if scores is not None:
            return graded(queries, positives, scores.to(self._device), self._config, self._similarity)
        return contrastive(queries, positives, given, mask, in_batch, self._config, self._similarity)

    def _encoder(self, parameters: Mapping[str, Tensor]) -> Encode:
        """Return a function that encodes features with the whole model, with replaced parameters in its transformer."""
        unknown = parameters.keys() - dict(self._inner.named_parameters(remove_duplicate=False)).keys()
        if unknown:
            raise ModelError(
                f"{self._start} has no parameter {min(unknown)}, so the tensors belong to another model. Merge "
                "models of one architecture."
            )
        placed = {f"{self._prefix}.{name}": tensor for name, tensor in parameters.items()}

        def encode(features: dict[str, Any]) -> Tensor:
            output: Tensor = torch.func.functional_call(self._model, placed, (features,))["sentence_embedding"]
            return (output if self._config.matryoshka else self._similarity.cut(output)).float()

        return encode
