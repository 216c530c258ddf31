"""Fixtures: a workspace with two domains of which nothing was learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from tests.pairs import make_pairs
from tests.recipes.stock import ROWS, ingest
from tests.workspaces import Once, make_workspace


@pytest.fixture(scope="session")
def stocked(once: Once, tiny_model: Path) -> Path:
    """A workspace with two domains of 60 and 20 rows, and a task of a third."""
    return once("stocked", lambda folder: stock(folder, tiny_model)) / "w"


def stock(folder: Path, model: Path) -> None:
    workspace = make_workspace(folder / "w", model)
    for seed, (name, rows) in enumerate(ROWS.items()):
        ingest(workspace, folder, name, rows, seed, holdout=0.0)
    pairs = make_pairs(12, seed=9)
    task = folder / "task"
    task.mkdir()
    ids = [f"d{number}" for number in range(len(pairs))]
    texts = {key: [str(pair[key]) for pair in pairs] for key in ("query", "positive")}
    pq.write_table(pa.table({"doc_id": ids, "text": texts["positive"]}), task / "corpus.parquet")
    pq.write_table(pa.table({"query_id": ids, "text": texts["query"]}), task / "queries.parquet")
    pq.write_table(pa.table({"query_id": ids, "doc_id": ids, "score": [1] * len(ids)}), task / "qrels.parquet")
    workspace.add_task("other", task)


@pytest.fixture
def workspace(stocked: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(stocked, tmp_path / "w")
    return Workspace(tmp_path / "w")
