"""Tasks of mteb: every type of its own mock tasks, with the scores that mteb gives, and never another revision."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.naming import camelcase_to_snakecase

from continual import Workspace
from continual.errors import (
    DataError,
    InputError,
    InvalidNameError,
    NotFoundError,
)
from continual.eval.hub_cache import pinned
from continual.registry.text import hash_text
from tests.commands import Run
from tests.encodings import spied
from tests.workspaces import Once

PROMPTS = {
    "query": "query: ",
    "document": "",
    "STS": "bal cem: ",
    "Classification": "dis fol: ",
    "Clustering": "gum haj: ",
    "MockBitextMiningTask": "kil lom: ",
    "Reranking-query": "nan per: ",
}
"""By role, by type, by name of the task, and by both."""

OTHER = "f" * 40


def mock_tasks() -> dict[str, Any]:
    from mteb.mocks import MOCK_TASK_REGISTRY

    return dict(MOCK_TASK_REGISTRY)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that registers task classes with mteb, and register mteb's text mocks."""
    import mteb

    known = sys.modules[mteb.get_task.__module__]._TASKS_REGISTRY

    def offer(*classes: Any) -> None:
        for each in classes:
            monkeypatch.setitem(known, each.metadata.name, each)

    offer(*mock_tasks().values())
    return offer


@pytest.fixture
def workspace(once: Once, tiny_model: Path, tmp_path: Path) -> Workspace:
    made = once("default-settings", lambda folder: Workspace.init(folder / "w", str(tiny_model))) / "w"
    return Workspace(shutil.copytree(made, tmp_path / "w"))


@pytest.fixture(scope="module")
def prompted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with prompts for types and tasks."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.prompts = dict(PROMPTS)
    folder = tmp_path_factory.mktemp("prompted") / "model"
    model.save_pretrained(str(folder))
    return folder


@functools.cache
def wrapped(model: Path) -> Any:
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper

    return SentenceTransformerEncoderWrapper(str(model))


def mtebs_own(model: Path, task: Any) -> float:
    """Score with mteb's wrapper, which encodes every text of every task anew."""
    import mteb

    from continual.eval.run import own_randomness, quiet

    with quiet(), own_randomness():
        result = mteb.evaluate(wrapped(model), task, cache=None, co2_tracker=False, show_progress_bar=False)
    return 100 * float(result.task_results[0].get_score())


@pytest.mark.release
@pytest.mark.slow
def test_every_type_of_mtebs_mock_tasks(offered: Any, prompted: Path, tmp_path: Path, run: Run) -> None:
    workspace = Workspace.init(tmp_path / "w", str(prompted))
    tasks = mock_tasks()
    for name in tasks:
        result = run("task", "add", f"mteb:{name}", "-w", workspace.directory)
        assert result.code == 0, result.err
        assert f"Added the task {name}" in result.out
    result = run("eval", "--json", "-w", workspace.directory)
    assert result.code == 0, result.err
    scores = {each["task"]: each for each in json.loads(result.out)["scores"]}
    assert {each["task_type"] for each in scores.values()} == {each.metadata.type for each in tasks.values()}
    assert len({each["task_type"] for each in scores.values()}) == 13
    for name, kind in tasks.items():
        assert scores[name]["metric"] == kind.metadata.main_score
        assert scores[name]["score"] == pytest.approx(mtebs_own(prompted, kind()), abs=1e-3), name
    assert all(each["score"] != 0 or each["task_type"] == "Summarization" for each in scores.values())
    records = {task.name: task for task in workspace.tasks()}
    kept = workspace.registry.scores()
    assert {name for name in tasks if kept["v0", name].path} == {
        "MockRerankingTask",
        "MockInstructionRetrieval",
        "MockInstructionReranking",
    }  # one subset and split, and a mean over queries
    for name, task in records.items():
        keys = pq.read_table(workspace.registry.task_folder(task) / "keys.parquet").to_pylist()
        assert {row["kind"] for row in keys} == {"query", "document"}, name
        assert task.mteb["parts"][0]["subsets"] == tasks[name]().hf_subsets


def test_nothing_is_scored_twice(offered: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.eval import run as scoring

    workspace.add_task("mteb:MockSTSTask")
    workspace.add_task("mteb:MockRetrievalTask")
    first = workspace.evaluate(tasks=["MockSTSTask"])
    assert [each.new for each in first.scores] == [True]
    both = workspace.evaluate()
    assert [(each.task, each.new) for each in both.scores] == [("MockSTSTask", False), ("MockRetrievalTask", True)]
    monkeypatch.delattr(scoring, "Scorer")
    assert [each.score for each in workspace.evaluate().scores] == [each.score for each in both.scores]


def test_a_score_is_kept_whatever_fails_after_it(
    offered: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add_task("mteb:MockSTSTask")
    workspace.add_task("mteb:MockRetrievalTask")
    broken = type("Broken", (mock_tasks()["MockRetrievalTask"],), {"load_data": lambda self, **_: 1 / 0})
    offered(broken)
    with pytest.raises(DataError, match="ZeroDivisionError"):
        workspace.evaluate()
    assert list(workspace.registry.scores()) == [("v0", "MockSTSTask")]


def test_a_text_is_encoded_once_for_all_tasks(
    offered: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.prompts = {}
    model.save_pretrained(str(tmp_path / "plain"))
    workspace = Workspace.init(tmp_path / "w", str(tmp_path / "plain"))
    for name in (
        "MockSTSTask",
        "MockRetrievalTask",
        "MockClassificationTask",
        "MockMultilingualPairClassificationTask",
    ):
        workspace.add_task(f"mteb:{name}")
    encoded = spied(monkeypatch)
    workspace.evaluate()
    texts = [text for *_, text in encoded]
    assert len(texts) == len(set(texts)) >= 7


@pytest.mark.slow
def test_memory_is_bounded(offered: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from continual.eval import encoder

    names = ["MockSTSTask", "MockRetrievalTask", "MockClusteringTask", "MockSummarizationTask"]
    for name in names:
        workspace.add_task(f"mteb:{name}")
    whole = workspace.evaluate().scores
    monkeypatch.setattr(encoder, "MEMORY", 256)  # two vectors
    other = Workspace.init(workspace.directory.parent / "w2", str(workspace.registry.path("versions/v0")))
    for name in names:
        other.add_task(f"mteb:{name}")
    assert [each.score for each in other.evaluate().scores] == [each.score for each in whole]


@pytest.mark.slow
def test_a_benchmark_is_all_its_tasks(offered: Any, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    import mteb

    tasks = mock_tasks()
    one = tasks["MockMultilingualSTSTask"]().filter_languages(["fra"])
    suite = mteb.Benchmark(name="Mock(eng, v1)", tasks=[one, tasks["MockSTSTask"](), tasks["MockRetrievalTask"]()])
    registry = sys.modules[mteb.get_benchmark.__module__]._build_registry()
    monkeypatch.setitem(registry, suite.name, suite)
    reports = workspace.add_task("mteb:Mock(eng, v1)")
    names = ["MockMultilingualSTSTask.fra", "MockSTSTask", "MockRetrievalTask"]
    assert [report.name for report in reports] == names == [task.name for task in workspace.tasks()]
    assert workspace.tasks()[0].mteb["parts"][0]["subsets"] == ["fra"]
    assert len(workspace.evaluate().scores) == 3
    assert all(report.unchanged for report in workspace.add_task("mteb:Mock(eng, v1)"))
    workspace.add_task("mteb:MockMultilingualSTSTask")  # with all its subsets: another task
    assert len(workspace.tasks()) == 4
    with pytest.raises(InputError, match="benchmark of 3 tasks"):
        workspace.add_task("mine", "mteb:Mock(eng, v1)")

    lost = [
        type("Lost", (tasks[name],), {"load_data": lambda self, **_: 1 / 0})()
        for name in ("MockSummarizationTask", "MockBitextMiningTask")
    ]
    suite.tasks = [tasks["MockClusteringTask"](), *lost]
    with pytest.raises(DataError, match=r"1 more could not be loaded.*--skip-missing .*Nothing was registered"):
        workspace.add_task("mteb:Mock(eng, v1)")
    assert len(workspace.tasks()) == 4
    assert [report.name for report in workspace.add_task("mteb:Mock(eng, v1)", skip_missing=True)] == [
        "MockClusteringTask"
    ]


def test_names_and_subsets(offered: Any, workspace: Workspace, run: Run) -> None:
    at = ("-w", workspace.directory)
    assert run("task", "add", "french", "mteb:MockMultilingualSTSTask", "--subset", "fra", *at).code == 0
    (task,) = workspace.tasks()
    assert (task.name, task.queries, task.origin) == ("french", 2, "mteb:MockMultilingualSTSTask")
    again = run("task", "add", "french", "mteb:MockMultilingualSTSTask", *at)
    assert again.code == 2
    assert "The name 'french' is taken" in again.err
    assert "no subset 'deu'" in run("task", "add", "mteb:MockMultilingualSTSTask", "--subset", "deu", *at).err
    unknown = run("task", "add", "mteb:SciFakt", *at)
    assert unknown.code == 2
    assert "no task or benchmark 'SciFakt'. Did you mean 'SciFact'?" in unknown.err
    assert "more than text" in run("task", "add", "mteb:CIFAR10", *at).err
    assert run("task", "add", "alone", *at).code == 2
    assert run("task", "add", "x", "folder", "--skip-missing", *at).code == 2
    with pytest.raises(NotFoundError, match="There is no domain 'law'"):
        workspace.add_task("mteb:MockSTSTask", domain="law")
    with pytest.raises(InvalidNameError):
        workspace.add_task("a/b", "mteb:MockSTSTask")
    assert len(workspace.tasks()) == 1
    listed = run("task", "list", *at).out
    assert all(each in listed for each in ("french", "OOD", "STS", "mteb:Mock", "(NA@NA)"))
    (listed_task,) = json.loads(run("task", "list", "--json", *at).out)["tasks"]
    assert (listed_task["task_type"], listed_task["metric"]) == ("STS", "cosine_spearman")


def test_rows_that_leak_into_a_task_of_mteb_are_held_back(offered: Any, workspace: Workspace, write_pairs: Any) -> None:
    workspace.add_task("mteb:MockRetrievalTask")
    workspace.add_task("mteb:MockRetrievalDialogTask")
    rows = [
        {"query": "This is a TEST sentence", "positive": "hal"},
        {"query": "this is a test sentence", "positive": "bal"},
        {"query": "  This is a test sentence", "positive": "bem"},
        {"query": "cem", "positive": "This is another positive sentence"},
        {"query": "dis", "positive": "Title of d2 This is another positive sentence"},
        {"query": "What is the weather like today?", "positive": "fol"},
        {"query": "gum", "positive": "haj"},
    ]
    report = workspace.ingest(write_pairs("rows.parquet", rows), holdout=0)
    assert (report.leaked, report.near) == (6, 2)  # all but the last; the first two are written otherwise
    workspace.add_task("mteb:MockSTSTask")
    assert not workspace.tasks()[-1].documents


def test_rows_that_are_items_of_any_task_are_held_back(
    offered: Any,
    workspace: Workspace,
    write_pairs: Any,
    run: Run,
) -> None:
    """Both texts of a pair may be an item: in STS, classification and clustering nothing is query or document."""
    for name in ("MockSTSTask", "MockMultilingualClusteringTask", "MockMultilingualParallelBitextMiningTask"):
        kind = mock_tasks()[name]()
        kind.load_data()
        texts = {"MockSTSTask": "sentence1", "MockMultilingualClusteringTask": "sentences"}.get(name, "eng_Latn")
        data = kind.dataset.get(kind.hf_subsets[0], kind.dataset)["test"]
        item = data[texts][0]
        item = item[0] if isinstance(item, list) else item
        rows = [{"query": item, "positive": f"{name} cem"}, {"query": f"{name} dis", "positive": f" {item}"}]
        rows.append({"query": f"{name} gum", "positive": f"{name} haj"})
        domain = name.lower()
        workspace.ingest(write_pairs(f"{domain}.parquet", rows), holdout=0)
        added = run("task", "add", f"mteb:{name}", "-w", workspace.directory)
        assert "2 stored training rows leak into it" in added.out, name
        assert "not checked" not in added.out


def test_an_aggregate_is_one_task(offered: Any, workspace: Workspace, tiny_model: Path) -> None:
    from mteb.mocks.mock_tasks.reranking import MockAggregatedTask

    offered(MockAggregatedTask)
    (report,) = workspace.add_task(f"mteb:{MockAggregatedTask.metadata.name}")
    assert len(workspace.tasks()[0].mteb["parts"]) == len(MockAggregatedTask.metadata.tasks)
    (score,) = workspace.evaluate().scores
    assert score.score == pytest.approx(mtebs_own(tiny_model, MockAggregatedTask()), abs=1e-3)
    assert report.queries > 0


# The local Hugging Face cache: made here as `datasets` lays it out.


def cache(root: Path, name: str, revision: str, tables: dict[str, dict[str, list[Any]]]) -> None:
    """Put a data set into a cache, with a table for each of its configurations."""
    owner, short = name.split("/")
    for config, columns in tables.items():
        folder = root / f"{owner}___{camelcase_to_snakecase(short)}" / config / "0.0.0" / revision
        folder.mkdir(parents=True)
        table = datasets.Dataset.from_dict(columns)
        split = "qrel_diff" if config == "qrel_diff" else "test"
        with (
            pa.OSFile(str(folder / f"{camelcase_to_snakecase(short)}-{split}.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.data.table.schema) as writer,
        ):
            writer.write_table(table.data.table)
        sizes = {split: datasets.SplitInfo(split, num_examples=len(table), dataset_name=short)}
        info = datasets.DatasetInfo(
            features=table.features,
            builder_name="parquet",
            dataset_name=short,
            config_name=config,
            version="0.0.0",
            splits=datasets.SplitDict(sizes, dataset_name=short),
        )
        info.write_to_directory(str(folder))


def scifact(root: Path, revision: str, word: str) -> None:
    """Put what looks like mteb's SciFact into a cache."""
    tables: dict[str, dict[str, list[Any]]] = {
        "corpus": {"_id": ["1", "2", "3"], "title": ["A", "B", ""], "text": [f"bal {word}", "dis fol", "gum haj"]},
        "queries": {"_id": ["7", "8"], "text": ["bal cem", "dis kil"]},
        "default": {"query-id": ["7", "8"], "corpus-id": ["1", "2"], "score": [1, 1]},
    }
    cache(root, "mteb/scifact", revision, tables)


def revision_of(name: str) -> str:
    import mteb

    return str(mteb.get_task(name).metadata.dataset["revision"])


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", root)
    return root


def test_a_data_set_that_is_nowhere_is_named(cached: Path, workspace: Workspace, run: Run) -> None:
    result = run("task", "add", "mteb:SciFact", "-w", workspace.directory)
    assert result.code == 2
    assert f"The dataset mteb/scifact (revision {revision_of('SciFact')}) of the mteb task SciFact" in result.err
    assert "HF_HUB_OFFLINE unset" in result.err
    assert workspace.tasks() == []
    assert not list((workspace.registry.root / "tasks").glob("*"))


def test_a_cached_data_set_is_used_offline(cached: Path, workspace: Workspace) -> None:
    scifact(cached, revision_of("SciFact"), "cem")
    scifact(cached, OTHER, "cem nan per")  # cached later: `datasets` would take this one
    (report,) = workspace.add_task("mteb:SciFact")
    assert (report.queries, report.documents, report.judgements) == (2, 3, 2)
    keys = pq.read_table(workspace.registry.path("tasks/SciFact/keys.parquet"))["hash"].to_pylist()
    assert hash_text("bal cem") in keys
    assert hash_text("A bal cem") in keys
    assert hash_text("gum haj") not in keys
    part = workspace.tasks()[0].mteb["parts"][0]
    assert (part["dataset"], part["revision"]) == ("mteb/scifact", revision_of("SciFact"))
    assert workspace.evaluate().scores[0].queries == 2


def test_another_revision_is_never_taken_for_it(cached: Path, workspace: Workspace) -> None:
    scifact(cached, OTHER, "cem")
    with pytest.raises(DataError, match=f"other revisions of the dataset \\({OTHER}\\)"):
        workspace.add_task("mteb:SciFact")


def test_changed_data_are_refused(cached: Path, workspace: Workspace) -> None:
    scifact(cached, revision_of("SciFact"), "cem")
    workspace.add_task("mteb:SciFact")
    (cached / "mteb___scifact").rename(cached / "old")
    scifact(cached, revision_of("SciFact"), "cem nan")
    with pytest.raises(DataError, match="not what was registered"):
        workspace.evaluate()
    assert workspace.registry.scores() == {}


def test_the_registered_revision_stays_when_mteb_goes_on(cached: Path, workspace: Workspace, offered: Any) -> None:
    import mteb

    scifact(cached, revision_of("SciFact"), "cem")
    workspace.add_task("mteb:SciFact")
    official = type(mteb.get_task("SciFact"))
    newer = official.metadata.model_copy(update={"dataset": {**official.metadata.dataset, "revision": OTHER}})
    offered(type("Newer", (official,), {"metadata": newer}))
    scifact(cached, OTHER, "kil")
    assert workspace.evaluate().scores[0].queries == 2  # its data are those that were registered
    with pytest.raises(InvalidNameError, match="'SciFact' is taken"):
        workspace.add_task("mteb:SciFact")
    workspace.add_task("SciFact-2", "mteb:SciFact")
    assert workspace.tasks()[1].mteb["parts"][0]["revision"] == OTHER


@pytest.mark.slow
def test_followir_is_scored_by_p_mrr(cached: Path, workspace: Workspace, tiny_model: Path) -> None:
    import mteb

    name = "Core17InstructionRetrieval"
    queries = [f"{number}-{kind}" for number in (1, 2) for kind in ("og", "changed")]
    # With its instruction a query is word for word a document, so that which one comes first follows from it.
    documents = {"d0": "bal cel dit fol gut", "d1": "bal cel hat kil lot", "d2": "gut dit nat pet bal"}
    documents["d3"] = "gut dit cel lot fol"
    judged = [("1-og", "d0"), ("1-og", "d1"), ("1-changed", "d0"), ("2-og", "d1"), ("2-og", "d2"), ("2-changed", "d2")]
    tables: dict[str, dict[str, list[Any]]] = {
        "corpus": {"_id": list(documents), "title": [""] * 4, "text": list(documents.values())},
        "queries": {"_id": queries, "text": ["bal cel", "bal cel", "gut dit", "gut dit"]},
        "instruction": {
            "query-id": queries,
            "instruction": ["hat kil lot", "dit fol gut", "nat pet bal", "cel lot fol"],
        },
        "default": {
            "query-id": [query for query, _ in judged],
            "corpus-id": [document for _, document in judged],
            "score": [1] * len(judged),
        },
        "top_ranked": {"query-id": queries, "corpus-ids": [list(documents)] * 4},
    }
    cache(cached, f"mteb/{name}", revision_of(name), tables)
    workspace.add_task(f"mteb:{name}")
    with pytest.raises(DataError, match=f"The dataset mteb/{name}"):  # it reads this one when it scores
        workspace.evaluate()
    changed = {"query-id": ["1", "2"], "corpus-ids": [["d1"], ["d2"]]}
    cache(cached, f"mteb/{name}", revision_of(name), {"qrel_diff": changed})
    (score,) = workspace.evaluate().scores
    assert score.metric == "p-MRR"
    # What stopped being relevant fell from the first place to the second, third or fourth: 1 - 1/2, 2/3 or 3/4.
    assert 50 <= score.score <= 75
    with pinned(f"mteb/{name}", revision_of(name)):  # alone and offline, mteb would leave the instructions out
        assert score.score == pytest.approx(mtebs_own(tiny_model, mteb.get_task(name)), abs=1e-3)
    assert workspace.registry.scores()["v0", name].path is None
