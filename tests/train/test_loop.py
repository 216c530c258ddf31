"""The training loop: gradients, determinism, interruption, and that it learns."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from continual.config import BatchBand, TrainConfig
from continual.errors import ConfigError, NothingToDoError
from continual.models.encoder import inner_transformer, load_encoder
from continual.train.checkpoint import FILE
from continual.train.loop import Schedule, estimate, train
from continual.train.step import Session, open_session
from continual.train.team import Team
from tests import ROOT
from tests.conftest import SCHEMA, make_pairs

SOLO = Team(0, 1, torch.device("cpu"))
CONFIG = TrainConfig(
    epochs=2,
    batch_size=4,
    lora_rank=4,
    lora_alpha=8,
    precision="fp32",
    checkpoint_seconds=0,
    distillation=0,
    guide_margin="off",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices gain nothing from a second thread, and wait for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_table(rows: int = 20, domains: int = 2) -> pa.Table:
    pairs = make_pairs(rows)
    return pa.Table.from_pylist([pair | {"domain": f"d{n % domains}"} for n, pair in enumerate(pairs)], SCHEMA)


def run(model: Path, folder: Path, config: TrainConfig = CONFIG, table: pa.Table | None = None, **more: Any):
    return train(
        model,
        table or make_table(),
        config,
        seed=3,
        run_dir=folder / "run",
        adapter_dir=folder / "adapter",
        **more,
    )


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def moved_from(model: Path, folder: Path) -> Any:
    """Return a model whose weights are those of another with noise, saved in a folder."""
    moved = load_encoder(model, device="cpu")
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in moved[0].auto_model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    moved.save_pretrained(str(folder))
    return moved


def session(model: Path, config: TrainConfig = CONFIG, table: pa.Table | None = None) -> Session:
    """Open a session whose B factors are not zero, so that A has a gradient."""
    opened = open_session(model, table or make_table(), config, seed=0, team=SOLO)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in opened.parameters:
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
    opened.refresh()
    return opened


def gradients(opened: Session, batch: np.ndarray) -> tuple[float, list[torch.Tensor]]:
    loss, _ = opened.backward(batch)
    found = [parameter.grad for _, parameter in opened.parameters]
    for _, parameter in opened.parameters:
        parameter.grad = None
    assert all(gradient is not None for gradient in found)
    return loss, found


class Interrupt(Exception):
    pass


class StopAt:
    """A progress bar that raises at the n-th batch."""

    def __init__(self, batches: int) -> None:
        self.left = batches
        self.label = ""

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if self.label == "training" and count:
            self.left -= 1
            if self.left == 0:
                raise Interrupt

    def finish(self) -> None:
        pass


class Count:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.bars: list[list[Any]] = []

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.bars.append([label, total, unit, done])

    def advance(self, count: int) -> None:
        self.bars[-1][3] += count

    def finish(self) -> None:
        pass


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


def labelled(table: pa.Table, replayed: list[bool], in_batch: list[bool]) -> pa.Table:
    return table.append_column("replayed", pa.array(replayed)).append_column("in_batch", pa.array(in_batch))


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


def test_the_digest_of_rows_is_that_of_before_there_were_kinds(tiny_model: Path) -> None:
    table = make_table(4, 1)
    digests = [
        open_session(tiny_model, each, CONFIG, seed=0, team=SOLO).rows.digest
        for each in (table, *(labelled(table, [False] * 4, [kind] * 4) for kind in (True, False)))
    ]
    assert digests[0] == digests[1] != digests[2]


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


def test_rows_of_one_length_share_batches(tiny_model: Path, tmp_path: Path) -> None:
    rows = make_table(20, 1).to_pylist()
    for place, row in enumerate(rows):
        row["negatives"] = [" ".join([row["positive"]] * (1 + 2 * (place % 2)))[:200]]
    table = pa.Table.from_pylist(rows, SCHEMA)
    config = CONFIG.model_copy(update={"batch_sizes": [BatchBand(tokens=24, pairs=10)], "batch_size": 3})
    opened = open_session(tiny_model, table, config, seed=3, team=SOLO)
    encode = opened.model.tokenizer
    longest = [max(len(encode(text)["input_ids"]) for text in (row["positive"], *row["negatives"])) for row in rows]
    long = [min(tokens, 48) > 24 for tokens in longest]
    assert 0 < sum(long) < 20
    schedule = Schedule(opened, 3)
    for step in range(schedule.steps):
        batch = schedule.batch(step)
        assert len({long[row] for row in batch}) == 1
        assert len(batch) == (10 if not long[batch[0]] else 3) or len(batch) == sum(long) % 3 + 3
    run(tiny_model, tmp_path / "whole", config, table)
    with pytest.raises(Interrupt):
        run(tiny_model, tmp_path / "cut", config, table, progress=StopAt(3))
    run(tiny_model, tmp_path / "cut", config, table, resume=True)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


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


def test_training_learns_and_counts(tiny_model: Path, tmp_path: Path) -> None:
    progress = Count()
    table = make_table(42)
    config = CONFIG.model_copy(update={"epochs": 4, "learning_rate": 1e-2})
    result = run(tiny_model, tmp_path, config, table, progress=progress)
    # 21 rows a domain: the 21st joins the last batch of its domain
    assert (result.pairs, result.steps, result.precision, result.device) == (168, 40, "fp32", "cpu")
    assert result.curve[0][0] == 1
    assert result.curve[-1][0] == 40
    assert result.loss < 0.7 * np.mean([loss for _, loss in result.curve[:4]])
    assert result.seconds > 0
    assert result.to_json()["pairs"] == 168
    assert progress.bars == [["tokenising", 126, "texts", 126], ["training", 168, "pairs", 168]]

    opened = open_session(tiny_model, table, config, seed=3, team=SOLO)
    schedule = Schedule(opened, 3)
    lengths = opened.rows.tokens.lengths
    used = 0
    for step in range(schedule.steps):
        batch = schedule.batch(step)
        used += int(lengths[[*opened.rows.query[batch], *opened.rows.positive[batch], *opened.rows.given(batch)]].sum())
    assert result.tokens == used


def test_the_same_seed_gives_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        run(tiny_model, tmp_path / name)
    train(tiny_model, make_table(), CONFIG, seed=4, run_dir=tmp_path / "r", adapter_dir=tmp_path / "three" / "adapter")
    assert weights(tmp_path / "one") == weights(tmp_path / "two") != weights(tmp_path / "three")


@pytest.mark.parametrize("batches", [1, 4, 10])
def test_an_interrupted_run_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path, batches: int) -> None:
    config = CONFIG.model_copy(update={"distillation": 5.0})
    whole = run(tiny_model, tmp_path / "whole", config)
    with pytest.raises(Interrupt):
        run(tiny_model, tmp_path / "cut", config, progress=StopAt(batches))
    assert not (tmp_path / "cut" / "adapter").exists()
    progress = Count()
    resumed = run(tiny_model, tmp_path / "cut", config, resume=True, progress=progress)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert progress.bars[-1] == ["training", 40, "pairs", 40]
    assert resumed.curve == whole.curve
    assert (resumed.pairs, resumed.tokens, resumed.loss) == (whole.pairs, whole.tokens, whole.loss)


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from tests.train.test_loop import StopAt, run

class KillAt(StopAt):
    def advance(self, count):
        try:
            super().advance(count)
        except Exception:
            os.kill(os.getpid(), signal.SIGKILL)

run(Path(sys.argv[1]), Path(sys.argv[2]), progress=KillAt(6))
"""


def test_a_killed_run_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    root = str(ROOT)
    killed = subprocess.run([sys.executable, "-c", KILLED, tiny_model, tmp_path / "cut", root], check=False)
    assert killed.returncode == -signal.SIGKILL
    half_written = tmp_path / "cut" / "run" / f".{FILE}.0123abcd.partial"
    half_written.write_bytes(b"half")
    run(tiny_model, tmp_path / "cut", resume=True)
    run(tiny_model, tmp_path / "whole")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert not half_written.exists()


def test_resuming_without_a_checkpoint_starts_anew(tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path / "one", resume=True)
    run(tiny_model, tmp_path / "two")
    run(tiny_model, tmp_path / "two")  # not resumed: the checkpoint that is there is not used
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_a_checkpoint_of_another_training_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path)
    with pytest.raises(ConfigError, match="differs in rows, settings"):
        run(tiny_model, tmp_path, CONFIG.model_copy(update={"epochs": 3}), make_table(22), resume=True)
    run(tiny_model, tmp_path, CONFIG.model_copy(update={"checkpoint_seconds": 60.0}), resume=True)


def test_nothing_to_train_on(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match="a single row"):
        run(tiny_model, tmp_path, table=make_table(1))
    epochs = CONFIG.epochs
    assert run(tiny_model, tmp_path, table=make_table(2, domains=2)).pairs == 2 * epochs, "one row a domain: together"


def test_a_loss_that_is_no_number_stops_the_run(tiny_model: Path, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"learning_rate": 1e30, "warmup": 0.0, "max_grad_norm": 1e30})
    with pytest.raises(ConfigError, match=r"Lower train\.learning_rate"):
        run(tiny_model, tmp_path, config)


def test_bf16_trains_fp32_factors(tiny_model: Path, tmp_path: Path) -> None:
    result = run(tiny_model, tmp_path, CONFIG.model_copy(update={"precision": "bf16", "epochs": 1}))
    assert result.precision == "bf16"
    plain = run(tiny_model, tmp_path, CONFIG.model_copy(update={"epochs": 1}))
    assert result.curve[0][1] == pytest.approx(plain.curve[0][1], rel=0.05)


def test_the_learning_rate_rises_and_falls(tiny_model: Path) -> None:
    schedule = Schedule(open_session(tiny_model, make_table(), CONFIG, seed=0, team=SOLO), seed=0)
    schedule.steps = 20  # 10 % of it is two steps
    rates = [schedule.rate(step) for step in range(20)]
    assert rates[:4] == pytest.approx([1 / 3, 2 / 3, 1, 17 / 18])
    assert rates[-1] == pytest.approx(1 / 18)


def test_no_dropout_is_active(tiny_model: Path) -> None:
    opened = open_session(tiny_model, make_table(), CONFIG, seed=0, team=SOLO)
    assert not any(module.training for module in opened.model.modules())
    assert inner_transformer(opened.model).config.hidden_dropout_prob > 0


def test_an_estimate_counts_a_document_that_rows_share_once_a_batch(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continual.train.loop._WARM_UP_SECONDS", 0.05)
    table = make_table(40, 1)
    rows = [row | {"positive": table["positive"][0].as_py(), "doc_id": "d"} for row in table.to_pylist()]
    shared = pa.Table.from_pylist(rows, table.schema)
    cost = estimate(tiny_model, shared, CONFIG, count=shared)
    assert cost.tokens == run(tiny_model, tmp_path, table=shared).tokens
    assert cost.tokens < 0.8 * estimate(tiny_model, table, CONFIG).tokens
    assert cost.row_tokens == {"d0": cost.tokens / cost.pairs}
    monkeypatch.setattr("continual.train.loop._SAMPLE", 20)
    assert estimate(tiny_model, shared, CONFIG).tokens == pytest.approx(cost.tokens, rel=0.1)


def test_an_estimate_knows_the_tokens(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("continual.train.loop._WARM_UP_SECONDS", 0.05)
    table = make_table(40, 1)
    cost = estimate(tiny_model, table, CONFIG)
    result = run(tiny_model, tmp_path, table=table)
    assert (cost.pairs, cost.tokens) == (result.pairs, result.tokens) == (80, result.tokens)
    assert cost.seconds > 0
    monkeypatch.setattr("continual.train.loop._SAMPLE", 20)
    sampled = estimate(tiny_model, table, CONFIG)
    assert sampled.pairs == 80
    assert sampled.tokens == pytest.approx(cost.tokens, rel=0.1)
    for rows in (0, 1):
        with pytest.raises(NothingToDoError):
            estimate(tiny_model, table.slice(0, rows), CONFIG)
