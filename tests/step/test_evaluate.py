"""How a step is scored when its tasks have more texts than it may encode."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.config import load_config
from continual.eval.suites import SuiteName, suite_settings
from continual.models.weights import weights_sha256
from continual.progress import SILENT
from continual.registry import Change, Role, Score, TaskChange
from continual.step.evaluate import Candidate, Scored, _doubts, evaluate, last_scores
from continual.step.gate import Decision, Finding
from continual.versions.scores import score_missing
from tests.commands import Run
from tests.rows import make_pairs
from tests.tasks import write_task
from tests.workspaces import SETTINGS, Once, learn, make_workspace

SUITES: tuple[SuiteName, ...] = ("step", "probe")
DOMAINS = ["a", "b", "c", "d"]
PROBES = "[suites]\nprobe = {queries = 3, documents = 2}\n"
LIMITED = SETTINGS + PROBES + "[eval]\nstep_texts = 160\nstep_every = 3\n"
FULL = SETTINGS + PROBES + '[eval]\nstep_texts = "all"\n'


@pytest.fixture(scope="session")
def four_steps(once: Once, tiny_model: Path) -> Path:
    """A workspace with an OOD task that has learned four domains; all tasks were scored in full."""

    def make(folder: Path) -> None:
        made = make_workspace(folder / "w", tiny_model, FULL.replace("holdout = 0.2", "holdout = 0.4"))
        task = write_task(folder / "ood", "far", seed=9)
        made.add_task("far", folder / "ood" / task.path)
        for seed, domain in enumerate(DOMAINS):
            learn(made, domain, 40, seed=seed)

    return once("four-steps", make) / "w"


@pytest.fixture
def opened(four_steps: Path, tmp_path: Path) -> Callable[[str], Workspace]:
    """Return a function that opens a copy of the workspace with other settings."""

    def open_copy(settings: str) -> Workspace:
        folder = shutil.copytree(four_steps, tmp_path / "w")
        (folder / "continual.toml").write_text(settings)
        return Workspace(folder)

    return open_copy


def ingest(workspace: Workspace, domain: str, seed: int) -> None:
    file = workspace.directory.parent / f"{domain}.parquet"
    pq.write_table(pa.Table.from_pylist(make_pairs(40, seed=seed)), file)
    workspace.ingest(file)


def test_the_new_domain_is_scored_in_full_and_the_others_in_turn(opened: Callable[[str], Workspace]) -> None:
    workspace = opened(LIMITED.replace("step_texts = 160", "step_texts = 200"))
    last = dict.fromkeys([*DOMAINS, "far"], "v4")
    for number, domain in enumerate(("e", "f", "g"), start=5):
        ingest(workspace, domain, seed=number)
        step = workspace.update(replay=0.5)
        version = f"v{number}"
        assert step.version.id == version
        changes = step.version.verdict.tasks
        assert set(changes) == {*last, domain}, "every task is compared"
        assert not changes[domain].probe
        assert changes[domain].since is None
        full = {task for task, change in changes.items() if not change.probe}
        assert set(step.scores) == full
        assert len(full) < len(changes)
        for task in full - {domain}:
            assert changes[task].since == (None if last[task] == f"v{number - 1}" else last[task])
        last |= dict.fromkeys(full, version)
        assert all(int(version[1:]) - int(each[1:]) < 3 for each in last.values()), "eval.step_every"
        reasons = " ".join(step.version.verdict.reasons)
        assert f"{len(changes) - len(full)} of {len(changes)} tasks were compared on a probe" in reasons
        scores = workspace.registry.scores()
        assert {task for owner, task in scores if owner == version} == full, "probes are no scores"
        base = {task for owner, task in scores if owner == "v0"}
        assert base == {*last}
    report = workspace.report()
    rows = {row.id: row for row in report.versions}
    later = {"f"}  # scored with v5 as the parent of v6
    assert set(rows["v5"].scores) == {*DOMAINS, "far", "e"} | later, "a version has no score on a later task"
    carried = rows["v7"].carried
    assert carried == {task: version for task, version in last.items() if version != "v7"}
    places = {row.id: place for place, row in enumerate(report.versions)}
    for task, origin in carried.items():
        column = [each.name for each in report.tasks].index(task)
        assert report.matrix[places["v7"]][column] == scores[origin, task].score
        ends = [report.intervals.score[places[version]][column] for version in (origin, "v7")]
        assert ends[1][1] - ends[1][0] > ends[0][1] - ends[0][0], "the interval grows"
    assert report.metrics["acc"][places["v7"]] is not None
    assert {(each["version"], each["task"]): each["of"] for each in report.to_json()["carried"]} == {
        (row.id, task): origin for row in report.versions for task, origin in row.carried.items()
    }


def test_a_step_that_may_score_all_probes_nothing(opened: Callable[[str], Workspace]) -> None:
    workspace = opened(FULL)
    ingest(workspace, "e", seed=5)
    step = workspace.update()
    assert set(step.scores) == set(step.previous) == {*DOMAINS, "far", "e"}
    assert not any(change.probe or change.since for change in step.version.verdict.tasks.values())
    assert not any(score.probe for score in workspace.registry.all_scores())


def test_the_default_is_four_texts_a_pair(opened: Callable[[str], Workspace]) -> None:
    workspace = opened(SETTINGS)
    candidate = of_current(workspace, {})
    assert candidate.texts == 2000
    assert dataclasses.replace(candidate, pairs=1000).texts == 4000


def of_current(workspace: Workspace, roles: dict[str, Role]) -> Candidate:
    """Return the current version as if a step had just made it from itself."""
    registry, current = workspace.registry, workspace.version()
    folder = registry.path(current.path)
    tasks = [task for task in registry.tasks() if task.name in roles]
    return Candidate(
        registry,
        load_config(workspace.directory / "continual.toml"),
        "v9",
        folder,
        weights_sha256(folder),
        workspace.version("v0"),
        current,
        tasks,
        roles=roles,
        pairs=10,
    )


ROLES: dict[str, Role] = {"d": "new", "a": "learned", "b": "learned", "c": "learned", "far": "OOD"}


def set_points(workspace: Workspace, version: str, task: str, points: float) -> None:
    """Replace all scores of a version on a task, those of its probe too."""
    registry = workspace.registry
    config = load_config(workspace.directory / "continual.toml")
    tasks = [each for each in registry.tasks() if each.name == task]
    for suite in SUITES:
        score_missing(registry, workspace.version(version), tasks, config, SILENT, suite)
        score = registry.scores(suite_settings(tasks, config, suite))[version, task]
        path = registry.path(str(score.path))
        table = pq.read_table(path)
        values = pa.array([points / 100] * len(table), pa.float64())
        pq.write_table(table.set_column(1, "score", values), path)
        registry.add_scores([dataclasses.replace(score, score=points)])


@pytest.mark.parametrize(("fall", "p", "unsure"), [(1.5, 0.3, True), (1.5, 0.5, False), (0.9, 0.01, False)])
def test_a_fall_of_a_probe_near_the_limit_is_measured_in_full(
    fall: float, p: float, unsure: bool, opened: Callable[[str], Workspace]
) -> None:
    candidate = of_current(opened(LIMITED.replace("max_forgetting = 100", "max_forgetting = 2")), ROLES)
    changes = {
        name: TaskChange(-fall, low=None, high=None, adjusted=None, role=role, new=50 - fall, old=50, p=p)
        for name, role in ROLES.items()
        if name in "cd"
    }
    nothing, probes = (Decision([], candidate.config.gate, tasks=tasks) for tasks in ({}, changes))
    doubts = _doubts(candidate, Scored(), nothing, probes)
    assert [task.name for task in doubts] == (["c"] if unsure else [])
    # Scored in full, but compared with a version before the parent; and then with the parent.
    full = Score("v9", "c", "ndcg_at_10", 60.0, 16, None)
    for version, settled in (("v3", False), ("v4", True)):
        scored = Scored(new={"c": full}, old={"c": dataclasses.replace(full, version=version, score=40.0)})
        doubts = _doubts(candidate, scored, nothing, probes)
        assert [task.name for task in doubts] == (["c"] if unsure and not settled else [])


def test_a_score_from_before_a_domain_was_learned_says_nothing_about_forgetting(
    opened: Callable[[str], Workspace],
) -> None:
    workspace = opened(LIMITED.replace("max_forgetting = 100", "max_forgetting = 2"))
    registry = workspace.registry
    task = next(task for task in registry.tasks() if task.name == "b")
    known = registry.scores(suite_settings([task], load_config(workspace.directory / "continual.toml"), "step"))
    for version in ("v2", "v3", "v4"):  # b was learned by v2
        registry.drop_scores(str(known[version, "b"].path))
    assert "b" in last_scores(of_current(workspace, {"b": "OOD"}))
    assert "b" not in last_scores(of_current(workspace, ROLES))
    _, decision = evaluate(of_current(workspace, ROLES), SILENT)
    assert decision.tasks["b"].since is None
    assert decision.tasks["b"].difference == pytest.approx(0, abs=1e-6), "with the parent, not with the root base"


def test_scores_with_other_settings_are_not_compared() -> None:
    new = Score("v9", "c", "ndcg_at_10", 60.0, 16, None, settings="max_length=model, pool, queries=all, documents=100")
    old = dataclasses.replace(new, version="v4", settings="max_length=model")
    assert Scored(new={"c": new}, old={"c": old}).pairs() == {}
    assert set(Scored(new={"c": new}, old={"c": dataclasses.replace(new, version="v4")}).pairs()) == {"c"}


@pytest.mark.parametrize(("fall", "p", "unsure"), [(0.6, 0.1, True), (0.6, 0.3, False), (0.4, 0.01, False)])
def test_a_mean_of_ood_tasks_near_its_limit_is_measured_in_full(
    fall: float, p: float, unsure: bool, opened: Callable[[str], Workspace]
) -> None:
    candidate = of_current(opened(LIMITED.replace("max_ood_loss = 100", "max_ood_loss = 1")), ROLES)
    finding = Finding("max_ood_loss", ["far"], Change(-fall), p=p)
    decision, nothing = (Decision(found, candidate.config.gate) for found in ([finding], []))
    assert [task.name for task in _doubts(candidate, Scored(), decision, nothing)] == (["far"] if unsure else [])


def test_learned_domains_are_probed_before_most_ood_tasks(opened: Callable[[str], Workspace]) -> None:
    workspace = opened(LIMITED.replace("step_texts = 160", "step_texts = 50"))
    _, decision = evaluate(of_current(workspace, ROLES), SILENT)
    assert set(decision.tasks) >= {"d", "a", "b", "far"}
    assert "c" not in decision.tasks


@pytest.mark.parametrize(("fallen", "passes"), [([], True), (["c"], False), (["far"], False)])
def test_the_verdict_is_that_of_the_full_evaluation(
    fallen: list[str], passes: bool, opened: Callable[[str], Workspace]
) -> None:
    settings = LIMITED.replace("max_forgetting = 100", "max_forgetting = 2")
    settings = settings.replace("max_ood_loss = 100", "max_ood_loss = 1")
    workspace = opened(settings)
    for task in fallen:
        set_points(workspace, "v4", task, 100.0)  # the same model is worse than that
    found: list[tuple[Scored, Decision]] = []
    for limit in ("step_texts = 160", 'step_texts = "all"'):
        (workspace.directory / "continual.toml").write_text(settings.replace("step_texts = 160", limit))
        found.append(evaluate(of_current(workspace, ROLES), SILENT))
    (scored, decision), (everything, wanted) = found
    assert decision.passed == wanted.passed == passes
    assert set(everything.new) == {*ROLES}
    broken = [finding for finding in decision.findings if finding.broken]
    assert [finding.tasks for finding in broken] == ([fallen] if fallen else [])
    for task in fallen:
        assert task in scored.new
        assert not decision.tasks[task].probe, "no refusal rests on a probe"
    if passes:
        assert set(scored.new) < {*ROLES}


def test_a_limit_that_an_older_version_seems_to_break_is_measured_with_the_parent(
    opened: Callable[[str], Workspace], tmp_path: Path
) -> None:
    settings = LIMITED.replace("max_forgetting = 100", "max_forgetting = 2")
    workspace = opened(settings)
    registry = workspace.registry
    task = next(task for task in registry.tasks() if task.name == "a")
    config = load_config(workspace.directory / "continual.toml")
    known = registry.scores(suite_settings([task], config, "step"))
    for name in ("v3", "v4"):  # v2 is the last with a score of a
        registry.drop_scores(str(known[name, "a"].path))
    high = dataclasses.replace(known["v2", "a"], score=100.0, path=None)
    registry.add_scores([high])  # without scores per query, its points alone decide
    _, decision = evaluate(of_current(workspace, ROLES | {"b": "new", "c": "new"}), SILENT)
    assert decision.tasks["a"].since is None
    assert decision.tasks["a"].difference == pytest.approx(0, abs=1e-6)
    assert decision.passed
    assert ("v4", "a") in registry.scores(suite_settings([task], config, "step"))


def test_update_shows_what_was_measured_on_a_probe(opened: Callable[[str], Workspace], run: Run) -> None:
    workspace = opened(LIMITED)
    ingest(workspace, "e", seed=5)
    result = run("update", "--plan", "-w", workspace.directory)
    assert "About 160 texts would be scored (eval.step_texts), so some tasks only on a probe." in result.out
    result = run("update", "-w", workspace.directory)
    assert result.code == 0, result.err
    assert "(probe)" in result.out
    assert "tasks were compared on a probe, not in full" in result.out
    ingest(workspace, "f", seed=6)
    result = run("update", "-w", workspace.directory)
    assert "(v4)" in result.out, "a score of a version before the parent names it"
    result = run("report", "-w", workspace.directory)
    assert "~ score of an earlier version" in result.out


def test_probes_take_turns_when_they_are_too_many(opened: Callable[[str], Workspace]) -> None:
    workspace = opened(LIMITED.replace("step_texts = 160", "step_texts = 30"))  # two probes
    compared: list[set[str]] = []
    for number, domain in enumerate(("e", "f"), start=5):
        ingest(workspace, domain, seed=number)
        compared.append(set(workspace.update().version.verdict.tasks) - {domain})
    assert all(1 <= len(tasks) <= 2 for tasks in compared), "a probe and a task in full"
    assert not compared[0] & compared[1]


def test_a_sure_refusal_ends_the_scoring(opened: Callable[[str], Workspace]) -> None:
    workspace = opened(LIMITED.replace("min_gain = -100", "min_gain = 90"))
    ingest(workspace, "e", seed=5)
    step = workspace.update()
    assert not step.passed
    assert set(step.version.verdict.tasks) == set(step.scores) == {"e"}
    assert "less than gate.min_gain = 90" in step.version.verdict.reasons[0]
