"""Form batches of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from continual.models.tokens import Indices


def epoch_batches(
    domains: Indices,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    mix: bool = False,
    bands: Indices | None = None,
    sizes: Sequence[int] = (),
    graded: NDArray[np.bool_] | None = None,
) -> list[Indices]:
    """Return the batches of one epoch. Batches have rows of one domain; their order mixes the domains.

    This is batch-level shuffling as in BOOM (https://arxiv.org/abs/2602.05787). The result depends only on the
    arguments, so that a resumed run gets the same batches.

    Args:
        domains: Domain code of each row, [rows].
        batch_size: Rows per batch, at least 2; the last batch of a domain may be smaller.
        seed: Seed of the run.
        epoch: 0, 1, ...; epochs differ in the order, not in the number of batches.
        mix: Form the batches from the rows of all domains together.
        bands: Length band of each row, 0 or more, [rows]; only rows of one band share batches. See `length_bands`.
        sizes: Rows per batch of each band; bands beyond `sizes` use `batch_size`.
        graded: Whether each row is a graded pair, [rows]; None: no row is. Graded pairs have another loss, so they
            share batches only with each other, with `mix` too.

    Returns:
        Row indices of each batch. A batch has at least two rows, and every row is in exactly one batch, provided that
        there are two rows, or two graded pairs and two others. A single row has no in-batch negatives: if one is left
        over, it joins the previous batch, which then has one or two rows more than `batch_size`. Rows that are the only
        one of their domain share batches. A row that is the only one of its domain in a band joins the domain's next
        band.
    """
    by_band = [*sizes, batch_size]
    groups = np.zeros_like(domains) if mix else domains
    bands = np.zeros_like(domains) + len(sizes) if bands is None else bands
    batches: list[Indices] = []
    for kind in (False, True):
        rows = np.flatnonzero((graded if graded is not None else np.zeros(len(domains), bool)) == kind)
        own = _kind_batches(groups[rows], _without_single_rows(groups[rows], bands[rows]), by_band, (seed, epoch), mix)
        batches += [rows[batch] for batch in own]
    order = np.random.default_rng([seed, epoch]).permutation(len(batches))
    return [batches[place] for place in order]


def _kind_batches(
    groups: Indices, bands: Indices, by_band: Sequence[int], seeds: tuple[int, int], mix: bool
) -> list[Indices]:
    """Return the batches of rows that have the same loss, in a fixed order; see `epoch_batches`."""
    batches: list[Indices] = []
    alone: list[Indices] = []
    for domain, band in sorted(set(zip(groups.tolist(), bands.tolist(), strict=True))):
        rows = np.flatnonzero((groups == domain) & (bands == band))
        place = [0 if mix else domain + 1, *([band] if len(by_band) > 1 else [])]
        rows = np.random.default_rng([*seeds, *place]).permutation(rows)
        (batches if len(rows) > 1 else alone).extend(_cut(rows, by_band[band]))
    if len(alone) > 1:
        rows = np.concatenate(alone)
        batches += _cut(rows, min(by_band[band] for band in bands[rows]))
    elif alone and batches:
        shortest = min(range(len(batches)), key=lambda place: len(batches[place]))
        batches[shortest] = np.concatenate([batches[shortest], *alone])
    return batches


def length_bands(lengths: Indices, limits: Sequence[int]) -> Indices:
    """Return the first band that each length fits in, 0 or more, [rows]; longer rows get the number of bands.

    Args:
        lengths: Lengths in tokens, [rows].
        limits: Maximum tokens of each band, in rising order.
    """
    return np.searchsorted(np.asarray(limits, np.int64), lengths, side="left").astype(np.int64)


def _without_single_rows(domains: Indices, bands: Indices) -> Indices:
    """Move each row that is the only one of its domain in a band to the domain's next band, or to the previous one."""
    bands = bands.copy()
    for domain in np.unique(domains):
        own = domains == domain
        used, counts = (values.tolist() for values in np.unique(bands[own], return_counts=True))
        while len(used) > 1 and 1 in counts:
            place = counts.index(1)
            target = place + 1 if place + 1 < len(used) else place - 1
            bands[own & (bands == used[place])] = used[target]
            counts[target] += 1
            del used[place], counts[place]
    return bands


def _cut(rows: Indices, size: int) -> list[Indices]:
    """Cut rows into batches. A single row that is left over joins the last batch."""
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [np.concatenate(batches[-2:])]
    return batches
