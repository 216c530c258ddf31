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
import pyarrow.compute as pc
import pyarrow.parquet as pq

from continual.config import Config
from continual.errors import NothingToDoError
from continual.pairs.choose import choose
from continual.pairs.encoder import PairEncoder
from continual.pairs.passages import PIECE, Corpus, Passages
from continual.pairs.search import BLOCK, Indices, Scores, Vectors, nearest
from continual.progress import SILENT, Progress
from continual.registry import Batch, Registry
from continual.registry.text import hash_text
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

MOST_POSITIVES = 100
"""Positives of a query that its candidates are compared with for near duplicates."""

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
    with scratch(registry.root / "runs", "mining") as folder:
        (folder / "spill").mkdir(parents=True)
        with database(folder / "spill") as connection:
            found = Passages(connection, registry, batches, targets, corpora)
            if not found.queries:
                raise NothingToDoError(f"{domain} has no row that can be trained on, so there is nothing to mine for.")
            instruction = registry.instructions([batches[0].id]).get(domain)
            encoder = PairEncoder(model, config, instruction, progress)
            progress.start(f"mining negatives for {domain}", found.passages + found.queries, "texts")
            vectors = encoder.write(folder / "passages", found.passages, found.read("passages"))
            chosen = _Negatives.empty(found.queries, config.mine.negatives)
            for place, texts in enumerate(found.read("queries")):
                _mine_piece(found, place * PIECE, encoder.queries(texts), vectors, config, chosen)
            progress.finish()
            sources = sorted({batch.domain for corpus in corpora if not isinstance(corpus, str) for batch in corpus})
            made = {"version": version, "mine": json.dumps(config.mine.model_dump(mode="json"))}
            made["domains"] = json.dumps([domain, *(name for name in sources if name != domain)])
            asked = [_write(registry, batch, found, chosen, made) for batch in targets]
            examples = _examples(found, chosen, show)
            del vectors
    queries = np.concatenate(asked)
    counts = (chosen.passages[queries] >= 0).sum(axis=1)
    margins = chosen.positive[queries][:, None] - chosen.scores[queries]
    return Mined(
        domain=domain,
        version=version,
        rows=len(queries),
        passages=found.passages,
        negatives=int(counts.sum()),
        full=int((counts == config.mine.negatives).sum()),
        none=int((counts == 0).sum()),
        margin=float(margins[np.isfinite(margins)].mean()) if counts.any() else None,
        near=float(chosen.near.mean()),
        seconds=time.monotonic() - began,
        encoding=encoder.seconds,
        examples=examples,
    )


@dataclass(frozen=True)
class _Negatives:
    """What was chosen for every query.

    Attributes:
        passages: Numbers of the negatives, -1 where there are fewer, [queries, negatives].
        scores: Their scores, -inf where there are fewer, [queries, negatives].
        positive: Lowest score of a positive, [queries].
        lowest: Number of that positive, [queries].
        near: Number of passages that scored too close to it, or above it, [queries].
    """

    passages: Indices
    scores: Scores
    positive: Scores
    lowest: Indices
    near: Indices

    @classmethod
    def empty(cls, queries: int, negatives: int) -> _Negatives:
        return cls(
            np.full((queries, negatives), -1, np.int64),
            np.full((queries, negatives), -np.inf, np.float32),
            np.full(queries, np.inf, np.float32),
            np.zeros(queries, np.int64),
            np.zeros(queries, np.int64),
        )


def _mine_piece(
    found: Passages, first: int, queries: Vectors, vectors: Vectors, config: Config, chosen: _Negatives
) -> None:
    """Choose the negatives of some queries.

    Args:
        first: Number of the first of these queries.
        queries: Their embeddings, [queries, dimensions].
        vectors: The embeddings of all passages, [passages, dimensions].
        chosen: Gets what was chosen.
    """
    mine, here = config.mine, slice(first, first + len(queries))
    links = found.links(first, first + len(queries))
    asked, told = links.query[links.positive], links.passage[links.positive]
    scores_of = np.einsum("ij,ij->i", queries[asked], vectors[told])
    order = np.lexsort((told, scores_of, asked))  # the lowest score of each query first
    each, place = np.unique(asked[order], return_index=True)
    positive = np.full(len(queries), np.inf, np.float32)
    positive[each] = scores_of[order][place]
    chosen.lowest[first + each] = told[order][place]
    k = min(mine.range_max + min(found.most_links, MOST_LINKS), found.passages)
    blocks = (vectors[start : start + BLOCK] for start in range(0, found.passages, BLOCK))
    scores, indices = nearest(queries, blocks, k)
    rows = np.arange(len(queries))[:, None]
    excluded = np.isin(rows * found.passages + indices, links.query * found.passages + links.passage)
    documents, most = found.documents[indices], found.documents.max(initial=0) + 1
    excluded |= (documents >= 0) & np.isin(rows * most + documents, links.document_query * most + links.document)
    # Twice as many as wanted, because some may turn out to be the positive in other words.
    best = choose(scores, indices, excluded, positive, mine, 2 * mine.negatives)
    texts = found.texts("passages", np.concatenate([best.indices[best.indices >= 0], told]))
    positives: dict[int, list[str]] = {}
    for query, passage in zip(asked.tolist(), told.tolist(), strict=True):
        if len(positives.setdefault(query, [])) < MOST_POSITIVES:
            positives[query].append(texts[passage])
    for query, numbers in enumerate(best.indices.tolist()):
        kept = _unlike([(n, texts[n]) for n in numbers if n >= 0], positives[query])[: mine.negatives]
        places = [numbers.index(number) for number in kept]
        chosen.passages[first + query, : len(kept)] = kept
        chosen.scores[first + query, : len(kept)] = best.scores[query, places]
    chosen.positive[here] = positive
    chosen.near[here] = best.near


def _unlike(candidates: list[tuple[int, str]], positives: list[str]) -> list[int]:
    """Return the numbers of the candidates that are no near duplicates of a positive."""
    values, sizes = shingles([*positives, *(text for _, text in candidates)])
    sets = [set(part.tolist()) for part in np.split(values, np.cumsum(sizes)[:-1])]
    own, others = sets[: len(positives)], sets[len(positives) :]

    def near(words: set[int]) -> bool:
        return any(len(words & each) >= NEAR["document"] * len(words | each) and words for each in own)

    return [number for (number, _), words in zip(candidates, others, strict=True) if not near(words)]


def _write(registry: Registry, batch: Batch, found: Passages, chosen: _Negatives, made: dict[str, str]) -> Indices:
    """Publish the mined negatives of a batch instead of those it had; return the numbers of its rows' queries.

    Args:
        made: What the file says of itself: the version that found them, the rules, and the domains of the passages.
    """
    hashes, queries = found.rows(registry.path(batch.path))
    schema = NEGATIVES.with_metadata(made)
    with scratch(registry.root / "runs", "mined") as folder:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "negatives.parquet"
        with pq.ParquetWriter(file, schema, compression="zstd", write_statistics=["row_hash"]) as writer:
            for start in range(0, len(queries), PIECE):
                some = queries[start : start + PIECE]
                numbers = chosen.passages[some]
                texts = found.texts("passages", numbers[numbers >= 0])
                negatives = [[texts[n] for n in row if n >= 0] for row in numbers.tolist()]
                table = pa.table(
                    {
                        "row_hash": hashes.slice(start, len(some)).combine_chunks(),
                        "negatives": negatives,
                        "hashes": [[hash_text(text) for text in row] for row in negatives],
                        "scores": [
                            row[: len(own)].tolist() for row, own in zip(chosen.scores[some], negatives, strict=True)
                        ],
                        "positive_score": chosen.positive[some],
                    },
                    schema=schema,
                )
                writer.write_table(table.filter(pc.greater(pc.list_value_length(table["negatives"]), 0)))
        publish_mined(registry, batch, file)
    return queries


def _examples(found: Passages, chosen: _Negatives, show: int) -> list[Example]:
    """Return some queries with what was chosen, evenly from all."""
    if not show:
        return []
    some = np.arange(0, found.queries, max(1, found.queries // show))[:show]
    numbers = chosen.passages[some]
    queries = found.texts("queries", some)
    texts = found.texts("passages", np.concatenate([numbers[numbers >= 0], chosen.lowest[some]]))
    return [
        Example(
            queries[query],
            (texts[int(chosen.lowest[query])], float(chosen.positive[query])),
            [
                (texts[n], float(score))
                for n, score in zip(chosen.passages[query].tolist(), chosen.scores[query], strict=True)
                if n >= 0
            ],
        )
        for query in some.tolist()
    ]
