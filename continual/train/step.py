"""One batch: encode each distinct text once, and push the gradient of the loss back to the LoRA factors.

Micro-batches keep their graphs while they fit in the memory budget. What lies beyond is encoded without a
graph first, and again with one when its gradient is known (GradCache, https://arxiv.org/abs/2101.06983). Both
give the same gradients, in the same order of summation.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from continual.config import TrainConfig
from continual.errors import ConfigError
from continual.models.encoder import embed, inner_transformer, load_encoder
from continual.progress import SILENT, Progress
from continual.train.attention import attend_in_fp32
from continual.train.batching import Indices, micro_batches
from continual.train.fused import FusedLora
from continual.train.hardware import micro_batch_limit, resolve_precision
from continual.train.lora import attach
from continual.train.losses import (
    comparable,
    contrastive,
    divergence,
    drift,
    guided,
    info_nce,
)
from continual.train.rows import Rows, read_rows
from continual.train.team import Team

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
        team: The processes that train together, this one among them.
        precision: "fp32" or "bf16".
        fused: Lets LoRA layers compute with merged weights.
        before: Embeddings of all texts before training, fp32 on the CPU, [texts, dimensions]: those of replayed rows
            under the model that training starts from, the others under the anchor (see `open_session`). None where
            neither the guide nor distillation needs them.
        embedder: Code of the model that embedded each text before, [texts]; None where one embedded all of them.
    """

    model: SentenceTransformer
    parameters: list[tuple[str, nn.Parameter]]
    rows: Rows
    config: TrainConfig
    team: Team
    precision: str
    fused: FusedLora
    before: Tensor | None = None
    embedder: Indices | None = None

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.team.device

    def refresh(self) -> None:
        """Take notice that the factors have changed."""
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
        shared = self._micro_batches(texts)
        micros, counts = shared[self.team.rank], [sum(map(len, some)) for some in shared]

        kept: list[Tensor | None] = []
        outputs, budget = list[Tensor](), config.micro_batch_tokens
        for micro in micros:
            budget -= int(lengths[micro].max()) * len(micro)
            keep = budget >= 0 or not kept
            with torch.set_grad_enabled(keep):
                encoded = self.encode(texts[micro])
            kept.append(encoded if keep else None)
            outputs.append(encoded.detach())
        # [texts, dimensions], in the order of the processes' micro-batches
        leaf = self.team.gather(self._joined(outputs), counts).requires_grad_()
        dealt = np.concatenate([micro for some in shared for micro in some])
        back = np.argsort(dealt)[places.reshape(-1)]

        mask = rows.mask(batch).to(self.device)
        before, order = None, texts[dealt]
        if self.before is not None:
            before = self.before.index_select(0, torch.from_numpy(order)).to(self.device)
        if before is not None and config.guide_margin != "off":
            found = guided(*_split(before, back, len(batch)), float(config.guide_margin))
            if self.embedder is not None:
                codes = torch.from_numpy(self.embedder[order])[:, None].to(self.device)
                found &= comparable(*(each[:, 0] for each in _split(codes, back, len(batch))))
            mask = mask | found
        in_batch = torch.from_numpy(rows.in_batch[batch]).to(self.device)
        loss = contrastive(*_split(leaf, back, len(batch)), mask, in_batch, config)
        if before is not None and config.distillation:
            loss = loss + config.distillation * self._distilled(leaf, before, order, back, mask)
        if before is not None and config.asks_old_index:
            asked = _split(leaf, back, len(batch))[0]
            _, positives, given = _split(before, back, len(batch))
            loss = loss + config.compatibility * info_nce(asked, positives, given, mask, config.temperature)
        loss.backward()  # type: ignore[no-untyped-call]

        assert leaf.grad is not None
        start = sum(counts[: self.team.rank])
        for place, micro in enumerate(micros):
            output, kept[place] = kept[place], None
            if output is None:
                output = self.encode(texts[micro])
            torch.autograd.backward(output, leaf.grad[start : start + len(micro)])
            start += len(micro)
        self.team.add_gradients([parameter for _, parameter in self.parameters])
        return float(loss.detach()), int(lengths.sum())

    def encode(self, texts: Indices) -> Tensor:
        """Return fp32 embeddings of some texts, of shape [texts, dimensions]."""
        features = self.rows.tokens.features(texts, self.device)
        mixed = torch.autocast(self.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()
        with mixed:
            output: Tensor = embed(self.model, features)
        return output.float()

    def _distilled(self, leaf: Tensor, before: Tensor, texts: Indices, back: Indices, mask: Tensor) -> Tensor:
        """Return how far a batch's embeddings, or what its queries find, are from where they were.

        Args:
            leaf: Embeddings now, [texts, dimensions].
            before: The same before training.
            texts: The texts that they are of.
            back: Places among these of the batch's queries, positives and negatives.
            mask: Which documents are no negatives, [b, b + m].
        """
        scale = None if self.config.distillation_scale == "off" else self.config.distillation_scale
        if self.config.distillation_loss == "cosine":
            return drift(leaf, before, scale)
        again = torch.from_numpy(self.rows.replayed[texts]).to(self.device)
        loss = leaf.new_zeros(())
        new = (~again).nonzero()[:, 0]
        if len(new):
            loss = drift(leaf.index_select(0, new), before.index_select(0, new), scale) * (len(new) / len(again))
        # Texts of new rows were embedded by another model, the anchor: their cosines cannot be compared with these.
        queries, positives, negatives = (each[:, 0] for each in _split(again[:, None], back, len(mask)))
        rows, left_out = queries & positives, mask | ~torch.cat([positives, negatives])
        if rows.any():
            now, then = (_split(each, back, len(mask)) for each in (leaf, before))
            loss = loss + divergence(now, then, rows, left_out, self.config.temperature)
        return loss

    @property
    def remembers(self) -> bool:
        """Whether the settings need the embeddings before training."""
        config = self.config
        return bool(config.distillation) or config.guide_margin != "off" or config.asks_old_index

    @torch.no_grad()
    def encode_all(self, texts: Indices | None = None, progress: Progress = SILENT) -> Tensor:
        """Return fp32 embeddings of some texts, or of all, on the CPU: [texts, dimensions].

        The same texts are cut into the same micro-batches, so that the same model gives the same bits.
        """
        chosen = np.arange(len(self.rows.tokens.lengths)) if texts is None else texts
        shared = self._micro_batches(chosen)
        parts: list[Tensor] = []
        progress.start("embedding before training", sum(map(len, shared[self.team.rank])), "texts")
        for micro in shared[self.team.rank]:
            parts.append(self.encode(chosen[micro]))
            progress.advance(len(micro))
        progress.finish()
        found = self.team.gather(self._joined(parts), [sum(map(len, some)) for some in shared]).cpu()
        dealt = np.concatenate([micro for some in shared for micro in some])
        return found[torch.from_numpy(np.argsort(dealt))]

    def _micro_batches(self, texts: Indices) -> list[list[Indices]]:
        """Return the micro-batches of each process: places among some texts, every one exactly once."""
        tokens, limit = self.rows.tokens, micro_batch_limit(self.config, self.device)
        lengths, groups = tokens.lengths[texts], tokens.groups[texts]
        return [
            [share[micro] for micro in micro_batches(lengths[share], limit, groups[share])]
            for share in self.team.shares(lengths)
        ]

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Return embeddings of this process one below the other, [texts, dimensions]; of a team it may have none."""
        if parts:
            return torch.cat(parts)
        return torch.zeros(0, int(self.model.get_embedding_dimension()), device=self.device)


def open_session(
    start: Path,
    table: pa.Table,
    config: TrainConfig,
    *,
    seed: int,
    team: Team,
    trust_remote_code: bool = False,
    remember: bool = True,
    anchor: Path | None = None,
    progress: Progress = SILENT,
) -> Session:
    """Load a model, attach LoRA, and tokenise the rows.

    Args:
        start: The sentence-transformers folder to train from.
        table: As `train` takes it.
        config: Settings of the training.
        seed: Of LoRA's start values.
        team: The processes that train together; each opens the same session.
        trust_remote_code: Run code that the model brings with it.
        remember: Embed all texts before training, if the settings need it.
        anchor: The model near whose embeddings the texts of new rows are held; None: the one to train from. Replayed
            rows are held near the model to train from, which has learned them, unless `config.anchor` is "current".
        progress: A bar over the texts that are tokenised, and over those that are embedded.

    Raises:
        ModelError: The model cannot be loaded or trained.
        ConfigError: Its embeddings are too short for `config.matryoshka`, or rows have no negatives by
            `config.max_negatives`.
    """
    # Attention stays what the model chooses, SDPA as a rule: without dropout it trains as fast as eager attention
    # on a CPU (within 5 %, both measured on all-MiniLM-L6-v2), and keeps no matrix of scores.
    model = load_encoder(start, trust_remote_code=trust_remote_code, device=str(team.device))
    _check_dimensions(model, config, start)
    parameters = attach(model, config.lora_rank, config.lora_alpha, seed)
    precision = resolve_precision(config.precision, team.device)
    rows = read_rows(table, model, config.max_length, config.max_negatives, progress)
    _check_negatives(table, rows, config)
    fused = FusedLora(inner_transformer(model), torch.bfloat16 if precision == "bf16" else torch.float32)
    if precision == "bf16" and team.device.type == "cpu":
        attend_in_fp32(inner_transformer(model))
    session = Session(model, parameters, rows, config, team, precision, fused)
    if not (remember and session.remembers):
        return session
    # LoRA's B is still zero, so the model is the one that training starts from.
    if anchor is None or anchor == start:
        return replace(session, before=session.encode_all(progress=progress))
    other = load_encoder(anchor, trust_remote_code=trust_remote_code, device=str(team.device)).requires_grad_(False)
    near_start = rows.replayed & (config.anchor == "base")
    parts = [(session, near_start), (replace(session, model=other), ~near_start)]
    found = [(np.flatnonzero(which), one) for one, which in parts if which.any()]
    embedded = torch.cat([one.encode_all(texts, progress) for texts, one in found])
    back = np.argsort(np.concatenate([texts for texts, _ in found]))
    embedder = near_start.astype(np.int64) if len(found) > 1 else None
    return replace(session, before=embedded[torch.from_numpy(back)], embedder=embedder)


def _check_dimensions(model: SentenceTransformer, config: TrainConfig, start: Path) -> None:
    whole = model.get_embedding_dimension()
    if whole is not None and (beyond := [size for size in config.matryoshka if size >= whole]):
        raise ConfigError(
            f"train.matryoshka asks for the leading {', '.join(map(str, beyond))} dimensions, and the embeddings of "
            f"{start} have {whole}. Name numbers below that: the whole is trained anyway."
        )


def _check_negatives(table: pa.Table, rows: Rows, config: TrainConfig) -> None:
    if not config.max_negatives and not rows.in_batch.all():
        names = sorted(set(table.filter(pa.array(~rows.in_batch))["domain"].to_pylist()))
        raise ConfigError(
            f"train.max_negatives is 0, and rows of {', '.join(names)} have no negatives but those given with them, "
            "being of kind classification or clustering. Set it to 1 or more."
        )


def _split(embeddings: Tensor, back: Indices, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    # index_select, for its gradient adds up in a fixed order on the CPU; indexing with brackets does not.
    gathered = embeddings.index_select(0, torch.from_numpy(back).to(embeddings.device))
    return gathered[:rows], gathered[rows : 2 * rows], gathered[2 * rows :]
