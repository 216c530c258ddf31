"""Batches and micro-batches: every row and every text once, within the limits, the same every time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from continual.train.batching import epoch_batches, micro_batches

domains_of_rows = st.lists(st.integers(0, 3), max_size=60).map(lambda values: np.array(values, np.int64))


@given(domains=domains_of_rows, size=st.integers(2, 9), epoch=st.integers(0, 3), mix=st.booleans())
def test_an_epoch_holds_every_row_once(domains: np.ndarray, size: int, epoch: int, mix: bool) -> None:
    batches = epoch_batches(domains, size, seed=5, epoch=epoch, mix=mix)
    rows = np.concatenate([*batches, np.zeros(0, np.int64)])
    assert len(np.unique(rows)) == len(rows)
    assert len(rows) == (len(domains) if len(domains) > 1 else 0)
    assert all(2 <= len(batch) <= size + 2 for batch in batches)
    if not mix:
        alone = {
            int(domain) for domain, count in zip(*np.unique(domains, return_counts=True), strict=True) if count == 1
        }
        for batch in batches:
            assert len(set(domains[batch].tolist()) - alone) <= 1, "only a row alone in its domain is with others"


def test_batches_follow_from_seed_and_epoch() -> None:
    domains = np.repeat([0, 1], 20)

    def plan(seed: int, epoch: int) -> list[list[int]]:
        return [batch.tolist() for batch in epoch_batches(domains, 4, seed=seed, epoch=epoch)]

    assert plan(1, 0) == plan(1, 0)
    assert plan(1, 0) != plan(2, 0)
    assert plan(1, 0) != plan(1, 1)


def test_batches_of_the_domains_alternate_and_mixing_mixes() -> None:
    domains = np.repeat([0, 1], 100)
    order = [int(domains[batch[0]]) for batch in epoch_batches(domains, 4, seed=0, epoch=0)]
    assert order != sorted(order)
    mixed = epoch_batches(domains, 20, seed=0, epoch=0, mix=True)
    assert all(len(np.unique(domains[batch])) == 2 for batch in mixed)


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=60).map(lambda values: np.array(values, np.int64)),
    limit=st.integers(1, 200),
    groups=st.integers(1, 3),
)
def test_micro_batches_hold_every_text_once(lengths: np.ndarray, limit: int, groups: int) -> None:
    codes = np.arange(len(lengths)) % groups
    micros = micro_batches(lengths, limit, codes)
    assert sorted(np.concatenate(micros).tolist()) == list(range(len(lengths)))
    for micro in micros:
        assert len(micro) == 1 or lengths[micro].max() * len(micro) <= limit
        assert len(np.unique(codes[micro])) == 1


def test_little_padding_is_computed() -> None:
    lengths = np.concatenate([np.full(64, 12), np.random.default_rng(0).integers(60, 129, 64)])
    micros = micro_batches(lengths, 2048)
    padded = sum(int(lengths[micro].max()) * len(micro) for micro in micros)
    assert padded < 1.1 * lengths.sum()
    assert len(micros) <= 8
