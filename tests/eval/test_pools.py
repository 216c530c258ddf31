"""Pools: an update scores a large task on the documents that the root base finds first."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual import Workspace
from continual.config import EvalConfig, StepSuiteConfig, SuitesConfig
from continual.eval.query_scores import read_rankings
from continual.eval.suites import WHOLE, Pool, Sample, sample_of, score_settings, suite_settings, texts_of
from continual.registry import Registry
from tests.encodings import spied
from tests.rows import Write, make_pairs
from tests.tasks import task_record, write_task
from tests.workspaces import make_workspace

DOCUMENTS = 800
SETTINGS = """
[suites]
step = {pool = 10}
[train]
batch_size = 8
epochs = 1
[index]
step = false
[gate]
max_forgetting = 100
max_ood_loss = 100
min_gain = -100
"""


@pytest.fixture
def pooled(tiny_model: Path, tmp_path: Path, write_pairs: Write) -> Workspace:
    """A workspace with two versions, and a task of 12 queries and 800 documents that no version was scored on."""
    made = make_workspace(tmp_path / "w", tiny_model, SETTINGS)
    made.ingest(write_pairs("a.parquet", make_pairs(40)), domain="a")
    made.update()
    large = write_task(tmp_path / "large", "far", documents=DOCUMENTS)
    made.add_task("far", tmp_path / "large" / large.path)
    return made


def scores_of(registry: Registry, version: str) -> dict[str, float]:
    """Return the scores of a version on the large task, by settings."""
    return {
        score.settings: score.score
        for score in registry.all_scores()
        if (score.version, score.task) == (version, "far")
    }


def test_what_a_pool_is() -> None:
    suites = SuitesConfig(step=StepSuiteConfig(pool=10))
    large = task_record(queries=20, documents=2000)
    assert sample_of(large, suites, "step") == Pool(None, 10)
    assert sample_of(large, suites, "corpus") == sample_of(large, suites, "release") == WHOLE
    assert texts_of(large, Pool(None, 10)) < 0.5 * texts_of(large, WHOLE)
    assert score_settings(EvalConfig(), Pool(None, 10)) == "max_length=model, pool, queries=all, documents=10"
    assert sample_of(task_record(queries=20, documents=300), suites, "step") == WHOLE, "half of it would be scored"
    assert sample_of(task_record(queries=20, documents=2000, mteb={}), suites, "step") == WHOLE
    assert sample_of(task_record(queries=20, documents=2000, metric="map_at_100"), suites, "step") == WHOLE
    few = SuitesConfig(step=StepSuiteConfig(pool=10, queries=5))
    assert sample_of(large, few, "step") == Pool(5, 10)
    assert sample_of(large, few, "corpus") == Sample(5)
    random = SuitesConfig(step=StepSuiteConfig(documents=500))
    assert sample_of(large, random, "step") == Sample(None, 500)
    assert sample_of(large, SuitesConfig(step=StepSuiteConfig(pool="off")), "step") == WHOLE


def test_the_corpus_is_encoded_with_the_root_base_alone(pooled: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = spied(monkeypatch)
    chosen = {"suite": "step", "tasks": ["far"]}
    scored = pooled.evaluate("v1", **chosen).scores[0]
    assert scored.settings == "max_length=model, pool, queries=all, documents=10"
    registry = pooled.registry
    by_root = scores_of(registry, "v0")
    assert [*sorted(by_root)] == ["max_length=model", scored.settings]
    assert by_root["max_length=model"] == pytest.approx(by_root[scored.settings], abs=1e-9), "its first are in the pool"
    documents = [text for role, _, text in encoded if role == "document"]
    assert DOCUMENTS < len(documents) <= DOCUMENTS + 1 + 12 * 14
    encoded.clear()
    whole = pooled.evaluate("v1", tasks=["far"]).scores[0]
    assert whole.settings == "max_length=model"
    assert len([role for role, *_ in encoded if role == "document"]) >= DOCUMENTS, "a release is scored in full"
    assert whole.score <= scored.score + 1e-9, "documents that are left out can only be wrong ones"
    encoded.clear()
    pooled.evaluate("v0", **chosen)
    assert not encoded


def test_a_ranking_that_was_lost_is_made_again(pooled: Workspace) -> None:
    chosen = {"suite": "step", "tasks": ["far"]}
    pool = pooled.evaluate("v0", **chosen).scores[0].settings
    own = [score for score in pooled.registry.all_scores() if score.task == "far" and score.settings != pool]
    pooled.registry.drop_scores(str(own[0].path))
    assert {*scores_of(pooled.registry, "v0")} == {pool}
    assert pooled.evaluate("v1", **chosen).scores[0].settings == pool
    assert {*scores_of(pooled.registry, "v0")} == {pool, "max_length=model"}


def test_the_root_base_ranks_as_many_documents_as_the_deepest_pool_takes(tiny_model: Path, tmp_path: Path) -> None:
    from continual.eval.run import Scorer

    large = write_task(tmp_path, "far", documents=150)
    with Scorer(tiny_model, "v0", "x", tmp_path, EvalConfig()) as scorer:
        (score,) = scorer.score([large], first=100)
    rankings = read_rankings(tmp_path / str(score.path))
    assert rankings is not None
    assert {len(documents) for documents in rankings.values()} == {100}


def test_an_update_scores_the_pool(pooled: Workspace, write_pairs: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    pooled.evaluate("v1", suite="step")
    pooled.ingest(write_pairs("b.parquet", make_pairs(40, seed=1)), domain="b")
    encoded = spied(monkeypatch)
    step = pooled.update()
    assert step.scores["far"] is not None
    assert len({text for role, _, text in encoded if role == "document"}) < DOCUMENTS / 2
    settings = suite_settings(pooled.registry.tasks(), pooled.config, "step")["far"]
    assert settings in scores_of(pooled.registry, step.version.id)
    assert "pool" in settings


def test_a_ranking_that_is_too_short_is_made_again(pooled: Workspace, tmp_path: Path) -> None:
    pooled.evaluate("v0", tasks=["far"])  # keeps ten documents
    settings = pooled.directory / "continual.toml"
    settings.write_text(settings.read_text().replace("pool = 10", "pool = 20"))
    opened = Workspace(pooled.directory)
    scored = opened.evaluate("v1", suite="step", tasks=["far"]).scores[0]
    assert "documents=20" in scored.settings
    assert {*scores_of(opened.registry, "v0")} == {"max_length=model", scored.settings}
