"""What the linear layers of a model see: the Gram matrices of their inputs over many texts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from continual.models.encode import CPU_TOKENS
from continual.models.encoder import encoding_prompts
from continual.models.threads import in_threads, threads_for
from continual.models.tokens import Indices, Tokens, micro_batches
from continual.progress import SILENT, Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

MEMORY = 2 * 1024**3
"""Bytes of Gram matrices that one pass over the texts computes. More layers than fit take more passes."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts that a model is good at.

    Attributes:
        queries: Texts that it encodes as queries.
        documents: Texts that it encodes as documents.
        prompted: Texts that already have their prompt.
    """

    queries: Sequence[str] = ()
    documents: Sequence[str] = ()
    prompted: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.queries) + len(self.documents) + len(self.prompted)

    def tokens(self, model: SentenceTransformer) -> Tokens:
        """Return the texts as the model encodes queries and documents, each with its prompt."""
        tokens = Tokens(model)
        query_prompt, document_prompt = encoding_prompts(model)
        if self.queries:
            tokens.add(list(self.queries), query_prompt, "query")
        if self.documents:
            tokens.add(list(self.documents), document_prompt, "document")
        if self.prompted:
            tokens.add(list(self.prompted), None, "query")
        return tokens


def linear_layers(model: SentenceTransformer) -> dict[str, nn.Linear]:
    """Return the linear layers of a model by their names in `model.named_modules()`."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def input_grams(
    model: SentenceTransformer,
    tokens: Tokens,
    layers: Collection[str] | None = None,
    *,
    max_tokens: int = 16_384,
    memory: int = MEMORY,
    progress: Progress = SILENT,
) -> Iterator[tuple[str, Tensor]]:
    """Yield each linear layer's G = X' X, where the rows of X are the layer's inputs at all tokens of all texts.

    Padding is left out. A text has one embedding in front of the layers after pooling, and counts there as one row.
    Products are in fp32, sums over batches in float64. The number of cores does not change the result.

    Args:
        model: A model in evaluation mode.
        tokens: At least one text.
        layers: Names of `nn.Linear` modules as in `model.named_modules()`; None: all.
        max_tokens: Most padded tokens per batch; on a CPU at most `CPU_TOKENS`.
        memory: Bytes of matrices to hold at a time, those of one layer at least.
        progress: Advanced by the number of texts, in every pass; not started or finished here.

    Yields:
        The layer's name, and G [inputs, inputs] in float64 on the CPU; zeros if no text reaches the layer. The layers
        come in the order of `model.named_modules()`.
    """
    modules = {name: module for name, module in linear_layers(model).items() if layers is None or name in layers}
    for part in _parts(modules, memory):
        yield from _one_pass(model, tokens, part, max_tokens, progress).items()


def passes(model: SentenceTransformer, layers: Collection[str], memory: int = MEMORY) -> int:
    """Return how often `input_grams` encodes the texts."""
    return sum(1 for _ in _parts({name: linear_layers(model)[name] for name in layers}, memory))


def _parts(modules: dict[str, nn.Linear], memory: int) -> Iterator[dict[str, nn.Linear]]:
    """Divide layers so that the float64 matrices of each part fit in the memory."""
    part: dict[str, nn.Linear] = {}
    held = 0
    for name, module in modules.items():
        size = 8 * module.in_features**2
        if part and held + size > memory:
            yield part
            part, held = {}, 0
        part[name] = module
        held += size
    if part:
        yield part


def _one_pass(
    model: SentenceTransformer, tokens: Tokens, modules: dict[str, nn.Linear], max_tokens: int, progress: Progress
) -> dict[str, Tensor]:
    device = model.device
    if device.type == "cpu":
        max_tokens = min(max_tokens, CPU_TOKENS)
    batches = micro_batches(tokens.lengths, max_tokens, tokens.groups)
    totals = {
        name: torch.zeros(module.in_features, module.in_features, dtype=torch.float64)
        for name, module in modules.items()
    }
    with _recording(modules) as record:

        def run(batch: Indices) -> dict[str, Tensor]:
            features = tokens.features(batch, device)
            grams: dict[str, Tensor]
            with torch.inference_mode(), record(features["attention_mask"].bool()) as grams:
                model(features)
            return grams

        for batch, grams in in_threads(run, batches, min(threads_for(model), len(batches))):
            for name, gram in grams.items():
                totals[name] += gram.cpu()
            progress.advance(len(batch))
    return totals


@contextmanager
def _recording(modules: dict[str, nn.Linear]) -> Iterator[Callable[[Tensor], Any]]:
    """Yield a function whose context collects the Gram matrices of one batch, in the thread that it is entered in."""
    here = threading.local()

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def before(_: nn.Module, given: tuple[Any, ...]) -> None:
            seen = given[0]
            last, gram = here.last
            if seen is not last:  # query, key and value of an attention have one input
                rows = _rows(seen, here.mask).float()
                gram = rows.T @ rows
                here.last = seen, gram
            here.grams[name] = here.grams[name] + gram if name in here.grams else gram

        return before

    @contextmanager
    def record(mask: Tensor) -> Iterator[dict[str, Tensor]]:
        here.mask, here.grams, here.last = mask, {}, (None, None)
        try:
            yield here.grams
        finally:
            del here.mask, here.grams, here.last

    handles = [module.register_forward_pre_hook(hook(name)) for name, module in modules.items()]
    try:
        yield record
    finally:
        for handle in handles:
            handle.remove()


def _rows(seen: Tensor, mask: Tensor) -> Tensor:
    """Return a layer's input as rows [tokens, inputs], without those of padding if it still has a row per token."""
    if seen.shape[:-1] == mask.shape:
        return seen[mask]
    flat = seen.reshape(-1, seen.shape[-1])
    return flat[mask.flatten()] if len(flat) == mask.numel() else flat
