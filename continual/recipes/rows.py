"""The rows of a recipe: what the domains hold, and what a phase takes of it."""

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
class Material:
    """The trainable rows of some batches.

    Attributes:
        tables: By domain, in the order of the stream: rows in hash order, those held out left aside.
        held: Windows of the rows that are held out, and the rows as training reads them; None where none are.
        guarded: Names of the tasks whose rows are left out.
        domains: The workspace's domains by name.
        skipped: Rows left out because they have no negatives in a domain where only given ones are, by domain.
    """

    tables: Mapping[str, pa.Table]
    held: tuple[list[Window], pa.Table] | None
    guarded: list[str]
    domains: Mapping[str, Domain]
    skipped: dict[str, int]

    @property
    def rows(self) -> dict[str, int]:
        """Rows by domain."""
        return {domain: table.num_rows for domain, table in self.tables.items()}

    def take(self, portions: Sequence[Portion], seed: int) -> tuple[pa.Table, list[Window]]:
        """Return the rows of a phase as training reads them, and the windows that they are.

        Args:
            portions: What it takes.
            seed: Of the draws.
        """
        import pyarrow as pa

        parts, windows = [], []
        for portion in portions:
            table = self.tables[portion.domain]
            chosen = table.take(_indices(portion, table.num_rows, seed))
            parts.append(labelled(chosen, self.domains[portion.domain], replayed=False))
            windows.append(describe(portion.domain, chosen))
        return pa.concat_tables(parts), windows


def read_material(registry: Registry, batches: Sequence[Batch], held: int = 0) -> Material:
    """Return what some batches hold.

    Args:
        registry: The workspace's registry.
        batches: In the order of the stream.
        held: Rows of each domain to hold out: the last ones in hash order, a tenth of a domain at most.
    """
    import pyarrow as pa

    with RowReader(registry) as rows:
        found, guarded, domains, skipped = rows.read(batches), rows.guarded, rows.domains, rows.skipped(batches)
    tables, windows, spared = {}, [], []
    for domain, table in found.items():
        kept = table.num_rows - min(held, table.num_rows // 10)
        if kept:
            tables[domain] = table.slice(0, kept)
        if kept < table.num_rows:
            tail = table.slice(kept)
            windows.append(describe(domain, tail))
            spared.append(labelled(tail, domains[domain], replayed=False))
    return Material(tables, (windows, pa.concat_tables(spared)) if spared else None, guarded, domains, skipped)


def _indices(portion: Portion, available: int, seed: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    wanted = available if portion.rows is None else portion.rows
    if wanted > available:
        return np.sort(np.resize(np.arange(available), wanted))
    if portion.draw is None:
        return np.arange(wanted)
    # Of the domain's name too, or all domains of one size would be cut alike.
    random = np.random.default_rng([seed, portion.draw, zlib.crc32(portion.domain.encode())])
    return np.sort(random.choice(available, wanted, replace=False))
