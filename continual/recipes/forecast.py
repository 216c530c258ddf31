"""What the phases that are still to be made would take: tokens by samples of their rows, time by a few batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from continual.config import TrainConfig
from continual.recipes.plan import Layout, Planned
from continual.recipes.recipe import Merge
from continual.registry import Window

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE = 200
"""Rows of a domain whose tokens are counted, in each phase."""

_GRADIENT, _FORWARD = 2.4, 0.8
"""Time of a search's token, with a gradient and without, beside a training's: its gradient is that of all weights and
not of LoRA's alone. Measured on a CPU, with the packaged base."""


@dataclass(frozen=True)
class Forecast:
    """What is still to be paid.

    Attributes:
        tokens: Of the trainings that are still to be made.
        seconds: Of these.
        search_pairs: Pairs that the searches still to be made would encode with a gradient, at most.
        search_forward_pairs: Pairs that they would encode without one, at most.
        search_seconds: Of the searches, roughly.
    """

    tokens: int = 0
    seconds: float = 0.0
    search_pairs: int = 0
    search_forward_pairs: int = 0
    search_seconds: float = 0.0


@dataclass(frozen=True)
class _Group:
    """Rows that share batches, and how often they are encoded: in training, and in a search with a gradient and not."""

    table: pa.Table
    trained: int = 0
    searched: int = 0
    evaluated: int = 0


def forecast(root: Path, layout: Layout, *, trust_remote_code: bool = False) -> Forecast:
    """Estimate what the phases of a recipe that are not there yet would take.

    Each phase's tokens are those of its own rows, by domain: a batch encodes each distinct text once, so that they do
    not follow from the number of pairs. The time of a token is measured on the largest training.

    Args:
        root: Folder of the root base.
        layout: The recipe; a phase of it at least is not there yet.
        trust_remote_code: Run code that the model brings with it.
    """
    import pyarrow as pa

    from continual.train.loop import estimate

    missing = [each for each in layout.phases if each.made is None]
    trainings = [each for each in missing if each.table is not None]
    groups = [*_trained(trainings)]
    for each in missing:
        if isinstance(each.phase, Merge) and each.phase.search:
            groups += _searched(layout, each.config.train)
    if not groups:
        return Forecast()
    largest = max((each for each in trainings or layout.phases if each.table is not None), key=lambda each: each.pairs)
    # Domains are counted apart, so each group is called one: a domain's rows are other ones in other phases.
    samples = [group.table.set_column(*_named(group.table, str(place))) for place, group in enumerate(groups)]
    train = largest.config.train
    found = estimate(root, largest.table, train, count=pa.concat_tables(samples), trust_remote_code=trust_remote_code)

    def tokens(kind: str) -> float:
        return sum(float(getattr(group, kind)) * found.row_tokens[str(place)] for place, group in enumerate(groups))

    second = found.seconds / found.tokens
    return Forecast(
        tokens=round(tokens("trained")),
        seconds=second * tokens("trained"),
        search_pairs=sum(group.searched for group in groups),
        search_forward_pairs=sum(group.searched + group.evaluated for group in groups),
        search_seconds=second
        * (_GRADIENT * tokens("searched") + _FORWARD * (tokens("searched") + tokens("evaluated"))),
    )


def _trained(trainings: list[Planned]) -> Iterator[_Group]:
    """Yield samples of the rows that trainings train on, by domain; of all domains at once where they share batches."""
    for each in trainings:
        assert each.table is not None
        train = each.config.train
        if train.mix_domains:
            sample = _sampled(each.table, _SAMPLE * len(each.windows))
            yield _Group(sample, trained=each.table.num_rows * train.epochs)
            continue
        for part in _parts(each.table, each.windows):
            yield _Group(_sampled(part, _SAMPLE), trained=part.num_rows * train.epochs)


def _searched(layout: Layout, train: TrainConfig) -> Iterator[_Group]:
    """Yield the held-out rows of each domain; they take turns, in batches as of `continual.train.objective`.

    All of them are encoded for the model that task vectors are measured from, the start, the end, and the best steps.
    """
    from continual.merge.positioning import LOWEST, STEPS

    assert layout.material.held is not None, "a layout with a search has rows for it"
    windows, table = layout.material.held
    size = max([train.batch_size, *(band.pairs for band in train.batch_sizes)])
    parts = sorted(_parts(table, windows), key=lambda part: str(part["domain"][0]))
    parts = [part for part in parts if part.num_rows > 1]  # a single row has no loss
    for place, part in enumerate(parts):
        turns = len(range(place, STEPS, len(parts)))
        rows = part.num_rows
        yield _Group(part, searched=turns * min(size, rows), evaluated=(LOWEST + 3) * rows)


def _parts(table: pa.Table, windows: Sequence[Window]) -> Iterator[pa.Table]:
    """Yield the rows of each window; those of a table follow each other as its windows do."""
    begin = 0
    for window in windows:
        if window.rows:
            yield table.slice(begin, window.rows)
        begin += window.rows


def _sampled(table: pa.Table, rows: int) -> pa.Table:
    if table.num_rows <= rows:
        return table
    return table.take(np.sort(np.random.default_rng(0).choice(table.num_rows, rows, replace=False)))


def _named(table: pa.Table, name: str) -> tuple[int, str, pa.Array]:
    import pyarrow as pa

    return table.column_names.index("domain"), "domain", pa.repeat(name, table.num_rows)
