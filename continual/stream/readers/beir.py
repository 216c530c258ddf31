"""A folder in the layout of BEIR as training rows: the judgements of `qrels/train`, joined with their texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from continual.errors import DataError
from continual.stream.readers.base import Source
from continual.stream.readers.ids import IdSource, Roles

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
QRELS = ("qrels/train.tsv", "qrels/train.parquet", "qrels/train.jsonl")


@dataclass(frozen=True, slots=True)
class BeirFiles:
    """The files of a BEIR folder that training rows come from."""

    corpus: Path
    queries: Path
    qrels: Path


def find_beir(folder: Path) -> BeirFiles | None:
    """Return the files of a folder in the layout of BEIR; None if it has another layout.

    Raises:
        DataError: The folder has a corpus and queries, but no judgements to train on.
    """
    found = [
        next((path for ending in ENDINGS if (path := folder / f"{part}{ending}").is_file()), None)
        for part in ("corpus", "queries")
    ]
    if found[0] is None or found[1] is None:
        return None
    qrels = next((path for name in QRELS if (path := folder / name).is_file()), None)
    if qrels is None:
        raise DataError(
            f"{folder} has a corpus and queries, but no {QRELS[0]} with judgements to train on. If it is an evaluation "
            f"task, use `continual task add NAME {folder}`."
        )
    return BeirFiles(found[0], found[1], qrels)


def open_beir(folder: str, files: BeirFiles, open_file: Callable[[Path], Source]) -> IdSource:
    """Return the judgements of a folder as rows with the columns query, positive, doc_id and score.

    Raises:
        DataError: The judgements have fewer than three columns.
    """
    corpus, queries, rows = map(open_file, (files.corpus, files.queries, files.qrels))
    if len(rows.columns) < 3:
        raise DataError(
            f"{files.qrels} has the columns {', '.join(rows.columns)}, but three are expected below a header line: "
            "query id, document id, score."
        )
    query, document, score = rows.columns[:3]
    source = IdSource(rows, corpus, queries, Roles((query,), (document,), others={"score": score}))
    source.name, source.stem, source.dialect = folder, Path(folder).resolve().name, {}
    return source
