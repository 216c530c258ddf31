"""Training rows of a recipe, and the portions of them that a phase takes."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from continual.recipes.recipe import Portion
from continual.registry import Batch, Domain, Registry, Window
from continual.replay import RowReader
from continual.replay.draw import describe, labelled

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TrainingRows:
    """The trainable rows of batches.

    Attributes:
        tables: Rows by domain, in the order of the stream, without those held out. A table is in hash order.
        held_windows: Windows of the rows held out for a search; empty without one.
        held: The rows held out, in the form that training reads; None without any.
        guarded: Names of the evaluation tasks. Rows that leak into them are left out.
        domains: All domains of the workspace, by name.
        skipped: Number of rows left out by domain, because their kind needs negatives and they have none.
    """

    tables: Mapping[str, pa.Table]
    held_windows: list[Window]
    held: pa.Table | None
    guarded: list[str]
    domains: Mapping[str, Domain]
    skipped: dict[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """Number of rows by domain."""
        return {domain: table.num_rows for domain, table in self.tables.items()}

    def take(self, portions: Sequence[Portion], seed: int) -> tuple[pa.Table, list[Window]]:
        """Return the rows of portions, in the form that training reads, and their windows.

        Args:
            seed: Seed of the draws.
        """
        import pyarrow as pa

        parts, windows = [], []
        for portion in portions:
            table = self.tables[portion.domain]
            chosen = table.take(_indices(portion, table.num_rows, seed))
            parts.append(labelled(chosen, self.domains[portion.domain], replayed=False))
            windows.append(describe(portion.domain, chosen))
        return pa.concat_tables(parts), windows


def read_training_rows(registry: Registry, batches: Sequence[Batch], held: int = 0) -> TrainingRows:
    """Read the trainable rows of batches.

    Args:
        batches: Batches in the order of the stream.
        held: Number of rows to hold out of each domain: the last ones in hash order, at most a tenth of the domain.
    """
    import pyarrow as pa

    with RowReader(registry) as rows:
        stored, guarded, domains, skipped = rows.read(batches), rows.guarded, rows.domains, rows.skipped(batches)
    tables, windows, held_tables = {}, [], []
    for domain, table in stored.items():
        count = table.num_rows - min(held, table.num_rows // 10)
        if count:
            tables[domain] = table.slice(0, count)
        if count < table.num_rows:
            tail = table.slice(count)
            windows.append(describe(domain, tail))
            held_tables.append(labelled(tail, domains[domain], replayed=False))
    return TrainingRows(
        tables=tables,
        held_windows=windows,
        held=pa.concat_tables(held_tables) if held_tables else None,
        guarded=guarded,
        domains=domains,
        skipped=skipped,
    )


def _indices(portion: Portion, available: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the sorted indices of a portion's rows in a table of `available` rows."""
    wanted = available if portion.rows is None else portion.rows
    if wanted > available:
        return np.sort(np.resize(np.arange(available), wanted))
    if portion.draw is None:
        return np.arange(wanted)
    # The domain's name is part of the seed, or domains of the same size would get the same indices.
    random = np.random.default_rng([seed, portion.draw, zlib.crc32(portion.domain.encode())])
    return np.sort(random.choice(available, wanted, replace=False))
