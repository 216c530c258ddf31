"""The contrastive loss against sentence-transformers and numpy, and its masks against hand-made truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from continual.config import TrainConfig
from continual.train.losses import (
    contrastive,
    cosent,
    divergence,
    false_negatives,
    graded,
    guided,
    info_nce,
    only_given,
)
from continual.train.similarity import Similarity

COMPARED = Similarity(temperature=0.1)


class Given(nn.Module):
    """A model that gives the embeddings it is fed, of five dimensions."""

    def get_embedding_dimension(self) -> int:
        return 5

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


@pytest.mark.parametrize("negatives", [0, 1])
@pytest.mark.parametrize("settings", [{"bidirectional": True}, {"matryoshka": [2, 4]}, {"matryoshka": [3]}])
def test_variants_equal_sentence_transformers(negatives: int, settings: dict[str, Any]) -> None:
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

    columns = [embeddings(8, 5, seed=seed).requires_grad_() for seed in range(2 + negatives)]
    config = TrainConfig(temperature=0.1, **settings)
    peer = MultipleNegativesRankingLoss(Given(), scale=10)
    if config.bidirectional:
        ways = ("query_to_doc", "doc_to_query")
        peer = MultipleNegativesRankingLoss(Given(), scale=10, directions=ways, partition_mode="per_direction")
    if config.matryoshka:  # weights of 1 each, by default: a sum
        sizes = [5, *config.matryoshka]
        peer = MatryoshkaLoss(peer.model, peer, sizes, [1 / len(sizes)] * len(sizes))
    expected = peer([{"sentence_embedding": column} for column in columns], None)
    given = torch.cat(columns[2:]) if negatives else None
    ours = contrastive(columns[0], columns[1], given, None, torch.ones(8, dtype=torch.bool), config, COMPARED)
    plain = info_nce(columns[0], columns[1], given, None, 0.1)
    assert ours.item() == pytest.approx(expected.item(), abs=1e-5)
    assert abs(ours.item() - plain.item()) > 1e-2
    for mine, theirs in zip(torch.autograd.grad(ours, columns), torch.autograd.grad(expected, columns), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


SCORES = [0.1, 0.9, 0.5, 0.5, 0.0, 1.0, 0.7, 0.3]


@pytest.mark.parametrize("temperature", [0.05, 0.02])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_graded_loss_equals_sentence_transformers(temperature: float, similarity: Any) -> None:
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss
    from sentence_transformers.util import pairwise_cos_sim, pairwise_dot_score

    columns = [embeddings(8, 5, seed=seed).requires_grad_() for seed in range(2)]
    scores = torch.tensor(SCORES)
    compare = pairwise_cos_sim if similarity == "cosine" else pairwise_dot_score
    peer = CoSENTLoss(Given(), scale=1 / temperature, similarity_fct=compare)
    expected = peer([{"sentence_embedding": column} for column in columns], scores)
    ours = cosent(*columns, scores, temperature, similarity)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, theirs in zip(torch.autograd.grad(ours, columns), torch.autograd.grad(expected, columns), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    stretched = cosent(*columns, 5 * scores - 2, temperature, similarity)
    assert stretched.item() == ours.item()  # only their order counts


def test_graded_loss_with_matryoshka_equals_sentence_transformers() -> None:
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss, MatryoshkaLoss

    columns = [embeddings(8, 5, seed=seed).requires_grad_() for seed in range(2)]
    scores = torch.tensor(SCORES)
    peer = CoSENTLoss(Given(), scale=10)
    peer = MatryoshkaLoss(peer.model, peer, [5, 2], [0.5, 0.5])
    expected = peer([{"sentence_embedding": column} for column in columns], scores)
    ours = graded(*columns, scores, TrainConfig(temperature=0.1, matryoshka=[2]), COMPARED)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-6)
    for mine, theirs in zip(torch.autograd.grad(ours, columns), torch.autograd.grad(expected, columns), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_pairs_of_one_score_have_no_graded_loss() -> None:
    columns = [embeddings(3, 4, seed=seed).requires_grad_() for seed in range(2)]
    loss = cosent(*columns, torch.full((3,), 0.5), 0.05)
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in torch.autograd.grad(loss, columns))


def test_the_way_back_has_the_mask_transposed_and_only_rows_with_in_batch_negatives_go_it() -> None:
    queries, positives, negatives = embeddings(3, 4), embeddings(3, 4, seed=1), embeddings(2, 4, seed=2)
    in_batch, owner = torch.tensor([True, True, False]), torch.tensor([0, 2])
    mask = only_given(in_batch, owner)
    mask[0, 1] = True  # so the query of row 0 is none of the others' that the document of row 1 is told from
    q, p, n = (each.double().numpy() for each in (queries, positives, negatives))
    q, p, n = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (q, p, n))
    there, back = q @ np.concatenate([p, n]).T / 0.2, p @ q.T / 0.2
    losses = []
    for row, found, asked in ((0, [0, 2, 3, 4], [0, 1]), (1, [0, 1, 2, 3, 4], [1]), (2, [2, 4], None)):
        loss = np.log(np.exp(there[row, found]).sum()) - there[row, row]
        if asked is not None:
            loss = (loss + np.log(np.exp(back[row, asked]).sum()) - back[row, row]) / 2
        losses.append(loss)
    config = TrainConfig(temperature=0.2, bidirectional=True)
    ours = contrastive(queries, positives, negatives, mask, in_batch, config, Similarity(temperature=0.2))
    assert float(ours) == pytest.approx(np.mean(losses), abs=1e-5)


def test_a_row_with_only_given_negatives_is_told_from_no_others() -> None:
    mask = only_given(torch.tensor([False, True, False]), torch.tensor([0, 0, 1, 2]))
    assert mask.int().tolist() == [
        [0, 1, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 1, 1, 1, 0],
    ]


@pytest.mark.parametrize("negatives", [0, 3])
def test_divergence_is_torch_s_kl_of_the_softmax(negatives: int) -> None:
    now = [
        embeddings(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(((4, 5), (4, 5), (negatives, 5)))
    ]
    then = [embeddings(*each.shape, seed=9 + place) for place, each in enumerate(now)]
    mask = torch.rand(4, 4 + negatives, generator=torch.Generator().manual_seed(3)) < 0.4
    rows = torch.tensor([True, False, True, True])
    ours = divergence(tuple(now), tuple(then), rows, mask, 0.3)
    expected = torch.zeros(())
    for row in (0, 2, 3):
        kept = [j for j in range(4 + negatives) if j == row or not mask[row, j]]
        scores = [
            torch.stack([nn.functional.cosine_similarity(q[row], d, dim=0) for d in torch.cat([p, n])[kept]]) / 0.3
            for q, p, n in (now, then)
        ]
        expected = expected + nn.functional.kl_div(scores[0].log_softmax(0), scores[1].softmax(0), reduction="sum")
    assert 0.1 < ours.item() == pytest.approx(expected.item() / 4, abs=1e-5)
    used = [each for each in now if len(each)]
    gradients = (torch.autograd.grad(loss, used) for loss in (ours, expected / 4))
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.isfinite(mine).all()
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    assert divergence(tuple(then), tuple(then), rows, mask, 0.3).item() == pytest.approx(0, abs=1e-6)


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
