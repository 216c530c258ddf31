"""Workspaces of the tiny model, with settings that train in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from continual import Workspace
from tests.rows import make_pairs

Once = Callable[[str, Callable[[Path], object]], Path]
"""Makes a folder once for all workers of a run, by a name: the fixture `once`."""

SETTINGS = """
[ingest]
holdout = 0.2
[train]
epochs = 1
batch_size = 16
max_length = 32
lora_rank = 4
checkpoint_seconds = 0
[gate]
max_forgetting = 100
max_ood_loss = 100
min_gain = -100
[index]
step = false
"""


def make_workspace(folder: Path, model: Path, settings: str = SETTINGS) -> Workspace:
    """Make a workspace that has learned nothing."""
    Workspace.init(folder, str(model))
    (folder / "continual.toml").write_text(settings)
    return Workspace(folder)


def learn(workspace: Workspace, domain: str, rows: int, *, seed: int, **options: object) -> None:
    """Ingest made-up pairs and learn them in a step that passes; the options are those of the update."""
    file = workspace.directory.parent / f"{domain}.parquet"
    pq.write_table(pa.Table.from_pylist(make_pairs(rows, seed=seed)), file)
    workspace.ingest(file)
    assert workspace.update(**options).passed  # type: ignore[arg-type]
