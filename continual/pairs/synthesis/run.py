"""Make pairs from passages: candidates, filters, and a file that `continual ingest` takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from continual.config import Config
from continual.errors import DataError, NothingToDoError
from continual.pairs.encoder import PairEncoder
from continual.pairs.search import BLOCK, Vectors
from continual.pairs.synthesis.filters import COPIED, FORMAT, LANGUAGE, reason
from continual.pairs.synthesis.records import Candidate, Kind, Rejected, Spent, Synthesis
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.text import hash_text, normalise
from continual.storage.files import publish, scratch
from continual.stream.near import NEAR
from continual.stream.sample import documents_of
from continual.stream.shingles import shingles

HELD, REPEATED, INCONSISTENT, ENOUGH = "task", "repeated", "inconsistent", "more than asked for"
FILTERS = (FORMAT, LANGUAGE, COPIED, HELD, REPEATED, INCONSISTENT, ENOUGH)
"""Filters in the order in which they are applied."""

EXAMPLES = 3
SHOWN = 120
QUERIES = 4_096
"""Queries that are ranked at a time."""

SCHEMA = pa.schema(
    [
        pa.field("query", pa.string(), False),
        pa.field("positive", pa.string(), False),
        pa.field("doc_id", pa.string(), False),
        pa.field("synthetic_method", pa.string(), False),
        pa.field("synthetic_type", pa.string(), False),
        pa.field("synthetic_position", pa.int32(), False),
        pa.field("synthetic_traits", pa.map_(pa.string(), pa.string()), False),
    ]
)
"""Columns of the file. `ingest` reads the first three; `doc_id` is the hash of the passage."""


@dataclass
class _Fate:
    """What became of a candidate: the filter that left it out, or None; and the rank of its passage, 0 if unknown."""

    candidate: Candidate
    left_out: str | None = None
    rank: int = 0


@dataclass
class Passages:
    """The passages of a source.

    Attributes:
        texts: Distinct passages that no task holds.
        hashes: Their hashes.
        held: Number of passages that a task holds.
    """

    texts: list[str] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    held: int = 0


def read_passages(source: str, held: set[str]) -> Passages:
    """Return the passages of a file.

    Args:
        source: A file with documents; see `continual.stream.sample.documents_of`.
        held: Hashes of texts that evaluation tasks hold.

    Raises:
        DataError: The file holds no passage.
    """
    found, seen = Passages(), set[str]()
    for text in documents_of(source):
        key = hash_text(text)
        if key in seen:
            continue
        seen.add(key)
        if key in held:
            found.held += 1
            continue
        found.texts.append(text)
        found.hashes.append(key)
    if not found.texts:
        why = f": all {found.held:,} are held by evaluation tasks" if found.held else ""
        raise DataError(f"{source} holds no passage to write queries for{why}.")
    return found


def held_texts(registry: Registry) -> set[str]:
    """Return the hashes of the queries and relevant documents of all tasks."""
    folders = registry.task_folders(registry.tasks(), full=True, names=("keys.parquet",))
    columns = [pq.read_table(folder / "keys.parquet", columns=["hash"])["hash"].to_pylist() for folder in folders]
    return {key for column in columns for key in column}


def synthesize(
    registry: Registry,
    config: Config,
    model: Path,
    version: str,
    passages: Passages,
    candidates: Iterable[Candidate],
    out: Path,
    *,
    method: str,
    held: set[str],
    per_passage: int,
    consistency: int,
    any_language: bool = False,
    missing: Mapping[str, int] | None = None,
    spent: Spent | None = None,
    progress: Progress = SILENT,
) -> Synthesis:
    """Filter candidates and write those that stay.

    Args:
        registry: The workspace's registry, for temporary files.
        config: Uses train.max_length, and the batch size and precision of [eval].
        model: Folder of the version that ranks the passages.
        version: Its id.
        passages: From `read_passages`.
        candidates: Queries for them, those of a passage together and the best first.
        out: The file to write.
        method: What made the candidates.
        held: Hashes of texts that tasks hold.
        per_passage: Most queries of a passage.
        consistency: A query stays if its own passage is among this many nearest ones; 0: whatever its rank is.
        any_language: Whether queries may be in another script than their passages.
        missing: Passages without a candidate, by reason.
        spent: What the language model used.

    Raises:
        NothingToDoError: No candidate passes.
    """
    fates = [_Fate(candidate, reason(candidate, any_language=any_language)) for candidate in candidates]
    for fate in _left(fates):
        if hash_text(fate.candidate.query) in held:
            fate.left_out = HELD
    _drop_repeated(_left(fates))
    with scratch(registry.root / "runs", "synthesis") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        _rank(fates, passages.texts, PairEncoder(model, config, None, progress), folder / "passages", progress)
    kept_of = defaultdict[int, int](int)
    for fate in _left(fates):
        if consistency and fate.rank > consistency:
            fate.left_out = INCONSISTENT
        elif kept_of[fate.candidate.passage] >= per_passage:
            fate.left_out = ENOUGH
        else:
            kept_of[fate.candidate.passage] += 1
    kept = _left(fates)
    if not kept:
        counts = ", ".join(f"{name} {found.count:,}" for name, found in _rejected(fates, passages.texts).items())
        raise NothingToDoError(
            f"No query passed the filters ({counts or 'none was written'}). Allow lower ranks with --consistency, or "
            "give longer passages."
        )
    _write(out, kept, passages, method)
    return Synthesis(
        method=method,
        version=version,
        passages=len(passages.texts),
        held=passages.held,
        covered=len(kept_of),
        written=len(fates),
        kept=len(kept),
        rejected=_rejected(fates, passages.texts),
        types=_kinds(fates, lambda candidate: candidate.type),
        traits={name: _kinds(fates, _trait(name)) for name in _names(fates)},
        missing=dict(missing or {}),
        spent=spent,
        passage_words=float(np.mean([len(text.split()) for text in passages.texts])),
        file=str(out),
    )


def _left(fates: Sequence[_Fate]) -> list[_Fate]:
    return [fate for fate in fates if fate.left_out is None]


def _drop_repeated(fates: Sequence[_Fate]) -> None:
    """Leave out queries that another passage has too, since they say nothing about one of them, and near duplicates.

    Of the queries of one passage that are near duplicates of each other, the first stays.
    """
    owners = defaultdict[str, set[int]](set)
    for fate in fates:
        owners[normalise(fate.candidate.query).casefold()].add(fate.candidate.passage)
    for fate in fates:
        if len(owners[normalise(fate.candidate.query).casefold()]) > 1:
            fate.left_out = REPEATED
    of_passage = defaultdict[int, list[set[int]]](list)
    for fate in _left(fates):
        values, _ = shingles([fate.candidate.query])
        own = set(values.tolist())
        others = of_passage[fate.candidate.passage]
        if any(len(own & other) >= NEAR["query"] * len(own | other) for other in others):
            fate.left_out = REPEATED
        else:
            others.append(own)


def _rank(
    fates: Sequence[_Fate], passages: Sequence[str], encoder: PairEncoder, file: Path, progress: Progress
) -> None:
    """Set the rank of each candidate's own passage among all passages, for those that are left."""
    asked = _left(fates)
    if not asked:
        return
    progress.start("ranking passages for the queries", len(passages) + len(asked), "texts")
    pieces = (list(passages[start : start + QUERIES]) for start in range(0, len(passages), QUERIES))
    vectors = encoder.write(file, len(passages), pieces)
    for start in range(0, len(asked), QUERIES):
        part = asked[start : start + QUERIES]
        queries = encoder.queries([fate.candidate.query for fate in part])
        own = np.array([fate.candidate.passage for fate in part])
        for fate, rank in zip(part, _ranks(queries, vectors, own), strict=True):
            fate.rank = int(rank)
    progress.finish()


def _ranks(queries: Vectors, passages: Vectors, own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each query's own passage, from 1, [queries]; passages with the same score count as behind."""
    target = np.empty(len(queries), np.float32)
    above = np.zeros(len(queries), np.int64)
    for known in (False, True):  # the same products twice, so that the score of the own passage is exactly the same
        for start in range(0, len(passages), BLOCK):
            scores = queries @ np.array(passages[start : start + BLOCK]).T
            if known:
                above += (scores > target[:, None]).sum(axis=1)
            else:
                inside = np.flatnonzero((own >= start) & (own < start + scores.shape[1]))
                target[inside] = scores[inside, own[inside] - start]
    return above + 1


def _rejected(fates: Sequence[_Fate], passages: Sequence[str]) -> dict[str, Rejected]:
    found: dict[str, Rejected] = {}
    for name in FILTERS:
        out = [fate.candidate for fate in fates if fate.left_out == name]
        if out:
            step = max(1, len(out) // EXAMPLES)
            shown = [(each.query[:SHOWN], passages[each.passage][:SHOWN]) for each in out[::step][:EXAMPLES]]
            found[name] = Rejected(len(out), shown)
    return found


def _names(fates: Sequence[_Fate]) -> list[str]:
    return sorted({name for fate in fates for name in fate.candidate.traits if name != "persona"})


def _trait(name: str) -> Callable[[Candidate], str | None]:
    return lambda candidate: candidate.traits.get(name)


def _kinds(fates: Sequence[_Fate], key: Callable[[Candidate], str | None]) -> dict[str, Kind]:
    groups = defaultdict[str, list[_Fate]](list)
    for fate in fates:
        value = key(fate.candidate)
        if value is not None:
            groups[value].append(fate)
    kinds = {}
    for name, group in sorted(groups.items()):
        kept, ranks = _left(group), [fate.rank for fate in group if fate.rank]
        lengths = [len(fate.candidate.query.split()) for fate in kept]
        kinds[name] = Kind(
            written=len(group),
            kept=len(kept),
            query_words=float(np.mean(lengths)) if lengths else 0.0,
            rank=float(np.mean(ranks)) if ranks else None,
        )
    return kinds


def _write(out: Path, kept: Sequence[_Fate], passages: Passages, method: str) -> None:
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for fate in kept:
        candidate = fate.candidate
        columns["query"].append(candidate.query)
        columns["positive"].append(candidate.positive)
        columns["doc_id"].append(passages.hashes[candidate.passage])
        columns["synthetic_method"].append(method)
        columns["synthetic_type"].append(candidate.type)
        columns["synthetic_position"].append(fate.rank)
        columns["synthetic_traits"].append(sorted(candidate.traits.items()))
    with publish(out) as partial:
        pq.write_table(pa.table(columns, schema=SCHEMA), partial, compression="zstd")
