"""Models that say how they are used: leading dimensions and dot products, from init to the index and the export."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import ModelError
from tests.commands import Run
from tests.rows import make_pairs
from tests.variants import variant
from tests.workspaces import SETTINGS, make_workspace

pytestmark = pytest.mark.slow

FAST = SETTINGS.replace("[train]", "[train]\nlearning_rate = 0.01\ndistillation = 1.0")


def learned(folder: Path, model: Path) -> Workspace:
    workspace = make_workspace(folder, model, FAST)
    pq.write_table(pa.Table.from_pylist(make_pairs(90)), folder.parent / "med.parquet")
    workspace.ingest(folder.parent / "med.parquet")
    workspace.update()
    return workspace


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_leading_dimensions_from_init_to_export(tiny_model: Path, tmp_path: Path, run: Run, similarity: str) -> None:
    from sentence_transformers import SentenceTransformer

    model = variant(tiny_model, tmp_path / "model", truncate_dim=16, similarity=similarity)
    workspace = learned(tmp_path / "w", model)
    training = workspace.version("v1").provenance.training
    assert training is not None
    assert (training.similarity, training.dimensions) == (similarity, 16)
    where = ("-w", workspace.directory)
    assert "of the first 16 dimensions" in run("versions", "show", "v1", *where).out
    assert run("compare", "v0", "v1", "--index", *where).code == 0
    texts = [str(row["query"]) for row in make_pairs(12, seed=5)]
    for method in ("identity", "affine", "mlp"):  # each folder is proved to encode as its map
        workspace.fit_index("v0", "v1", tmp_path / method, method=method)
        assert SentenceTransformer(str(tmp_path / method), device="cpu").encode_query(texts).shape == (12, 16)
    exported = SentenceTransformer(str(workspace.export("v1", tmp_path / "out").directory), device="cpu")
    assert exported.truncate_dim == 16
    assert exported.similarity_fn_name == similarity
    assert exported.encode_query(texts).shape == (12, 16)
    with exported.truncate_embeddings(None):
        assert exported.encode_query(texts).shape == (12, 32)


def test_training_and_evaluation_rank_by_dot_product(tiny_model: Path, tmp_path: Path) -> None:
    model = variant(tiny_model, tmp_path / "model", similarity="dot", stretch=2.0)
    workspace = learned(tmp_path / "w", model)
    registry, version = workspace.registry, workspace.version("v1")
    assert version.provenance.training is not None
    assert version.provenance.training.similarity == "dot"
    (task,) = registry.tasks()
    corpus, queries = (pq.read_table(registry.task_folder(task) / f"{part}.parquet") for part in ("corpus", "queries"))
    loaded = workspace.load("v1")
    asked, found = loaded.encode_query(queries["text"].to_pylist()), loaded.encode_document(corpus["text"].to_pylist())
    names = np.asarray(corpus["doc_id"].to_pylist(), dtype=object)
    by_dot = names[np.argmax(asked @ found.T, axis=1)].tolist()
    units = found / np.linalg.norm(found, axis=1, keepdims=True)
    assert by_dot != names[np.argmax(asked @ units.T, axis=1)].tolist()
    score = registry.scores()["v1", task.name]
    kept = pq.read_table(registry.path(score.path or ""))
    first = {row["query_id"]: row["documents"][0] for row in kept.to_pylist()}
    assert [first[name] for name in queries["query_id"].to_pylist()] == by_dot
    # The map for an old index also keeps dot products: what fits is proved, and it does not normalise.
    fitted = workspace.fit_index("v0", "v1", tmp_path / "fitted", method="affine")
    kinds = [each["type"] for each in json.loads((fitted.directory / "modules.json").read_text())]
    assert not any("Normalize" in kind for kind in kinds)


def test_init_refuses_a_distance_by_name(tiny_model: Path, tmp_path: Path) -> None:
    model = variant(tiny_model, tmp_path / "far", similarity="manhattan")
    with pytest.raises(ModelError, match="far compares embeddings by manhattan distance"):
        Workspace.init(tmp_path / "w", str(model))
    assert not (tmp_path / "w" / ".continual").exists()
