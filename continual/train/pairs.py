"""Pairs as plain samples and targets, with a model and a loss that take them: what other trainers know.

A framework for classification, such as Avalanche, moves tensors of one shape, calls `model(x)` and
`criterion(output, y)`, and knows nothing of texts. Here a sample is the tokens of a query and its positive, and its
target is the code of the document: pairs of one document are of one class, and never each other's negatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from continual.models.encoder import embed, encoding_prompts
from continual.registry.text import normalise
from continual.train.losses import info_nce
from continual.train.rows import constant_features, read_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ROLES = ("query", "document")
_MASK = "attention_mask"
_PER_TOKEN = ("input_ids", _MASK, "token_type_ids")
_CPU = torch.device("cpu")

Documents = dict[tuple[str, str], int]
"""Code of each document by its domain and id, or by "" and its normalised text where it has no id."""


class PairDataset(Dataset[tuple[Tensor, int]]):
    """The rows of a table as (tokens of query and positive, code of the document).

    A sample's tokens are int64, of shape [2, features, width]: query and positive; the model's per-token inputs, see
    `PairEncoder`; padded to one width for all samples, so that any loader can stack them. They are padded when they
    are asked for: what is kept is four bytes a token and feature. Given negatives are left out.

    Args:
        table: Columns query, positive: string; negatives: list of string; doc_id: string or null; domain: string.
            An instruction in it is left out: every query has the model's own prompt.
        model: Its tokenizer and prompts are used; left as it is.
        max_length: Tokens per text, at most; the model's own limit holds too.
        documents: The codes given out so far; grows. Data sets whose samples meet in a batch must share it.

    Attributes:
        targets: Code of each row's document, [rows].
        width: Tokens of a padded text.
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
            (domain, name) if name is not None else ("", normalise(text))
            for domain, name, text in zip(*columns, strict=True)
        ]
        self.targets = [codes.setdefault(key, len(codes)) for key in keys]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        """Return tokens [2, features, width] and the code of the document."""
        texts = np.array([self._rows.query[row], self._rows.positive[row]])
        features = self._rows.tokens.features(texts, _CPU, self.width)
        return torch.stack([features[name] for name in self._names], dim=1), self.targets[row]


class PairEncoder(nn.Module):
    """A sentence-transformers model that encodes the samples of a `PairDataset`.

    Args:
        model: Trained in place; queries and positives are encoded with its own prompts and modules.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self._names = _token_features(model)
        self._constants = [
            constant_features(model, model.preprocess(["a"], prompt=prompt, task=role))
            for role, prompt in zip(ROLES, encoding_prompts(model), strict=True)
        ]

    def forward(self, pairs: Tensor) -> Tensor:
        """Return the embeddings of queries and positives.

        Args:
            pairs: Of shape [b, 2, features, width].

        Returns:
            Of shape [b, 2, dimensions], in fp32.
        """
        return torch.stack([self._encode(pairs[:, side], side) for side in range(len(ROLES))], dim=1)

    def _encode(self, tokens: Tensor, side: int) -> Tensor:
        used = tokens[:, self._names.index(_MASK)].bool().any(dim=0)  # [width]: no column of padding alone
        features: dict[str, Any] = dict(self._constants[side])
        for place, name in enumerate(self._names):
            features[name] = tokens[:, place, used]
        encoded: Tensor = embed(self.model, features)
        return encoded.float()


class PairLoss(nn.Module):
    """InfoNCE with in-batch negatives for the output of a `PairEncoder`.

    Pairs with the same target are not each other's negatives.

    Args:
        temperature: Divisor of the cosine similarities, above 0.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            embeddings: Of queries and positives, [b, 2, dimensions].
            targets: Code of each pair's document, [b].
        """
        same = targets[:, None] == targets[None, :]
        return info_nce(embeddings[:, 0], embeddings[:, 1], None, same, self.temperature)


def _token_features(model: SentenceTransformer) -> list[str]:
    """Return the names of the tensors that the model's first module takes, one number a token in each."""
    known = model.preprocess(["a"])
    return [name for name in _PER_TOKEN if name in known]
