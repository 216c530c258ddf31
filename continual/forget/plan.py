"""What a selection means for everything that a workspace stores: new files, new records, and what is removed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.care.targets import read_targets
from continual.errors import NothingToDoError
from continual.forget.certificate import Certificate, ChangedFile, lost_models, new_place, salted
from continual.forget.journal import NEW, Intent, write_intent
from continual.forget.rows import Removed, find_rows, text_columns, write_rejects, write_without
from continual.forget.scan import TEXT_COLUMNS, Search, forms_elsewhere, parquet_cells, search_folder
from continual.forget.select import Selection
from continual.forget.taint import rows_missed, rows_trained, tainted
from continual.forget.tasks import ChangedTask, read_changed, write_changed
from continual.registry import ROOT, Batch, Leak, Registry, Task
from continual.registry.digests import FileDigest
from continual.registry.erase import INCOMPLETE, Erasure
from continual.stream.leaks import LEAKS
from continual.stream.readers.base import file_sha256
from continual.versions.build import PHASE_RUN

CACHES = ("vectors", "mined", "scores/remembered.npz", "runs/conflicts", "staging")
"""Caches and leftovers that are removed as a whole: they were made from rows and texts of tasks."""


@dataclass
class Planned:
    """What is found and written so far.

    Attributes:
        registry: The workspace's registry.
        selection: The rows to forget.
        folder: Where the new files go, by their path relative to `.continual/`.
        moved: Paths of the new files.
        removed: Paths that are removed.
        counts: Numbers of removed things by name.
        erasure: Changes of the catalog.
        rows: What is removed of the stored rows.
    """

    registry: Registry
    selection: Selection
    folder: Path
    moved: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    erasure: Erasure = field(default_factory=Erasure)
    rows: Removed = field(default_factory=Removed)

    def file(self, path: str) -> Path:
        """Return a stored file as it will be."""
        return self.folder / path if path in self.moved else self.registry.path(path)

    def target(self, path: str) -> Path:
        """Return where to write a new file."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        return self.folder / path

    def move(self, path: str) -> None:
        """Note that a new file was written."""
        self.moved.append(path)


def write_plan(registry: Registry, selection: Selection, folder: Path) -> Certificate:
    """Write the new files and the intent for a selection into a folder, and return the certificate so far.

    Raises:
        NothingToDoError: Nothing that the workspace stores is selected.
        DataError: A file is missing or damaged.
    """
    planned = Planned(registry, selection, folder / NEW)
    batches, tasks = registry.batches(), registry.tasks()
    stored = dict(zip((batch.id for batch in batches), registry.rows_files(batches, full=True), strict=True))
    # 1. Find the rows and judgements, and their texts.
    for batch in batches:
        find_rows(batch, stored[batch.id], selection, planned.rows)
    kept_tasks = [task for task in tasks if selection.domain is None or task.domain != selection.domain]
    local = [read_changed(registry, task, selection) for task in kept_tasks if task.mteb is None]
    _write_batches(planned, batches, stored)
    # 2. Leave out what rows and tasks that stay have too.
    texts = planned.rows.texts | selection.texts | {text for changed in local for text in changed.texts}
    texts |= _texts_of_tasks(registry, [task for task in tasks if task not in kept_tasks])
    needed = [*_kept_rows(planned, batches)]
    alone = texts - _shared(texts, needed, local)
    # 3. Write tasks, rejects and leaks without them.
    for changed in local:
        _write_task(planned, changed, alone)
    _drop_domain(planned, batches, tasks)
    _write_rejects(planned, batches, alone)
    _write_leaks(planned, tasks)
    if not planned.moved and not planned.removed and not _mentioned(registry, alone):
        raise NothingToDoError(_nothing(selection))
    # 4. Models, caches, and texts that can't be told from others.
    search = Search(sorted(alone))
    apart = forms_elsewhere(search.searcher, registry.path(f"versions/{ROOT}"), _kept_texts(planned, batches, tasks))
    return _finish(planned, batches, folder, texts, alone, apart)


def _finish(
    planned: Planned, batches: Sequence[Batch], folder: Path, texts: set[str], alone: set[str], apart: set[bytes]
) -> Certificate:
    """Add the versions, the caches and the digests to the plan, write the intent, and return the certificate so far."""
    registry, selection = planned.registry, planned.selection
    trained = rows_trained(registry, planned.rows.hashes, batches)
    before = {version.id: version.provenance.forgotten for version in registry.versions()}
    run = registry.interrupted()
    if run is not None:
        planned.removed += [f"{name}/{run.id}" for name in ("runs", "adapters", "versions", "scores", "tracking")]
    root = registry.root
    planned.removed += [path for path in CACHES if (root / path).exists()]
    planned.removed += [path.relative_to(root).as_posix() for path in root.glob(f"runs/{PHASE_RUN}*")]
    files, digests = _digests(planned)
    missed = rows_missed(planned.erasure, batches)
    for name in {*planned.erasure.batches, *missed}:
        # The file can be ingested again, and then brings what the batch lacks.
        planned.erasure.batches.setdefault(name, {})["source_sha256"] = INCOMPLETE
    erasure = replace(
        planned.erasure,
        trained={name: before[name] + rows for name, rows in trained.items()},
        dropped_artifacts=planned.removed,
        digests=digests,
        discarded=None if run is None else run.id,
    )
    at, path = new_place()
    salt, sha256 = (None, None) if selection.domain is not None else salted(selection.value)
    certificate = Certificate(
        selection=selection.by,
        domain=selection.domain,
        selection_sha256=sha256,
        salt=salt,
        asked=selection.asked,
        removed={name: count for name, count in planned.counts.items() if count},
        shared=len(texts - alone),
        missed=missed,
        versions=tainted(registry.versions(), trained),
        discarded=None if run is None else run.id,
        files=files,
        backups=read_targets(registry.root),
        at=at,
        path=path,
        lost=lost_models(root),
    )
    write_intent(folder, Intent(erasure, certificate, planned.moved, planned.removed), sorted(alone), sorted(apart))
    return certificate


def _write_batches(planned: Planned, batches: Sequence[Batch], stored: dict[str, Path]) -> None:
    """Write the batches that lose rows; those of a domain that goes away are removed with it."""
    for batch in batches:
        rows = len(planned.rows.hashes.get(batch.id, ()))
        planned.counts["rows"] += rows
        if rows and batch.domain != planned.selection.domain:
            write_without(batch, stored[batch.id], planned.selection, planned.target(batch.path))
            planned.move(batch.path)
            _lower(planned, batch, kept=rows, rows_in=rows)


def _lower(planned: Planned, batch: Batch, **lost: int) -> None:
    """Lower counts of a batch."""
    known = planned.erasure.batches.setdefault(batch.id, {})
    for name, count in lost.items():
        known[name] = known.get(name, getattr(batch, name)) - count


def _shared(texts: set[str], rows: Sequence[Path], tasks: Sequence[ChangedTask]) -> set[str]:
    """Return the texts that rows, or queries and relevant documents of tasks, that stay have too."""
    wanted = pa.array(sorted(texts), pa.string())
    found: set[str] = set()

    def look(array: Any) -> None:
        array = array.cast(pa.string())
        found.update(array.filter(pc.is_in(array, value_set=wanted)).to_pylist())

    for file in rows:
        for name, array in parquet_cells(file):
            if name in TEXT_COLUMNS:
                look(array)
    for changed in tasks:
        for array in changed.needed():
            look(array)
    return found


def _kept_rows(planned: Planned, batches: Sequence[Batch]) -> Iterator[Path]:
    for batch in batches:
        if batch.domain != planned.selection.domain:
            yield planned.file(batch.path)


def _kept_texts(planned: Planned, batches: Sequence[Batch], tasks: Sequence[Task]) -> Iterator[Any]:
    """Yield the texts of rows and tasks as they will be, and their ids."""
    for file in _kept_rows(planned, batches):
        yield from (array for _, array in parquet_cells(file))
    for task in tasks:
        if task.mteb is None and task.path not in planned.removed:
            for name in ("queries", "corpus"):
                cells = parquet_cells(planned.file(f"{task.path}/{name}.parquet"))
                yield from (array for _, array in cells)


def _write_task(planned: Planned, changed: ChangedTask, texts: set[str]) -> None:
    """Write a task without its forgotten parts, or remove it if no query stays."""
    task, before = changed.task, changed.before
    if changed.empty:
        planned.counts["task_queries"] += task.queries
        _drop_task(planned, task)
        return
    after = changed.without(texts)
    lost = {
        "task_queries": before.queries.num_rows - after.queries.num_rows,
        "task_documents": before.corpus.num_rows - after.corpus.num_rows,
        "judgements": before.qrels.num_rows - after.qrels.num_rows,
    }
    if not any(lost.values()):
        return
    planned.counts.update(lost)
    planned.target(task.path)
    for name in write_changed(planned.registry, changed, after, planned.folder / task.path):
        planned.move(f"{task.path}/{name}")
    planned.erasure.tasks[task.name] = {
        "queries": after.queries.num_rows,
        "documents": after.corpus.num_rows,
        "judgements": after.qrels.num_rows,
        "sha256": after.sha256(),
    }
    planned.erasure.dropped_scores.append(task.name)
    _drop_scores(planned, task)
    owner = next((batch for batch in planned.registry.batches(task.domain) if batch.held_out), None)
    if task.origin == "holdout" and owner is not None:
        out = min(lost["judgements"], owner.held_out)
        _lower(planned, owner, held_out=out, rows_in=out)


def _drop_task(planned: Planned, task: Task) -> None:
    planned.counts["tasks"] += 1
    planned.erasure.dropped_tasks.append(task.name)
    planned.removed.append(task.path)
    _drop_scores(planned, task)


def _drop_scores(planned: Planned, task: Task) -> None:
    for score in planned.registry.all_scores():
        if score.task == task.name:
            planned.counts["scores"] += 1
            if score.path is not None:
                planned.removed.append(score.path)


def _drop_domain(planned: Planned, batches: Sequence[Batch], tasks: Sequence[Task]) -> None:
    """Remove a domain with its batches and tasks, and the conflicts that were measured with it."""
    domain = planned.selection.domain
    if domain is None:
        return
    planned.erasure.dropped_domains.append(domain)
    planned.counts["domains"] += 1
    for batch in batches:
        if batch.domain == domain:
            planned.counts["batches"] += 1
            planned.counts["rejects"] += batch.rejected if batch.rejects_path else 0
            planned.erasure.dropped_batches.append(batch.id)
            planned.removed += [path for path in (batch.path, batch.rejects_path) if path is not None]
    for task in tasks:
        if task.domain == domain:
            planned.counts["task_queries"] += task.queries
            _drop_task(planned, task)
    if planned.registry.path("conflicts").exists():
        planned.removed.append("conflicts")


def _write_rejects(planned: Planned, batches: Sequence[Batch], texts: set[str]) -> None:
    """Write the reject files that lose rows, and remove those that lose all."""
    root, domain = planned.registry.root, planned.selection.domain
    owners = {batch.rejects_path: batch for batch in batches if batch.rejects_path}
    loose = [path.relative_to(root).as_posix() for path in sorted(root.glob("rejects/*.jsonl"))]
    for path in [*owners, *loose]:
        owner = owners.get(path)
        if path in planned.removed or path is None or not (root / path).is_file():
            continue
        if owner is None and domain and re.fullmatch(rf"{re.escape(domain)}-[0-9a-f]{{12}}\.jsonl", Path(path).name):
            planned.counts["rejects"] += (root / path).read_bytes().count(b"\n")
            planned.removed.append(path)
            continue
        target = planned.target(path)
        columns = None if owner is None else text_columns(owner)
        kept, removed = write_rejects(root / path, planned.selection, texts, columns, target)
        if not removed or not kept:
            target.unlink()
        if not removed:
            continue
        planned.counts["rejects"] += removed
        if kept:
            planned.move(path)
        else:
            planned.removed.append(path)
        if owner is not None:
            _lower(planned, owner, rejected=removed, rows_in=removed)
            if not kept:
                planned.erasure.batches[owner.id]["rejects_path"] = None


def _write_leaks(planned: Planned, tasks: Sequence[Task]) -> None:
    """Take the removed rows out of the leaks into tasks."""
    registry = planned.registry
    recorded = registry.leaks()
    for task in tasks:
        path = f"{task.path}/{LEAKS}"
        if task.path in planned.removed or not registry.path(path).is_file():
            continue
        table = pq.read_table(registry.path(path))
        rows = list(zip(table["batch"].to_pylist(), table["row_hash"].to_pylist(), strict=True))
        gone = {(batch, key) for batch, keys in planned.rows.hashes.items() for key in keys}
        stays = table.filter(pa.array([row not in gone for row in rows], pa.bool_()))
        if stays.num_rows == table.num_rows:
            continue
        planned.counts["leaks"] += table.num_rows - stays.num_rows
        pq.write_table(stays, planned.target(path), compression="zstd")
        planned.move(path)
        totals: dict[str, list[int]] = {}
        for batch, near in zip(stays["batch"].to_pylist(), stays["near"].to_pylist(), strict=True):
            of_batch = totals.setdefault(batch, [0, 0])
            of_batch[0] += 1
            of_batch[1] += near
        times = {leak.batch: leak.found_at for leak in recorded if leak.task == task.name}
        planned.erasure.leaks[task.name] = [
            Leak(task.name, batch, count, near, times[batch]) for batch, (count, near) in totals.items()
        ]


def _digests(planned: Planned) -> tuple[list[ChangedFile], list[FileDigest]]:
    """Return the changed files for the certificate, and all digests of the artifacts that have some."""
    recorded = planned.registry.digests.recorded()
    known = {digest.path: digest for digests in recorded.values() for digest in digests}
    after = {path: file_sha256(planned.folder / path) for path in planned.moved}
    files = [ChangedFile(path, known[path].sha256 if path in known else None, after[path]) for path in planned.moved]
    gone = {path for path in known if planned.removed and _below(path, planned.removed)}
    files += [ChangedFile(path, known[path].sha256, None) for path in sorted(gone)]
    digests = []
    for own in recorded.values():
        if any(digest.path in after for digest in own):
            for digest in own:
                if digest.path in after:
                    size = (planned.folder / digest.path).stat().st_size
                    digest = FileDigest(digest.path, digest.artifact, size, after[digest.path])
                digests.append(digest)
    return files, digests


def _below(path: str, roots: Sequence[str]) -> bool:
    return path in roots or any(parent.as_posix() in roots for parent in Path(path).parents)


def _texts_of_tasks(registry: Registry, tasks: Sequence[Task]) -> set[str]:
    """Return the texts of local tasks."""
    texts: set[str] = set()
    for task in tasks:
        if task.mteb is None:
            for name in ("queries", "corpus"):
                texts.update(pq.read_table(registry.task_folder(task) / f"{name}.parquet")["text"].to_pylist())
    return texts


def _mentioned(registry: Registry, texts: set[str]) -> bool:
    """Return whether a file that no record names holds one of the texts, such as a file that was moved aside."""
    owned = {registry.catalog.path, *(registry.path(artifact.path) for artifact in registry.artifacts())}
    search = Search(sorted(texts))
    return bool(texts) and bool(search_folder(registry.root, search, without=owned, follow=True).hits)


def _nothing(selection: Selection) -> str:
    what = "the query" if selection.by == "query" else f"any of the {selection.asked:,} rows"
    return (
        f"Nothing was removed: the workspace does not hold {what}. Rows are compared by their whole texts; write them "
        "as they were ingested."
    )
