"""The draw: the rows of one step, read from hash-ordered Parquet.

The rows of a domain are stored in the order of a hash of their content, so a contiguous *window* of hash space is a
random sample without replacement. It needs no shuffle, only its row groups are read, and it is the same sample on every
machine. The next step's window starts where the last one stopped and wraps around, so all history is replayed over
time.
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
from continual.replay.mined import mined_file
from continual.storage.files import scratch

if TYPE_CHECKING:
    import pyarrow as pa


Indices = NDArray[np.int64]

BEYOND = "g"
"""Sorts after all hashes."""

SMALL = 5_000
"""Rows of a domain that are read at once, however few of them are wanted."""

COLUMNS = "row_hash, query, positive, negatives, doc_id"
"""Columns of every stored row. Rows of a graded domain also have a score."""


def pack(picks: Sequence[int] | Indices, rows: int) -> str:
    """Return a bit mask of picked rows as hex digits, the form that a window records.

    Args:
        picks: Indices of the picked rows, in ascending order.
        rows: Number of rows to pick from.
    """
    chosen = np.zeros(rows, bool)
    chosen[np.asarray(picks, np.int64)] = True
    return np.packbits(chosen).tobytes().hex()


def unpack(picked: str) -> Indices:
    """Return the indices of the rows that `pack` encoded, in ascending order."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(bytes.fromhex(picked), np.uint8)))


@dataclass(frozen=True)
class Draw:
    """The rows of a step, with the manifest that draws the same rows again.

    Attributes:
        table: Columns query and positive (string), negatives (list of string), doc_id (string or null), domain
            (string), instruction (string or null; the domain's), replayed (bool: the row is drawn from history),
            in_batch (bool: the row also uses the documents of other rows in its training batch as negatives) and score
            (double or null; that of a graded pair, 0 to 1).
        new: One window per domain that is learned, with all rows of its new batches except those held out.
        replay: One window per domain that is replayed.
        held_table: Rows held out of training for a coefficient search; columns as in `table`.
        held: One window per domain with rows in `held_table`.
    """

    table: pa.Table
    new: list[Window]
    replay: list[Window]
    held_table: pa.Table
    held: list[Window]

    @property
    def rows(self) -> int:
        """Return the number of rows in `table`."""
        return int(self.table.num_rows)


class RowReader:
    """Reader of the trainable rows of a workspace: the kept rows of the batches, except rows that a task holds.

    A row is never drawn if its query or positive is an exact or near duplicate of a query or a relevant document of a
    task, no matter when the task was registered. In domains of kind classification or clustering, rows use only their
    own negatives, so rows without negatives are never drawn either.

    Use it as a context manager. It holds an in-memory DuckDB and its own spill folder, because a plan can draw while an
    update runs.

    Args:
        registry: The workspace's registry.
        mined: Mined negatives to add to those given with the rows: the SHA-256 of their file, by id of the batch.

    Attributes:
        guarded: Names of the tasks whose rows are left out: all tasks registered now.
        domains: The domains of the workspace, by name.
    """

    def __init__(self, registry: Registry, mined: Mapping[str, str] | None = None) -> None:
        import duckdb

        self._registry = registry
        self._mined = dict(mined or {})
        self._checked: set[str] = set()
        self._batch_files: dict[str, str] = {}
        self._mined_files: dict[str, str] = {}
        self._read_in_full: set[str] = set()
        tasks = registry.tasks()
        self.guarded = [task.name for task in tasks]
        folders = registry.task_folders(tasks, full=True, names=("keys.parquet", "leaks.parquet"))
        keys = [str(folder / "keys.parquet") for folder in folders]
        leaks = [str(file) for folder in folders if (file := folder / "leaks.parquet").is_file()]
        self.domains = {domain.name: domain for domain in registry.domains()}
        with ExitStack() as stack:
            spill = stack.enter_context(scratch(registry.root / "runs", "spill"))
            self._session = stack.enter_context(duckdb.connect(config={"temp_directory": str(spill)}))
            # Several queries per domain leave these rows out, so the files are read once.
            conditions = ["true"]
            for column, files, hashes in (
                ("query_hash", keys, "SELECT hash FROM read_parquet(?) WHERE kind = 'query'"),
                ("positive_hash", keys, "SELECT hash FROM read_parquet(?) WHERE kind = 'document'"),
                ("row_hash", leaks, "SELECT row_hash FROM read_parquet(?)"),
            ):
                if files:
                    self._session.execute(f"CREATE TEMP TABLE held_{column} AS {hashes}", [files])
                    conditions.append(f"{column} NOT IN (FROM held_{column})")
            self._not_held = " AND ".join(conditions)
            self._has_held = bool(keys)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def count(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Return the number of trainable rows in batches, by domain."""
        counts = self._count([batch for batch in batches if self.domains[batch.domain].in_batch], "true")
        counts |= self._count([batch for batch in batches if batch.domain not in counts], "len(negatives) > 0")
        return {domain: counts[domain] for domain in self._files(batches)}

    def skipped(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Return the number of rows in batches that are never drawn because they have no negatives, by domain.

        Domains without such rows are left out. Rows that would not be drawn for another reason are not counted.
        """
        alone = [batch for batch in batches if not self.domains[batch.domain].in_batch]
        return {domain: rows for domain, rows in self._count(alone, "len(negatives) = 0").items() if rows}

    def read(self, batches: Sequence[Batch]) -> dict[str, pa.Table]:
        """Return all trainable rows of batches by domain, in hash order, with the columns `COLUMNS` and score."""
        files = self._files(batches, full=True)
        return {domain: self._select(domain, of_domain, "true", []) for domain, of_domain in files.items()}

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

        The rows held out of a new domain are its last ones in hash order, at most a tenth of its rows. The rows held
        out of a historical domain follow its replay window. If the domain has too few rows for both, the window is
        shortened so that at least a tenth is held out.

        Args:
            new: Batches to learn.
            history: Batches of the lineage, to replay from.
            quotas: Rows to replay, by domain.
            cursors: Row hash after which the next window starts, by domain; without one it starts at the lowest hash.
            held: Rows to hold out of each domain, for a coefficient search.
            picked: Which rows of the window are replayed, by domain, see `Window`; without an entry, all of them.
        """
        import pyarrow as pa

        parts: dict[str, list[tuple[str, pa.Table]]] = {"new": [], "replay": [], "held": []}
        for domain, table in self.read(new).items():
            kept = table.num_rows - min(held, table.num_rows // 10)
            parts["new"].append((domain, table.slice(0, kept)))
            parts["held"].append((domain, table.slice(kept)))
        for domain, files in self._files(history, full=True).items():
            quota = quotas.get(domain, 0)
            table = self._window(domain, files, cursors.get(domain, ""), quota + held)
            # If the domain has fewer rows than asked for: the rows beyond the quota, but at least a tenth.
            spared = min(held, max(table.num_rows - quota, table.num_rows // 10))
            parts["replay"].append((domain, table.slice(0, table.num_rows - spared)))
            parts["held"].append((domain, table.slice(table.num_rows - spared)))
        for part in ("replay", "held"):
            parts[part] = [(domain, table) for domain, table in parts[part] if table.num_rows]
        windows = {part: [describe(*of_domain) for of_domain in tables] for part, tables in parts.items()}
        for place, (domain, table) in enumerate(parts["replay"]):
            if domain in (picked or {}):
                windows["replay"][place], table = _pick(domain, table, (picked or {})[domain])
                parts["replay"][place] = (domain, table)
        trained = pa.concat_tables(
            [
                labelled(table, self.domains[domain], replayed=part == "replay")
                for part in ("new", "replay")
                for domain, table in parts[part]
            ]
        )
        held_tables = [labelled(table, self.domains[domain], replayed=False) for domain, table in parts["held"]]
        held_table = pa.concat_tables(held_tables) if held_tables else trained.slice(0, 0)
        return Draw(trained, windows["new"], windows["replay"], held_table, windows["held"])

    def _count(self, batches: Sequence[Batch], condition: str) -> dict[str, int]:
        """Return the number of rows that meet a condition and that no task holds, by domain."""
        files = self._files(batches)
        domains = {file: domain for domain, of_domain in files.items() for file in of_domain}
        counts = dict.fromkeys(files, 0)
        if domains:
            query = f"SELECT filename, count(*) FROM read_parquet(?) WHERE {self._not_held} AND {condition} GROUP BY 1"
            for file, rows in self._session.sql(query, params=[list(domains)]).fetchall():
                counts[domains[file]] += rows
        return counts

    def _from(self, domain: str) -> str:
        """Return the FROM clause of a query for the trainable rows of a domain; its parameter is the files."""
        alone = "" if self.domains[domain].in_batch else " AND len(negatives) > 0"
        return f"read_parquet(?) WHERE {self._not_held}{alone}"

    def _window(self, domain: str, files: list[str], after: str, rows: int) -> pa.Table:
        """Return `rows` rows in hash order, starting after the hash `after` and wrapping around."""
        import pyarrow as pa

        ends = _group_ends(files)
        if rows and sum(count for _, count in ends) <= max(SMALL, 2 * rows):
            every = self._select(domain, files, "true", [])
            start = int(np.searchsorted(every["row_hash"].to_numpy(), after, side="right"))
            beyond = every.slice(start, rows)
            return pa.concat_tables([beyond, every.slice(0, min(start, rows - beyond.num_rows))])
        parts: list[pa.Table] = []
        for side in (">", "<=") if rows else ():
            wanted = rows - sum(part.num_rows for part in parts)
            last = self._last(domain, files, ends, side, after, wanted)
            if last is not None:
                bounds = f"row_hash {side} ? AND row_hash <= ?"
                parts.append(self._select(domain, files, bounds, [after, last]))
        return pa.concat_tables(parts) if parts else self._select(domain, files, "false", [])

    def _last(
        self, domain: str, files: list[str], ends: list[tuple[str, int]], side: str, after: str, wanted: int
    ) -> str | None:
        """Return the last hash of `wanted` rows in hash order, on one side of `after`; None if there are no rows.

        The narrow column is read first. Then the wide rows are a range of hashes, and Parquet's statistics limit the
        read to its row groups. They also limit the first read: to a range that holds enough rows of all, and to a wider
        one if too many of them can't be drawn.
        """
        query = (
            f"SELECT count(*), max(row_hash) FROM (SELECT row_hash FROM {self._from(domain)} AND row_hash {side} ? "
            "AND row_hash <= ? ORDER BY row_hash LIMIT ?)"
        )
        ends = [end for end in ends if side == "<=" or end[0] > after]
        enough = wanted
        while True:
            place = int(np.searchsorted(np.cumsum([rows for _, rows in ends]), enough))
            # Of the groups that hold `after`, one per file, some rows are on its other side.
            place += len(files)
            bound = ends[place][0] if place < len(ends) else BEYOND
            values = [files, after, bound, wanted]
            ((found, last),) = self._session.sql(query, params=values).fetchall()
            if found == wanted or bound == BEYOND:
                return last if last is None else str(last)
            enough *= 2

    def _select(self, domain: str, files: list[str], bounds: str, values: list[str]) -> pa.Table:
        score = "score" if self.domains[domain].graded else "NULL::DOUBLE AS score"
        query = f"SELECT {COLUMNS}, {score} FROM {self._from(domain)} AND {bounds}"
        if not (found := self._mined_of(files)):
            return self._session.sql(f"{query} ORDER BY row_hash", params=[files, *values]).to_arrow_table()
        # A text that became a positive of the query since, or that a task holds now, is no negative any more.
        query = query.replace("SELECT ", "SELECT query_hash, ", 1)
        held = "AND hash NOT IN (FROM held_positive_hash)" if self._has_held else ""
        mined = (
            "SELECT row_hash, list(text ORDER BY place) AS mined FROM (SELECT row_hash, query_hash, unnest(hashes) AS "
            "hash, unnest(m.negatives) AS text, generate_subscripts(m.negatives, 1) AS place FROM "
            f"(FROM read_parquet(?) WHERE {bounds}) m JOIN (FROM drawn) USING (row_hash)) "
            f"WHERE (query_hash, hash) NOT IN (SELECT (query_hash, positive_hash) FROM read_parquet(?) "
            f"WHERE query_hash IN (SELECT query_hash FROM drawn)) {held} GROUP BY row_hash"
        )
        # Those given with a row come first, because train.max_negatives may leave no room for all.
        added = "list_concat(negatives, list_filter(mined, lambda each: NOT list_contains(negatives, each)))"
        joined = (
            f"WITH drawn AS MATERIALIZED ({query}) SELECT row_hash, query, positive, CASE WHEN mined IS NULL THEN "
            f"negatives ELSE {added} END AS negatives, doc_id, score FROM drawn LEFT JOIN ({mined}) USING (row_hash) "
            "ORDER BY row_hash"
        )
        return self._session.sql(joined, params=[files, *values, found, *values, self._all(domain)]).to_arrow_table()

    def _all(self, domain: str) -> list[str]:
        """Return the files of all batches of a domain."""
        batches = [batch for batch in self._registry.batches() if batch.domain == domain]
        return self._files(batches)[domain]

    def _mined_of(self, files: Sequence[str]) -> list[str]:
        """Return the files of mined negatives of batches, each checked once."""
        found = []
        for batch, sha256 in self._mined.items():
            if self._batch_files.get(batch) in files:
                if batch not in self._mined_files:
                    self._mined_files[batch] = str(mined_file(self._registry, batch, sha256))
                found.append(self._mined_files[batch])
        return found

    def _files(self, batches: Sequence[Batch], *, full: bool = False) -> dict[str, list[str]]:
        """Return the files of batches by domain, each checked once. With `full`, it is also read in full once."""
        kept = [batch for batch in batches if batch.kept]
        done = self._read_in_full if full else self._checked
        self._registry.rows_files([batch for batch in kept if batch.id not in done], full=full)
        names = {batch.id for batch in kept}
        self._checked |= names
        self._read_in_full |= names if full else set()
        files: dict[str, list[str]] = {}
        for batch in kept:
            self._batch_files[batch.id] = str(self._registry.path(batch.path))
            files.setdefault(batch.domain, []).append(self._batch_files[batch.id])
        return files


def _group_ends(files: Sequence[str]) -> list[tuple[str, int]]:
    """Return the last hash and the number of rows of every row group, in the order of hashes.

    The last hash of a group without statistics is `BEYOND`.
    """
    import pyarrow.parquet as pq

    ends = []
    for file in files:
        metadata = pq.read_metadata(file)
        place = metadata.schema.names.index("row_hash")
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            statistics = group.column(place).statistics
            known = statistics is not None and statistics.has_min_max
            ends.append((str(statistics.max) if known else BEYOND, group.num_rows))
    return sorted(ends)


def labelled(table: pa.Table, domain: Domain, *, replayed: bool) -> pa.Table:
    """Return rows of a domain with the columns of `Draw.table`: without hashes, with the properties of the domain."""
    import pyarrow as pa

    rows = table.num_rows
    labels = {
        "domain": pa.repeat(domain.name, rows),
        "instruction": pa.repeat(pa.scalar(domain.instruction, pa.string()), rows),
        "replayed": pa.repeat(replayed, rows),
        "in_batch": pa.repeat(domain.in_batch, rows),
    }
    table = table.drop_columns(["row_hash"])
    for name, values in labels.items():
        table = table.append_column(name, values)
    return table


def _pick(domain: str, table: pa.Table, picked: str) -> tuple[Window, pa.Table]:
    """Return the window that records the picked rows, from the first candidate to the last, and the picked rows."""
    picks = unpack(picked)
    chosen = table.take(picks[picks < table.num_rows])  # if candidates are missing, the digest no longer matches
    hashes = table["row_hash"]
    ends = {"start": hashes[0].as_py(), "stop": hashes[-1].as_py()}
    return replace(describe(domain, chosen), **ends, candidates=table.num_rows, picked=picked), chosen


def describe(domain: str, table: pa.Table) -> Window:
    """Return the window that consists of these rows of a domain: in hash order, with the column `row_hash`."""
    hashes = table["row_hash"].to_pylist()
    digest = hashlib.sha256("".join(sorted(hashes)).encode()).hexdigest()
    start, stop = (hashes[0], hashes[-1]) if hashes else ("", "")
    return Window(domain, start, stop, len(hashes), digest)
