"""Search and choice of negatives, against numpy and `sentence_transformers.util.mine_hard_negatives`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config import Config, MineConfig
from continual.errors import ConfigError
from continual.pairs.choose import choose
from continual.pairs.search import nearest


def vectors(rows: int, seed: int, width: int = 8) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("k", [1, 5, 300])
def test_nearest_is_a_sort_of_all_scores(block: int, k: int) -> None:
    queries, passages = vectors(30, 1), vectors(200, 2)
    scores, indices = nearest(queries, (passages[i : i + block] for i in range(0, 200, block)), k)
    every = queries @ passages.T
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    found = min(k, 200)
    np.testing.assert_allclose(scores[:, :found], np.take_along_axis(every, order, 1), atol=1e-6)
    np.testing.assert_array_equal(indices[:, :found], order)
    assert (indices[:, found:] == -1).all()
    assert (scores[:, found:] == -np.inf).all()


@given(seed=st.integers(0, 1000), block=st.integers(1, 40), k=st.integers(1, 40))
def test_equal_scores_come_in_the_order_of_the_passages(seed: int, block: int, k: int) -> None:
    generator = np.random.default_rng(seed)
    queries = generator.integers(0, 2, (4, 3)).astype(np.float32)
    passages = generator.integers(0, 2, (30, 3)).astype(np.float32)  # many ties, and exact products
    scores, indices = nearest(queries, (passages[i : i + block] for i in range(0, 30, block)), k)
    every = queries @ passages.T
    order = np.argsort(-every, axis=1, kind="stable")[:, : min(k, 30)]
    np.testing.assert_array_equal(indices[:, : order.shape[1]], order)
    np.testing.assert_array_equal(scores[:, : order.shape[1]], np.take_along_axis(every, order, 1))


def chosen(scores: list[float], excluded: list[int] = [], positive: float = 1.0, **settings: object) -> list[int]:  # noqa: B006
    config = Config().replace("mine", **{"negatives": 2, **settings}).mine
    flags = np.zeros((1, len(scores)), bool)
    flags[0, excluded] = True
    found = choose(
        np.array([scores], np.float32),
        np.arange(len(scores))[None],
        flags,
        np.array([positive], np.float32),
        config,
        config.negatives,
    )
    assert [scores[i] for i in found.indices[0] if i >= 0] == pytest.approx(
        [score for score in found.scores[0] if score > -np.inf]
    )
    return [int(i) for i in found.indices[0] if i >= 0]


def test_a_negative_scores_at_most_95_percent_of_the_positive() -> None:
    assert chosen([1.2, 1.0, 0.951, 0.95, 0.3]) == [3, 4]
    assert chosen([1.2, 1.0, 0.951, 0.95, 0.3], relative_margin="off") == [0, 1]
    assert chosen([-0.9, -1.0, -1.06, -1.2], positive=-1.0) == [2, 3]  # lower, for negative scores too
    assert chosen([0.9, 0.8], absolute_margin=0.15, relative_margin="off") == [1]
    assert chosen([0.9, 0.8, 0.5, 0.1], max_score=0.6, min_score=0.2, relative_margin="off") == [2]


def test_what_is_skipped_counts_only_what_passes() -> None:
    scores = [0.9, 0.8, 0.7, 0.6, 0.5]
    assert chosen(scores, [0]) == [1, 2]
    assert chosen(scores, [0], range_min=1) == [2, 3]
    assert chosen(scores, [0], range_min=1, range_max=3) == [2, 3]
    assert chosen(scores, [0, 1, 2, 3, 4]) == []


def test_passages_too_near_to_the_positive_are_counted() -> None:
    found = choose(
        np.array([[1.2, 1.0, 0.5]], np.float32),
        np.array([[4, 5, 6]]),
        np.array([[False, True, False]]),
        np.array([1.0], np.float32),
        MineConfig(),
        7,
    )
    assert found.near.tolist() == [1]
    assert found.indices.tolist() == [[6, *[-1] * 6]]


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="range_max = 8 has no room for 7 negatives after range_min = 2"):
        Config().replace("mine", range_min=2, range_max=8)
