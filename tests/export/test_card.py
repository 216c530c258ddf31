"""What an export carries beside the weights: the model card, and the scores as mteb keeps them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import mteb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from mteb.results import TaskResult
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from continual import Workspace
from continual.cli import app
from continual.errors import InputError
from continual.export.card import _eval_result, hub_id
from continual.registry import Score, Task
from tests.rows import Write, make_pairs
from tests.workspaces import Once, make_workspace

BASE_CARD = """---
language: en
license: apache-2.0
tags: [of the base]
model-index: [{name: base, results: []}]
---
# The base

It knows nothing of what came later.
"""


@pytest.fixture(scope="session")
def two_steps(once: Once, tiny_model: Path) -> Path:
    """A folder with a base that has a card, and a workspace on it, which has learned two domains with odd names."""
    return once("with-card", lambda folder: learn_odd_names(folder, tiny_model))


def learn_odd_names(folder: Path, model: Path) -> None:
    shutil.copytree(model, folder / "base")
    (folder / "base" / "README.md").write_text(BASE_CARD)
    workspace = make_workspace(folder / "w", folder / "base")
    for number, (name, license) in enumerate((("<script>alert(1)<|script>", "Apache-2.0"), ("pi`pe", None))):
        source = folder / f"{number}.parquet"
        pq.write_table(pa.Table.from_pylist(make_pairs(80, seed=number)), source)
        workspace.ingest(source, domain=name, license=license)
        assert workspace.update(replay=0.5).passed


@pytest.fixture
def learned(two_steps: Path, tmp_path: Path) -> Workspace:
    """A copy of that workspace."""
    return Workspace(shutil.copytree(two_steps / "w", tmp_path / "w"))


@pytest.mark.slow
def test_the_card_replaces_the_bases(learned: Workspace, two_steps: Path, tmp_path: Path) -> None:
    out = learned.export("v2", tmp_path / "out").directory
    text = (out / "README.md").read_text()
    card = ModelCard(text)
    assert "It knows nothing" not in text
    assert card.data.library_name == "sentence-transformers"
    assert card.data.language == "en"
    assert card.data.license == "apache-2.0"
    assert card.data.base_model is None  # a folder of this machine is no id of the Hub
    assert "the local model `base`" in text
    assert str(tmp_path) not in text
    assert str(two_steps) not in text
    for version in learned.lineage("v2"):
        assert version.sha256[:12] in text
    assert "| v2 | v1 | `pi'pe` | v1 | interpolate, weight 0.8 |" in text
    rows = {batch.domain: batch.kept for batch in learned.registry.batches()}
    assert (
        f"| `<script>alert(1)<\\|script>` | {rows['<script>alert(1)<|script>']} | `0.parquet` | `Apache-2.0` |" in text
    )
    assert f"| `pi'pe` | {rows['pi`pe']} | `1.parquet` | `not stated` |" in text
    for reason in learned.version("v2").verdict.reasons:
        assert reason.replace("`", "\\`") in text
    shown = text.split("---\n", 2)[2].replace("\\|", "|")
    assert "<script>" not in shown.replace("`<script>alert(1)<|script>`", "")
    SentenceTransformer(str(out), device="cpu")


def test_the_scores_are_in_the_hubs_form(learned: Workspace, tmp_path: Path) -> None:
    text = (learned.export("current", tmp_path / "out").directory / "README.md").read_text()
    name, results = model_index_to_eval_results(ModelCard(text).data.to_dict()["model-index"])
    assert name == "w-v2"
    scores = learned.registry.scores()
    assert {result.dataset_name: result.metric_value for result in results} == {
        task: pytest.approx(scores["v2", task].score, abs=5e-4) for task in ("<script>alert(1)<|script>", "pi`pe")
    }
    assert {result.metric_type for result in results} == {"ndcg_at_10"}
    assert len({result.unique_identifier for result in results}) == 2
    base, new = scores["v0", "pi`pe"].score, scores["v2", "pi`pe"].score
    assert f"| {base:.1f} | {new:.1f} | {new - base:+.1f} |" in text


@pytest.mark.slow
def test_a_licence_of_its_own_is_not_settled_by_the_base(
    learned: Workspace, write_pairs: Write, tmp_path: Path
) -> None:
    source = write_pairs("third.parquet", make_pairs(60, seed=5))
    learned.ingest(source)
    again = learned.ingest(source, license=" cc-by-nc-4.0 ")
    assert (again.unchanged, again.license) == (True, "cc-by-nc-4.0")
    assert learned.ingest(source).license == "cc-by-nc-4.0"
    learned.update()
    text = (learned.export("v3", tmp_path / "out").directory / "README.md").read_text()
    assert ModelCard(text).data.license is None
    assert "`cc-by-nc-4.0`" in text
    assert "The licence of the base model, `base`: `apache-2.0`" in text
    for wrong in ("", "two\nlines", "x" * 201):
        with pytest.raises(InputError, match="--license takes a name"):
            learned.ingest(source, license=wrong)


def test_the_root_base_and_a_card_that_cannot_be_read(tiny_model: Path, tmp_path: Path) -> None:
    workspace = Workspace.init(tmp_path / "w", str(tiny_model))
    (workspace.registry.path("versions/v0") / "README.md").write_text("---\n: [\n---\n")
    workspace.registry.digests.record("versions/v0")
    out = workspace.export("current", tmp_path / "out").directory
    assert not (out / "mteb").exists()
    card = ModelCard((out / "README.md").read_text())
    assert "the root base" in card.text
    assert card.data.eval_results is None


def test_a_folder_that_reads_like_a_hub_id_is_no_base_of_the_hub(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.init("w", "models/mine")
    assert Path(workspace.version("v0").provenance.base).is_absolute()
    card = ModelCard((workspace.export("v0", "out").directory / "README.md").read_text())
    assert card.data.base_model is None
    assert "huggingface.co/models/mine" not in card.text


def test_the_card_says_which_data_set_of_the_hub_a_task_of_mteb_is() -> None:
    made = datetime(2025, 1, 1, tzinfo=UTC)
    part = {"task": "STSX", "dataset": "mteb/stsx", "revision": "abc", "subsets": ["en", "fr"], "splits": ["test"]}
    known = {"task": "STSX", "metric": "cosine_spearman", "parts": [part]}
    own = Task("mine", None, "tasks/mine", 9, 0, 0, "folder", "0" * 64, made)
    theirs = dataclasses.replace(own, name="sts", task_type="STS", metric="cosine_spearman", mteb=known)
    results = [_eval_result(task, Score("v1", task.name, task.metric, 81.25, 9, None)) for task in (own, theirs)]
    assert [(each.task_type, each.task_name) for each in results] == [
        ("text-retrieval", "Retrieval"),
        ("sentence-similarity", "STS"),
    ]
    assert [(each.dataset_type, each.dataset_revision) for each in results] == [
        ("unknown", "0" * 64),
        ("mteb/stsx", "abc"),
    ]
    assert (results[1].dataset_config, results[1].dataset_split) == ("en+fr", "test")
    whole = dataclasses.replace(theirs, mteb=known | {"parts": [part, part]})
    assert _eval_result(whole, Score("v1", "sts", "cosine_spearman", 81.25, 9, None)).dataset_type == "unknown"


def test_what_a_person_calls_the_base_is_a_hub_id_or_not() -> None:
    assert hub_id("packaged") == "sentence-transformers/all-MiniLM-L6-v2"
    assert hub_id("BAAI/bge-small-en-v1.5") == "BAAI/bge-small-en-v1.5"
    assert [hub_id(base) for base in ("/models/one", "./a/b", "~/model", "../b", "model")] == [None] * 5


def test_mteb_reads_the_results_of_an_export(learned: Workspace, tmp_path: Path) -> None:
    out = learned.export("v1", tmp_path / "out").directory
    (model,) = mteb.ResultCache(out / "mteb").load_results(include_remote=False).model_results
    version = learned.version("v1")
    assert (model.model_name, model.model_revision) == ("continual/v1", version.sha256)
    scores = learned.registry.scores()
    found = {result.task_name: result.get_score() for result in model.task_results}
    assert found == {
        f"continual_{task.name}": pytest.approx(scores["v1", task.name].score / 100, abs=1e-6)
        for task in learned.registry.tasks()
    }
    # An export can be a base, and what it says of itself does not stay on what is made of it.
    again = Workspace.init(tmp_path / "again", str(out)).export("current", tmp_path / "second").directory
    assert not (again / "mteb").exists()


def test_the_report_writes_every_version_beside_other_models(learned: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    other = folder / "results" / "some__model" / "r1"
    other.mkdir(parents=True)
    (other / "model_meta.json").write_text(json.dumps({"name": "some/model", "revision": "r1"}))
    command = ["report", "--mteb", str(folder), "-w", str(learned.directory)]
    for _ in range(2):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0
        assert "load_results() reads them" in result.stdout
    assert (other / "model_meta.json").exists()
    results = mteb.ResultCache(folder).load_results(include_remote=False)
    assert {model.model_name for model in results.model_results} == {"continual/v0", "continual/v1", "continual/v2"}
    path = folder / "results" / "continual__v2" / learned.version("v2").sha256 / "continual_pi`pe.json"
    one = TaskResult.from_disk(path)
    score = learned.registry.scores()["v2", "pi`pe"]
    (task,) = [task for task in learned.registry.tasks() if task.name == "pi`pe"]
    assert one.dataset_revision == task.sha256
    (row,) = one.scores["test"]
    assert row["ndcg_at_10"] == row["main_score"] == pytest.approx(score.score / 100, abs=1e-6)
    assert row["map_at_10"] == pytest.approx(score.details["map_at_10"] / 100, abs=1e-6)
    printed = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(printed.stdout)["current"] == "v2"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        learned.export_scores(tmp_path / "file" / "below")
