"""One batch: encode each distinct text once, and push the gradient of the loss back to the LoRA factors.

Micro-batches keep their graphs while they fit in the memory budget. What lies beyond is encoded without a
graph first, and again with one when its gradient is known (GradCache, https://arxiv.org/abs/2101.06983). Both
give the same gradients, in the same order of summation.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from continual.config import TrainConfig
from continual.progress import SILENT, Progress
from continual.train.batching import Indices, micro_batches
from continual.train.encoder import embed, inner_transformer, load_encoder
from continual.train.fused import FusedLora
from continual.train.hardware import micro_batch_limit, resolve_precision
from continual.train.lora import attach
from continual.train.losses import false_negatives, guided, info_nce
from continual.train.rows import Rows, read_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class Session:
    """A model ready to be trained on its rows.

    Attributes:
        model: With LoRA attached, in evaluation mode: no dropout is active.
        parameters: The LoRA factors with their names, in a fixed order.
        rows: The training rows.
        config: Settings of the training.
        device: Where it computes.
        precision: "fp32" or "bf16".
        fused: Lets LoRA layers compute with merged weights; None in bf16.
    """

    model: SentenceTransformer
    parameters: list[tuple[str, nn.Parameter]]
    rows: Rows
    config: TrainConfig
    device: torch.device
    precision: str
    fused: FusedLora | None

    def refresh(self) -> None:
        """Take notice that the factors have changed."""
        if self.fused:
            self.fused.refresh()

    def backward(self, batch: Indices) -> tuple[float, int]:
        """Add the gradient of a batch's loss to the LoRA factors.

        Args:
            batch: Row indices, at least 2.

        Returns:
            The loss, and the tokens that were encoded, padding not counted.
        """
        rows, config = self.rows, self.config
        negatives = rows.given(batch)
        query, positive = rows.query[batch], rows.positive[batch]
        texts, places = np.unique(np.concatenate([query, positive, negatives]), return_inverse=True)
        lengths = rows.tokens.lengths[texts]
        micros = micro_batches(lengths, micro_batch_limit(config, self.device), rows.tokens.groups[texts])

        kept: list[Tensor | None] = []
        outputs, budget = [], config.micro_batch_tokens
        for micro in micros:
            budget -= int(lengths[micro].max()) * len(micro)
            keep = budget >= 0 or not kept
            with torch.set_grad_enabled(keep):
                encoded = self.encode(texts[micro])
            kept.append(encoded if keep else None)
            outputs.append(encoded.detach())
        leaf = torch.cat(outputs).requires_grad_()  # [texts, dimensions], in the order of the micro-batches
        back = np.argsort(np.concatenate(micros))[places.reshape(-1)]

        mask = self._mask(batch, negatives)
        if config.guide_margin != "off":
            mask = mask | self._guide_mask(texts, micros, back, len(batch), float(config.guide_margin))
        loss = info_nce(*_split(leaf, back, len(batch)), mask, config.temperature)
        loss.backward()  # type: ignore[no-untyped-call]

        assert leaf.grad is not None
        start = 0
        for place, micro in enumerate(micros):
            output, kept[place] = kept[place], None
            if output is None:
                output = self.encode(texts[micro])
            torch.autograd.backward(output, leaf.grad[start : start + len(micro)])
            start += len(micro)
        return float(loss.detach()), int(lengths.sum())

    def encode(self, texts: Indices) -> Tensor:
        """Return fp32 embeddings of some texts, of shape [texts, dimensions]."""
        features = self.rows.tokens.features(texts, self.device)
        mixed = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with mixed:
            output: Tensor = embed(self.model, features)
        return output.float()

    def _mask(self, batch: Indices, negatives: Indices) -> Tensor:
        rows = self.rows
        query, positive = rows.same[rows.query[batch]], rows.same[rows.positive[batch]]
        codes = (query, positive, rows.same[negatives], rows.document[batch])
        return false_negatives(*map(torch.from_numpy, codes)).to(self.device)

    @torch.no_grad()
    def _guide_mask(self, texts: Indices, micros: list[Indices], back: Indices, rows: int, margin: float) -> Tensor:
        with _without_adapter(self.model):
            guide = torch.cat([self.encode(texts[micro]) for micro in micros])
        return guided(*_split(guide, back, rows), margin)


def open_session(
    start: Path,
    table: pa.Table,
    config: TrainConfig,
    *,
    seed: int,
    device: torch.device,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> Session:
    """Load a model, attach LoRA, and tokenise the rows.

    Args:
        start: The sentence-transformers folder to train from.
        table: Columns query, positive, negatives, doc_id, domain.
        config: Settings of the training.
        seed: Of LoRA's start values.
        device: Where to compute.
        trust_remote_code: Run code that the model brings with it.
        progress: A bar over the texts that are tokenised.
    """
    # Attention stays what the model chooses, SDPA as a rule: without dropout it trains as fast as eager attention
    # on a CPU (within 5 %, both measured on all-MiniLM-L6-v2), and keeps no matrix of scores.
    model = load_encoder(start, trust_remote_code=trust_remote_code, device=str(device))
    parameters = attach(model, config.lora_rank, config.lora_alpha, seed)
    precision = resolve_precision(config.precision, device)
    rows = read_rows(table, model, config.max_length, config.max_negatives, progress)
    fused = FusedLora(inner_transformer(model)) if precision == "fp32" else None
    return Session(model, parameters, rows, config, device, precision, fused)


def _split(embeddings: Tensor, back: Indices, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    # index_select, for its gradient adds up in a fixed order on the CPU; indexing with brackets does not.
    gathered = embeddings.index_select(0, torch.from_numpy(back).to(embeddings.device))
    return gathered[:rows], gathered[rows : 2 * rows], gathered[2 * rows :]


class _without_adapter:  # noqa: N801  a context manager
    def __init__(self, model: Any) -> None:
        from peft.tuners.lora import LoraLayer

        self.layers = [module for module in model.modules() if isinstance(module, LoraLayer)]

    def __enter__(self) -> None:
        for layer in self.layers:
            layer._disable_adapters = True

    def __exit__(self, *_: object) -> None:
        for layer in self.layers:
            layer._disable_adapters = False
