"""The objective of a coefficient search, on models: the loss of training, on rows held out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from continual.config import BatchBand, TrainConfig
from continual.errors import ModelError, NothingToDoError
from continual.merge.positioning import Combination, gradient_search
from continual.merge.search import SearchResult, line_search
from continual.models.encoder import load_encoder
from continual.train.objective import Effort, Objective
from continual.train.team import Team
from tests.rows import SCHEMA, make_pairs

CPU = torch.device("cpu")
CONFIG = TrainConfig(batch_size=4, precision="fp32", max_length=48)


def table(rows: int = 21, domains: int = 2) -> pa.Table:
    pairs = [pair | {"domain": f"d{n % domains}"} for n, pair in enumerate(make_pairs(rows, seed=5))]
    for pair in pairs[2:10:2]:
        pair |= {"positive": pairs[0]["positive"], "doc_id": None}  # false negatives by text ...
    for pair in pairs[10:18:2]:
        pair["doc_id"] = "shared"  # ... and by document
    return pa.Table.from_pylist(pairs, SCHEMA)


@pytest.fixture(scope="module")
def moved_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, with noise on every weight of its transformer."""
    folder = tmp_path_factory.mktemp("moved") / "model"
    shutil.copytree(tiny_model, folder)
    model = load_encoder(folder, device="cpu")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model[0].auto_model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    model.save_pretrained(str(folder))
    return folder


def expected(folder: Path, held_out: pa.Table, objective: Objective) -> dict[str, float]:
    """Return the mean loss per domain from sentence-transformers' encode, in numpy."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    rows, found, masked = held_out.to_pylist(), {}, set()
    for name, batches in objective.batches.items():
        losses: list[float] = []
        for batch in batches:
            some = [rows[place] for place in batch]
            assert {row["domain"] for row in some} == {name}
            queries = model.encode_query([row["query"] for row in some]).astype(np.float64)
            texts = [row["positive"] for row in some] + [row["negatives"][0] for row in some]
            scores = queries @ model.encode_document(texts).astype(np.float64).T / CONFIG.temperature
            for i, row in enumerate(some):
                for j, other in enumerate(some):
                    same = row["doc_id"] is not None and row["doc_id"] == other["doc_id"]
                    if i != j and (same or row["positive"] == other["positive"]):
                        scores[i, j] = -np.inf
                        masked.add("document" if same else "text")
                losses.append(np.logaddexp.reduce(scores[i]) - scores[i, i])
        found[name] = float(np.mean(losses))
    assert masked == {"document", "text"}  # or the test would not see the mask
    return found


def lines(objective: Objective, moved: Path):
    base = objective.parameters()
    other = dict(load_encoder(moved, device="cpu")[0].auto_model.named_parameters())
    return base, {name: [(other[name] - tensor).detach()] for name, tensor in base.items()}


def test_batches_are_full_and_of_one_domain(tiny_model: Path) -> None:
    objective = Objective(tiny_model, table(), CONFIG, device=CPU)
    assert {name: [len(batch) for batch in batches] for name, batches in objective.batches.items()} == {
        "d0": [4, 4],
        "d1": [4, 4],
    }
    rows = np.concatenate([batch for batches in objective.batches.values() for batch in batches])
    assert len(set(rows.tolist())) == len(rows) == 16
    few = Objective(tiny_model, table(6), TrainConfig(batch_size=32), device=CPU)
    assert [len(batches[0]) for batches in few.batches.values()] == [3, 3]
    again = Objective(tiny_model, table(), CONFIG, device=CPU)
    other = Objective(tiny_model, table(), CONFIG, device=CPU, seed=1)
    assert np.array_equal(again.batches["d0"], objective.batches["d0"])
    assert not np.array_equal(other.batches["d0"], objective.batches["d0"])
    with pytest.raises(NothingToDoError, match="two of the 2 held-out rows"):
        Objective(tiny_model, table(2), CONFIG, device=CPU)


def test_the_search_has_the_loss_of_training(tiny_model: Path) -> None:
    from continual.train.step import open_session

    held_out = table(8).append_column("in_batch", pa.array([True, False] * 4))  # d1 is of classes
    plain = {"distillation": 0.0, "guide_margin": "off", "bidirectional": True, "matryoshka": [8]}
    config = CONFIG.model_copy(update=plain)
    objective = Objective(tiny_model, held_out, config, device=CPU)
    trained = open_session(tiny_model, held_out, config, seed=0, team=Team(0, 1, CPU))
    losses = {name: trained.backward(batches[0])[0] for name, batches in objective.batches.items()}
    assert objective.evaluate(objective.parameters()) == pytest.approx(losses, abs=1e-5)
    assert losses["d1"] < losses["d0"] - 0.1  # of two documents, and of up to eight
    sizes = CONFIG.model_copy(update={"batch_sizes": [BatchBand(tokens=5, pairs=2), BatchBand(tokens=48, pairs=3)]})
    batches = Objective(tiny_model, table(), sizes, device=CPU).batches
    assert {len(batch) for some in batches.values() for batch in some} == {3}


def test_a_line_search_between_two_models_starts_and_ends_at_their_losses(tiny_model: Path, moved_model: Path) -> None:
    objective = Objective(tiny_model, table(), CONFIG, device=CPU)
    combination = Combination(*lines(objective, moved_model))
    found = line_search(
        lambda weight: objective.evaluate(combination.at({"lambda": weight})), points=3, refine=1, floor=0.5
    )
    first, last = expected(tiny_model, table(), objective), expected(moved_model, table(), objective)
    assert found.curve[0].losses == pytest.approx(first, abs=1e-5)
    assert found.curve[-1].losses == pytest.approx(last, abs=1e-5)
    assert first != pytest.approx(last, abs=1e-2)
    assert objective.evaluate(objective.parameters()) == found.curve[0].losses  # the model itself is not moved


def test_minibatches_take_turns_and_have_the_gradient_of_finite_differences(
    tiny_model: Path, moved_model: Path
) -> None:
    objective = Objective(tiny_model, table(), CONFIG, device=CPU)
    combination = Combination(*lines(objective, moved_model))
    found = [objective.minibatch(objective.parameters(), step) for step in range(4)]
    assert [list(each) for each in found] == [["d0"], ["d1"], ["d0"], ["d1"]]
    means = {"d0": float(found[0]["d0"] + found[2]["d0"]) / 2, "d1": float(found[1]["d1"] + found[3]["d1"]) / 2}
    assert objective.evaluate(objective.parameters()) == pytest.approx(means, abs=1e-5)

    def at(scale: torch.Tensor) -> torch.Tensor:
        return objective.minibatch(combination.parameters(torch.zeros(0), scale), 0)["d0"]

    scale = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(at(scale), scale)
    with torch.no_grad():
        slope = (at(scale + 0.01) - at(scale - 0.01)) / 0.02
    assert float(gradient) == pytest.approx(float(slope), rel=0.02, abs=1e-3)
    assert all(tensor.grad is None for tensor in objective.parameters().values())


def test_what_is_encoded_is_counted_with_and_without_a_gradient(tiny_model: Path, moved_model: Path) -> None:
    objective = Objective(tiny_model, table(), CONFIG, device=CPU)
    combination = Combination(*lines(objective, moved_model))
    model, rows = load_encoder(tiny_model, device="cpu"), table().to_pylist()

    def tokens(batch: np.ndarray) -> int:
        some = [rows[place] for place in batch]
        texts = {text for row in some for text in (row["positive"], *row["negatives"])}
        texts |= {model.prompts.get("query", "") + row["query"] for row in some}
        return sum(len(model.tokenizer(text, truncation=True, max_length=48).input_ids) for text in texts)

    assert objective.effort == Effort()
    scale = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    objective.minibatch(combination.parameters(torch.zeros(0), scale), 0)
    first = objective.batches["d0"][0]
    assert (objective.effort.pairs, objective.effort.tokens) == (len(first), tokens(first))
    assert objective.effort.forward_pairs == 0
    objective.evaluate(objective.parameters())
    everything = [batch for batches in objective.batches.values() for batch in batches]
    assert objective.effort.forward_pairs == sum(map(len, everything))
    assert objective.effort.forward_tokens == sum(map(tokens, everything))
    assert objective.effort.pairs == len(first)


def test_micro_batches_change_nothing(tiny_model: Path) -> None:
    whole = Objective(tiny_model, table(), CONFIG, device=CPU)
    pieces = Objective(tiny_model, table(), CONFIG.model_copy(update={"micro_batch_tokens": 40}), device=CPU)
    parameters = whole.parameters()
    assert pieces.evaluate(parameters) == pytest.approx(whole.evaluate(parameters), abs=1e-5)


def test_a_gradient_search_on_a_model_lowers_the_loss(tiny_model: Path, moved_model: Path) -> None:
    objective = Objective(moved_model, table(), CONFIG, device=CPU)  # the way back to the better of the two
    combination = Combination(*lines(objective, tiny_model))

    def search() -> SearchResult:
        return gradient_search(
            combination,
            objective.minibatch,
            lambda coefficients: objective.evaluate(combination.at(coefficients)),
            steps=12,
            floor=0.5,
        )

    found = search()
    assert found.best.loss < found.candidates[0].loss
    assert 0.3 < found.best.coefficients["lambda"] < 1  # a scan of the line is lowest near 0.5
    assert found.reference.losses == pytest.approx(expected(moved_model, table(), objective), abs=1e-5)
    assert search() == found


def test_tensors_of_another_model_are_refused(tiny_model: Path) -> None:
    objective = Objective(tiny_model, table(), CONFIG, device=CPU)
    with pytest.raises(ModelError, match=r"no parameter nobody\.weight"):
        objective.evaluate({"nobody.weight": torch.zeros(1)})
