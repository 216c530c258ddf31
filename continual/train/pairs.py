"""Pairs as samples and targets, with a model and a loss for them, for training in other frameworks.

Frameworks for classification, such as Avalanche, move tensors of one shape and call `model(x)` and
`criterion(output, y)`. Here a sample is the tokens of a query and its positive, and the target is the code of the
document. Pairs with the same document are of one class and never each other's negatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from continual.models.encoder import embed, encoding_prompts
from continual.models.tokens import constant_features
from continual.registry.text import normalise
from continual.train.losses import info_nce
from continual.train.rows import read_rows
from continual.train.similarity import SimilarityName, similarity_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROLES = ("query", "document")
_MASK = "attention_mask"
_PER_TOKEN = ("input_ids", _MASK, "token_type_ids")
_CPU = torch.device("cpu")

Documents = dict[tuple[str, str], int]
"""Code of each document by its domain and id, or by "" and its normalised text if it has no id."""


class PairDataset(Dataset[tuple[Tensor, int]]):
    """The rows of a table as (tokens of query and positive, code of the document).

    The tokens of a sample are int64, [2, features, width]. The first dimension is query and positive, the second the
    model's per-token inputs; all samples are padded to one width, so that they can be stacked. Tokens are stored
    without padding, in four bytes per token and feature. Given negatives are not used.

    Args:
        table: Columns query, positive: string; negatives: list of string; doc_id: string or null; domain: string.
            An instruction column is ignored: every query gets the model's own prompt.
        model: The model whose tokenizer and prompts are used; not changed.
        max_length: Maximum tokens per text; the model's own limit also applies.
        documents: The codes assigned so far; new documents are added. Data sets whose samples share batches must share
            it.

    Attributes:
        targets: Code of each row's document, [rows].
        width: Number of tokens of a padded text.
    """

    def __init__(
        self, table: pa.Table, model: SentenceTransformer, max_length: int, documents: Documents | None = None
    ) -> None:
        own = model.max_seq_length
        table = table.select([name for name in table.column_names if name != "instruction"])
        try:
            self._rows = read_rows(table, model, max_length, 0)
        finally:
            model.max_seq_length = own
        self.width = min(max_length, own) if own else max_length
        self._names = _token_features(model)
        codes = documents if documents is not None else {}
        columns = (table[name].to_pylist() for name in ("domain", "doc_id", "positive"))
        keys = [
            (domain, identifier) if identifier is not None else ("", normalise(text))
            for domain, identifier, text in zip(*columns, strict=True)
        ]
        self.targets = [codes.setdefault(key, len(codes)) for key in keys]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        """Return the tokens of a row, [2, features, width], and the code of its document."""
        texts = np.array([self._rows.query[row], self._rows.positive[row]])
        features = self._rows.tokens.features(texts, _CPU, self.width)
        return torch.stack([features[name] for name in self._names], dim=1), self.targets[row]


class PairEncoder(nn.Module):
    """A sentence-transformers model that encodes the samples of a `PairDataset`.

    Args:
        model: The model, which is trained in place. Queries and positives are encoded with its own prompts and modules.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self._names = _token_features(model)
        self._similarity = similarity_of(model)
        self._constants = [
            constant_features(model, model.preprocess(["a"], prompt=prompt, task=role))
            for role, prompt in zip(ROLES, encoding_prompts(model), strict=True)
        ]

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the embeddings of queries and positives, [b, 2, dimensions] in fp32.

        Args:
            pairs: Tokens of a batch of samples, [b, 2, features, width].
        """
        return torch.stack([self._encode(pairs[:, side], side) for side in range(len(ROLES))], dim=1)

    def _encode(self, tokens: Tensor, side: int) -> Tensor:
        used = tokens[:, self._names.index(_MASK)].bool().any(dim=0)  # [width]: columns that are not only padding
        features: dict[str, Any] = dict(self._constants[side])
        for place, name in enumerate(self._names):
            features[name] = tokens[:, place, used]
        encoded: Tensor = embed(self.model, features)
        return self._similarity.cut(encoded).float()


class PairLoss(nn.Module):
    """InfoNCE with in-batch negatives for the output of a `PairEncoder`.

    Pairs with the same target are not each other's negatives.

    Args:
        temperature: Divisor of the similarities, above 0.
        similarity: "cosine" or "dot", the model's `similarity_fn_name`. For dot products of embeddings that are not
            normalised, the temperature is usually 1.
    """

    def __init__(self, temperature: float = 0.05, similarity: SimilarityName = "cosine") -> None:
        super().__init__()
        self.temperature, self.similarity = temperature, similarity

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            embeddings: Of queries and positives, [b, 2, dimensions].
            targets: Code of each pair's document, [b].
        """
        same = targets[:, None] == targets[None, :]
        queries, documents = embeddings[:, 0], embeddings[:, 1]
        return info_nce(queries, documents, None, same, self.temperature, similarity=self.similarity)


def _token_features(model: SentenceTransformer) -> list[str]:
    """Return the names of the model's input tensors that have one number per token."""
    features = model.preprocess(["a"])
    return [name for name in _PER_TOKEN if name in features]
