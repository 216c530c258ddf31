"""Which rows make a batch, and which texts are encoded together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_SIMILAR = 0.75  # texts in one micro-batch have at least this share of its longest one's tokens ...
_ENOUGH = 0.25  # ... unless it is filled less than this: many tiny micro-batches cost more than padding


def epoch_batches(
    domains: Indices,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    mix: bool = False,
    bands: Indices | None = None,
    sizes: Sequence[int] = (),
) -> list[Indices]:
    """Return the batches of one epoch: each of one domain, in an order that mixes the domains.

    Batch-level shuffling as in BOOM (https://arxiv.org/abs/2602.05787). A function of its arguments alone, so
    that a resumed run draws what the killed one would have.

    Args:
        domains: Code of each row's domain, [rows].
        batch_size: Rows in a batch, at least 2; the last one of a domain may be shorter.
        seed: Of the whole run.
        epoch: 0, 1, ...; every epoch has another order, and the same number of batches.
        mix: Draw the batches from all rows together instead.
        bands: Number of each row's band, 0 and up, [rows]: only rows of one band share batches, see `length_bands`.
        sizes: Rows in a batch of each band, instead of `batch_size`; bands beyond have `batch_size`.

    Returns:
        Row indices per batch, at least two in each; every row is in exactly one, if there are two rows. A batch has
        up to `batch_size` rows, and one or two more where rows are left over, for a single row has nothing to be
        told from: it joins the batch before it. Rows that are the only one of their domain share batches. A row that
        is the only one of its domain in a band goes with the next band of the domain.
    """
    by_band = [*sizes, batch_size]
    groups = np.zeros_like(domains) if mix else domains
    bands = np.zeros_like(domains) + len(sizes) if bands is None else _joined(groups, bands)
    batches: list[Indices] = []
    alone: list[Indices] = []
    for domain, band in sorted(set(zip(groups.tolist(), bands.tolist(), strict=True))):
        rows = np.flatnonzero((groups == domain) & (bands == band))
        place = [0 if mix else domain + 1, *([band] if sizes else [])]
        rows = np.random.default_rng([seed, epoch, *place]).permutation(rows)
        (batches if len(rows) > 1 else alone).extend(_cut(rows, by_band[band]))
    if len(alone) > 1:
        rows = np.concatenate(alone)
        batches += _cut(rows, min(by_band[band] for band in bands[rows]))
    elif alone and batches:
        shortest = min(range(len(batches)), key=lambda place: len(batches[place]))
        batches[shortest] = np.concatenate([batches[shortest], *alone])
    order = np.random.default_rng([seed, epoch]).permutation(len(batches))
    return [batches[place] for place in order]


def length_bands(lengths: Indices, limits: Sequence[int]) -> Indices:
    """Return the number of the first band that each length fits in; that of none is the number of bands.

    Args:
        lengths: In tokens, [rows].
        limits: Tokens in each band, at most, in rising order.
    """
    return np.searchsorted(np.asarray(limits, np.int64), lengths, side="left").astype(np.int64)


def _joined(domains: Indices, bands: Indices) -> Indices:
    """Return bands in which no row is alone beside others of its domain: it goes up to the next one, or else down."""
    bands = bands.copy()
    for domain in np.unique(domains):
        own = domains == domain
        used, counts = (found.tolist() for found in np.unique(bands[own], return_counts=True))
        while len(used) > 1 and 1 in counts:
            place = counts.index(1)
            target = place + 1 if place + 1 < len(used) else place - 1
            bands[own & (bands == used[place])] = used[target]
            counts[target] += 1
            del used[place], counts[place]
    return bands


def _cut(rows: Indices, size: int) -> list[Indices]:
    """Cut rows into batches; a last one of a single row joins the one before it."""
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches


def micro_batches(lengths: Indices, max_tokens: int, groups: Indices | None = None) -> list[Indices]:
    """Cut texts into micro-batches of similar length, longest first.

    Args:
        lengths: Tokens of each text, [texts].
        max_tokens: Padded tokens in one micro-batch, at most; a longer text is alone.
        groups: Code per text of what cannot be encoded together, [texts]; None: everything can.

    Returns:
        Indices into `lengths`, every one exactly once.
    """
    if groups is None:
        groups = np.zeros_like(lengths)
    found: list[Indices] = []
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
        found.append(order[start:place])
        start = place
    return found
