"""The coefficient search: on quadratics whose optimum is known, and on a tiny model."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from continual.config import BatchBand, TrainConfig
from continual.errors import InputError, ModelError, NothingToDoError
from continual.merge.methods.pairwise_slerp import pairwise_slerp_coefficients as pairwise_slerp
from continual.merge.positioning import Combination, gradient_search
from continual.merge.search import SearchResult, line_search
from continual.models.encoder import load_encoder
from continual.train.objective import Effort, Objective
from continual.train.team import Team
from tests.conftest import SCHEMA, make_pairs

CPU = torch.device("cpu")
CONFIG = TrainConfig(batch_size=4, precision="fp32", max_length=48)


def bowls(**centres: float):
    """Return losses 1 + (w - centre)^2 per domain."""
    return lambda weight: {name: 1 + (weight - centre) ** 2 for name, centre in centres.items()}


class Count:
    """A progress bar that remembers."""

    def __init__(self) -> None:
        self.bars: list[list[object]] = []
        self.done = 0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.bars.append([label, total, unit])

    def advance(self, count: int) -> None:
        self.done += count

    def finish(self) -> None:
        pass


# --- The line


@pytest.mark.parametrize("centre", [0.0, 0.13, 0.5, 0.62, 0.97, 1.0])
def test_a_line_search_finds_the_minimum(centre: float) -> None:
    found = line_search(bowls(a=centre), refine=8)
    assert found.best.coefficients["weight"] == pytest.approx(centre, abs=0.03)
    assert found.floor_kept


def test_the_objective_is_the_mean_over_domains() -> None:
    found = line_search(bowls(a=0.4, b=0.8), refine=12, floor=1.0)
    assert found.best.coefficients["weight"] == pytest.approx(0.6, abs=0.01)
    assert found.best.loss == pytest.approx(sum(found.best.losses.values()) / 2)
    assert found.reference.losses == pytest.approx({"a": 1.16, "b": 1.64})


def test_a_curve_is_sorted_and_complete() -> None:
    asked: list[float] = []
    bar = Count()

    def evaluate(weight: float) -> dict[str, float]:
        asked.append(weight)
        return bowls(a=0.3)(weight)

    found = line_search(evaluate, points=5, refine=3, progress=bar)
    weights = [point.coefficients["weight"] for point in found.curve]
    assert weights == sorted(asked)
    assert len(set(asked)) == len(asked) == 8
    assert {0.0, 0.25, 0.5, 0.75, 1.0} <= set(weights)
    assert found.best in found.curve
    assert found.reference == found.curve[0]
    assert bar.bars == [["searching the weight", 8, "weights"]]
    assert bar.done == 8


def test_the_floor_binds() -> None:
    def evaluate(weight: float) -> dict[str, float]:
        return {"old": 1 + 0.1 * weight, "new": 2 - weight}  # the mean falls all the way; old allows weight 0.5

    found = line_search(evaluate, refine=14, floor=0.05)
    assert found.floor_kept
    assert 0.48 <= found.best.coefficients["weight"] <= 0.5
    assert line_search(evaluate, floor=0.2).best.coefficients["weight"] == 1


def test_the_least_breach_is_chosen_and_said_when_the_floor_cannot_be_kept() -> None:
    found = line_search(lambda weight: {"old": 1 + weight, "new": 2 - 2 * weight}, low=0.4, points=4, floor=0.02)
    assert not found.floor_kept
    assert found.best.coefficients == {"weight": 0.4}
    assert [point.coefficients["weight"] for point in found.curve][:2] == [0.0, 0.4]
    assert found.reference.coefficients == {"weight": 0.0}
    assert found.reference not in found.candidates
    assert json.loads(json.dumps(found.to_json()))["floor_kept"] is False


def test_equal_points_give_the_smaller_weight() -> None:
    assert line_search(lambda weight: {"a": 1.0}).best.coefficients["weight"] == 0


def test_a_search_stops_where_weights_are_no_longer_told_apart() -> None:
    assert len(line_search(bowls(a=0.3), refine=500).curve) < 100


def test_what_cannot_be_searched_is_refused() -> None:
    for wrong in ({"points": 1}, {"low": 0.5, "high": 0.5}, {"low": -0.1}, {"refine": -1}, {"floor": -0.1}):
        with pytest.raises(InputError, match="line search needs"):
            line_search(bowls(a=0.1), **wrong)
    with pytest.raises(ModelError, match=r"weight.*0\.5.*nan"):
        line_search(lambda weight: {"a": math.nan if weight == 0.5 else 1.0}, points=3)
    with pytest.raises(ModelError, match="no domain"):
        line_search(lambda weight: {})


# --- The combination


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)


def test_coefficients_are_those_of_slerp_one_after_the_other() -> None:
    vectors = np.random.default_rng(0).standard_normal((4, 7))
    t = [0.3, 0.8, 0.45]
    expected = vectors[0]
    for share, vector in zip(t, vectors[1:], strict=True):
        expected = slerp(expected, vector, share)
    factors = pairwise_slerp(torch.from_numpy(vectors @ vectors.T), torch.tensor(t, dtype=torch.float64))
    np.testing.assert_allclose(factors.numpy() @ vectors, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "vectors", [[[1, 0], [2, 0]], [[1, 0], [-1, 0]], [[0, 0], [1, 1]], [[0, 0], [0, 0]], [[1, 0], [1, 1e-9]]]
)
def test_vectors_without_an_angle_have_coefficients_and_gradients(vectors: list[list[float]]) -> None:
    given = torch.tensor(vectors, dtype=torch.float64)
    t = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    factors = pairwise_slerp(given @ given.T, t)
    factors.sum().backward()
    assert torch.isfinite(factors).all()
    assert torch.isfinite(t.grad).all()
    if given.prod() == 0 and given[0].any() and given[0, 1] == 0 == given[1, 1]:
        assert factors.tolist() == pytest.approx([0.75, 0.25])  # parallel, or opposite: the straight line


def test_gradients_of_the_coefficients_are_right() -> None:
    vectors = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: pairwise_slerp(vectors @ vectors.T, t), t)


def test_a_combination_moves_only_what_differs() -> None:
    base = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    vectors = {"a": [torch.tensor([1.0, 0]), torch.tensor([0, 2.0])], "b": [torch.zeros(3), torch.zeros(3)]}
    found = Combination(base, vectors)
    assert found.names == ("t1", "lambda")
    moved = found.at({"t1": 0.5, "lambda": 2.0})
    half = math.sqrt(0.5)  # sin(pi / 4) / sin(pi / 2)
    assert moved["a"].tolist() == pytest.approx([1 + 2 * half, 1 + 4 * half])
    assert moved["b"] is base["b"]
    assert moved["c"] is base["c"]
    assert found.at({"t1": 0.5, "lambda": 0.0})["a"] is base["a"]
    assert found.at({"t1": 1.0, "lambda": 1.0})["a"].tolist() == pytest.approx([1, 3])


def test_vectors_that_do_not_fit_are_refused() -> None:
    base = {"a": torch.ones(2)}
    with pytest.raises(ModelError, match="a: 1 task vectors"):
        Combination(base, {"a": [torch.ones(3)]})
    with pytest.raises(ModelError, match=r"x: 1 task vectors.*missing"):
        Combination(base, {"x": [torch.ones(2)]})
    with pytest.raises(ModelError, match="a: 2 task vectors"):
        Combination(base | {"b": torch.ones(2)}, {"a": [torch.ones(2)], "b": [torch.ones(2)] * 2})
    with pytest.raises(NothingToDoError):
        Combination(base, {"a": [torch.zeros(2)]})


# --- The gradient


def planted(t: float = 0.3, scale: float = 0.7, domains: int = 1):
    """Return a combination, and the squared distance of a model from the one with the planted coefficients."""
    generator = torch.Generator().manual_seed(1)
    base = {name: torch.randn(6, generator=generator) for name in "abc"}
    vectors = {name: [torch.randn(6, generator=generator) for _ in range(2)] for name in "ab"}
    combination = Combination(base, vectors)
    target = combination.at({"t1": t, "lambda": scale})

    def distance(parameters: dict[str, torch.Tensor], step: int = 0) -> dict[str, torch.Tensor]:
        total = sum(((parameters[name] - target[name]) ** 2).sum() for name in target)
        return {f"d{step % domains}": 1 + total}

    def evaluate(coefficients) -> dict[str, float]:
        loss = float(distance(combination.at(coefficients))["d0"])
        return {f"d{place}": loss for place in range(domains)}

    return combination, distance, evaluate


@pytest.mark.parametrize("domains", [1, 3])
def test_a_gradient_search_finds_planted_coefficients(domains: int) -> None:
    bar = Count()
    found = gradient_search(*planted(domains=domains), mu=0, steps=150, progress=bar)
    assert found.best.coefficients == pytest.approx({"t1": 0.3, "lambda": 0.7}, abs=0.02)
    assert found.best.loss == pytest.approx(1, abs=1e-3)
    assert found.floor_kept
    assert len(found.curve) == 150 == bar.done
    assert found.curve[0].coefficients == {"t1": 0.5, "lambda": 1.0}
    assert found.curve[-1].loss < found.curve[0].loss
    assert len(found.candidates) == 5
    assert found.best in found.candidates
    assert found.reference.coefficients["lambda"] == 0
    assert set(found.curve[-1].losses) == {f"d{place}" for place in range(domains)}
    json.dumps(found.to_json())


def test_a_gradient_search_repeats_itself() -> None:
    first, second = (gradient_search(*planted(), steps=20) for _ in range(2))
    assert isinstance(first, SearchResult)
    assert first == second


def test_mu_makes_lambda_smaller_by_what_the_quadratic_says() -> None:
    base, vector = {"a": torch.zeros(1)}, {"a": [torch.ones(1)]}  # loss 1 + (lambda - 1)^2: lambda = 1 - mu / 2
    combination = Combination(base, vector)

    def loss(parameters: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return {"a": 1 + ((parameters["a"] - 1) ** 2).sum()}

    found = gradient_search(combination, loss, lambda c: {"a": 1 + (c["lambda"] - 1) ** 2}, mu=0.4, lowest=0, steps=200)
    assert combination.names == ("lambda",)
    assert found.candidates[1].coefficients["lambda"] == pytest.approx(0.8, abs=0.01)
    assert found.best == found.candidates[0]  # the choice is by the loss alone: lambda 1, where it started


@pytest.mark.parametrize("current", [None, {"lambda": 0.2}])
def test_the_hinge_keeps_the_floor_against_what_is_current(current: dict[str, float] | None) -> None:
    combination = Combination({"a": torch.zeros(1)}, {"a": [torch.ones(1)]})

    def losses(weight):  # old allows (0.05 above its loss in service) another 0.5 or 0.51; new wants all
        return {"old": 1 + 0.1 * weight, "new": 2 - weight}

    def evaluate(coefficients) -> dict[str, float]:
        return losses(coefficients["lambda"])

    def loss(parameters: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return losses(parameters["a"].sum())

    found = gradient_search(combination, loss, evaluate, current=current, floor=0.05, mu=0, start=0.5, steps=200)
    limit = 0.5 if current is None else (1.02 * 1.05 - 1) / 0.1
    assert found.reference.coefficients == (current or {"lambda": 0.0})
    assert found.floor_kept
    assert limit - 0.05 <= found.best.coefficients["lambda"] <= limit + 1e-9
    assert found.curve[-1].coefficients["lambda"] == pytest.approx(limit, abs=0.03)


def test_lambda_does_not_fall_below_0_and_t_stays_a_share() -> None:
    combination, _, _ = planted()

    def away(parameters: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        return {"a": 10 + sum((tensor**2).sum() for tensor in parameters.values())}

    found = gradient_search(combination, away, lambda c: {"a": 1 + c["lambda"]}, mu=5, learning_rate=0.5, steps=40)
    assert all(point.coefficients["lambda"] >= 0 for point in found.curve)
    assert all(0 <= point.coefficients["t1"] <= 1 for point in found.curve)


def test_a_gradient_search_refuses_what_makes_no_sense() -> None:
    with pytest.raises(InputError, match="gradient search needs"):
        gradient_search(*planted(), steps=0)
    combination, _, evaluate = planted()
    with pytest.raises(ModelError, match="nan"):
        gradient_search(combination, lambda p, step: {"d0": p["a"].sum() * math.nan}, evaluate, steps=1)


# --- The objective


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
