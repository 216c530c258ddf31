"""One training step: encode each distinct text of a batch once, and compute the gradient of the LoRA factors.

Micro-batches keep their graphs as long as they fit in the memory budget. The others are first encoded without a graph,
and a second time with one when their gradient is known (GradCache, https://arxiv.org/abs/2101.06983). Both ways give
the same gradients, summed in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from continual.config import TrainConfig
from continual.errors import ConfigError
from continual.models.encoder import embed, inner_transformer, load_encoder
from continual.models.precision import Precision, computing, resolve_precision
from continual.models.threads import in_threads, threads_for
from continual.models.tokens import Indices, micro_batches
from continual.progress import SILENT, Progress
from continual.train.attention import attend_in_fp32
from continual.train.fused import FusedLora
from continual.train.hardware import micro_batch_limit
from continual.train.lora import attach
from continual.train.losses import (
    contrastive,
    cosent,
    divergence,
    drift,
    graded,
    guided,
    info_nce,
    same_embedder,
)
from continual.train.rows import TrainingRows, read_rows
from continual.train.similarity import Similarity, similarity_of
from continual.train.team import Team

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Result = TypeVar("Result")


@dataclass(frozen=True)
class Session:
    """A model with LoRA attached, and its tokenised training rows.

    Attributes:
        model: The model, in evaluation mode, so that no dropout is active.
        parameters: The LoRA factors with their names, in a fixed order.
        rows: The training rows.
        config: Settings of the training.
        team: The processes that train together, including this one.
        precision: "fp32" or "bf16".
        fused: Computes the LoRA layers with merged weights.
        similarity: How the model compares embeddings.
        before: Embeddings of all texts before training, fp32 on the CPU, [texts, dimensions]: texts of replayed rows
            under the start model, the others under the anchor (see `open_session`). None if no setting needs them.
        embedder: Code of the model that computed each embedding in `before`, [texts]; None if it was one model.
    """

    model: SentenceTransformer
    parameters: list[tuple[str, nn.Parameter]]
    rows: TrainingRows
    config: TrainConfig
    team: Team
    precision: Precision
    fused: FusedLora
    similarity: Similarity
    before: Tensor | None = None
    embedder: Indices | None = None

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.team.device

    @property
    def factors(self) -> list[nn.Parameter]:
        """The LoRA factors."""
        return [parameter for _, parameter in self.parameters]

    def refresh(self) -> None:
        """Recompute the merged weights; must be called whenever the LoRA factors have changed."""
        self.fused.refresh()

    def backward(self, batch: Indices) -> tuple[float, int]:
        """Add the gradient of a batch's loss to the LoRA factors.

        Args:
            batch: Row indices, at least 2.

        Returns:
            The loss, and the number of tokens encoded, without padding.
        """
        rows, config, similarity = self.rows, self.config, self.similarity
        negatives = rows.given(batch)
        query, positive = rows.query[batch], rows.positive[batch]
        texts, places = np.unique(np.concatenate([query, positive, negatives]), return_inverse=True)
        lengths = rows.tokens.lengths[texts]
        shared = self._micro_batches(texts)
        micros, counts = shared[self.team.rank], [sum(map(len, own_micros)) for own_micros in shared]

        sizes = np.cumsum([int(lengths[micro].max()) * len(micro) for micro in micros])
        graphs = max(1, int(np.searchsorted(sizes, config.micro_batch_tokens, side="right")))

        def forward(place: int) -> Tensor:
            with torch.set_grad_enabled(place < graphs):
                return self.encode(texts[micros[place]])

        encoded: list[Tensor | None] = [*self._in_threads(forward, len(micros))]
        # [texts, dimensions], in the order of the processes and their micro-batches
        outputs = [output.detach() for output in encoded if output is not None]
        leaf = self.team.gather(self._joined(outputs), counts).requires_grad_()
        dealt = np.concatenate([micro for own_micros in shared for micro in own_micros])
        back = np.argsort(dealt)[places.reshape(-1)]

        mask = rows.mask(batch).to(self.device)
        before, order = None, texts[dealt]
        if self.before is not None:
            before = self.before.index_select(0, torch.from_numpy(order)).to(self.device)
        if before is not None and config.guide_margin != "off":
            mask = mask | self._guided(before, order, back, len(batch))
        in_batch = torch.from_numpy(rows.in_batch[batch]).to(self.device)
        queries, positives, given = _split(leaf, back, len(batch))
        scores = rows.batch_scores(batch)
        if scores is None:
            loss = contrastive(queries, positives, given, mask, in_batch, config, similarity)
        else:
            scores = scores.to(self.device)
            loss = graded(queries, positives, scores, config, similarity)
        if before is not None and config.distillation:
            loss = loss + config.distillation * self._distillation(leaf, before, order, back, mask)
        if before is not None and config.asks_old_index:
            queries = _split(similarity.cut(leaf), back, len(batch))[0]
            _, positives, given = _split(similarity.cut(before), back, len(batch))
            how = (similarity.temperature, similarity.name)
            if scores is None:
                asked = info_nce(queries, positives, given, mask, how[0], similarity=how[1])
            else:
                asked = cosent(queries, positives, scores, *how)
            loss = loss + config.compatibility * asked
        loss.backward()  # type: ignore[no-untyped-call]

        assert leaf.grad is not None
        own = leaf.grad[sum(counts[: self.team.rank]) :][: counts[self.team.rank]]
        wanted, factors = torch.split(own, [*map(len, micros)]), self.factors

        def backward(place: int) -> tuple[Tensor | None, ...]:
            output, encoded[place] = encoded[place], None
            with torch.enable_grad():
                if output is None or place >= graphs:
                    output = self.encode(texts[micros[place]])
                return torch.autograd.grad(output, factors, wanted[place], allow_unused=True)

        for gradients in self._in_threads(backward, len(micros)):
            for factor, gradient in zip(factors, gradients, strict=True):
                if gradient is not None:
                    factor.grad = gradient if factor.grad is None else factor.grad.add_(gradient)
        self.team.add_gradients(factors)
        return float(loss.detach()), int(lengths.sum())

    def encode(self, texts: Indices) -> Tensor:
        """Return the embeddings of texts of one group in fp32, [texts, dimensions].

        The dimensions are those that the model serves, or all if Matryoshka dimensions are trained.
        """
        features = self.rows.tokens.features(texts, self.device)
        with computing(self.precision, self.device):
            output: Tensor = embed(self.model, features)
        return (output if self.config.matryoshka else self.similarity.cut(output)).float()

    def _guided(self, before: Tensor, texts: Indices, back: Indices, rows: int) -> Tensor:
        """Return the documents that the embeddings before the training take for positives; see `guided`.

        Args:
            before: Those embeddings of the batch's texts, [texts, dimensions].
            texts: The texts in the same order, [texts].
            back: Place in `texts` of each query, positive and negative.
            rows: Number of rows of the batch.
        """
        seen = _split(self.similarity.cut(before), back, rows)
        mask = guided(*seen, float(self.config.guide_margin), self.similarity.name)
        if self.embedder is not None:
            codes = torch.from_numpy(self.embedder[texts])[:, None].to(self.device)
            mask &= same_embedder(*(part[:, 0] for part in _split(codes, back, rows)))
        return mask

    def _distillation(self, leaf: Tensor, before: Tensor, texts: Indices, back: Indices, mask: Tensor) -> Tensor:
        """Return the distillation loss of a batch: the drift of its embeddings, or the divergence of its rankings.

        Args:
            leaf: Embeddings of the batch's texts now, [texts, dimensions].
            before: Embeddings of the same texts before training, [texts, dimensions].
            texts: Indices of these texts, [texts].
            back: Places in `texts` of the batch's queries, positives and negatives, [b + b + m].
            mask: True where a document is not a negative of a row, [b, b + m].
        """
        scale = None if self.config.distillation_scale == "off" else self.config.distillation_scale
        if self.config.distillation_loss == "cosine":
            return drift(leaf, before, scale, self.similarity.name)
        replayed = torch.from_numpy(self.rows.replayed[texts]).to(self.device)
        loss = leaf.new_zeros(())
        new = (~replayed).nonzero()[:, 0]
        if len(new):
            parts = leaf.index_select(0, new), before.index_select(0, new)
            loss = drift(*parts, scale, self.similarity.name) * (len(new) / len(replayed))
        # Another model, the anchor, embedded the texts of new rows: similarities with replayed texts mean nothing.
        queries, positives, negatives = (part[:, 0] for part in _split(replayed[:, None], back, len(mask)))
        rows, left_out = queries & positives, mask | ~torch.cat([positives, negatives])
        if rows.any():
            now, then = (_split(self.similarity.cut(vectors), back, len(mask)) for vectors in (leaf, before))
            loss = loss + divergence(now, then, rows, left_out, self.similarity.temperature, self.similarity.name)
        return loss

    @property
    def needs_earlier_embeddings(self) -> bool:
        """Whether a setting needs the embeddings before training."""
        config = self.config
        return bool(config.distillation) or config.guide_margin != "off" or config.asks_old_index

    def encode_all(self, texts: Indices | None = None, progress: Progress = SILENT) -> Tensor:
        """Return the embeddings of some texts, by default of all, in fp32 on the CPU, [texts, dimensions].

        The same texts always form the same micro-batches, so that the same model gives the same bits.
        """
        chosen = np.arange(len(self.rows.tokens.lengths)) if texts is None else texts
        shared = self._micro_batches(chosen)
        micros, parts = shared[self.team.rank], list[Tensor]()

        @torch.no_grad()
        def forward(place: int) -> Tensor:
            return self.encode(chosen[micros[place]])

        progress.start("embedding before training", sum(map(len, micros)), "texts")
        for part in self._in_threads(forward, len(micros)):
            parts.append(part)
            progress.advance(len(part))
        progress.finish()
        embeddings = self.team.gather(self._joined(parts), [sum(map(len, own_micros)) for own_micros in shared]).cpu()
        dealt = np.concatenate([micro for own_micros in shared for micro in own_micros])
        return embeddings[torch.from_numpy(np.argsort(dealt))]

    def _micro_batches(self, texts: Indices) -> list[list[Indices]]:
        """Return the micro-batches of each process: indices into `texts`, each exactly once."""
        tokens, limit = self.rows.tokens, micro_batch_limit(self.config, self.device)
        lengths, groups = tokens.lengths[texts], tokens.groups[texts]
        return [
            [share[micro] for micro in micro_batches(lengths[share], limit, groups[share])]
            for share in self.team.shares(lengths)
        ]

    def _in_threads(self, function: Callable[[int], Result], micro_batches: int) -> Iterator[Result]:
        """Yield the result for each micro-batch, in order.

        Several are computed at a time on a CPU, but not more than may keep their graphs.
        """
        graphs = self.config.micro_batch_tokens // micro_batch_limit(self.config, self.device)
        cores = threads_for(self.model)
        threads = max(1, min(cores, micro_batches, graphs))
        for _, result in in_threads(function, range(micro_batches), threads, cores // threads):
            yield result

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Concatenate the embeddings of this process, [texts, dimensions]; a process of a team may have none."""
        if parts:
            return torch.cat(parts)
        width = self.similarity.whole if self.config.matryoshka else self.similarity.served
        return torch.zeros(0, width, device=self.device)


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
        table: The rows, as in `Job.table`.
        config: Settings of the training.
        seed: Seed of LoRA's start values.
        team: The processes that train together; each opens the same session.
        trust_remote_code: Run code that the model brings with it.
        remember: Store the embeddings of all texts before training, if a setting needs them.
        anchor: The model that embeds the texts of new rows before training; None: `start`. Texts of replayed rows are
            embedded by `start`, which has learned them, unless `config.anchor` is "current".
        progress: Counts the texts that are tokenised, then those that are embedded.

    Raises:
        ModelError: The model cannot be loaded or trained, or compares embeddings by a distance.
        ConfigError: The embeddings are too short for `config.matryoshka`, or `config.max_negatives` is 0 and rows
            have no other negatives than the given ones.
    """
    # The model's own attention, usually SDPA, is kept: without dropout it trains as fast as eager attention on a CPU
    # (within 5 % on all-MiniLM-L6-v2) and stores no matrix of scores.
    model = load_encoder(start, trust_remote_code=trust_remote_code, device=str(team.device))
    similarity = similarity_of(model, config, folder=start)
    _check_dimensions(similarity.whole, config, start)
    parameters = attach(model, config.lora_rank, config.lora_alpha, seed)
    precision = resolve_precision(config.precision, team.device)
    rows = read_rows(table, model, config.max_length, config.max_negatives, progress)
    _check_negatives(table, rows, config)
    fused = FusedLora(inner_transformer(model), torch.bfloat16 if precision == "bf16" else torch.float32)
    if precision == "bf16" and team.device.type == "cpu":
        attend_in_fp32(inner_transformer(model))
    session = Session(model, parameters, rows, config, team, precision, fused, similarity)
    if not (remember and session.needs_earlier_embeddings):
        return session
    # LoRA's B is still zero, so the model gives the embeddings of `start`.
    if anchor is None or anchor == start:
        return replace(session, before=session.encode_all(progress=progress))
    anchor_model = load_encoder(anchor, trust_remote_code=trust_remote_code, device=str(team.device))
    anchor_session = replace(session, model=anchor_model.requires_grad_(False))
    by_start = rows.replayed & (config.anchor == "base")
    parts = [(session, np.flatnonzero(by_start)), (anchor_session, np.flatnonzero(~by_start))]
    parts = [(encoder, texts) for encoder, texts in parts if len(texts)]
    embeddings = torch.cat([encoder.encode_all(texts, progress) for encoder, texts in parts])
    back = np.argsort(np.concatenate([texts for _, texts in parts]))
    embedder = by_start.astype(np.int64) if len(parts) > 1 else None
    return replace(session, before=embeddings[torch.from_numpy(back)], embedder=embedder)


def _check_dimensions(dimensions: int, config: TrainConfig, start: Path) -> None:
    if too_long := [size for size in config.matryoshka if size >= dimensions]:
        raise ConfigError(
            f"train.matryoshka lists {', '.join(map(str, too_long))} leading dimensions, but the embeddings of {start} "
            f"have {dimensions}. List only smaller numbers; the whole embedding is always trained."
        )


def _check_negatives(table: pa.Table, rows: TrainingRows, config: TrainConfig) -> None:
    if not config.max_negatives and not rows.in_batch.all():
        names = sorted(set(table.filter(pa.array(~rows.in_batch))["domain"].to_pylist()))
        raise ConfigError(
            f"train.max_negatives is 0, but rows of {', '.join(names)} use only their own negatives (kind "
            "classification or clustering), so they would have none. Set train.max_negatives to 1 or more."
        )


def _split(embeddings: Tensor, back: Indices, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    # The gradient of index_select is summed in a fixed order on the CPU, unlike that of indexing with brackets.
    gathered = embeddings.index_select(0, torch.from_numpy(back).to(embeddings.device))
    return gathered[:rows], gathered[rows : 2 * rows], gathered[2 * rows :]
