"""The draw: the rows of one step, read from hash-ordered Parquet.

A domain's rows are stored in the order of a hash of their content, so a random sample without replacement is
a contiguous *window* of hash space: no shuffle, only the row groups of the window are read, and the same
window is the same sample everywhere. The next step's window starts where the last one stopped and wraps
around, so that all history is replayed in time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from continual.registry import Batch, Domain, Registry, Window
from continual.storage.files import scratch

if TYPE_CHECKING:
    import pyarrow as pa


Indices = NDArray[np.int64]

COLUMNS = "row_hash, query, positive, negatives, doc_id"


def pack(picks: Sequence[int] | Indices, rows: int) -> str:
    """Return which of some rows are picked, as a window records it.

    Args:
        picks: Indices of rows, in ascending order.
        rows: How many there are to pick from.
    """
    chosen = np.zeros(rows, bool)
    chosen[np.asarray(picks, np.int64)] = True
    return np.packbits(chosen).tobytes().hex()


def unpack(picked: str) -> Indices:
    """Return the indices of the rows that a window records as picked, in ascending order."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(picked), np.uint8)))


@dataclass(frozen=True)
class Draw:
    """The rows of a step, with the manifest that draws them again.

    Attributes:
        table: Columns query, positive (string), negatives (list of string), doc_id (string or null), domain,
            instruction (string or null: the domain's), and two that are bool. replayed: whether the row is drawn from
            history. in_batch: whether its negatives are also those of the rows that share its batch, and not only its
            own.
        new: A window per domain that is learned: all rows of the new batches but those held out.
        replay: A window per domain that is replayed.
        held_table: Rows that the step does not train on, for a coefficient search; the columns of `table`.
        held: A window per domain of these.
    """

    table: pa.Table
    new: list[Window]
    replay: list[Window]
    held_table: pa.Table
    held: list[Window]

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.table.num_rows)


class RowReader:
    """The trainable rows of a workspace: what the batches keep, without what an evaluation task holds.

    A row whose query is a query of a task, or whose positive is a relevant document of one, or nearly so, is never
    drawn, whenever the task was registered. Nor is one without negatives in a domain where it would have no others
    (of kind classification or clustering): there is nothing to tell it from.

    Use it as a context manager: it holds an in-memory DuckDB, and a folder of its own to spill to, since a plan may
    draw beside a running update.

    Attributes:
        guarded: Names of the tasks whose rows are left out: all that are registered now.
        domains: The workspace's domains by name.
    """

    def __init__(self, registry: Registry) -> None:
        import duckdb

        self._registry = registry
        tasks = registry.tasks()
        self.guarded = [task.name for task in tasks]
        folders = [registry.task_folder(task) for task in tasks]
        keys = [str(folder / "keys.parquet") for folder in folders]
        leaks = [str(file) for folder in folders if (file := folder / "leaks.parquet").is_file()]
        leak = "(SELECT hash FROM read_parquet(?) WHERE kind = '{}')"
        conditions = ["true"]
        self._values = []
        if keys:
            conditions.append(f"query_hash NOT IN {leak.format('query')}")
            conditions.append(f"positive_hash NOT IN {leak.format('document')}")
            self._values += [keys, keys]
        if leaks:
            conditions.append("row_hash NOT IN (SELECT row_hash FROM read_parquet(?))")
            self._values.append(leaks)
        self._scan = "read_parquet(?) WHERE " + " AND ".join(conditions)
        self.domains = {domain.name: domain for domain in registry.domains()}
        with ExitStack() as stack:
            spill = stack.enter_context(scratch(registry.root / "runs", "spill"))
            self._session = stack.enter_context(duckdb.connect(config={"temp_directory": str(spill)}))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Return the trainable rows per domain in some batches."""
        return {domain: self._count(files, self._of(domain)) for domain, files in self._files(batches).items()}

    def skipped(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Return the rows in some batches that are never drawn for want of negatives, by domain; only where some are.

        Rows that are not drawn for another reason too are not counted.
        """
        files = {domain: some for domain, some in self._files(batches).items() if not self.domains[domain].in_batch}
        counts = {domain: self._count(some, f"{self._scan} AND len(negatives) = 0") for domain, some in files.items()}
        return {domain: count for domain, count in counts.items() if count}

    def read(self, batches: Sequence[Batch]) -> dict[str, pa.Table]:
        """Return all trainable rows of some batches by domain, in hash order: `row_hash` and the columns of a draw."""
        return {domain: self._select(domain, files, "true", []) for domain, files in self._files(batches).items()}

    def draw(
        self,
        new: Sequence[Batch],
        history: Sequence[Batch],
        quotas: Mapping[str, int],
        cursors: Mapping[str, str],
        held: int = 0,
        picked: Mapping[str, str] | None = None,
    ) -> Draw:
        """Read all rows of the new batches, and a window of each historical domain.

        Rows held out of a new domain are the last ones in hash order, a tenth of its rows at most; those of a
        historical domain follow its window, which is shortened where it would leave less than a tenth.

        Args:
            new: Batches to learn.
            history: Batches of the lineage, from which is replayed.
            quotas: Rows to replay from each domain.
            cursors: Per domain, the row hash after which its next window starts; a domain without one starts
                at the lowest.
            held: Rows to hold out of each domain, for a coefficient search.
            picked: By domain, which rows of the window are replayed, see `Window`; all of a domain that is not named.
        """
        import pyarrow as pa

        parts: dict[str, list[tuple[str, pa.Table]]] = {"new": [], "replay": [], "held": []}
        for domain, table in self.read(new).items():
            kept = table.num_rows - min(held, table.num_rows // 10)
            parts["new"].append((domain, table.slice(0, kept)))
            parts["held"].append((domain, table.slice(kept)))
        for domain, files in self._files(history).items():
            quota = quotas.get(domain, 0)
            table = self._window(domain, files, cursors.get(domain, ""), quota + held)
            # Where the domain has not so many rows, what is left beside the replay, but a tenth of it at least.
            spared = min(held, max(table.num_rows - quota, table.num_rows // 10))
            parts["replay"].append((domain, table.slice(0, table.num_rows - spared)))
            parts["held"].append((domain, table.slice(table.num_rows - spared)))
        for kind in ("replay", "held"):
            parts[kind] = [(domain, table) for domain, table in parts[kind] if table.num_rows]
        windows = {kind: [describe(*part) for part in some] for kind, some in parts.items()}
        for place, (domain, table) in enumerate(parts["replay"]):
            if domain in (picked or {}):
                windows["replay"][place], table = _pick(domain, table, (picked or {})[domain])
                parts["replay"][place] = (domain, table)
        trained = pa.concat_tables(
            [
                labelled(table, self.domains[domain], replayed=kind == "replay")
                for kind in ("new", "replay")
                for domain, table in parts[kind]
            ]
        )
        spared = [labelled(table, self.domains[domain], replayed=False) for domain, table in parts["held"]]
        held_table = pa.concat_tables(spared) if spared else trained.slice(0, 0)
        return Draw(trained, windows["new"], windows["replay"], held_table, windows["held"])

    def _of(self, domain: str) -> str:
        """Return what a query of a domain's trainable rows is from."""
        return self._scan + ("" if self.domains[domain].in_batch else " AND len(negatives) > 0")

    def _count(self, files: list[str], scan: str) -> int:
        ((count,),) = self._session.sql(f"SELECT count(*) FROM {scan}", params=[files, *self._values]).fetchall()
        return int(count)

    def _window(self, domain: str, files: list[str], after: str, rows: int) -> pa.Table:
        """Return `rows` rows in hash order from the first above `after` on, wrapping around."""
        import pyarrow as pa

        parts: list[pa.Table] = []
        for side in (">", "<=") if rows else ():
            wanted = rows - sum(part.num_rows for part in parts)
            # First the last hash of the window from the narrow column, then the wide rows by a range, which
            # Parquet's statistics push down to the row groups.
            query = (
                f"SELECT max(row_hash) FROM (SELECT row_hash FROM {self._of(domain)} AND row_hash {side} ? "
                "ORDER BY row_hash LIMIT ?)"
            )
            ((last,),) = self._session.sql(query, params=[files, *self._values, after, wanted]).fetchall()
            if last is not None:
                bounds = f"row_hash {side} ? AND row_hash <= ?"
                parts.append(self._select(domain, files, bounds, [after, last]))
        return pa.concat_tables(parts) if parts else self._select(domain, files, "false", [])

    def _select(self, domain: str, files: list[str], bounds: str, values: list[str]) -> pa.Table:
        query = f"SELECT {COLUMNS} FROM {self._of(domain)} AND {bounds} ORDER BY row_hash"
        return self._session.sql(query, params=[files, *self._values, *values]).to_arrow_table()

    def _files(self, batches: Sequence[Batch]) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        for batch in batches:
            if batch.kept:
                files.setdefault(batch.domain, []).append(str(self._registry.rows_file(batch)))
        return files


def labelled(table: pa.Table, domain: Domain, *, replayed: bool) -> pa.Table:
    """Return rows of a domain as training reads them: without their hashes, with what the domain says of them."""
    import pyarrow as pa

    rows = table.num_rows
    labels = {
        "domain": pa.repeat(domain.name, rows),
        "instruction": pa.repeat(pa.scalar(domain.instruction, pa.string()), rows),
        "replayed": pa.repeat(replayed, rows),
        "in_batch": pa.repeat(domain.in_batch, rows),
    }
    found = table.drop_columns(["row_hash"])
    for name, values in labels.items():
        found = found.append_column(name, values)
    return found


def _pick(domain: str, table: pa.Table, picked: str) -> tuple[Window, pa.Table]:
    """Return the picked rows of a window, and the window that says so: it goes from its first row to its last."""
    picks = unpack(picked)
    chosen = table.take(picks[picks < table.num_rows])  # rows that have gone since are missed by the digest
    hashes = table["row_hash"]
    ends = {"start": hashes[0].as_py(), "stop": hashes[-1].as_py()}
    return replace(describe(domain, chosen), **ends, candidates=table.num_rows, picked=picked), chosen


def describe(domain: str, table: pa.Table) -> Window:
    """Return the window that some rows of a domain are; they are in hash order, and have `row_hash`."""
    hashes = table["row_hash"].to_pylist()
    digest = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
    start, stop = (hashes[0], hashes[-1]) if hashes else ("", "")
    return Window(domain, start, stop, len(hashes), digest)
