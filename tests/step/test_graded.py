"""Updates on graded pairs, alone and beside contrastive rows."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from continual import Workspace
from continual.models.encoder import load_encoder
from continual.replay import RowReader
from continual.stream import Columns
from tests.rows import Write, make_pairs, sentence
from tests.workspaces import make_workspace


def graded_pairs(rows: int) -> list[dict[str, object]]:
    """Return pairs that share 5 to 0 of their 5 words and are scored 0 to 5: contrastive training can't learn them."""
    rng, pairs = random.Random(3), list[dict[str, object]]()
    for number in range(rows):
        words, shared = sentence(rng, 5).split(), number % 6
        other = words[:shared] + sentence(rng, 5 - shared).split()
        rng.shuffle(other)
        pairs.append({"sentence1": " ".join(words), "sentence2": " ".join(other), "score": 5.0 - shared})
    return pairs


def order(workspace: Workspace, version: str, pairs: list[dict[str, object]]) -> float:
    """Return Pearson's correlation of the cosines with the scores, by a plain model of the version."""
    model = load_encoder(workspace.registry.path(workspace.registry.version(version).path), device="cpu")
    first = model.encode_query([str(pair["sentence1"]) for pair in pairs])
    second = model.encode_document([str(pair["sentence2"]) for pair in pairs])
    cosines = (first * second).sum(axis=1)
    return float(np.corrcoef(cosines, [float(str(pair["score"])) for pair in pairs])[0, 1])


@pytest.fixture
def graded(tmp_path: Path, tiny_model: Path, write_pairs: Write) -> Workspace:
    workspace = make_workspace(tmp_path / "workspace", tiny_model)
    workspace.ingest(write_pairs("sts.parquet", graded_pairs(192)), kind="graded", columns=Columns(score_range=(0, 5)))
    return workspace


def test_an_update_learns_graded_pairs_and_replays_them(graded: Workspace, write_pairs: Write) -> None:
    settings = {"train": {"learning_rate": 0.01, "epochs": 4, "distillation": 0.0}}
    step = graded.update(merge=1.0, settings=settings)
    assert step.passed
    assert step.version.pairs_trained == 4 * 192
    pairs = graded_pairs(192)
    assert order(graded, step.version.id, pairs) > order(graded, "v0", pairs) + 0.3

    graded.ingest(write_pairs("next.parquet", make_pairs(60, seed=5)), holdout=0)
    with RowReader(graded.registry) as reader:
        batches = graded.registry.batches()
        drawn = reader.draw(batches[1:], batches[:1], {"sts": 40}, {})
    scores = {row["sentence1"]: row["score"] for row in pairs}
    replayed = drawn.table.filter(drawn.table["replayed"]).to_pylist()
    assert len(replayed) == 40
    assert all(row["score"] == pytest.approx(float(str(scores[row["query"]])) / 5) for row in replayed)
    assert drawn.table.filter(pa.compute.invert(drawn.table["replayed"]))["score"].null_count == 60
    again = graded.update(replay=0.5, settings={"replay": {"policy": "hardest"}})
    assert again.passed
    assert {window.domain: window.rows for window in again.version.provenance.replay} == {"sts": 96}
    assert graded.rebuild(again.version.id).sha256 == again.version.sha256


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"train": {"mix_domains": True}},
        {"train": {"distillation": 20.0, "distillation_loss": "kl"}},
        {"train": {"matryoshka": [8], "bidirectional": True}},
        {"merge": {"method": "search", "search_rows": 16}},
        {"train": {"anchor": "current", "compatibility": 0.5}},
    ],
    ids=["mixed", "kl", "matryoshka", "search", "compatible"],
)
def test_graded_pairs_train_beside_others_with_other_settings(
    graded: Workspace, write_pairs: Write, settings: dict[str, object]
) -> None:
    graded.ingest(write_pairs("pairs.parquet", make_pairs(60, seed=5)), holdout=0)
    step = graded.update(settings=settings)
    assert step.passed
    assert np.isfinite(step.version.provenance.training.loss)
