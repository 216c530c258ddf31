"""Suites: what is sampled, that a sample is never mistaken for the whole, and that nothing is scored twice."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.config import (
    Config,
    EvalConfig,
    ProbeConfig,
    StepSuiteConfig,
    SuitesConfig,
    load_config,
    validate,
)
from continual.errors import (
    ConfigError,
    InputError,
    NotFoundError,
    NothingToDoError,
)
from continual.eval.suites import (
    WHOLE,
    Probe,
    Sample,
    first_by_hash,
    sample_of,
    score_path,
    score_settings,
    suite_tasks,
    texts_of,
    trec_eval_measure,
)
from continual.eval.tasks import sampled_ids
from continual.registry import Registry, Score
from continual.registry.migrations import MIGRATIONS
from continual.versions.settings import render_config
from tests.commands import Run
from tests.registries import version
from tests.rows import make_pairs
from tests.tasks import task_record, write_task
from tests.workspaces import Once, make_workspace

STEP = "[ingest]\nholdout = 0.3\n[suites]\nstep = {queries = 5, documents = 12}\n"


@pytest.fixture
def workspace(once: Once, tiny_model: Path, tmp_path: Path) -> Workspace:
    """A workspace with a task of 18 queries, whose step suite scores 5."""

    def make(folder: Path) -> None:
        pq.write_table(pa.Table.from_pylist(make_pairs(60)), folder / "first.parquet")
        make_workspace(folder / "w", tiny_model, STEP).ingest(folder / "first.parquet")

    return Workspace(shutil.copytree(once("step-suite", make) / "w", tmp_path / "w"))


def test_settings_name_the_sample() -> None:
    config = EvalConfig()
    assert score_settings(config) == "max_length=model"
    assert score_settings(config, Sample(5)) == "max_length=model, queries=5, documents=all"
    assert score_settings(config, Sample(5, 12)) == "max_length=model, queries=5, documents=12"
    paths = {score_path("v1", "t", score_settings(config, sample)) for sample in (WHOLE, Sample(5), Sample(5, 12))}
    assert Path("scores/v1/t.parquet") in paths
    assert len(paths) == 3


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("ndcg_at_10", "ndcg_cut_10"),
        ("map_at_1000", "map_cut_1000"),
        ("recall_at_5", "recall_5"),
        ("precision_at_1", "P_1"),
        ("p-MRR", None),
        ("max_over_subqueries_map_at_1000", None),
        ("cosine_spearman", None),
    ],
)
def test_only_means_over_queries_have_values_per_query(metric: str, expected: str | None) -> None:
    assert trec_eval_measure(metric) == expected


def test_what_is_sampled() -> None:
    suites = SuitesConfig(step=StepSuiteConfig(queries=50, documents=2000))
    assert sample_of(task_record(), suites, "step") == Sample(50, None)  # it has no more documents than that
    assert sample_of(task_record(), suites, "release") == WHOLE
    assert sample_of(task_record(queries=50), suites, "step") == WHOLE
    assert sample_of(task_record(task_type="STS", metric="cosine_spearman"), suites, "step") == WHOLE
    assert sample_of(task_record(task_type="InstructionReranking", metric="p-MRR"), suites, "step") == WHOLE
    assert sample_of(task_record(task_type="Reranking", metric="map_at_1000"), suites, "step") == Sample(50, None)


def test_what_a_probe_is() -> None:
    suites = SuitesConfig(step=StepSuiteConfig(queries=50), probe=ProbeConfig(queries=20, documents=4))
    assert sample_of(task_record(), suites, "probe") == Probe(20, 4)
    assert score_settings(EvalConfig(), Probe(20, 4)) == "max_length=model, probe, queries=20, documents=4"
    assert texts_of(task_record(), Probe(20, 4)) == 20 + 20 * 5
    assert sample_of(task_record(queries=10), suites, "probe") == Probe(None, 4)
    assert sample_of(task_record(documents=150), suites, "probe") == Sample(50, None)  # a probe would be more than half
    assert sample_of(task_record(task_type="STS", metric="cosine_spearman"), suites, "probe") == WHOLE
    small = SuitesConfig(step=StepSuiteConfig(queries=5, documents=400))
    limited = sample_of(task_record(), small, "probe")
    assert limited == Probe(5, 1, corpus=400)  # never more queries than the suite step
    # Of another part of the corpus, other documents are hard.
    assert score_settings(EvalConfig(), limited) == "max_length=model, probe, queries=5, documents=1 of 400"


def test_the_documents_of_a_probe_are_hard_ones() -> None:
    corpus = [f"d{number}" for number in range(50)]
    queries = [f"q{number}" for number in range(10)]
    qrels = {query: {corpus[number]: 1} for number, query in enumerate(queries)}
    hard = {query: [corpus[20 + number], corpus[30 + number], corpus[40]] for number, query in enumerate(queries)}
    asked, kept = sampled_ids(corpus, queries, qrels, Probe(3, 2, hard))
    assert asked == set(first_by_hash(queries, 3))
    assert kept == {document for query in asked for document in [*qrels[query], *hard[query][:2]]}
    _, reranked = sampled_ids(corpus, queries, qrels, Probe(3, 2, hard), {query: ["d49", "gone"] for query in queries})
    assert reranked == kept | {"d49"}


def test_a_sample_does_not_depend_on_the_order() -> None:
    ids = [f"d{number}" for number in range(100)]
    chosen = first_by_hash(ids, 10)
    assert chosen == first_by_hash(reversed(ids), 10)
    assert len(chosen) == 10
    assert first_by_hash(ids, 20)[:10] == chosen  # a larger sample holds the smaller one


def test_every_judged_document_stays_in_a_sample(tmp_path: Path) -> None:
    from continual.eval.tasks import load_task

    folder = tmp_path / write_task(tmp_path, "t").path
    whole, cut = load_task("t", folder), load_task("t", folder, Sample(4, 8))
    parts = cut.dataset["default"]["test"]
    qrels = parts["relevant_docs"]
    assert len(qrels) == len(parts["queries"]) == 4
    every = whole.dataset["default"]["test"]["relevant_docs"]
    assert all(qrels[query] == every[query] for query in qrels)
    judged = {document for query in qrels.values() for document in query}
    assert judged <= set(parts["corpus"]["id"])
    assert len(parts["corpus"]) == max(8, len(judged))
    assert len(load_task("t", folder, Sample(1, None)).dataset["default"]["test"]["corpus"]) == 41


def test_tasks_of_mteb_are_cut_the_same_way() -> None:
    from mteb.mocks import MOCK_TASK_REGISTRY

    from continual.eval.mteb_tasks import cut_to_sample, load_task_data

    reranking = MOCK_TASK_REGISTRY["MockMultilingualRerankingTask"]()
    load_task_data(reranking)
    cut_to_sample(reranking, Sample(1, 1))
    for subset in ("eng", "fra"):
        data = reranking.dataset[subset]["test"]
        (query,) = data["relevant_docs"]
        assert data["queries"]["id"][:] == [query]
        assert set(data["top_ranked"]) == {query}
        assert set(data["top_ranked"][query]) <= set(data["corpus"]["id"])


def test_a_sampled_score_is_its_own(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.eval import run as scoring

    (step,) = workspace.evaluate(suite="step").scores
    (release,) = workspace.evaluate().scores
    assert (step.queries, release.queries) == (5, 18)
    assert step.settings == "max_length=model, queries=5, documents=12"
    assert release.settings == "max_length=model"
    paths = {score.path for score in workspace.registry.all_scores()}
    assert len(paths) == 2
    assert all((workspace.registry.root / path).is_file() for path in paths if path)
    monkeypatch.delattr(scoring, "Scorer")
    again = [workspace.evaluate(suite=suite).scores[0] for suite in ("step", "release")]
    assert [(each.score, each.new) for each in again] == [(step.score, False), (release.score, False)]
    assert [each.task for each in workspace.evaluate(tasks=["first"], suite="step").scores] == ["first"]


@pytest.mark.slow
def test_an_update_is_judged_on_the_step_suite(workspace: Workspace) -> None:
    settings = STEP + "[train]\nepochs = 1\nmax_length = 32\nlora_rank = 4\n[gate]\nmin_gain = -100\n"
    (workspace.directory / "continual.toml").write_text(settings)
    opened = Workspace(workspace.directory)
    opened.evaluate()  # a whole score is there, and must not be what the gate compares with
    assert opened.plan().tasks == {"first": 5 + 12}
    step = opened.update()
    assert {score.queries for score in (*step.scores.values(), *step.previous.values())} == {5}
    row = opened.report().versions[0]
    assert row.scores["first"] == step.previous["first"].score
    opened.evaluate()
    assert len({score.settings for score in opened.registry.scores().values()}) == 1  # the curve stays one curve
    found = opened.compare("v0", "v1")
    assert found.tasks[0].queries == 5


def test_a_suite_of_some_tasks() -> None:
    tasks = [task_record("a"), task_record("nano-x"), task_record("nano-y")]
    config = validate({"suites": {"step": {"tasks": ["nano-*"]}, "release": {"tasks": ["a"]}}}, "test")
    assert [each.name for each in suite_tasks(tasks, config, "step")] == ["nano-x", "nano-y"]
    assert [each.name for each in suite_tasks(tasks, config, "release")] == ["a"]
    assert suite_tasks([], validate({}, "test"), "step") == []
    with pytest.raises(NotFoundError, match=r"suites\.release in continual\.toml names the task 'a'"):
        suite_tasks(tasks[1:], config, "release")


def test_bad_calls(workspace: Workspace, run: Run, tiny_model: Path, tmp_path: Path) -> None:
    at = ("-w", workspace.directory)
    wrong = run("eval", "--suite", "relaese", *at)
    assert wrong.code == 2
    assert "Did you mean 'release'?" in wrong.err
    assert "There is no task 'fist'. Did you mean 'first'?" in run("eval", "--task", "fist", *at).err
    assert run("eval", "v7", *at).code == 2
    with pytest.raises(InputError):
        workspace.evaluate(suite="")
    empty = Workspace.init(tmp_path / "empty", str(tiny_model))
    with pytest.raises(NothingToDoError, match="continual task add"):
        empty.evaluate()
    assert run("task", "list", "-w", empty.directory).code == 0


def test_what_eval_prints(workspace: Workspace, run: Run) -> None:
    at = ("-w", workspace.directory)
    shown = run("eval", "--suite", "step", *at)
    assert shown.code == 0
    assert "v0, suite step" in shown.out
    assert "nDCG@10" in shown.out
    again = run("eval", "current", "--suite", "step", *at)
    assert "1 of 1 scores existed" in again.out
    (score,) = json.loads(run("eval", "v0", "--suite", "step", "--json", *at).out)["scores"]
    assert (score["task"], score["domain"], score["task_type"], score["new"]) == ("first", "first", "Retrieval", False)
    listed = json.loads(run("task", "list", "--json", *at).out)["tasks"]
    assert [(each["name"], each["queries"], each["origin"]) for each in listed] == [("first", 18, "holdout")]


def test_settings_of_suites_are_read_and_written(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(STEP)
    config = load_config(tmp_path / "c.toml")
    assert config.suites.step == StepSuiteConfig(queries=5, documents=12)
    (tmp_path / "again.toml").write_text(render_config(config))
    assert load_config(tmp_path / "again.toml") == config
    assert '# step = {tasks = ["*"], pool = 100}' in render_config(Config())
    with pytest.raises(ConfigError, match=r"suites\.step\.querys: unknown setting\. Did you mean 'queries'\?"):
        validate({"suites": {"step": {"querys": 3}}}, "test")
    with pytest.raises(ConfigError):
        validate({"suites": {"step": {"tasks": []}}}, "test")


def test_scores_of_one_task_have_the_same_settings(tmp_path: Path) -> None:
    registry = Registry(tmp_path / ".continual")
    registry.catalog.create()
    for name, parent in (("v0", None), ("v1", "v0"), ("v2", "v1")):
        registry.add_version(dataclasses.replace(version("v0"), id=name, parent=parent))
    for name, settings in (("v0", "old"), ("v1", "old"), ("v2", "a"), ("v1", "a"), ("v2", "b")):
        registry.add_scores([Score(name, "t", "ndcg_at_10", 1.0, 1, None, {}, settings)])
    registry.add_scores([Score("v0", "u", "ndcg_at_10", 1.0, 1, None, {}, "old")])
    assert {key: score.settings for key, score in registry.scores().items()} == {
        ("v1", "t"): "a",
        ("v2", "t"): "a",
        ("v0", "u"): "old",
    }  # those of the newest version; of its two, those that more versions have
    assert set(registry.scores({"t": "old"})) == {("v0", "t"), ("v1", "t")}
    assert len(registry.all_scores()) == 6


def test_old_workspaces_keep_their_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry(tmp_path / ".continual")
    with monkeypatch.context() as patch:
        patch.setattr("continual.registry.catalog.MIGRATIONS", MIGRATIONS[:2])
        registry.catalog.create()
        with registry.catalog.transaction() as connection:
            connection.execute(
                "INSERT INTO scores VALUES ('v0', 't', 'ndcg_at_10', 5.5, 3, 'p', '{}', 'max_length=model', now())"
            )
            connection.execute("INSERT INTO tasks VALUES ('t', 1, NULL, 'tasks/t', 3, 4, 5, 'folder', 'x', now())")
    again = Registry(tmp_path / ".continual")
    assert again.scores({"t": "max_length=model"})["v0", "t"].score == 5.5
    (known,) = again.tasks()
    assert (known.task_type, known.metric, known.mteb) == ("Retrieval", "ndcg_at_10", None)


def test_keys_of_local_tasks_did_not_change(workspace: Workspace) -> None:
    keys = pq.read_table(workspace.registry.path("tasks/first/keys.parquet")).to_pylist()
    assert [row["kind"] for row in keys] == ["document"] * 18 + ["query"] * 18
