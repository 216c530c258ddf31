"""Training compares embeddings as the model is used: by its similarity, on the dimensions that it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from continual.config import TrainConfig
from continual.errors import ModelError
from continual.models.encoder import load_encoder
from continual.train.candidates import embed_pairs
from continual.train.losses import drift, guided, info_nce
from continual.train.objective import Objective
from continual.train.similarity import Similarity, similarity_of
from tests.train.runs import CONFIG, make_table, session
from tests.variants import variant

PLAIN = CONFIG.model_copy(update={"max_negatives": 0})


@pytest.fixture
def dot_model(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that compares by dot product, with norms that vary, so that cosine ranks differently."""
    return variant(tiny_model, tmp_path / "dot", similarity="dot", stretch=2.0)


def nce(scores: np.ndarray) -> float:
    return float(np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores)))


def encoded(model: Any, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    queries = model.encode_query([row["query"] for row in rows])
    return queries.astype(np.float64), model.encode_document([row["positive"] for row in rows]).astype(np.float64)


def cosines(queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(documents, axis=1)[None, :]
    return np.asarray(queries @ documents.T / norms)


def test_the_fixture_ranks_differently_by_cosine_and_by_dot_product(dot_model: Path) -> None:
    queries, documents = encoded(load_encoder(dot_model, device="cpu"), make_table(12, 1).to_pylist())
    assert (np.argmax(queries @ documents.T, axis=1) != np.argmax(cosines(queries, documents), axis=1)).any()


def test_a_dot_product_model_is_trained_by_dot_products(dot_model: Path) -> None:
    table = make_table(6, 1)
    opened = session(dot_model, PLAIN, table)
    loss, _ = opened.backward(np.arange(6))
    opened.fused.undo()
    queries, documents = encoded(opened.model, table.to_pylist())
    assert loss == pytest.approx(nce(queries @ documents.T), rel=1e-4)  # temperature 1
    assert abs(loss - nce(cosines(queries, documents) / 0.05)) > 0.1
    other = PLAIN.model_copy(update={"dot_temperature": 5.0})
    assert session(dot_model, other, table).backward(np.arange(6))[0] == pytest.approx(
        nce(queries @ documents.T / 5), rel=1e-4
    )


def test_unit_vectors_have_the_temperature_of_cosines(tiny_model: Path, tmp_path: Path) -> None:
    model = variant(tiny_model, tmp_path / "unit", similarity="dot")
    plain, dot = (session(path, PLAIN).backward(np.arange(6))[0] for path in (tiny_model, model))
    assert plain == dot


@pytest.mark.parametrize("name", ["euclidean", "manhattan"])
def test_a_distance_is_refused_by_name(tiny_model: Path, tmp_path: Path, name: str) -> None:
    model = variant(tiny_model, tmp_path / name, similarity=name)
    with pytest.raises(ModelError, match=f"{name} compares embeddings by {name} distance"):
        session(model)


def test_the_guide_and_compatibility_compare_by_dot_product(dot_model: Path) -> None:
    table = make_table(8, 1)
    plain = session(dot_model, PLAIN, table).backward(np.arange(8))[0]
    guide = session(dot_model, PLAIN.model_copy(update={"guide_margin": 0.1}), table)
    loss, _ = guide.backward(np.arange(8))
    queries, documents = encoded(load_encoder(dot_model, device="cpu"), table.to_pylist())
    norms = np.linalg.norm(queries, axis=1) * np.linalg.norm(documents, axis=1)
    dots = queries @ documents.T
    masked = dots > (np.diag(dots) - 0.1 * norms)[:, None]
    np.fill_diagonal(masked, False)
    by_cosine = cosines(queries, documents) > np.diag(cosines(queries, documents))[:, None] - 0.1
    np.fill_diagonal(by_cosine, False)
    assert (masked != by_cosine).any()
    guide.fused.undo()
    now, then = encoded(guide.model, table.to_pylist())
    assert loss == pytest.approx(nce(np.where(masked, -np.inf, now @ then.T)), rel=1e-4)

    asking = session(dot_model, PLAIN.model_copy(update={"anchor": "current", "compatibility": 0.5}), table)
    asked, _ = asking.backward(np.arange(8))
    assert asked - plain == pytest.approx(0.5 * nce(now @ documents.T), rel=1e-3)


def test_drift_of_dot_products_also_sees_norms() -> None:
    before = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert float(drift(2 * before, before, None)) == pytest.approx(0, abs=1e-6)
    assert float(drift(2 * before, before, None, "dot")) == pytest.approx(0.5)
    unit, other = (torch.nn.functional.normalize(each, dim=-1) for each in (before, before.flip(0) + before))
    assert float(drift(other, unit, None, "dot")) == pytest.approx(float(drift(other, unit, None)), rel=1e-5)


def test_masks_and_losses_of_unit_vectors_are_those_of_cosines() -> None:
    parts = [torch.randn(6, 5, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    units = [torch.nn.functional.normalize(each, dim=-1) for each in parts]
    assert guided(*units, 0.1, "dot").equal(guided(*units, 0.1))
    assert guided(*units, 0.1).any()
    same = info_nce(*units, None, 0.05), info_nce(*units, None, 0.05, similarity="dot")
    assert float(same[0]) == pytest.approx(float(same[1]), rel=1e-5)


def test_replay_policies_and_searches_see_dot_products(dot_model: Path) -> None:
    table = make_table(12, 1)
    queries, positives, losses = embed_pairs(dot_model, table, PLAIN)
    expected, documents = encoded(load_encoder(dot_model, device="cpu"), table.to_pylist())
    np.testing.assert_allclose(queries, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(positives, documents, rtol=1e-4, atol=1e-5)
    dots = expected @ documents.T
    np.testing.assert_allclose(losses["d0"], np.log(np.exp(dots).sum(axis=1)) - np.diag(dots), rtol=1e-3, atol=1e-4)
    objective = Objective(dot_model, table, PLAIN.model_copy(update={"batch_size": 12}))
    assert objective.evaluate(objective.parameters())["d0"] == pytest.approx(nce(dots), rel=1e-4)


# Leading dimensions.


@pytest.fixture
def cut_model(tiny_model: Path, tmp_path: Path) -> Path:
    return variant(tiny_model, tmp_path / "cut", truncate_dim=16)


def whole_and_cut(model: Any, rows: list[dict[str, Any]]) -> list[tuple[np.ndarray, np.ndarray]]:
    found = [encoded(model, rows)]
    assert found[0][0].shape[1] == 16
    with model.truncate_embeddings(None):
        found.insert(0, encoded(model, rows))
    return found


def test_the_loss_is_computed_on_the_dimensions_that_the_model_serves(cut_model: Path) -> None:
    table = make_table(6, 1)
    opened = session(cut_model, PLAIN, table)
    loss, _ = opened.backward(np.arange(6))
    opened.fused.undo()
    whole, cut = whole_and_cut(opened.model, table.to_pylist())
    np.testing.assert_array_equal(whole[0][:, :16], cut[0])
    assert loss == pytest.approx(nce(cosines(*cut) / 0.05), rel=1e-4)
    assert abs(loss - nce(cosines(*whole) / 0.05)) > 0.01


def test_matryoshka_adds_the_whole_and_the_served_dimensions(cut_model: Path) -> None:
    table = make_table(6, 1)
    opened = session(cut_model, PLAIN.model_copy(update={"matryoshka": [8, 24]}), table)
    loss, _ = opened.backward(np.arange(6))
    opened.fused.undo()
    (queries, documents), _ = whole_and_cut(opened.model, table.to_pylist())
    terms = [nce(cosines(queries[:, :size], documents[:, :size]) / 0.05) for size in (32, 8, 24, 16)]
    assert loss == pytest.approx(np.mean(terms), rel=1e-4)


@pytest.mark.parametrize("matryoshka", [[], [8]])
def test_compatibility_is_measured_on_the_served_dimensions(cut_model: Path, matryoshka: list[int]) -> None:
    table = make_table(6, 1)
    settings = {"matryoshka": matryoshka, "anchor": "current", "compatibility": 0.5}
    plain = session(cut_model, PLAIN.model_copy(update={"matryoshka": matryoshka}), table).backward(np.arange(6))[0]
    opened = session(cut_model, PLAIN.model_copy(update=settings), table)
    loss, _ = opened.backward(np.arange(6))
    opened.fused.undo()
    before = load_encoder(cut_model, device="cpu")
    queries, documents = encoded(opened.model, table.to_pylist())[0], encoded(before, table.to_pylist())[1]
    assert loss - plain == pytest.approx(0.5 * nce(cosines(queries, documents) / 0.05), rel=1e-3)


def test_replay_policies_and_searches_see_the_served_dimensions(cut_model: Path) -> None:
    table = make_table(12, 1)
    queries, _, _ = embed_pairs(cut_model, table, PLAIN)
    expected = encoded(load_encoder(cut_model, device="cpu"), table.to_pylist())
    units = expected[0] / np.linalg.norm(expected[0], axis=1, keepdims=True)
    np.testing.assert_allclose(queries, units, rtol=1e-4, atol=1e-5)
    objective = Objective(cut_model, table, PLAIN.model_copy(update={"batch_size": 12}))
    assert objective.evaluate(objective.parameters())["d0"] == pytest.approx(nce(cosines(*expected) / 0.05), rel=1e-4)


def test_similarity_of_reads_the_model(tiny_model: Path, cut_model: Path, dot_model: Path, tmp_path: Path) -> None:
    config = TrainConfig(temperature=0.02, dot_temperature=3.0)

    def read(folder: Path) -> Similarity:
        return similarity_of(load_encoder(folder, device="cpu"), config)

    assert read(tiny_model) == Similarity("cosine", 0.02, 32, 32)
    assert read(cut_model) == Similarity("cosine", 0.02, 32, 16)
    assert read(dot_model) == Similarity("dot", 3.0, 32, 32)
    both = variant(tiny_model, tmp_path / "both", similarity="dot", truncate_dim=16)
    assert read(both) == Similarity("dot", 0.02, 32, 16)  # the first 16 of 32 dimensions don't have norm 1
    wide = variant(tiny_model, tmp_path / "wide", truncate_dim=64)
    assert not read(wide).truncated


def test_keys_of_earlier_trainings_stay() -> None:
    assert "dot_temperature" not in TrainConfig().deciding()
    assert TrainConfig(dot_temperature=2.0).deciding()["dot_temperature"] == 2.0
