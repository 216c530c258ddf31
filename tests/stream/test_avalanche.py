"""The Avalanche bridge, against Avalanche itself. Runs where it is installed: `make test-avalanche`."""

from __future__ import annotations

import importlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from continual.eval.avalanche import RetrievalScores, retrieval_metrics
from continual.stream.avalanche import ReplayBuffer, WorkspaceBenchmark
from tests import ROOT
from tests.rows import Write, make_pairs

# isort: split
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from avalanche.benchmarks import benchmark_from_datasets
from avalanche.evaluation.metrics import BWT, Forgetting, ForwardTransfer, loss_metrics
from avalanche.training.plugins import EvaluationPlugin, EWCPlugin, ReplayPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer, ReservoirSamplingBuffer
from avalanche.training.supervised import Naive

from continual import Workspace
from continual.errors import InputError, NotFoundError, NothingToDoError
from continual.eval.metrics import bwt, forgetting, fwt
from continual.registry import Window
from continual.step.request import Request
from continual.step.spec import prepare
from continual.train.pairs import PairEncoder, PairLoss

SETTINGS = """
[ingest]
holdout = 0.2
[train]
epochs = 1
batch_size = 16
max_length = 32
lora_rank = 4
[gate]
max_forgetting = 100
max_ood_loss = 100
min_gain = -100
"""
pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A workspace with three domains, of which nothing is learned, and an OOD task."""
    folder = tmp_path_factory.mktemp("filled")

    def write(name: str, rows: list[dict[str, object]]) -> Path:
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
        return folder / f"{name}.parquet"

    Workspace.init(folder / "w", str(tiny_model))
    (folder / "w" / "continual.toml").write_text(SETTINGS)
    workspace = Workspace(folder / "w")
    for seed, name in enumerate(("first", "second", "third")):
        workspace.ingest(write(name, make_pairs(60, seed=seed)))
    # The task of a domain in another workspace, which this one never learns.
    other = Workspace.init(folder / "other", str(tiny_model))
    other.ingest(write("elsewhere", make_pairs(40, seed=9)), holdout=0.5)
    workspace.add_task("elsewhere", other.registry.path("tasks/elsewhere"))
    return folder / "w"


@pytest.fixture
def workspace(tmp_path: Path, filled: Path) -> Workspace:
    return Workspace(shutil.copytree(filled, tmp_path / "w"))


def benchmark_of(workspace: Workspace, **options: Any) -> tuple[WorkspaceBenchmark, Any]:
    model = workspace.load("v0")
    return WorkspaceBenchmark(workspace.registry, model, max_length=32, **options), model


def strategy_of(model: Any, *plugins: Any, metrics: Any = (), **options: Any) -> Naive:
    torch.manual_seed(0)
    return Naive(
        model=PairEncoder(model),
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3),
        criterion=PairLoss(),
        train_mb_size=16,
        eval_mb_size=16,
        plugins=list(plugins),
        evaluator=EvaluationPlugin(*metrics),
        **options,
    )


def test_experiences_are_the_steps_and_then_what_waits(workspace: Workspace, write_pairs: Write) -> None:
    step = workspace.update(domains=["first", "third"]).version
    workspace.ingest(write_pairs("more.parquet", make_pairs(30, seed=5)), domain="first")
    again = workspace.update(domains=["first"], replay=0).version
    benchmark, _ = benchmark_of(workspace)
    experiences = list(benchmark.train_stream)
    assert [experience.version for experience in experiences] == [step.id, again.id, None]
    assert [experience.domains for experience in experiences] == [["first", "third"], ["first"], ["second"]]
    for experience, version in zip(experiences, (step, again), strict=False):
        assert len(experience.dataset) == sum(window.rows for window in version.provenance.new)
    labels = [benchmark.labels[name] for name in ("first", "third")]
    assert set(experiences[0].dataset.targets_task_labels) == set(labels)
    # Each task under the number of the first experience that learns its domain; the OOD task after all of them.
    tests = {test.current_experience: [task.name for task in test.tasks] for test in benchmark.test_stream}
    assert tests == {0: ["first", "third"], 2: ["second"], 3: ["elsewhere"]}
    only, _ = benchmark_of(workspace, version="v1", waiting=False)
    assert [experience.version for experience in only.train_stream] == ["v1"]
    assert {test.current_experience for test in only.test_stream} == {0, 1, 2}


def test_a_sample_is_a_pair_that_the_model_encodes_as_it_does(workspace: Workspace) -> None:
    benchmark, model = benchmark_of(workspace)
    (test,) = [test for test in benchmark.test_stream if test.tasks[0].name == "elsewhere"]
    pairs = {str(row["query"]): str(row["positive"]) for row in make_pairs(40, seed=9)}
    vectors = PairEncoder(model)(torch.stack([tokens for tokens, _, _ in test.dataset])).detach().numpy()
    model.max_seq_length = 32
    queries = model.encode_query(list(pairs))
    documents = model.encode_document(list(pairs.values()))
    assert len(vectors) == test.tasks[0].judgements > 5
    for query, document in vectors:
        nearest = int(np.argmax(queries @ query))
        np.testing.assert_allclose(queries[nearest], query, atol=1e-5)
        np.testing.assert_allclose(documents[nearest], document, atol=1e-5)


def test_the_buffer_holds_what_our_own_step_replays(workspace: Workspace) -> None:
    benchmark, _ = benchmark_of(workspace)
    drawn: dict[str, list[list[Window]]] = {}
    for policy in ("uniform", "balanced", "temperature", "reservoir"):
        buffer = ReplayBuffer(benchmark, 31, policy)
        for experience in list(benchmark.train_stream)[:2]:
            buffer.post_adapt(None, experience)
            assert len(buffer.buffer) == 31
            drawn.setdefault(policy, []).append(list(buffer.windows))
    workspace.update(domains=["first"])
    second = workspace.update(domains=["second"], replay=1, settings={"replay": {"rows": 31}}).version
    assert all(second.provenance.replay == draws[0] for draws in drawn.values())
    for policy, draws in drawn.items():
        config = workspace.config.replace("replay", policy=policy, share=1, rows=31)
        spec, _ = prepare(workspace.registry, config, Request(domains=["third"]))
        assert spec.provenance.replay == draws[1]
        assert {window.domain for window in spec.provenance.replay} == {"first", "second"}


def test_a_buffer_is_resized_and_refuses_what_it_cannot_draw(workspace: Workspace) -> None:
    benchmark, _ = benchmark_of(workspace)
    buffer = ReplayBuffer(benchmark, 20)
    first, second, _ = benchmark.train_stream
    buffer.post_adapt(None, first)
    wide = buffer.windows
    buffer.resize(None, 5)
    assert [window.rows for window in buffer.windows] == [len(buffer.buffer)] == [5]
    buffer.resize(None, 20)
    assert buffer.windows == wide
    buffer.resize(None, 0)
    assert not len(buffer.buffer)
    with pytest.raises(NotFoundError, match="Did you mean 'uniform'"):
        ReplayBuffer(benchmark, 20, "unifrom")
    for policy in ("forgetting", "hardest"):
        with pytest.raises(InputError, match="not a version"):
            ReplayBuffer(benchmark, 20, policy)
    (other,) = benchmark_from_datasets(train=[second.dataset]).train_stream
    with pytest.raises(InputError, match="train_stream"):
        buffer.post_adapt(None, other)


def test_replay_plugin_trains_on_our_draw(workspace: Workspace) -> None:
    benchmark, model = benchmark_of(workspace)
    buffer = ReplayBuffer(benchmark, 20)
    new: list[int] = []
    replayed: list[int] = []

    class Watch(ReplayPlugin):
        def before_training_iteration(self, strategy: Any, **_: Any) -> None:
            for label, target in zip(strategy.mb_task_id.tolist(), strategy.mb_y.tolist(), strict=True):
                (new if label == strategy.experience.current_experience else replayed).append(target)

    strategy = strategy_of(
        model, Watch(20, batch_size_mem=8, storage_policy=buffer), metrics=loss_metrics(stream=True), train_epochs=2
    )
    ((name, before),) = strategy.eval(benchmark.test_stream).items()
    for place, experience in enumerate(benchmark.train_stream):
        new.clear()
        replayed.clear()
        drawn = set(buffer.buffer.targets) if place else set()
        strategy.train(experience, eval_streams=[])
        assert sorted(new) == sorted(2 * list(experience.dataset.targets))  # two epochs
        assert set(replayed) == drawn
        assert len(drawn) == (20 if place else 0)
    assert strategy.eval(benchmark.test_stream)[name] < before


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReplayPlugin(12, storage_policy=ReservoirSamplingBuffer(12)),
        lambda: ReplayPlugin(12, storage_policy=ClassBalancedBuffer(12), task_balanced_dataloader=True),
        lambda: EWCPlugin(0.4),
    ],
    ids=["reservoir", "balanced", "ewc"],
)
def test_avalanches_own_plugins_take_the_experiences(workspace: Workspace, make: Callable[[], Any]) -> None:
    benchmark, model = benchmark_of(workspace)
    strategy = strategy_of(model, make())
    start = model.encode(["bat lal"])
    for experience in list(benchmark.train_stream)[:2]:
        strategy.train(experience, eval_streams=[])
    moved = model.eval().encode(["bat lal"])
    assert np.isfinite(moved).all()
    assert np.abs(moved - start).max() > 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_backward_transfer_and_forgetting_are_avalanches(seed: int) -> None:
    """One task a step and one that is never learned, fed to Avalanche's own metrics as its plugins feed them."""
    rng = np.random.default_rng(seed)
    steps = 2 + seed
    matrix = rng.uniform(0, 100, (steps + 1, steps + 1))
    learned = [*range(1, steps + 1), None]
    theirs, backward, forward = Forgetting(), BWT(), ForwardTransfer()
    for task in range(steps):
        forward.update(task, matrix[0, task], initial=True)
        if task:
            forward.update(task, matrix[task, task])
    for row in range(1, steps + 1):
        for metric in (theirs, backward):
            metric.reset_last()
            for task in range(steps + 1):
                metric.update(task, matrix[row, task], initial=row == task + 1)
        known = list(theirs.result().values())
        ours = matrix[: row + 1]
        if row == 1:
            assert known == []
            assert math.isnan(bwt(ours, learned))
            continue
        assert np.mean(list(backward.result().values())) == pytest.approx(bwt(ours, learned), abs=1e-12)
        assert np.mean(known) == pytest.approx(-bwt(ours, learned), abs=1e-12)
        # Ours takes the best earlier row where theirs takes the first: the same once all else is hidden.
        hidden = ours.copy()
        for task in range(row - 1):
            hidden[[place for place in range(row) if place != task + 1], task] = np.nan
        assert forgetting(hidden, learned) == pytest.approx(np.mean(known), abs=1e-12)
        assert forgetting(ours, learned) >= np.mean(known) - 1e-12
    assert np.mean(list(forward.result().values())) == pytest.approx(fwt(matrix, learned), abs=1e-12)


def test_avalanche_measures_our_points_in_its_own_loop(workspace: Workspace) -> None:
    benchmark, model = benchmark_of(workspace)
    metrics = retrieval_metrics(benchmark, workspace.config.eval)
    scores = metrics[0]
    strategy = strategy_of(model, ReplayPlugin(20, storage_policy=ReplayBuffer(benchmark, 20)), metrics=metrics)
    found = [strategy.eval(benchmark.test_stream)]
    for experience in benchmark.train_stream:
        strategy.train(experience, eval_streams=[])
        found.append(strategy.eval(benchmark.test_stream))
    assert scores.tasks == ["first", "second", "third", "elsewhere"]
    assert scores.learned == [1, 2, 3, None]
    assert scores.matrix.shape == (4, 4)
    assert np.abs(np.diff(scores.matrix, axis=0)).max() > 0
    recorded = {row.task: row.score for row in workspace.evaluate("v0").scores}
    assert dict(zip(scores.tasks, scores.matrix[0], strict=True)) == pytest.approx(recorded, abs=1e-9)
    for row in (2, 3):
        theirs = {name.partition("/")[0]: value for name, value in found[row].items() if name.startswith("Stream")}
        ours = bwt(scores.matrix[: row + 1], scores.learned)
        assert theirs == pytest.approx({"StreamBWT_Points": ours, "StreamForgetting_Points": -ours}, abs=1e-9)
    single = {name: value for name, value in found[3].items() if name.startswith("Points")}
    assert [value for _, value in sorted(single.items())] == pytest.approx(list(scores.matrix[3]))
    assert scores.metrics()["bwt"] == pytest.approx(bwt(scores.matrix, scores.learned))


def test_what_cannot_be_scored_is_refused(workspace: Workspace) -> None:
    from continual.train.lora import attach

    benchmark, model = benchmark_of(workspace)
    scores = RetrievalScores(benchmark)
    strategy = strategy_of(model, metrics=[scores])
    with pytest.raises(InputError, match="test_stream"):
        strategy.eval(benchmark.train_stream)
    attach(model, 4, 8.0, 0)
    with pytest.raises(InputError, match="adapter"):
        strategy.eval(benchmark.test_stream)


def test_an_empty_stream_is_said_plainly(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(NothingToDoError, match="continual ingest"):
        benchmark_of(Workspace.init(tmp_path / "empty", str(tiny_model)))


def test_the_example_trains_over_a_workspace(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("avalanche_replay")
    example.main([str(workspace.directory), "--rows", "20", "--learning-rate", "1e-3"])
    printed = capsys.readouterr().out
    assert "experience 2:" in printed
    ours, theirs = (line for line in printed.splitlines() if line.startswith(("ours:", "Avalanche:")))
    value = ours.partition("bwt ")[2].partition(",")[0]
    assert f"StreamBWT_Points {value}" in theirs
    assert workspace.version().id == "v0"
    with pytest.raises(SystemExit) as ended:
        example.main([str(workspace.directory / "nowhere")])
    assert ended.value.code == 2
