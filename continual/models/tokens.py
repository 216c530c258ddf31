"""Token ids of many texts, tokenised as the model's `encode` does, and micro-batches of texts of similar length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from continual.progress import SILENT, Progress

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Indices = NDArray[np.int64]

_CHUNK = 512  # texts per call of the tokenizer
_PER_TOKEN = ("input_ids", "token_type_ids")
_SIMILAR = 0.75  # least length of a text in a micro-batch, as a share of the longest text's ...
_ENOUGH = 0.25  # ... unless less than this share of it is filled: many tiny micro-batches cost more than padding


class Tokens:
    """Token ids of many texts, stored without padding.

    Attributes:
        lengths: Number of tokens of each text, [texts].
        groups: Group code of each text, [texts]. Only texts of one group can be encoded together.
        cut: Whether each text was cut at the model's maximum length, [texts], bool.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.lengths: Indices = np.zeros(0, np.int64)
        self.groups: Indices = np.zeros(0, np.int64)
        self.cut: NDArray[np.bool_] = np.zeros(0, bool)
        self._starts: Indices = np.zeros(1, np.int64)
        self._flat: dict[str, NDArray[np.int32]] = {}
        self._constants: list[dict[str, Any]] = []
        tokenizer = model.tokenizer
        self._left = getattr(tokenizer, "padding_side", "right") == "left"
        self._pads = {
            "input_ids": getattr(tokenizer, "pad_token_id", None) or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", None) or 0,
        }

    def add(self, texts: list[str], prompt: str | None, task: str | None, progress: Progress = SILENT) -> None:
        """Tokenise texts as the model's `encode` does, with prompt and truncation.

        Args:
            texts: At least one text.
            prompt: Text to put before each text.
            task: "query" or "document"; None if it makes no difference.
            progress: Advanced by the number of texts; not started or finished here.
        """
        lengths, cut = [self.lengths], [self.cut]
        flat: dict[str, list[NDArray[np.int32]]] = {name: [kept] for name, kept in self._flat.items()}
        constants: dict[str, Any] = {}
        for start in range(0, len(texts), _CHUNK):
            features = self.model.preprocess(texts[start : start + _CHUNK], prompt=prompt, task=task)
            mask = features["attention_mask"].numpy().astype(bool)  # [texts, tokens]
            lengths.append(mask.sum(axis=1))
            cut.append(_cut(features, lengths[-1], self.model.max_seq_length))
            for name in _PER_TOKEN:
                if name in features:
                    flat.setdefault(name, []).append(features[name].numpy()[mask].astype(np.int32))
            constants = constant_features(self.model, features)
            progress.advance(len(texts[start : start + _CHUNK]))
        if constants not in self._constants:
            self._constants.append(constants)
        group = self._constants.index(constants)
        self.groups = np.concatenate([self.groups, np.full(len(texts), group)])
        self.lengths, self.cut = np.concatenate(lengths), np.concatenate(cut)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = {name: np.concatenate(parts) for name, parts in flat.items()}

    def features(self, texts: Indices, device: torch.device, width: int = 0) -> dict[str, Any]:
        """Return the padded model input for texts of one group.

        Args:
            texts: Indices of at least one text.
            device: The device of the tensors.
            width: Minimum number of tokens to pad to; longer texts make it wider.
        """
        lengths = self.lengths[texts]
        width = max(width, int(lengths.max()))
        columns = np.arange(width)[None, :]
        offsets = (width - lengths if self._left else np.zeros_like(lengths))[:, None]
        mask = (columns >= offsets) & (columns < offsets + lengths[:, None])  # [texts, width]
        places = (self._starts[texts][:, None] + columns - offsets)[mask]
        features: dict[str, Any] = dict(self._constants[self.groups[texts[0]]])
        for name, flat in self._flat.items():
            padded = np.full(mask.shape, self._pads[name], np.int64)
            padded[mask] = flat[places]
            features[name] = torch.from_numpy(padded).to(device, non_blocking=True)
        features["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(device, non_blocking=True)
        return features


def _cut(features: Any, lengths: Indices, limit: int | None) -> NDArray[np.bool_]:
    """Return which texts of a preprocessed input were cut, [texts].

    A slow tokenizer doesn't say so; with it, every text as long as the limit counts as cut.
    """
    if encodings := getattr(features, "encodings", None):
        return np.fromiter((bool(encoding.overflowing) for encoding in encodings), bool, len(encodings))
    return lengths >= limit if limit else np.zeros(len(lengths), bool)


def constant_features(model: SentenceTransformer, features: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a preprocessed input that are not tensors and that a module of the model uses."""
    constants = {name: value for name, value in features.items() if not isinstance(value, torch.Tensor)}
    if not any(getattr(module, "include_prompt", True) is False for module in model):
        constants.pop("prompt_length", None)  # only modules that leave the prompt out use its length
    return constants


def micro_batches(lengths: Indices, max_tokens: int, groups: Indices | None = None) -> list[Indices]:
    """Cut texts into micro-batches of similar length, longest first.

    Args:
        lengths: Number of tokens of each text, [texts].
        max_tokens: Maximum padded tokens of a micro-batch; a longer text gets one of its own.
        groups: Group code of each text, [texts]; only texts of one group share micro-batches. None: one group.

    Returns:
        Indices into `lengths`, each exactly once.
    """
    if groups is None:
        groups = np.zeros_like(lengths)
    batches: list[Indices] = []
    order = np.lexsort((-lengths, groups))
    start = 0
    for place in range(1, len(order) + 1):
        longest = int(lengths[order[start]])
        if place < len(order):
            tokens = (place - start) * longest
            fits = tokens + longest <= max_tokens
            similar = lengths[order[place]] >= _SIMILAR * longest or tokens < _ENOUGH * max_tokens
            if fits and similar and groups[order[place]] == groups[order[start]]:
                continue
        batches.append(order[start:place])
        start = place
    return batches
