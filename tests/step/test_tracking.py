"""Trackers: what TensorBoard is told, on resume too, and that no tracker costs a step."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import tracking
from accelerate.tracking import GeneralTracker
from typer.testing import CliRunner

from continual import Workspace
from continual.cli import app
from continual.errors import InputError, NotFoundError
from tests.kills import kill
from tests.rows import Write, make_pairs
from tests.workspaces import SETTINGS


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read what TensorBoard shows of a run: (step, value) by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


class Recorder(GeneralTracker):
    """A tracker of a user's own, as accelerate documents it."""

    name = "recorder"
    requires_logging_directory = False
    fails_at: str | None = None
    runs: list[dict[str, Any]]

    def __init__(self, project: str, **options: Any) -> None:
        super().__init__()
        self.run = {"name": project, "options": options, "logged": [], "config": None, "finished": False}

    @property
    def tracker(self) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="given by the server"))

    def start(self) -> None:
        if self.fails_at == "start":
            raise ConnectionError("no route to host")
        type(self).runs.append(self.run)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.run["config"] = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        if self.fails_at == "log" and step == 3:
            raise ConnectionError("the server went away")
        self.run["logged"].append((step, values))

    def finish(self) -> None:
        self.run["finished"] = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    """A fresh tracker class that accelerate knows as "recorder"."""
    kind = type("Fresh", (Recorder,), {"runs": []})
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "recorder", kind)
    return kind


def test_tensorboard_gets_every_step_and_the_verdict(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a#b.parquet", make_pairs(80)))
    step = workspace.update(settings={"track": {"trackers": ["tensorboard"]}})
    shown = scalars(workspace.registry.path("tracking/v1"))
    training = step.version.provenance.training
    count = training.steps
    assert [number for number, _ in shown["train/loss"]] == list(range(1, count + 1))
    # With fewer than 200 steps the curve that the version keeps has a point per step.
    assert [value for _, value in shown["train/loss"]] == pytest.approx([loss for _, loss in training.curve])
    peak, rise = workspace.config.train.learning_rate, round(workspace.config.train.warmup * count)
    rates = [(n + 1) / (rise + 1) if n < rise else (count - n) / (count - rise) for n in range(count)]
    assert [value for _, value in shown["train/learning_rate"]] == pytest.approx([peak * rate for rate in rates])
    assert all(value > 0 for _, value in shown["train/pairs_per_second"])
    new, old = step.scores["a#b"].score, step.previous["a#b"].score
    assert shown["eval/a_b"] == [(count, pytest.approx(new))]
    assert shown["change/a_b"] == [(count, pytest.approx(new - old, abs=1e-5))]
    assert shown["gate/passed"] == [(count, 1.0)]
    (parameters,) = workspace.registry.path("tracking/v1").glob("*/hparams.yml")
    assert "train.epochs: 1" in parameters.read_text()


def age(folder: Path) -> None:
    """Date the events before this second: TensorBoard orders files of the same second by their processes."""
    for file in list(folder.rglob("events.out.tfevents.*")):
        seconds, rest = file.name.removeprefix("events.out.tfevents.").split(".", 1)
        file.rename(file.with_name(f"events.out.tfevents.{int(seconds) - 10}.{rest}"))


@pytest.mark.kill
@pytest.mark.parametrize("seconds", ["0", "1000"])  # a checkpoint at every step, or none before the kill
def test_a_resumed_step_goes_on_in_the_same_run(workspace: Workspace, write_pairs: Write, seconds: str) -> None:
    settings = SETTINGS.replace("checkpoint_seconds = 0", f"checkpoint_seconds = {seconds}")
    (workspace.directory / "continual.toml").write_text(settings)
    workspace.ingest(write_pairs("a.parquet", make_pairs(120)))
    kill(workspace.directory, "update", "training", 4, settings={"track": {"trackers": ["tensorboard"]}})
    folder = workspace.registry.path("tracking/v1")
    assert len(scalars(folder)["train/loss"]) == 4
    age(folder)
    with pytest.raises(InputError, match="Leave the other options out"):
        workspace.update(resume=True, settings={"track": {"trackers": ["tensorboard"]}})
    training = workspace.update(resume=True).version.provenance.training
    shown = scalars(folder)
    assert [number for number, _ in shown["train/loss"]] == list(range(1, training.steps + 1))
    assert [value for _, value in shown["train/loss"]] == pytest.approx([loss for _, loss in training.curve])
    assert len(shown["gate/passed"]) == 1


def test_a_missing_package_or_a_wrong_name_changes_nothing(
    workspace: Workspace, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    monkeypatch.setattr(tracking, "_available_trackers", [])
    with pytest.raises(InputError, match=r"comet_ml is not installed.*`pip install comet-ml`"):
        workspace.update(settings={"track": {"trackers": ["comet_ml"]}})
    with pytest.raises(NotFoundError, match="Did you mean 'tensorboard'"):
        workspace.update(settings={"track": {"trackers": ["tensorbord"]}})
    (workspace.directory / "continual.toml").write_text(f'{SETTINGS}\n[track]\ntrackers = ["wandb"]\n')
    result = CliRunner().invoke(app, ["update", "-w", str(workspace.directory)])
    assert isinstance(result.exception, InputError)
    assert "`pip install wandb`" in str(result.exception)
    assert workspace.registry.runs() == []
    assert not workspace.registry.path("tracking").exists()


def test_a_tracker_that_cannot_start_leaves_what_was_interrupted(
    workspace: Workspace,
    write_pairs: Write,
    recorder: type[Recorder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    with monkeypatch.context() as patch:
        patch.setattr("continual.train.lora.fold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            workspace.update(settings={"track": {"trackers": ["recorder"]}})
    assert recorder.runs[0]["finished"]
    recorder.fails_at = "start"
    with pytest.raises(InputError, match=r"recorder cannot start: no route to host\. Nothing was trained"):
        workspace.update(restart=True, settings={"track": {"trackers": ["recorder"]}})
    assert workspace.status().interrupted == "v1"
    with caplog.at_level(logging.WARNING):
        assert workspace.update(resume=True).version.id == "v1"
    assert "recorder cannot continue" in caplog.text


def test_a_tracker_that_fails_on_the_way_costs_no_step(
    workspace: Workspace, write_pairs: Write, recorder: type[Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    recorder.fails_at = "log"
    workspace.ingest(write_pairs("a.parquet", make_pairs(80)))
    with caplog.at_level(logging.WARNING):
        assert workspace.update(settings={"track": {"trackers": ["recorder", "recorder"]}}).passed
    (run,) = recorder.runs
    assert [step for step, _ in run["logged"]] == [1, 2]
    assert run["name"] == workspace.directory.name
    assert run["config"]["train.lora_rank"] == 4
    assert run["config"]["new_domains"] == "a"
    assert "recorder failed at step 3 and gets no more figures of this update: the server went away" in caplog.text


def test_servers_are_asked_for_the_run_that_was_interrupted(
    workspace: Workspace, write_pairs: Write, recorder: type[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, name, recorder)
    monkeypatch.setattr(tracking, "_available_trackers", ["wandb", "mlflow"])
    (workspace.directory / "continual.toml").write_text(f'{SETTINGS}\n[track]\nproject = "weekly"\n')
    workspace = Workspace(workspace.directory)
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    with monkeypatch.context() as patch:
        patch.setattr("continual.train.lora.fold", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            workspace.update(settings={"track": {"trackers": ["wandb", "mlflow"]}})
    workspace.update(resume=True)
    first, second, again, resumed = recorder.runs
    assert {run["name"] for run in recorder.runs} == {"weekly"}
    assert first["options"] == again["options"]
    assert first["options"]["resume"] == "allow"
    assert second["options"] == {"run_name": "v1"}
    assert resumed["options"] == {"run_id": "given by the server"}
    assert resumed["config"] is None
    assert resumed["logged"][-1][1]["gate/passed"] == 1.0
