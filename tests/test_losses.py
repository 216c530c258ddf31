"""The contrastive loss against sentence-transformers and numpy, and its masks against hand-made truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from continual.train.losses import false_negatives, guided, info_nce


class Given(nn.Module):
    """A model that gives the embeddings it is fed."""

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return features


def embeddings(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("negatives", [0, 1, 2])
@pytest.mark.parametrize("temperature", [0.05, 0.02])
def test_loss_equals_sentence_transformers(negatives: int, temperature: float) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    columns = [embeddings(8, 5, seed=seed).requires_grad_() for seed in range(2 + negatives)]
    peer = MultipleNegativesRankingLoss(Given(), scale=1 / temperature)
    expected = peer([{"sentence_embedding": column} for column in columns], None)
    given = torch.cat(columns[2:]) if negatives else None
    ours = info_nce(columns[0], columns[1], given, None, temperature)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    for mine, theirs in zip(torch.autograd.grad(ours, columns), torch.autograd.grad(expected, columns), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_masked_documents_are_out_of_the_sum() -> None:
    queries, positives, negatives = embeddings(3, 4), embeddings(3, 4, seed=1), embeddings(2, 4, seed=2)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 2] = mask[1, 4] = mask[2, 2] = True  # the last is a diagonal one, which holds nothing back
    total = 0.0
    for i, kept in enumerate(([0, 1, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3, 4])):
        q = queries[i].double().numpy()
        docs = torch.cat([positives, negatives]).double().numpy()
        scores = docs @ q / np.linalg.norm(docs, axis=1) / np.linalg.norm(q) / 0.1
        total += np.log(np.exp(scores[kept]).sum()) - scores[i]
    assert float(info_nce(queries, positives, negatives, mask, 0.1)) == pytest.approx(total / 3, abs=1e-5)


def test_a_row_with_no_negatives_left_costs_nothing() -> None:
    mask = ~torch.eye(2, dtype=torch.bool)
    assert float(info_nce(embeddings(2, 4), embeddings(2, 4, seed=1), None, mask, 0.05)) == pytest.approx(0, abs=1e-6)


def test_half_precision_is_summed_in_fp32() -> None:
    loss = info_nce(embeddings(2, 4).bfloat16(), embeddings(2, 4, seed=1).bfloat16(), None, None, 0.05)
    assert loss.dtype == torch.float32


def test_false_negatives() -> None:
    query = torch.tensor([1, 2, 1, 4])  # rows 0 and 2 ask the same
    positive = torch.tensor([10, 11, 12, 11])  # rows 1 and 3 have the same answer
    negative = torch.tensor([12, 99])  # the first is an answer to rows 0 and 2
    document = torch.tensor([7, 7, -1, -1])  # rows 0 and 1 are of one document, rows 2 and 3 of none
    expected = torch.tensor(
        [
            [0, 1, 1, 0, 1, 0],
            [1, 0, 0, 1, 0, 0],
            [1, 0, 0, 0, 1, 0],
            [0, 1, 0, 0, 0, 0],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(false_negatives(query, positive, negative, document), expected)


def test_a_guide_masks_what_it_finds_nearer_than_the_positive() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    positives = torch.tensor([[0.8, 0.6], [0.6, 0.8]])  # cosines: 0.8, 0.6 / 0.6, 0.8
    negatives = torch.tensor([[3.0, 0.0], [0.7, 0.714143]])  # 1, 0.7 / 0, 0.714
    assert guided(queries, positives, negatives, 0.0).tolist() == [[False, False, True, False], [False] * 4]
    assert guided(queries, positives, negatives, 0.15).tolist() == [
        [False, False, True, True],
        [False, False, False, True],
    ]
    assert guided(queries, positives, None, 0.5).tolist() == [[False, True], [True, False]]
