"""Batches and micro-batches: every row and every text once, within the limits, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continual.config import TrainConfig
from continual.errors import ConfigError
from continual.models.tokens import micro_batches
from continual.train.batching import epoch_batches, length_bands

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


@given(domains=domains_of_rows, seed=st.integers(0, 9), epoch=st.integers(0, 2), mix=st.booleans())
def test_rows_of_one_band_share_batches_of_its_size(domains: np.ndarray, seed: int, epoch: int, mix: bool) -> None:
    bands, sizes = np.random.default_rng(seed).integers(0, 3, len(domains)), [8, 4]
    batches = epoch_batches(domains, 2, seed=seed, epoch=epoch, mix=mix, bands=bands, sizes=sizes)
    again = epoch_batches(domains, 2, seed=seed, epoch=epoch, mix=mix, bands=bands, sizes=sizes)
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    rows = np.concatenate([*batches, np.zeros(0, np.int64)])
    assert len(np.unique(rows)) == len(rows) == (len(domains) if len(domains) > 1 else 0)
    groups = np.zeros_like(domains) if mix else domains
    for batch in batches:
        # What is alone in its band, or even in its domain, is with others; the rest is of one band.
        company = [np.sum((groups == groups[row]) & (bands == bands[row])) for row in batch]
        shared = [row for row, count in zip(batch, company, strict=True) if count > 1]
        assert len({(groups[row], bands[row]) for row in shared}) <= 1
        if shared:
            assert 2 <= len(batch) <= [*sizes, 2][bands[shared[0]]] + 4


def test_bands_are_filled_and_a_row_alone_in_its_band_goes_up() -> None:
    lengths = np.array([3] * 5 + [10, 11, 12] + [40] + [90, 91])
    bands = length_bands(lengths, [10, 20, 50])
    assert bands.tolist() == [0] * 6 + [1] * 2 + [2] + [3] * 2
    batches = epoch_batches(np.zeros(11, np.int64), 2, seed=0, epoch=0, bands=bands, sizes=[6, 4, 3])
    assert sorted(sorted(batch.tolist()) for batch in batches) == [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9, 10]]
    bands = length_bands(lengths[:9], [10, 20, 50])  # the longest goes down, for there is none above
    batches = epoch_batches(np.zeros(9, np.int64), 2, seed=0, epoch=0, bands=bands, sizes=[6, 4, 3])
    assert sorted(sorted(batch.tolist()) for batch in batches) == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]


def test_bands_that_do_not_rise_and_dimensions_given_twice_are_refused() -> None:
    from continual.config import validate

    sizes = [{"tokens": 20, "pairs": 8}, {"tokens": 20, "pairs": 4}]
    with pytest.raises(ConfigError, match=r"train\.batch_sizes: .*must be more than.*train\.matryoshka: "):
        validate({"train": {"batch_sizes": sizes, "matryoshka": [8, 8]}}, "a file")
    with pytest.raises(ConfigError, match=r"pairs: .*greater than or equal to 2"):
        validate({"train": {"batch_sizes": [{"tokens": 20, "pairs": 1}]}}, "a file")
    assert TrainConfig(batch_sizes=[{"tokens": 20, "pairs": 8}]).batch_sizes[0].pairs == 8


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


@given(
    domains=domains_of_rows,
    seed=st.integers(0, 9),
    size=st.integers(2, 9),
    mix=st.booleans(),
    graded_domains=st.sets(st.integers(0, 3)),
)
def test_graded_pairs_share_batches_only_with_each_other(
    domains: np.ndarray, seed: int, size: int, mix: bool, graded_domains: set[int]
) -> None:
    graded = np.isin(domains, list(graded_domains))
    batches = epoch_batches(domains, size, seed=seed, epoch=0, mix=mix, graded=graded)
    assert all(len(set(graded[batch].tolist())) == 1 for batch in batches)
    rows = np.concatenate([*batches, np.zeros(0, np.int64)])
    expected = sum(count for count in (graded.sum(), (~graded).sum()) if count > 1)
    assert len(np.unique(rows)) == len(rows) == expected
    if not graded.any():
        plain = epoch_batches(domains, size, seed=seed, epoch=0, mix=mix)
        assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in plain]
