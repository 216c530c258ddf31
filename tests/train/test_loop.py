"""The training loop: determinism, interruption, and that it learns."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from continual.config import BatchBand
from continual.errors import ConfigError, DataError, NothingToDoError
from continual.models.encoder import inner_transformer
from continual.models.tokens import Indices
from continual.train.checkpoint import FILE
from continual.train.job import Job
from continual.train.loop import Schedule, estimate, train
from continual.train.step import Session, open_session
from tests.kills import At, die, exit_code
from tests.rows import SCHEMA
from tests.train.runs import CONFIG, SOLO, Count, Interrupt, StopAt, factors, labelled, make_table, run


def test_the_digest_of_rows_is_that_of_before_there_were_kinds(tiny_model: Path) -> None:
    table = make_table(4, 1)
    digests = [
        open_session(tiny_model, each, CONFIG, seed=0, team=SOLO).rows.digest
        for each in (table, *(labelled(table, [False] * 4, [kind] * 4) for kind in (True, False)))
    ]
    assert digests[0] == digests[1] != digests[2]


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
    assert factors(tmp_path / "cut") == factors(tmp_path / "whole")


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
    train(Job(tiny_model, make_table(), CONFIG, 4, tmp_path / "r", tmp_path / "three" / "adapter"))
    assert factors(tmp_path / "one") == factors(tmp_path / "two") != factors(tmp_path / "three")


def test_micro_batches_in_threads_give_the_same_bytes(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continual.train.hardware._CPU_TOKENS", 32)
    threads: set[int] = set()
    original = Session.encode

    def encode(self: Session, texts: Indices) -> torch.Tensor:
        threads.add(threading.get_ident())
        return original(self, texts)

    monkeypatch.setattr(Session, "encode", encode)
    config = CONFIG.model_copy(update={"distillation": 5.0, "micro_batch_tokens": 64})  # some are encoded twice
    for count in (1, 2):
        torch.set_num_threads(count)
        run(tiny_model, tmp_path / str(count), config)
        assert torch.get_num_threads() == count
        assert (len(threads) > 1) == (count > 1)
    assert factors(tmp_path / "1") == factors(tmp_path / "2")


@pytest.mark.parametrize("batches", [1, 4, 10])
def test_an_interrupted_run_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path, batches: int) -> None:
    config = CONFIG.model_copy(update={"distillation": 5.0})
    whole = run(tiny_model, tmp_path / "whole", config)
    with pytest.raises(Interrupt):
        run(tiny_model, tmp_path / "cut", config, progress=StopAt(batches))
    assert not (tmp_path / "cut" / "adapter").exists()
    progress = Count()
    resumed = run(tiny_model, tmp_path / "cut", config, resume=True, progress=progress)
    assert factors(tmp_path / "cut") == factors(tmp_path / "whole")
    assert progress.bars[-1] == ["training", 40, "pairs", 40]
    assert resumed.curve == whole.curve
    assert (resumed.pairs, resumed.tokens, resumed.loss) == (whole.pairs, whole.tokens, whole.loss)


@pytest.mark.kill
def test_a_killed_run_ends_with_the_same_bytes(tiny_model: Path, tmp_path: Path) -> None:
    assert exit_code(run, tiny_model, tmp_path / "cut", progress=At(die, "training", 6)) == -signal.SIGKILL
    half_written = tmp_path / "cut" / "run" / f".{FILE}.0123abcd.partial"
    half_written.write_bytes(b"half")
    run(tiny_model, tmp_path / "cut", resume=True)
    run(tiny_model, tmp_path / "whole")
    assert factors(tmp_path / "cut") == factors(tmp_path / "whole")
    assert not half_written.exists()


def test_resuming_without_a_checkpoint_starts_anew(tiny_model: Path, tmp_path: Path) -> None:
    run(tiny_model, tmp_path / "one", resume=True)
    run(tiny_model, tmp_path / "two")
    run(tiny_model, tmp_path / "two")  # not resumed: the checkpoint that is there is not used
    assert factors(tmp_path / "one") == factors(tmp_path / "two")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_a_damaged_checkpoint_is_refused(tiny_model: Path, tmp_path: Path, share: float) -> None:
    """One bit of it would change the weights of the resumed training without a word."""
    with pytest.raises(Interrupt):
        run(tiny_model, tmp_path, progress=StopAt(4))
    file = tmp_path / "run" / FILE
    data = bytearray(file.read_bytes())
    data[int(share * (len(data) - 1))] ^= 4
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"checkpoint\.safetensors, the checkpoint .* is damaged.* without --resume"):
        run(tiny_model, tmp_path, resume=True)


def test_a_checkpoint_of_an_older_release_is_used(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupt):
        run(tiny_model, tmp_path / "cut", progress=StopAt(4))
    file = tmp_path / "cut" / "run" / FILE
    with safe_open(file, "pt") as opened:
        metadata = {key: value for key, value in opened.metadata().items() if key != "content"}
    save_file(load_file(file), file, metadata=metadata)
    run(tiny_model, tmp_path / "cut", resume=True)
    run(tiny_model, tmp_path / "whole")
    assert factors(tmp_path / "cut") == factors(tmp_path / "whole")


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
