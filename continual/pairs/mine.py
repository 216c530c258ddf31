"""Mine hard negatives for the rows of a domain: encode, search, choose, write.

The embeddings of the passages lie in a temporary file, and queries are searched a piece at a time, so that memory grows
neither with the passages nor with the rows.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from continual.config import Config
from continual.errors import NothingToDoError
from continual.pairs.choose import choose
from continual.pairs.encoder import PairEncoder, Vectors
from continual.pairs.passages import PIECE, Corpus, Passages
from continual.pairs.search import BLOCK, nearest
from continual.progress import SILENT, Progress
from continual.registry import Batch, Registry
from continual.replay.mined import publish_mined
from continual.storage.files import scratch
from continual.stream.database import database
from continual.stream.near import NEAR
from continual.stream.shingles import shingles

NEGATIVES = pa.schema(
    [
        pa.field("row_hash", pa.string(), False),
        pa.field("negatives", pa.list_(pa.string()), False),
        pa.field("hashes", pa.list_(pa.string()), False),
        pa.field("scores", pa.list_(pa.float32()), False),
        pa.field("positive_score", pa.float32(), False),
    ]
)
"""Columns of a file of mined negatives, in the order of the row hashes."""

MOST_LINKS = 900
"""Positives of a query that the search makes room for, beside the candidates."""

SUSPECT = 3.0
"""Passages per query that score too close to the positive, above which many may be right as well."""


@dataclass(frozen=True)
class Example:
    """A query with its positive and its mined negatives, each text with its score."""

    query: str
    positive: tuple[str, float]
    negatives: list[tuple[str, float]]


@dataclass(frozen=True)
class Mined:
    """What was mined for a domain.

    Attributes:
        domain: The domain.
        version: The version that found the negatives.
        rows: Rows of the domain that can be trained on.
        passages: Distinct passages that were searched.
        negatives: Negatives found, over all rows.
        full: Rows with as many negatives as asked for.
        none: Rows without any.
        margin: Mean difference of the positive's score and a negative's; None without negatives.
        near: Mean number of passages per query that scored too close to the positive, or above it.
        seconds: Time, in seconds.
        encoding: Part of it that encoding took.
        examples: Some rows, if asked for.
    """

    domain: str
    version: str
    rows: int
    passages: int
    negatives: int
    full: int
    none: int
    margin: float | None
    near: float
    seconds: float
    encoding: float
    examples: list[Example] = field(default_factory=list)

    @property
    def suspect(self) -> bool:
        """Whether many passages score like positives, so that some negatives may be right answers."""
        return self.near > SUSPECT

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


def mine_domain(
    registry: Registry,
    config: Config,
    model: Path,
    version: str,
    batches: Sequence[Batch],
    *,
    corpora: Sequence[Corpus] = (),
    targets: Sequence[Batch] | None = None,
    show: int = 0,
    progress: Progress = SILENT,
) -> Mined:
    """Mine negatives for a domain's rows, and write a file per batch.

    Args:
        registry: The workspace's registry.
        config: Uses [mine], train.max_length, and the batch size and precision of [eval].
        model: Folder of the model that searches.
        version: Its id.
        batches: All batches of the domain. Their positives are passages.
        corpora: Where else to find passages.
        targets: The batches whose rows get negatives; None: all.
        show: Number of examples to return.

    Raises:
        NothingToDoError: The domain has no row that can be trained on.
        DataError: A file of rows is damaged, or a corpus can't be read.
    """
    began = time.monotonic()
    (domain,) = {batch.domain for batch in batches}
    targets = batches if targets is None else targets
    files = [registry.path(batch.path) for batch in targets]
    with scratch(registry.root / "runs", "mining") as folder:
        (folder / "spill").mkdir(parents=True)
        with database(folder / "spill") as connection:
            found = Passages(connection, registry, batches, corpora)
            if not found.queries:
                raise NothingToDoError(f"{domain} has no row that can be trained on, so there is nothing to mine for.")
            instruction = registry.instructions([batches[0].id]).get(domain)
            encoder = PairEncoder(model, config, instruction, progress)
            progress.start(f"mining negatives for {domain}", found.passages + found.queries, "texts")
            passages = encoder.write(folder / "passages.npy", found.passages, found.read("passages"))
            near = 0
            for place, texts in enumerate(found.read("queries")):
                near += _mine_piece(found, place * PIECE, encoder.queries(texts), passages, config)
            progress.finish()
            for batch, file in zip(targets, files, strict=True):
                _write(registry, batch, found.rows(file), version, config)
            rows, negatives, full, none, margin = found.figures(files, config.mine.negatives)
            examples = [
                Example(query, (positive, score), list(zip(texts, scores, strict=True)))
                for query, positive, score, texts, scores in (found.examples(show) if show else [])
            ]
            del passages
    return Mined(
        domain=domain,
        version=version,
        rows=rows,
        passages=found.passages,
        negatives=negatives,
        full=full,
        none=none,
        margin=margin,
        near=near / found.queries,
        seconds=time.monotonic() - began,
        encoding=encoder.seconds,
        examples=examples,
    )


def _mine_piece(found: Passages, first: int, queries: Vectors, passages: Vectors, config: Config) -> int:
    """Choose the negatives of some queries; return how many passages scored too close to the positives.

    Args:
        first: Number of the first of these queries.
        queries: Their embeddings, [queries, dimensions].
        passages: The embeddings of all passages, [passages, dimensions].
    """
    links = found.links(first, first + len(queries))
    positive = np.full(len(queries), np.inf, np.float32)
    own = links.positive
    scores_of = np.einsum("ij,ij->i", queries[links.query[own]], passages[links.passage[own]])
    np.minimum.at(positive, links.query[own], scores_of)
    k = min(config.mine.range_max + min(found.most_links, MOST_LINKS), found.passages)
    blocks = (passages[start : start + BLOCK] for start in range(0, found.passages, BLOCK))
    scores, indices = nearest(queries, blocks, k)
    rows = np.arange(len(queries))[:, None]
    excluded = np.isin(rows * found.passages + indices, links.query * found.passages + links.passage)
    # Twice as many as wanted, because some may turn out to be the positive in other words.
    chosen = choose(scores, indices, excluded, positive, config.mine, 2 * config.mine.negatives)
    texts = found.passages_at(np.concatenate([chosen.indices[chosen.indices >= 0], links.passage[own]]))
    positives: dict[int, list[str]] = {}
    for query, passage in zip(links.query[own].tolist(), links.passage[own].tolist(), strict=True):
        positives.setdefault(query, []).append(texts[passage])
    negatives, values = [], []
    for query, (numbers, found_scores) in enumerate(zip(chosen.indices.tolist(), chosen.scores.tolist(), strict=True)):
        pairs = [(texts[n], score) for n, score in zip(numbers, found_scores, strict=True) if n >= 0]
        kept = _unlike(pairs, positives[query])[: config.mine.negatives]
        negatives.append([text for text, _ in kept])
        values.append([score for _, score in kept])
    found.add_negatives(first, negatives, values, positive.tolist())
    return int(chosen.near.sum())


def _unlike(candidates: list[tuple[str, float]], positives: list[str]) -> list[tuple[str, float]]:
    """Return the candidates that are no near duplicates of a positive."""
    values, sizes = shingles([*positives, *(text for text, _ in candidates)])
    sets = [set(part.tolist()) for part in np.split(values, np.cumsum(sizes)[:-1])]
    own, others = sets[: len(positives)], sets[len(positives) :]

    def near(words: set[int]) -> bool:
        return any(len(words & each) >= NEAR["document"] * len(words | each) and words for each in own)

    return [candidate for candidate, words in zip(candidates, others, strict=True) if not near(words)]


def _write(registry: Registry, batch: Batch, rows: pa.RecordBatchReader, version: str, config: Config) -> None:
    """Publish the mined negatives of a batch instead of those it had.

    The file says which version found them, and by which rules.
    """
    made = {"version": version, "mine": json.dumps(config.mine.model_dump(mode="json"))}
    schema = NEGATIVES.with_metadata(made)
    with scratch(registry.root / "runs", "mined") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "negatives.parquet"
        with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=["row_hash"]) as writer:
            for piece in rows:
                writer.write_table(pa.Table.from_batches([piece]).cast(schema))
        publish_mined(registry, batch, file)
