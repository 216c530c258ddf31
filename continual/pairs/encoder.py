"""Embed queries and passages with a version, as it embeds them in service but cut at the length of the training."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from continual.config import Config
from continual.errors import ModelError
from continual.models.encode import TOKENS, encode
from continual.models.encoder import encoding_prompts, load_encoder
from continual.models.tokens import Tokens
from continual.pairs.search import Vectors
from continual.progress import Progress
from continual.registry.records import INSTRUCTED
from continual.train.similarity import similarity_of


class PairEncoder:
    """Embeds queries and passages, normalised if the model compares by cosine.

    Attributes:
        seconds: Time spent on it.
    """

    def __init__(self, model: Path, config: Config, instruction: str | None, progress: Progress) -> None:
        self._folder = model
        self._model = load_encoder(model, trust_remote_code=config.trust_remote_code)
        limit = config.train.max_length
        self._model.max_seq_length = min(limit, self._model.max_seq_length or limit)
        self._unit = similarity_of(self._model, config.train, folder=model).name == "cosine"
        self._query, self._document = encoding_prompts(self._model)
        if instruction is not None:
            self._query = INSTRUCTED.format(instruction)
        self._max_tokens = config.eval.batch_size * TOKENS
        self._precision = config.eval.precision
        self._progress = progress
        self.seconds = 0.0

    def queries(self, texts: list[str]) -> Vectors:
        """Return the embeddings of queries, [queries, dimensions]."""
        return self._embed(texts, self._query, "query")

    def passages(self, texts: list[str]) -> Vectors:
        """Return the embeddings of passages, [passages, dimensions]."""
        return self._embed(texts, self._document, "document")

    def _embed(self, texts: list[str], prompt: str | None, task: str) -> Vectors:
        began = time.monotonic()
        tokens = Tokens(self._model)
        tokens.add(texts, prompt, task)
        options: dict[str, Any] = {"max_tokens": self._max_tokens, "precision": self._precision}
        vectors = encode(self._model, tokens, task=task, progress=self._progress, **options)
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"{self._folder} gives embeddings that are not finite, so it can't rank passages. Name another version "
                "with --version, or go back to an earlier one with `continual rollback`."
            )
        if self._unit:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        self.seconds += time.monotonic() - began
        return vectors

    def write(self, file: Path, count: int, pieces: Iterable[list[str]]) -> Vectors:
        """Embed passages into a file, and return it as an array that is read as needed, [passages, dimensions].

        Args:
            file: The file to make: the rows one after another.
            count: Number of passages.
            pieces: The passages, some at a time.
        """
        width = 0
        with file.open("wb") as opened:  # a file with holes would end the process with a signal on a full disk
            for texts in pieces:
                part = self.passages(texts)
                width = part.shape[1]
                opened.write(np.ascontiguousarray(part).tobytes())
        return np.memmap(file, np.float32, "r", shape=(count, width))
