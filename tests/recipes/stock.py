"""The workspace of these tests: two domains of which nothing was learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from continual import Workspace
from continual.merge.sources import Model
from tests.rows import make_pairs
from tests.workspaces import Once, make_workspace

ROWS = {"big": 60, "small": 20}


def ingest(workspace: Workspace, folder: Path, name: str, rows: int, seed: int, **options: object) -> None:
    file = folder / f"{name}-{seed}.parquet"
    pq.write_table(pa.Table.from_pylist(make_pairs(rows, seed=seed)), file)
    workspace.ingest(file, domain=name, **options)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = Model(folder)
    return {key: model.read(key) for key in model.entries}


def make_stocked(folder: Path, model: Path) -> None:
    """Make the workspace `w` with two domains of which nothing was learned, and a task of a third."""
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


@pytest.fixture(scope="session")
def stocked(once: Once, tiny_model: Path) -> Path:
    return once("stocked", lambda folder: make_stocked(folder, tiny_model)) / "w"


@pytest.fixture
def workspace(stocked: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(stocked, tmp_path / "w")
    return Workspace(tmp_path / "w")
