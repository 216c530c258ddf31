"""Pairs for other trainers: the samples are the texts, the encoder is the model, the loss is InfoNCE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from continual.models.encoder import load_encoder
from continual.train.pairs import PairDataset, PairEncoder, PairLoss
from tests.rows import SCHEMA, make_pairs


def table_of(rows: list[dict[str, Any]], domain: str = "a") -> pa.Table:
    return pa.Table.from_pylist([row | {"domain": domain} for row in rows], SCHEMA)


@pytest.mark.parametrize("side", ["right", "left"])
def test_samples_are_encoded_as_the_model_encodes_the_texts(tiny_model: Path, side: str) -> None:
    model = load_encoder(tiny_model, device="cpu")
    model.tokenizer.padding_side = side
    rows = make_pairs(7)
    rows[3]["positive"] = "bat " * 60  # longer than the limit
    pairs = PairDataset(table_of(rows), model, 20)
    assert model.max_seq_length == 48
    assert pairs.width == 20
    tokens, targets = next(iter(DataLoader(pairs, batch_size=7)))
    assert tokens.shape == (7, 2, 3, 20)
    assert targets.tolist() == pairs.targets
    found = PairEncoder(model)(tokens).detach().numpy()
    model.max_seq_length = 20
    queries = model.encode_query([str(row["query"]) for row in rows])
    documents = model.encode_document([str(row["positive"]) for row in rows])
    np.testing.assert_allclose(found, np.stack([queries, documents], axis=1), atol=1e-5)


def test_pairs_of_one_document_are_of_one_class(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    rows = [
        {"query": "bat", "positive": "lal", "negatives": [], "doc_id": doc_id} for doc_id in ("x", "y", "x", None, None)
    ]
    rows[2]["positive"] = "another part of x"
    rows[4]["positive"] = " lal "
    documents: dict[tuple[str, str], int] = {}
    assert PairDataset(table_of(rows), model, 20, documents).targets == [0, 1, 0, 2, 2]
    # Another domain may use the same ids for other documents; the same text without an id is the same anywhere.
    assert PairDataset(table_of(rows, "b"), model, 20, documents).targets == [3, 4, 3, 2, 2]


def test_the_loss_is_info_nce_without_pairs_of_one_document() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 2, 8))
    targets = [0, 1, 0, 2, 3]
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    expected = []
    for row in range(5):
        scores = [
            unit[row, 0] @ unit[other, 1] / 0.1 for other in range(5) if other == row or targets[other] != targets[row]
        ]
        expected.append(np.log(np.sum(np.exp(scores))) - unit[row, 0] @ unit[row, 1] / 0.1)
    found = PairLoss(0.1)(torch.tensor(vectors, dtype=torch.float32), torch.tensor(targets))
    assert found.item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_training_through_the_encoder_changes_the_model_itself(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    encoder, loss = PairEncoder(model), PairLoss()
    batch = next(iter(DataLoader(PairDataset(table_of(make_pairs(16)), model, 32), batch_size=16)))
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        losses.append(loss(encoder(batch[0]), batch[1]))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    moved = np.abs(model.encode(["bat lal"]) - load_encoder(tiny_model, device="cpu").encode(["bat lal"])).max()
    assert moved > 1e-3
