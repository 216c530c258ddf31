"""The life of a workspace, on a tiny model: the whole step, resume, refusal, rollback, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import (
    ConfigError,
    DataError,
    InputError,
    ModelError,
    NotFoundError,
    NothingToDoError,
    WorkspaceBusy,
)
from continual.models.weights import weights_sha256
from continual.storage.locks import exclusive
from tests.conftest import kill_update, make_pairs

Write = Callable[[str, list[dict[str, object]]], Path]
SETTINGS = """
[ingest]
holdout = 0.2
[train]
epochs = 1
batch_size = 16
max_length = 32
lora_rank = 4
checkpoint_seconds = 0
[gate]
max_forgetting = 100
max_ood_loss = 100
min_gain = -100
[index]
step = false
"""


@pytest.fixture
def workspace(tiny_model: Path, tmp_path: Path) -> Workspace:
    Workspace.init(tmp_path / "w", str(tiny_model))
    (tmp_path / "w" / "continual.toml").write_text(SETTINGS)
    return Workspace(tmp_path / "w")


@pytest.fixture(scope="module")
def two_steps(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that has learned two domains, in two steps."""
    folder = tmp_path_factory.mktemp("stream")
    Workspace.init(folder / "w", str(tiny_model))
    (folder / "w" / "continual.toml").write_text(SETTINGS)
    made = Workspace(folder / "w")
    for number, name in enumerate(("first", "second")):
        pq.write_table(pa.Table.from_pylist(make_pairs(80, seed=number)), folder / f"{name}.parquet")
        made.ingest(folder / f"{name}.parquet")
        assert made.update(replay=0.5).passed
    return folder / "w"


@pytest.fixture
def learned(two_steps: Path, tmp_path: Path) -> Workspace:
    """A copy of that workspace."""
    return Workspace(shutil.copytree(two_steps, tmp_path / "w"))


def test_two_steps_from_an_empty_folder(learned: Workspace) -> None:
    root, first, second = learned.versions()
    assert [version.status for version in (root, first, second)] == ["root", "accepted", "accepted"]
    assert second.parent == first.id
    assert learned.version().id == second.id == "v2"
    assert first.provenance.replay == []
    (window,) = second.provenance.replay
    first_rows = first.provenance.new[0].rows
    assert window.domain == "first"
    assert window.rows == round(0.5 * first_rows)
    assert second.pairs_trained == second.provenance.new[0].rows + window.rows
    assert second.joint_pairs == first_rows + second.provenance.new[0].rows
    for version in (root, first, second):
        assert version.sha256 == weights_sha256(learned.registry.path(version.path))
    assert len({version.sha256 for version in (root, first, second)}) == 3
    scores = learned.registry.scores()
    assert set(scores) == {(v, t) for v in ("v0", "v1", "v2") for t in ("first", "second")}
    assert not list(learned.registry.path("runs").glob("v*"))


def test_every_version_loads_everywhere_and_keeps_what_the_base_was(
    learned: Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    texts = [str(row["positive"]) for row in make_pairs(100, seed=7)]
    exported = learned.export("current", tmp_path / "exported").directory
    ours = learned.load("current").encode(texts)
    np.testing.assert_allclose(SentenceTransformer(str(exported), device="cpu").encode(texts), ours, atol=1e-6)
    base = SentenceTransformer(str(tiny_model), device="cpu")
    loaded = learned.load()
    assert loaded.prompts == base.prompts
    assert loaded.max_seq_length == base.max_seq_length
    assert [type(module) for module in loaded] == [type(module) for module in base]
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)
    assert np.abs(ours - base.encode(texts)).max() > 1e-3
    version = learned.version()
    start = learned.registry.path(learned.version("v1").path)
    adapter = learned.registry.path(version.adapter or "")
    assert PeftModel.from_pretrained(AutoModel.from_pretrained(start), adapter).peft_config


def test_the_same_seed_gives_the_same_weights(workspace: Workspace, write_pairs: Write, tmp_path: Path) -> None:
    source = write_pairs("a.parquet", make_pairs(60))
    workspace.ingest(source)
    one = workspace.update(seed=3).version
    workspace.rollback()
    two = workspace.update(seed=3).version
    workspace.rollback()
    three = workspace.update(seed=4).version
    assert one.sha256 == two.sha256 != three.sha256


def test_a_plan_counts_and_changes_nothing(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("third.parquet", make_pairs(40, seed=9)))

    def files() -> list[Path]:
        return sorted(path for path in learned.registry.root.rglob("*") if path.is_file() and path.suffix != ".lock")

    before = files()
    plan = learned.plan(settings={"replay": {"rows": 10}})
    kept = {batch.domain: batch.kept for batch in learned.registry.batches()}
    assert sum(window.rows for window in plan.spec.provenance.replay) == 10
    assert plan.pairs == kept["third"] + 10
    assert plan.joint_pairs == sum(kept.values())
    searching = learned.plan(settings={"replay": {"rows": 10}}, merge="search")
    assert searching.pairs < plan.pairs  # rows are held out for the search
    assert searching.joint_pairs == plan.joint_pairs
    assert plan.tokens > 0
    assert plan.seconds > 0
    assert files() == before
    assert learned.update(settings={"replay": {"rows": 10}}).version.pairs_trained == plan.pairs


def test_nothing_new_is_said_plainly(learned: Workspace) -> None:
    with pytest.raises(NothingToDoError, match="nothing new to learn"):
        learned.update()
    with pytest.raises(NotFoundError, match="Did you mean 'first'"):
        learned.update(domains=["frist"])
    with pytest.raises(NothingToDoError, match="nothing to resume"):
        learned.update(resume=True)


def test_a_refused_version_stays_a_candidate(workspace: Workspace, write_pairs: Write) -> None:
    path = workspace.directory / "continual.toml"
    path.write_text(SETTINGS.replace("min_gain = -100", "min_gain = 99"))
    workspace = Workspace(workspace.directory)
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    step = workspace.update()
    assert not step.passed
    assert step.version.verdict is not None
    assert step.version.verdict.reasons
    assert workspace.version().id == "v0"
    assert workspace.status().domains[0].learned == 0
    workspace.promote(step.version.id)
    assert workspace.version().id == "v1"
    assert workspace.status().domains[0].learned == workspace.status().domains[0].rows
    workspace.rollback()
    assert workspace.version().id == "v0"
    with pytest.raises(InputError, match="v0 is the first current version"):
        workspace.rollback()


def test_running_mean_goes_from_the_base_and_remembers(workspace: Workspace, write_pairs: Write) -> None:
    weights = []
    for number in range(3):
        workspace.ingest(write_pairs(f"d{number}.parquet", make_pairs(50, seed=number)))
        step = workspace.update(merge="running-mean")
        assert step.spec.provenance.start == "v0"
        weights.append(step.spec.provenance.weight)
    np.testing.assert_allclose(weights, [1, 1 / 2, 1 / 3])
    with pytest.raises(InputError, match="trained from the root base"):
        workspace.plan(merge="running-mean", start="current")


def test_an_update_without_any_task_is_made_and_said_to_be_unjudged(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(40)), holdout=0.0)
    step = workspace.update()
    assert step.passed
    assert step.scores == {}


def test_a_killed_update_resumes_to_the_same_weights(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(80)))
    workspace.update()
    workspace.ingest(write_pairs("b.parquet", make_pairs(120, seed=1)))
    expected = workspace.update(seed=5, replay=0.5).version
    for label, advances in (("training", 3), ("evaluating v", 1)):
        workspace.rollback()
        kill_update(workspace.directory, label, advances, seed=5, replay=0.5)
        begun = workspace.status().interrupted
        with pytest.raises(InputError, match="--resume"):
            workspace.update()
        with pytest.raises(InputError, match="Leave the other options out"):
            workspace.update(resume=True, seed=5)
        resumed = workspace.update(resume=True).version
        assert resumed.id == begun
        assert resumed.sha256 == expected.sha256
        assert resumed.provenance.replay == expected.provenance.replay != []
        assert resumed.pairs_trained == expected.pairs_trained
        assert workspace.status().interrupted is None


@pytest.mark.parametrize(("rule", "advances"), [("search", 3), ("self-positioning", 5)])
def test_an_update_killed_while_it_searches_resumes_to_the_same_weights(
    learned: Workspace, write_pairs: Write, rule: str, advances: int
) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(120, seed=2)))
    before = learned.version().id
    expected = learned.update(seed=5, replay=0.5, merge=rule).version
    learned.promote(before)
    kill_update(learned.directory, "searching", advances, seed=5, replay=0.5, merge=rule)
    resumed = learned.update(resume=True).version
    assert (resumed.sha256, resumed.provenance.weight) == (expected.sha256, expected.provenance.weight)
    assert resumed.provenance.search == expected.provenance.search


def test_what_was_interrupted_is_not_resumed_on_another_base_or_other_rows(
    learned: Workspace, write_pairs: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(60, seed=2)))
    kill_update(learned.directory, "training", 1, seed=5, replay=0.5)
    with monkeypatch.context() as patch:
        patch.setattr("continual.step.spec.libraries", lambda: {"torch": "99.0"})
        with pytest.raises(InputError, match=r"begun with torch .* \(now 99.0\).*--restart"):
            learned.update(resume=True)
    learned.rollback()
    with pytest.raises(InputError, match=r"current version is now.*--restart"):
        learned.update(resume=True)
    learned.promote("v2")
    folder = tmp_path / "task"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d", "text": "other"}) + "\n")
    texts = [str(each["query"]) for each in make_pairs(60, seed=2)]
    (folder / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q{n}", "text": t}) + "\n" for n, t in enumerate(texts))
    )
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td\t1\n" for n in range(len(texts)))
    )
    learned.add_task("late", folder)
    with pytest.raises(InputError, match=r"rows .* changed.*--restart"):
        learned.update(resume=True)
    with pytest.raises(NothingToDoError, match="evaluation task"):
        learned.update(restart=True)


def test_a_step_that_cannot_be_trained_leaves_nothing_behind(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(1)), holdout=0.0)
    with pytest.raises(NothingToDoError, match="a single row"):
        workspace.update()
    assert workspace.status().interrupted is None
    assert not list(workspace.registry.path("runs").glob("v*"))
    workspace.ingest(write_pairs("b.parquet", make_pairs(40, seed=1)), holdout=0.0)
    assert workspace.update().passed


class Meddler:
    """Moves `current` while an update evaluates."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.label, self.moved = workspace, "", False

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.label = label

    def advance(self, count: int) -> None:
        if self.label.startswith("evaluating") and not self.moved:
            self.moved = True
            self.workspace.rollback("v1 is bad")

    def finish(self) -> None:
        pass


def test_a_rollback_during_an_update_is_not_overruled(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    workspace.update()
    workspace.ingest(write_pairs("b.parquet", make_pairs(60, seed=1)))
    step = workspace.update(progress=Meddler(workspace))
    assert step.passed
    assert step.current == workspace.version().id == "v0"


def test_what_killed_updates_left_is_swept(learned: Workspace) -> None:
    left = [learned.registry.path(path) for path in ("versions/.v9.ab.partial", "adapters/.v9.ab.partial", "runs/v2")]
    for path in left:
        path.mkdir(parents=True)
    with pytest.raises(NothingToDoError):
        learned.update()
    assert not any(path.exists() for path in left)


def test_a_base_in_half_precision_becomes_fp32(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer

    half = SentenceTransformer(str(tiny_model), device="cpu").half()
    half.save_pretrained(str(tmp_path / "half"))
    assert {str(t.dtype) for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {"torch.float16"}
    workspace = Workspace.init(tmp_path / "w", str(tmp_path / "half"))
    exported = SentenceTransformer(str(workspace.export("v0", tmp_path / "out").directory), device="cpu")
    texts = [str(row["positive"]) for row in make_pairs(20)]
    np.testing.assert_allclose(exported.encode(texts), workspace.load().encode(texts), atol=1e-6)
    assert exported.encode(texts).dtype == np.float32


def test_scores_of_other_settings_are_made_anew(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(60)))
    workspace.update()
    (workspace.directory / "continual.toml").write_text(SETTINGS + "[eval]\nmax_length = 8\n")
    workspace = Workspace(workspace.directory)
    workspace.ingest(write_pairs("b.parquet", make_pairs(60, seed=1)))
    workspace.update()
    settings = {key: score.settings for key, score in workspace.registry.scores().items()}
    assert set(settings.values()) == {"max_length=8"}
    assert len(settings) == 3 * 2


def test_a_running_mean_does_not_forget_what_another_rule_learned(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=2)))
    with pytest.raises(InputError, match="would be lost"):
        learned.plan(merge="running-mean")


def test_an_interrupted_update_can_be_discarded(workspace: Workspace, write_pairs: Write) -> None:
    workspace.ingest(write_pairs("a.parquet", make_pairs(120)))
    kill_update(workspace.directory, "training", 2, seed=5, replay=0.5)
    step = workspace.update(seed=6, restart=True)
    assert step.version.id == "v2"
    assert not list(workspace.registry.path("runs").glob("v*"))


def test_two_updates_at_once_are_refused(workspace: Workspace) -> None:
    with exclusive(workspace.registry.root / "update.lock", "update"), pytest.raises(WorkspaceBusy):
        workspace.update()


def test_a_folder_is_found_from_below_and_from_the_environment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    below = workspace.directory / "some" / "folder"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert Workspace().directory == workspace.directory
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError, match="continual init"):
        Workspace()
    monkeypatch.setenv("CONTINUAL_WORKSPACE", str(workspace.directory))
    assert Workspace().directory == workspace.directory


def test_init_refuses_what_is_no_model_and_leaves_nothing(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    for base in (tmp_path / "file.txt", tmp_path / "empty", tmp_path / "missing", "no-such-model"):
        with pytest.raises(ModelError):
            Workspace.init(tmp_path / "w", str(base))
        assert not (tmp_path / "w").exists()
    Workspace.init(tmp_path / "w", str(tiny_model))
    with pytest.raises(InputError, match="already"):
        Workspace.init(tmp_path / "w", str(tiny_model))


def test_settings_are_checked_all_at_once(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text(
        "[train]\nepochs = 0\nlearning_rte = 1\n[gate]\nmin_gain = nan\n"
    )
    with pytest.raises(ConfigError, match=r"train.epochs.*train.learning_rte.*gate.min_gain"):
        Workspace(workspace.directory)


def test_settings_that_decide_nothing_any_more_are_still_read(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text("[eval]\nbootstrap = 500\nconfidence = 0.9\n")
    assert Workspace(workspace.directory).config.eval.confidence == 0.9


def test_export_never_overwrites(learned: Workspace, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        learned.export("v1", tmp_path / "full")
    with pytest.raises(NotFoundError, match="There is no version 'v9'"):
        learned.export("v9", tmp_path / "new")


def test_the_report_of_a_real_stream(learned: Workspace) -> None:
    report: dict[str, Any] = learned.report().to_json()
    assert [version["id"] for version in report["versions"]] == ["v0", "v1", "v2"]
    assert [version["domains"] for version in report["versions"]] == [[], ["first"], ["second"]]
    assert [task["name"] for task in report["tasks"]] == ["first", "second"]
    assert len(report["matrix"]) == 3
    assert report["metrics"]["bwt"][0] is None
    assert report["metrics"]["bwt"][2] == pytest.approx(report["matrix"][2][0] - report["matrix"][1][0])


def test_a_search_that_a_domain_has_no_say_in_is_refused_before_training(
    workspace: Workspace, write_pairs: Write
) -> None:
    workspace.ingest(write_pairs("few.parquet", make_pairs(15)), holdout=0)
    with pytest.raises(InputError, match=r"too few of few \(1\)"):
        workspace.update(merge="search")
    assert workspace.status().interrupted is None


@pytest.mark.parametrize("rule", ["search", "self-positioning"])
def test_coefficients_are_searched_on_rows_that_were_not_trained(
    workspace: Workspace, write_pairs: Write, rule: str
) -> None:
    from continual.report.html import render_html

    for number, name in enumerate(("first", "second")):
        workspace.ingest(write_pairs(f"{name}.parquet", make_pairs(160, seed=number)))
        step = workspace.update(replay=0.1, merge=rule)
    made = step.version.provenance
    search, cost = made.search, made.search_cost
    assert search is not None
    assert cost is not None
    held = {window.domain: window.rows for window in made.held}
    assert set(held) == {"first", "second"}
    new = next(batch for batch in workspace.registry.batches("second"))
    assert held["second"] == new.kept // 10
    assert made.new[0].rows == new.kept - held["second"]
    assert step.version.pairs_trained == made.new[0].rows + made.replay[0].rows
    assert set(search.reference.losses) == {"first", "second"}
    best = search.best
    assert best in search.candidates
    assert made.weight == best.coefficients["weight" if rule == "search" else "t1"]
    assert best.loss <= min(point.loss for point in search.candidates) or not search.floor_kept
    if rule == "search":  # forward only: all held-out rows for each candidate, the current version among them
        assert (cost.pairs, cost.forward_pairs) == (0, sum(held.values()) * len(search.candidates))
    else:
        assert cost.pairs > 0
    workspace.rebuild(step.version.id)
    assert f"Search for {workspace.version().id}" in render_html(workspace.report()).html


def test_damaged_weights_are_neither_exported_nor_served(
    learned: Workspace, write_pairs: Write, tmp_path: Path
) -> None:
    first, current = learned.versions()[1].id, learned.version().id
    for name in (first, current):
        weights = learned.registry.path(learned.version(name).path) / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    for act in (lambda: learned.export(first, tmp_path / "out"), lambda: learned.promote(first), learned.rollback):
        with pytest.raises(ModelError, match=f"versions rebuild {first}"):
            act()
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    for learn in (learned.plan, learned.update):
        with pytest.raises(ModelError, match=f"versions rebuild {current}"):
            learn()
    assert learned.version().id == current
    assert not (tmp_path / "out").exists()
    learned.rebuild(first)
    learned.rebuild(current)
    assert learned.update().passed


def test_lost_files_are_named_before_anything_is_trained(
    learned: Workspace, write_pairs: Write, tmp_path: Path
) -> None:
    task = learned.registry.tasks()[0]
    folder = learned.registry.path(task.path)
    shutil.copytree(folder, tmp_path / "ood")
    learned.add_task("ood", tmp_path / "ood")
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    (learned.registry.path("tasks/ood") / "corpus.parquet").unlink()
    with pytest.raises(DataError, match=r"corpus.parquet.*continual task add ood"):
        learned.update()
    with pytest.raises(DataError, match=r"corpus.parquet.*continual task add ood"):
        learned.ingest(write_pairs("d.parquet", make_pairs(40, seed=4)))
    assert learned.status().interrupted is None
    assert not learned.add_task("ood", tmp_path / "ood")[0].unchanged  # it is put back
    assert learned.add_task("ood", tmp_path / "ood")[0].unchanged
    rows = learned.registry.path(learned.registry.batches()[0].path)
    rows.rename(rows.with_suffix(".away"))
    with pytest.raises(DataError, match="is missing"):
        learned.update()
    rows.with_suffix(".away").rename(rows)
    assert learned.update().passed


def test_calls_that_contradict_themselves_are_refused(learned: Workspace) -> None:
    with pytest.raises(InputError, match="Choose one"):
        learned.update(resume=True, restart=True)
    with pytest.raises(InputError, match=r"--merge 0\.3"):
        learned.plan(merge="interpolate", settings={"merge": {"parameters": {"weight": 0.3}}})


def test_a_running_update_is_not_called_interrupted(learned: Workspace, write_pairs: Write) -> None:
    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    seen: list[tuple[str | None, str | None]] = []

    class Watch:
        def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
            if label == "training":
                status = learned.status()
                seen.append((status.running, status.interrupted))

        def advance(self, count: int) -> None: ...
        def finish(self) -> None: ...

    made = learned.update(progress=Watch()).version.id
    assert seen == [(made, None)]
    assert (learned.status().running, learned.status().interrupted) == (None, None)


def test_a_plan_counts_the_tokens_of_a_full_retraining_by_domain(workspace: Workspace, write_pairs: Write) -> None:
    long = [pair | {"positive": f"{pair['positive']} {pair['positive']}"} for pair in make_pairs(40)]
    workspace.ingest(write_pairs("long.parquet", long), holdout=0.0)
    whole = workspace.plan()
    assert (whole.joint_pairs, whole.joint_tokens) == (whole.pairs, whole.tokens)
    workspace.update()
    short = [{"query": pair["query"], "positive": pair["query"][:8]} for pair in make_pairs(40, seed=1)]
    workspace.ingest(write_pairs("short.parquet", short), holdout=0.0)
    plan = workspace.plan(replay=0.0)
    assert plan.joint_pairs == 2 * plan.pairs
    assert plan.joint_tokens == plan.tokens + whole.tokens  # not twice the short ones


def test_the_history_of_what_was_in_service_is_kept(learned: Workspace) -> None:
    learned.rollback("tests are small")
    events = learned.history()
    assert [event.version for event in events] == ["v0", "v1", "v2", "v1"]
    assert events[-1].reason == "tests are small"


def test_two_versions_are_compared_query_by_query(learned: Workspace, tmp_path: Path) -> None:
    shutil.copytree(learned.registry.path(learned.registry.tasks()[0].path), tmp_path / "late")
    learned.add_task("late", tmp_path / "late")
    found = learned.compare("v0")
    assert (found.first, found.second) == ("v0", learned.version().id)
    assert [each.task for each in found.tasks] == [task.name for task in learned.registry.tasks()]
    scores = learned.registry.scores()
    for each in found.tasks:
        old, new = scores["v0", each.task], scores[found.second, each.task]
        assert (each.first, each.second) == pytest.approx((old.score, new.score))
        assert each.difference == pytest.approx(new.score - old.score)
        assert each.low <= each.difference <= each.high
        assert each.better + each.worse <= each.queries == new.queries
    assert found.mean.difference == pytest.approx(np.mean([each.difference for each in found.tasks]))
    same = learned.compare("v1", "v1").tasks[0]
    assert (same.difference, same.p, same.better) == (0.0, 1.0, 0)


def test_init_keeps_settings_that_are_there(tmp_path: Path, tiny_model: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "continual.toml").write_text("[train]\nepochs = 7\n")
    assert Workspace.init(folder, str(tiny_model)).config.train.epochs == 7
    assert (folder / "continual.toml").read_text() == "[train]\nepochs = 7\n"
    wrong = tmp_path / "x"
    wrong.mkdir()
    (wrong / "continual.toml").write_text("[train]\nepoch = 7\n")
    with pytest.raises(ConfigError, match="epochs"):
        Workspace.init(wrong, str(tiny_model))
    assert not (wrong / ".continual").exists()


def test_a_checkpoint_outlives_a_machine_that_cannot_go_on(
    learned: Workspace, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from continual.train import loop

    learned.ingest(write_pairs("c.parquet", make_pairs(40, seed=3)))
    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_adapter", interrupted)  # after the last checkpoint
        with pytest.raises(KeyboardInterrupt):
            learned.update()
    begun = learned.status().interrupted
    with monkeypatch.context() as patched:
        patched.setattr("continual.train.step.resolve_precision", lambda *_: "fp16")  # other arithmetic
        with pytest.raises(ConfigError, match="another training: it differs in precision"):
            learned.update(resume=True)
    assert learned.status().interrupted == begun
    assert learned.update(resume=True).version.id == begun


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt
