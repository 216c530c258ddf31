"""Estimates for the phases that have to be made: tokens from samples of their rows, time from a few batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from continual.config import TrainConfig
from continual.recipes.plan import Layout, PlannedPhase
from continual.recipes.recipe import Merge
from continual.registry import Window

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE = 200
"""Most rows of a domain whose tokens are counted, per phase."""

_GRADIENT, _FORWARD = 2.4, 0.8
"""Time per token of a search, with and without a gradient, relative to training. A search needs the gradient of all
weights, not only of the LoRA factors. Measured on a CPU with the packaged base model."""


@dataclass(frozen=True)
class Forecast:
    """Estimated cost of the phases that have to be made.

    Attributes:
        tokens: Tokens of the trainings.
        seconds: Time of the trainings.
        search_pairs: Most pairs that the searches encode with a gradient.
        search_forward_pairs: Most pairs that the searches encode without a gradient.
        search_seconds: Time of the searches, a rough estimate.
    """

    tokens: int = 0
    seconds: float = 0.0
    search_pairs: int = 0
    search_forward_pairs: int = 0
    search_seconds: float = 0.0


@dataclass(frozen=True)
class _Group:
    """Rows that share batches.

    Attributes:
        table: The rows, or a sample of them.
        trained: Number of pairs encoded in training.
        searched: Number of pairs encoded in a search with a gradient.
        evaluated: Number of pairs encoded in a search only without a gradient.
    """

    table: pa.Table
    trained: int = 0
    searched: int = 0
    evaluated: int = 0


def forecast(root: Path, layout: Layout, *, trust_remote_code: bool = False) -> Forecast:
    """Estimate the cost of the phases of a recipe that have to be made.

    Tokens are counted on a phase's own rows, by domain: a batch encodes each distinct text once, so the number of
    tokens does not follow from the number of pairs. The time per token is measured on the largest training.

    Args:
        root: Folder of the root base.
        layout: A recipe with at least one phase that has to be made.
    """
    import pyarrow as pa

    from continual.train.loop import estimate

    missing = [planned for planned in layout.phases if planned.existing is None]
    trainings = [planned for planned in missing if planned.table is not None]
    groups = [*_trained(trainings)]
    for planned in missing:
        if isinstance(planned.phase, Merge) and planned.phase.search:
            groups += _searched(layout, planned.config.train)
    if not groups:
        return Forecast()
    with_rows = [planned for planned in trainings or layout.phases if planned.table is not None]
    largest = max(with_rows, key=lambda planned: planned.pairs)
    # `estimate` counts tokens by domain. A domain has other rows in other phases, so every group gets its own name.
    samples = [group.table.set_column(*_named(group.table, str(number))) for number, group in enumerate(groups)]
    train = largest.config.train
    measured = estimate(
        root, largest.table, train, count=pa.concat_tables(samples), trust_remote_code=trust_remote_code
    )

    def tokens(use: str) -> float:
        return sum(float(getattr(group, use)) * measured.row_tokens[str(number)] for number, group in enumerate(groups))

    second = measured.seconds / measured.tokens
    return Forecast(
        tokens=round(tokens("trained")),
        seconds=second * tokens("trained"),
        search_pairs=sum(group.searched for group in groups),
        search_forward_pairs=sum(group.searched + group.evaluated for group in groups),
        search_seconds=second
        * (_GRADIENT * tokens("searched") + _FORWARD * (tokens("searched") + tokens("evaluated"))),
    )


def _trained(trainings: list[PlannedPhase]) -> Iterator[_Group]:
    """Yield samples of the rows of trainings, by domain, or of all domains together if they share batches."""
    for planned in trainings:
        assert planned.table is not None
        train = planned.config.train
        if train.mix_domains:
            sample = _sampled(planned.table, _SAMPLE * len(planned.windows))
            yield _Group(sample, trained=planned.table.num_rows * train.epochs)
            continue
        for part in _parts(planned.table, planned.windows):
            yield _Group(_sampled(part, _SAMPLE), trained=part.num_rows * train.epochs)


def _searched(layout: Layout, train: TrainConfig) -> Iterator[_Group]:
    """Yield the held-out rows of each domain. Domains take turns, with the batches of `continual.train.objective`.

    All held-out rows are also encoded with the model that task vectors are measured from, at the start, at the end, and
    at the best steps of the search.
    """
    from continual.merge.positioning import LOWEST, STEPS

    table, windows = layout.training_rows.held, layout.training_rows.held_windows
    assert table is not None, "a layout with a search has rows held out"
    size = max([train.batch_size, *(band.pairs for band in train.batch_sizes)])
    parts = sorted(_parts(table, windows), key=lambda part: str(part["domain"][0]))
    parts = [part for part in parts if part.num_rows > 1]  # a single row has no loss
    for number, part in enumerate(parts):
        turns = len(range(number, STEPS, len(parts)))
        rows = part.num_rows
        yield _Group(part, searched=turns * min(size, rows), evaluated=(LOWEST + 3) * rows)


def _parts(table: pa.Table, windows: Sequence[Window]) -> Iterator[pa.Table]:
    """Yield the rows of each window. The rows of a table are in the order of its windows."""
    first = 0
    for window in windows:
        if window.rows:
            yield table.slice(first, window.rows)
        first += window.rows


def _sampled(table: pa.Table, rows: int) -> pa.Table:
    if table.num_rows <= rows:
        return table
    return table.take(np.sort(np.random.default_rng(0).choice(table.num_rows, rows, replace=False)))


def _named(table: pa.Table, name: str) -> tuple[int, str, pa.Array]:
    """Return the arguments of `set_column` that give all rows of a table a domain of this name."""
    import pyarrow as pa

    return table.column_names.index("domain"), "domain", pa.repeat(name, table.num_rows)
