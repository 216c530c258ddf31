"""What the workspace of these tests holds."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from continual import Workspace
from continual.merge.sources import Model
from tests.pairs import make_pairs

ROWS = {"big": 60, "small": 20}


def ingest(workspace: Workspace, folder: Path, name: str, rows: int, seed: int, **options: object) -> None:
    file = folder / f"{name}-{seed}.parquet"
    pq.write_table(pa.Table.from_pylist(make_pairs(rows, seed=seed)), file)
    workspace.ingest(file, domain=name, **options)  # type: ignore[arg-type]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model = Model(folder)
    return {key: model.read(key) for key in model.entries}
