"""The objective on a model: its loss and gradients, against sentence-transformers and peft."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from continual.errors import ConfigError
from continual.models.encoder import load_encoder
from continual.train.step import open_session
from tests.rows import SCHEMA
from tests.train.runs import CONFIG, SOLO, gradients, labelled, make_table, moved_from, run, session


def test_loss_and_gradients_are_those_of_sentence_transformers_and_peft(tiny_model: Path) -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    opened = session(tiny_model)
    batch = np.arange(6)
    loss, ours = gradients(opened, batch)

    rows = make_table().slice(0, 6).to_pylist()
    opened.fused.undo()  # peft's own layers from here
    model = opened.model
    features = [
        model.preprocess([row["query"] for row in rows], prompt="query: "),
        model.preprocess([row["positive"] for row in rows]),
        model.preprocess([row["negatives"][0] for row in rows]),
    ]
    expected = MultipleNegativesRankingLoss(model, scale=1 / CONFIG.temperature)(features, None)
    theirs = torch.autograd.grad(expected, [parameter for _, parameter in opened.parameters])
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-3)


def test_graded_pairs_have_the_gradients_of_sentence_transformers_and_peft(tiny_model: Path) -> None:
    from sentence_transformers.sentence_transformer.losses import CoSENTLoss

    scores = [0.2, 1.0, 0.0, 0.6, 0.6, 0.4]
    table = make_table().slice(0, 6).append_column("score", pa.array(scores))
    opened = session(tiny_model, table=table)
    loss, ours = gradients(opened, np.arange(6))
    opened.fused.undo()
    model, rows = opened.model, table.to_pylist()
    features = [
        model.preprocess([row["query"] for row in rows], prompt="query: "),
        model.preprocess([row["positive"] for row in rows]),
    ]
    expected = CoSENTLoss(model, scale=1 / CONFIG.temperature)(features, torch.tensor(scores))
    theirs = torch.autograd.grad(expected, [parameter for _, parameter in opened.parameters])
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    for mine, reference in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("tokens", [1, 60, 150])
def test_gradient_caching_changes_nothing(tiny_model: Path, tokens: int) -> None:
    batch = np.arange(8)
    loss, plain = gradients(session(tiny_model), batch)
    cached_loss, cached = gradients(
        session(tiny_model, CONFIG.model_copy(update={"micro_batch_tokens": tokens})), batch
    )
    assert cached_loss == pytest.approx(loss, abs=1e-6)
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


VARIANTS: dict[str, dict[str, Any]] = {
    "bidirectional": {"bidirectional": True},
    "matryoshka": {"matryoshka": [8, 16]},
    "kl": {"distillation": 20.0, "distillation_loss": "kl"},
    "all": {"bidirectional": True, "matryoshka": [8], "distillation": 20.0, "distillation_loss": "kl"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_caching_changes_no_other_loss_either(tiny_model: Path, variant: str) -> None:
    table = labelled(make_table(8, 1), [False] * 3 + [True] * 5, [True, False] * 4)
    batch = np.arange(8)
    config = CONFIG.model_copy(update=VARIANTS[variant])
    loss, plain = gradients(session(tiny_model, config, table), batch)
    cached_loss, cached = gradients(
        session(tiny_model, config.model_copy(update={"micro_batch_tokens": 60}), table), batch
    )
    assert abs(loss - gradients(session(tiny_model, CONFIG, table), batch)[0]) > 1e-3
    assert cached_loss == pytest.approx(loss, abs=1e-5)
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_rows_of_classes_are_told_only_from_their_own_negatives(tiny_model: Path) -> None:
    rows = make_table(6, 1).to_pylist()
    rows[3]["negatives"] = []  # nothing at all to be told from
    table = pa.Table.from_pylist(rows, SCHEMA)
    table = labelled(table, [False] * 6, [True, True, False, False, False, False])  # a mixed batch
    opened = session(tiny_model, table=table)
    loss, _ = opened.backward(np.arange(6))

    queries = opened.model.encode_query([row["query"] for row in rows]).astype(np.float64)
    given = [(place, text) for place, row in enumerate(rows) for text in row["negatives"]]
    documents = opened.model.encode_document([row["positive"] for row in rows] + [text for _, text in given])
    scores = queries @ documents.astype(np.float64).T / CONFIG.temperature
    owners = [*range(6), *(place for place, _ in given)]
    losses = []
    for place in range(6):
        kept = [j for j, owner in enumerate(owners) if place < 2 or owner == place]
        losses.append(np.logaddexp.reduce(scores[place, kept]) - scores[place, place])
    assert losses[3] == 0 < min(losses[:3])
    assert loss == pytest.approx(np.mean(losses), abs=1e-4)


def test_rows_that_can_have_no_negative_are_refused(tiny_model: Path) -> None:
    config = CONFIG.model_copy(update={"max_negatives": 0})
    table = labelled(make_table(4, 2), [False] * 4, [True, False] * 2)
    with pytest.raises(ConfigError, match=r"max_negatives is 0, but rows of d1 use only"):
        open_session(tiny_model, table, config, seed=0, team=SOLO)


def test_dimensions_that_the_model_does_not_have_are_refused(tiny_model: Path) -> None:
    config = CONFIG.model_copy(update={"matryoshka": [8, 32, 64]})
    with pytest.raises(ConfigError, match=r"lists 32, 64 leading dimensions, but the embeddings of .* have 32"):
        open_session(tiny_model, make_table(), config, seed=0, team=SOLO)


def test_kl_holds_what_the_queries_of_replayed_rows_find(tiny_model: Path, tmp_path: Path) -> None:
    moved_from(tiny_model, tmp_path / "moved")
    table = labelled(make_table(7, 1), [False] * 3 + [True] * 4, [True] * 7)
    settings = {"distillation": 10.0, "distillation_loss": "kl", "distillation_scale": "off", "temperature": 0.01}
    config = CONFIG.model_copy(update=settings)
    losses, now = [], None
    for settings in (config, config.model_copy(update={"distillation": 0.0})):
        opened = open_session(tmp_path / "moved", table, settings, seed=0, team=SOLO, anchor=tiny_model)
        generator = torch.Generator().manual_seed(1)
        for _, parameter in opened.parameters:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        opened.refresh()
        losses.append(opened.backward(np.arange(7))[0])
        now = opened.model
    assert now is not None

    rows = table.to_pylist()

    def texts(some: list[dict[str, Any]]) -> list[str]:
        return [row["positive"] for row in some] + [row["negatives"][0] for row in some]

    def logs(model: Any) -> np.ndarray:
        again = rows[3:]
        queries = model.encode_query([row["query"] for row in again]).astype(np.float64)
        scores = queries @ model.encode_document(texts(again)).astype(np.float64).T / config.temperature
        return scores - np.logaddexp.reduce(scores, axis=1)[:, None]

    then, found = logs(load_encoder(tmp_path / "moved", device="cpu")), logs(now)
    kl = (np.exp(then) * (then - found)).sum() / 7
    base = load_encoder(tiny_model, device="cpu")
    asked, others = [row["query"] for row in rows[:3]], texts(rows[:3])
    moves = [now.encode_query(asked) * base.encode_query(asked)]
    moves.append(now.encode_document(others) * base.encode_document(others))
    drift = (1 - np.concatenate(moves).sum(axis=1)).sum() / 21
    assert min(kl, drift) > 1e-2
    assert losses[0] - losses[1] == pytest.approx(10 * (kl + drift), abs=1e-3)


def test_equal_rows_are_no_negatives_of_each_other(tiny_model: Path) -> None:
    rows = make_table(2, 1).to_pylist()
    doubled = pa.Table.from_pylist([row | {"negatives": [rows[0]["positive"]]} for row in [rows[0], rows[0]]], SCHEMA)
    loss, _ = session(tiny_model, table=doubled).backward(np.arange(2))
    assert loss == pytest.approx(0, abs=1e-6)


def test_the_guide_is_the_model_that_training_starts_from(tiny_model: Path) -> None:
    table, batch = make_table(6, 1), np.arange(6)
    config = CONFIG.model_copy(update={"guide_margin": 0.02, "max_negatives": 0})
    guided_session = session(tiny_model, config, table)
    loss, _ = guided_session.backward(batch)

    rows = table.to_pylist()

    def cosines(model: Any) -> np.ndarray:
        return model.encode_query([r["query"] for r in rows]) @ model.encode_document([r["positive"] for r in rows]).T

    start = cosines(load_encoder(tiny_model, device="cpu"))
    masked = start > np.diag(start)[:, None] - 0.02
    np.fill_diagonal(masked, False)
    assert 0 < masked.sum() < 30
    scores = np.where(masked, -np.inf, cosines(guided_session.model).astype(np.float64) / config.temperature)
    expected = np.mean(np.log(np.exp(scores).sum(1)) - np.diag(scores))
    assert loss == pytest.approx(expected, abs=1e-4)
    loss, _ = session(tiny_model, config.model_copy(update={"guide_margin": 2.0}), table).backward(batch)
    assert loss == pytest.approx(0, abs=1e-6)


def test_the_guide_compares_no_embeddings_of_two_models(tiny_model: Path, tmp_path: Path) -> None:
    moved_from(tiny_model, tmp_path / "moved")
    replayed = np.array([False] * 5 + [True] * 3)
    table = make_table(8, 1).append_column("replayed", pa.array(replayed))
    config = CONFIG.model_copy(update={"guide_margin": 2.0, "max_negatives": 0})  # masks whatever it may compare
    opened = open_session(tmp_path / "moved", table, config, seed=0, team=SOLO, anchor=tiny_model)
    loss, _ = opened.backward(np.arange(8))
    rows = table.to_pylist()
    queries = opened.model.encode_query([row["query"] for row in rows]).astype(np.float64)
    documents = opened.model.encode_document([row["positive"] for row in rows]).astype(np.float64)
    scores = queries @ documents.T / config.temperature
    scores[(replayed[:, None] == replayed) & ~np.eye(8, dtype=bool)] = -np.inf
    assert loss == pytest.approx(np.mean(np.log(np.exp(scores).sum(1)) - np.diag(scores)), abs=1e-4)


@pytest.mark.parametrize("scale", ["off", 0.01])
def test_distillation_is_the_mean_drift_of_the_batch_s_texts(tiny_model: Path, scale: float | str) -> None:
    table, batch = make_table(6, 1), np.arange(6)
    config = CONFIG.model_copy(update={"max_negatives": 0, "distillation_scale": scale})
    plain, _ = session(tiny_model, config, table).backward(batch)
    distilled = session(tiny_model, config.model_copy(update={"distillation": 100.0}), table)
    loss, _ = distilled.backward(batch)

    rows = table.to_pylist()

    def encode(model: Any) -> np.ndarray:
        queries = model.encode_query([row["query"] for row in rows])
        return np.concatenate([queries, model.encode_document([row["positive"] for row in rows])]).astype(np.float64)

    now, before = encode(distilled.model), encode(load_encoder(tiny_model, device="cpu"))
    cosines = (now * before).sum(1) / np.linalg.norm(now, axis=1) / np.linalg.norm(before, axis=1)
    assert cosines.mean() < 0.999
    charged = 1 - cosines if isinstance(scale, str) else scale * np.log(1 + (1 - cosines) / scale)
    assert loss - plain == pytest.approx(100 * charged.mean(), abs=1e-4)


def test_new_rows_are_held_near_the_anchor_and_replayed_ones_near_the_start(tiny_model: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model, moved)
    other = load_encoder(tiny_model, device="cpu")
    with torch.no_grad():
        for parameter in other[0].auto_model.parameters():
            parameter.mul_(1.5)
    other.save_pretrained(str(moved))
    replayed = [False] * 5 + [True] * 3
    table = make_table(8, 2).append_column("replayed", pa.array(replayed))
    config = CONFIG.model_copy(update={"distillation": 1.0, "max_negatives": 0})
    opened = open_session(moved, table, config, seed=0, team=SOLO, anchor=tiny_model)
    assert opened.before is not None
    rows, texts = opened.rows, table.to_pylist()
    for place, row in enumerate(texts):
        owner, stranger = (moved, tiny_model) if row["replayed"] else (tiny_model, moved)
        found = opened.before[rows.positive[place]].numpy()
        expected, wrong = (
            load_encoder(each, device="cpu").encode_document(row["positive"]) for each in (owner, stranger)
        )
        assert np.abs(found - expected).max() < 1e-5 < np.abs(found - wrong).max()
    alone = open_session(moved, table, config, seed=0, team=SOLO)
    assert alone.before is not None
    assert torch.equal(alone.before[rows.positive[7]], opened.before[rows.positive[7]])
    compatible = config.model_copy(update={"anchor": "current"})  # the index holds documents of both kinds of rows
    opened = open_session(moved, table, compatible, seed=0, team=SOLO, anchor=tiny_model)
    alone = open_session(tiny_model, table, compatible, seed=0, team=SOLO)
    assert opened.before is not None
    assert alone.before is not None
    assert torch.equal(opened.before, alone.before)


def test_queries_are_trained_against_the_documents_of_the_old_index_too(tiny_model: Path, tmp_path: Path) -> None:
    from continual.train.losses import info_nce

    other = moved_from(tiny_model, tmp_path / "moved")
    table, batch = make_table(8, 1), np.arange(8)
    config = CONFIG.model_copy(update={"anchor": "current", "compatibility": 0.5, "max_negatives": 0})
    losses = {}
    for name, settings in {"both": config, "one": config.model_copy(update={"compatibility": 0.0})}.items():
        losses[name] = open_session(tmp_path / "moved", table, settings, seed=0, team=SOLO, anchor=tiny_model).backward(
            batch
        )[0]
    rows = table.to_pylist()
    asked = other.encode_query([row["query"] for row in rows], convert_to_tensor=True)
    index = load_encoder(tiny_model, device="cpu").encode_document(
        [row["positive"] for row in rows], convert_to_tensor=True
    )
    expected = 0.5 * float(info_nce(asked, index, None, None, config.temperature))
    assert losses["both"] - losses["one"] == pytest.approx(expected, abs=1e-4)
    own = other.encode_document([row["positive"] for row in rows], convert_to_tensor=True)
    assert abs(0.5 * float(info_nce(asked, own, None, None, config.temperature)) - expected) > 1e-3


def test_distillation_keeps_embeddings_nearer_to_where_they_were(tiny_model: Path, tmp_path: Path) -> None:
    from continual.train.lora import fold

    texts = make_table()["positive"].to_pylist()
    before = load_encoder(tiny_model, device="cpu").encode(texts)
    nearness = []
    for weight in (0.0, 20.0):
        config = CONFIG.model_copy(update={"distillation": weight, "learning_rate": 1e-2})
        run(tiny_model, tmp_path / str(weight), config)
        fold(tiny_model, tmp_path / str(weight) / "adapter", tmp_path / str(weight) / "model")
        after = load_encoder(tmp_path / str(weight) / "model", device="cpu").encode(texts)
        nearness.append(float((before * after).sum(1).mean()))
    assert nearness[1] > nearness[0]
