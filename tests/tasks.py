"""Evaluation tasks: folders as BEIR has them, and as a workspace stores them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from continual.registry import Task
from tests.rows import sentence

CORPUS = [
    {"_id": "d1", "title": "Title", "text": "first  document"},
    {"_id": "d2", "title": "", "text": "  se\u0301cond "},
    {"_id": "d3", "text": "third"},
    {"_id": "d4", "title": None, "text": ""},
]
QUERIES = [
    {"_id": "q1", "text": "one"},
    {"_id": "q2", "text": "two"},
    {"_id": "train", "text": "of another split"},
]
QRELS = [("q1", "d1", 2), ("q1", "d3", 0), ("q2", "d2", 1), ("q2", "d1", -1)]


def task_record(name: str = "t", **changes: Any) -> Task:
    """Return the record of a task of 100 queries and 1,000 documents that has no files."""
    return dataclasses.replace(
        Task(name, None, f"tasks/{name}", 100, 1000, 100, "folder", "x", datetime.now(UTC).isoformat()), **changes
    )


def write_jsonl(path: Path, rows: list[dict[str, object]]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_beir(folder: Path, corpus=CORPUS, queries=QUERIES, qrels=QRELS) -> Path:
    """Write a folder as BEIR has it."""
    (folder / "qrels").mkdir(parents=True)
    write_jsonl(folder / "corpus.jsonl", corpus)
    write_jsonl(folder / "queries.jsonl", queries)
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return folder


def write_task(root: Path, name: str, seed: int = 0, queries: int = 12, documents: int = 40) -> Task:
    """Write a folder whose queries share words with one to three documents of graded relevance."""
    rng = random.Random(seed)
    folder = root / "tasks" / name
    folder.mkdir(parents=True)
    texts = {f"d{number}": sentence(rng, rng.randint(2, 30)) for number in range(documents)}
    texts["twin"] = texts["d0"]
    asked, judged = {}, []
    for number in range(queries):
        relevant = rng.sample(sorted(texts), rng.randint(1, 3))
        asked[f"q{number}"] = " ".join(" ".join(texts[key].split()[:2]) for key in relevant)
        judged += [(f"q{number}", key, grade) for grade, key in enumerate(relevant, start=1)]
        judged.append((f"q{number}", next(key for key in texts if key not in relevant), 0))
    asked["nobody"] = "a query without judgements"
    judged.append(("stranger", "d1", 1))
    columns = {
        "corpus": {"doc_id": list(texts), "text": list(texts.values())},
        "queries": {"query_id": list(asked), "text": list(asked.values())},
        "qrels": dict(zip(("query_id", "doc_id", "score"), map(list, zip(*judged, strict=True)), strict=True)),
    }
    for part, column in columns.items():
        pq.write_table(pa.table(column), folder / f"{part}.parquet")
    return Task(name, None, f"tasks/{name}", queries, documents, len(judged), "x", "0", datetime.now(UTC))
