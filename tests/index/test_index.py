"""What a version does to an older index: the measures by hand, both models across, the verdict, the fitted folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.config import EvalConfig, IndexConfig
from continual.errors import InputError, NotFoundError, NothingToDoError
from continual.index.pair import vectors_file
from continual.index.result import (
    IndexComparison,
    IndexedTask,
    MapUsed,
    judge_index,
    overlap,
    share,
)
from continual.models.weights import weights_sha256
from continual.registry import Task
from tests import ROOT
from tests.commands import Run
from tests.encodings import spied
from tests.rows import Write, make_pairs
from tests.tasks import write_task
from tests.workspaces import SETTINGS, Once, make_workspace


def measured(task: str, new_on_old: float, mapped: float | None = None) -> IndexedTask:
    return IndexedTask(task, None, "ndcg_at_10", 10, 0.9, 0.8, 70.0, 80.0, new_on_old, 75.0, mapped)


def test_overlap_is_the_share_of_common_documents() -> None:
    first = {"a": list("abcdefghijkl"), "b": list("xy")}
    second = {"a": [*list("abcdefghiz"), "j"], "b": list("yz")}
    assert overlap(first, second) == pytest.approx((9 / 10 + 1 / 2) / 2)
    assert overlap(first, first) == 1.0


@pytest.mark.parametrize(
    ("scores", "method", "verdict", "reasons"),
    [
        ([(80.0, None), (79.5, None)], None, "no", ["t1 (79.5 of 80.0"]),
        ([(80.0, None), (78.0, None)], None, "not yet", ["97.5%", "No query map was", "Without a map"]),
        ([(80.0, None), (60.0, None)], None, "yes", ["75.0%", "No query map was"]),
        ([(80.0, 80.0), (60.0, 77.0)], "affine", "with a query map", ["75.0%", "96.2%"]),
        ([(80.0, 70.0), (60.0, 77.0)], "affine", "yes", ["75.0%", "87.5%"]),
        ([(78.0, 70.0), (78.0, 70.0)], "affine", "not yet", ["97.5%", "87.5%", "Without a map"]),
        ([(78.0, 78.0), (80.0, 80.0)], "identity", "not yet", ["97.5%", "does better than", "Without a map"]),
        ([(80.0, 80.0), (60.0, 60.0)], "identity", "yes", ["75.0%", "does better than"]),
    ],
)
def test_the_task_that_loses_most_decides(
    scores: list[tuple[float, float | None]], method: str | None, verdict: str, reasons: list[str]
) -> None:
    tasks = [measured(f"t{place}", *each) for place, each in enumerate(scores)]
    used = None if method is None else MapUsed(method, {}, 80, 20)
    found = judge_index("v0", "v1", tasks, used, IndexConfig())
    assert found.needs_reindex == verdict
    assert len(found.reasons) == len(reasons)
    assert all(part in reason for part, reason in zip(reasons, found.reasons, strict=True))
    assert IndexComparison.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_a_score_of_nothing_loses_nothing() -> None:
    assert share(0.0, 0.0) == 1.0
    assert share(40.0, 50.0) == 0.8


def test_the_json_form_is_the_documented_one() -> None:
    data = judge_index(
        "v0", "v1", [measured("t", 60.0, 78.0)], MapUsed("affine", {"rank": 16.0}, 80, 20), IndexConfig()
    )
    shown = data.to_json()
    figures = ["canary", "overlap", "old_on_old", "new_on_new", "new_on_old", "old_on_new", "mapped_on_old"]
    shares = ["kept", "kept_mapped"]
    assert list(shown) == ["old", "new", "needs_reindex", "reasons", *figures, *shares, "map", "tasks"]
    assert list(shown["tasks"][0]) == ["task", "domain", "metric", "queries", *figures, *shares]
    page = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert all(f"`{key}`" in page for key in [*shown, *shown["tasks"][0]])


def by_hand(queries: Path, documents: Path, root: Path, task: Task) -> tuple[float, dict[str, list[str]]]:
    """Return nDCG@10 in points and the first ten ids by query, with sentence-transformers and pytrec_eval alone."""
    import pytrec_eval
    from sentence_transformers import SentenceTransformer

    parts = {part: pq.read_table(root / task.path / f"{part}.parquet") for part in ("corpus", "queries", "qrels")}
    qrels: dict[str, dict[str, int]] = {}
    for row in parts["qrels"].to_pylist():
        qrels.setdefault(row["query_id"], {})[row["doc_id"]] = row["score"]
    ids = parts["corpus"]["doc_id"].to_pylist()
    index = SentenceTransformer(str(documents), device="cpu").encode_document(parts["corpus"]["text"].to_pylist())
    index[ids.index("twin")] = index[ids.index("d0")]
    asked = SentenceTransformer(str(queries), device="cpu").encode_query(parts["queries"]["text"].to_pylist())
    scores = asked.astype(np.float64) @ index.astype(np.float64).T
    found_by = {
        query: dict(zip(ids, map(float, row), strict=True))
        for query, row in zip(parts["queries"]["query_id"].to_pylist(), scores, strict=True)
        if query in qrels
    }
    found = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(found_by)
    tops = {query: sorted(row, key=lambda name: (-row[name], name))[:10] for query, row in found_by.items()}
    return 100 * float(np.mean([each["ndcg_cut_10"] for each in found.values()])), tops


def test_both_models_search_the_indexes_of_both(
    tiny_model: Path, other_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    from continual.eval.tasks import local_metadata
    from continual.index.cross import Side, compare_indexes

    task = write_task(tmp_path, "words")
    sides = [
        Side(name, weights_sha256(folder), folder, tmp_path / f"{name}.safetensors")
        for name, folder in (("v0", tiny_model), ("v1", other_model))
    ]
    old, new = (side.encoder(EvalConfig()) for side in sides)
    (found,) = compare_indexes(old, new, [task], tmp_path, query_map=lambda vectors: -vectors)
    folders = {"old": tiny_model, "new": other_model}
    tops = {}
    for queries in folders:
        for documents in folders:
            score, tops[queries, documents] = by_hand(folders[queries], folders[documents], tmp_path, task)
            assert getattr(found, f"{queries}_on_{documents}") == pytest.approx(score, abs=1e-4)
    assert found.overlap == pytest.approx(overlap(tops["old", "old"], tops["new", "new"]))
    assert len({found.old_on_old, found.new_on_new, found.new_on_old, found.mapped_on_old}) == 4
    texts = pq.read_table(tmp_path / task.path / "corpus.parquet")["text"].to_pylist()
    asked = pq.read_table(tmp_path / task.path / "queries.parquet")["text"].to_pylist()[:-1]  # one is not judged
    vectors = [
        np.concatenate([model.encode_query(asked), model.encode_document(texts)])
        for model in (SentenceTransformer(str(folder), device="cpu") for folder in folders.values())
    ]
    assert found.canary == pytest.approx(float((vectors[0] * vectors[1]).sum(axis=1).mean()), abs=1e-5)

    # What was encoded is kept, and not encoded again; another model's vectors are never taken for it.
    for encoder, side in zip((old, new), sides, strict=True):
        assert side.kept is not None
        encoder.save(side.kept)
    again = [side.encoder(EvalConfig()) for side in sides]
    encoded = spied(monkeypatch)
    assert compare_indexes(*again, [task], tmp_path, query_map=lambda vectors: -vectors) == [found]
    assert encoded == []
    stranger = replace(sides[0], folder=other_model, sha256=sides[1].sha256).encoder(EvalConfig())
    assert len(stranger.missing("query", asked, local_metadata("words"))) == len(asked)


@pytest.fixture
def workspace(once: Once, tiny_model: Path, tmp_path: Path) -> Workspace:
    """A workspace with a domain, whose updates move the embeddings."""

    def make(folder: Path) -> None:
        settings = SETTINGS.replace("step = false", "").replace(
            "[train]", "[train]\nlearning_rate = 0.01\ndistillation = 0.0"
        )
        pq.write_table(pa.Table.from_pylist(make_pairs(100)), folder / "med.parquet")
        make_workspace(folder / "w", tiny_model, settings).ingest(folder / "med.parquet")

    return Workspace(shutil.copytree(once("index", make) / "w", tmp_path / "w"))


@pytest.mark.slow
def test_a_step_measures_the_index_of_its_parent(workspace: Workspace, write_pairs: Write) -> None:
    registry = workspace.registry
    first = workspace.update()
    assert first.index is not None
    assert first.index.map is not None
    (task,) = first.index.tasks
    scores = registry.scores()
    assert task.old_on_old == pytest.approx(scores["v0", "med"].score)
    assert task.new_on_new == pytest.approx(scores["v1", "med"].score)
    assert first.to_json()["index"] == first.index.to_json()
    assert workspace.index_comparisons() == [first.index]
    kept = [vectors_file(registry, version) for version in ("v0", "v1", "v2")]
    assert sorted(registry.path("vectors").iterdir()) == kept[:2]
    assert workspace.compare_index("v0") == first.index
    workspace.ingest(write_pairs("law.parquet", make_pairs(60, seed=1)))
    second = workspace.update(compatible=True)
    assert second.spec.provenance.config["train"]["anchor"] == "current"
    assert sorted(registry.path("vectors").iterdir()) == kept[1:]  # what is in service, and its parent
    assert [(each.old, each.new) for each in workspace.index_comparisons()] == [("v0", "v1"), ("v1", "v2")]
    report = workspace.report()
    assert report.index["v2"] == second.index
    assert report.to_json()["index"][0] is None


def test_it_can_be_turned_off(workspace: Workspace) -> None:
    settings = workspace.directory / "continual.toml"
    settings.write_text(settings.read_text() + "step = false\nrows = 0\n")
    opened = Workspace(workspace.directory)
    assert opened.update().index is None
    assert opened.index_comparisons() == []
    assert not opened.registry.path("vectors").exists()
    found = opened.compare_index("v0", "v1")
    assert found.map is None
    assert found.mean("mapped_on_old") is found.kept_mapped is None


@pytest.mark.slow
def test_a_fitted_folder_searches_the_old_index(workspace: Workspace, tmp_path: Path) -> None:
    workspace.update()
    registry = workspace.registry
    fitted = workspace.fit_index("v0", "v1", tmp_path / "fitted", method="affine")
    (task,) = fitted.comparison.tasks
    record = replace(registry.tasks()[0])
    corpus = pq.read_table(registry.path(record.path) / "corpus.parquet")["doc_id"].to_pylist()
    assert fitted.comparison.map is not None
    assert fitted.comparison.map.method == "affine"
    assert "twin" not in corpus
    score = search(tmp_path / "fitted", registry.path("versions/v0"), registry.path(record.path))
    assert task.mapped_on_old == pytest.approx(score, abs=1e-4)
    note = json.loads((tmp_path / "fitted" / "index.json").read_text())
    assert note["kept_mapped"] == fitted.comparison.kept_mapped
    assert workspace.index_comparisons() == [fitted.comparison]


def search(queries: Path, documents: Path, task: Path) -> float:
    """Return nDCG@10 in points by hand, where no two documents are the same and each query has one."""
    from sentence_transformers import SentenceTransformer

    parts = {part: pq.read_table(task / f"{part}.parquet").to_pydict() for part in ("corpus", "queries", "qrels")}
    index = SentenceTransformer(str(documents), device="cpu").encode_document(parts["corpus"]["text"])
    asked = SentenceTransformer(str(queries), device="cpu").encode_query(parts["queries"]["text"])
    places = np.argsort(-(asked @ index.T), axis=1)
    wanted = dict(zip(parts["qrels"]["query_id"], parts["qrels"]["doc_id"], strict=True))
    gains = []
    for query, row in zip(parts["queries"]["query_id"], places, strict=True):
        rank = [parts["corpus"]["doc_id"][place] for place in row].index(wanted[query])
        gains.append(1 / np.log2(rank + 2) if rank < 10 else 0.0)
    return 100 * float(np.mean(gains))


def test_a_map_is_fitted_on_texts_of_tasks_only_where_there_are_no_others(
    tiny_model: Path, tmp_path: Path, write_pairs: Write
) -> None:
    from continual.index.rows import fitting_rows

    workspace = Workspace.init(tmp_path / "w", str(tiny_model))
    workspace.ingest(write_pairs("med.parquet", make_pairs(60)), holdout=0.0)
    batches = workspace.registry.batches()
    queries, passages, _ = fitting_rows(workspace.registry, [], batches, 1000)
    assert len(passages) == 60

    def kept() -> list[str]:
        return fitting_rows(workspace.registry, workspace.registry.tasks(), batches, 1000)[1]

    def add(name: str, documents: list[str], query: str) -> None:
        folder = tmp_path / name
        (folder / "qrels").mkdir(parents=True)
        for part, texts in {"corpus": [*documents, "bat"], "queries": [query]}.items():
            lines = [json.dumps({"_id": f"{part}{place}", "text": text}) for place, text in enumerate(texts)]
            (folder / f"{part}.jsonl").write_text("\n".join(lines))
        judged = f"query-id\tcorpus-id\tscore\nqueries0\tcorpus{len(documents)}\t1\n"
        (folder / "qrels" / "test.tsv").write_text(judged)
        workspace.add_task(name, folder)

    add("few", [passages[3], passages[5]], "bet")
    left = [passage for place, passage in enumerate(passages) if place not in (3, 5)]
    assert kept() == left
    assert fitting_rows(workspace.registry, [], batches, 1000)[1] == passages  # of tasks that are not searched
    add("many", passages[:30], queries[40])
    left = [passage for place, passage in enumerate(passages) if place != 40]  # its query is asked by the task
    assert kept() == left


def test_the_commands(workspace: Workspace, run: Run, tmp_path: Path) -> None:
    where = ("-w", workspace.directory)
    assert "No indexes were compared" in run("index", "show", *where).out
    updated = run("update", "--compatible", *where)
    assert "Re-index the vectors of v0: " in updated.out
    shown = run("index", "show", *where)
    assert shown.code == 0
    assert "v0" in shown.out
    checked = run("compare", "v0", "--index", *where)
    assert "map/old" in checked.out
    assert "Re-index: " in checked.out
    fitted = run("index", "fit", "v0", "v1", "-o", tmp_path / "out", "--method", "identity", *where)
    assert fitted.code == 0
    assert "holds the new model unchanged" in fitted.out
    data = json.loads(run("index", "show", "--json", *where).out)
    assert [pair["map"]["method"] for pair in data["pairs"]] == ["identity"]
    assert "Effect of each step on the index of its parent" in run("report", *where).out


@pytest.mark.slow
def test_what_cannot_be_compared_is_refused(workspace: Workspace, tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="a version always matches its own index"):
        workspace.compare_index("v0")
    with pytest.raises(NotFoundError, match="no version"):
        workspace.compare_index("v9")
    workspace.update()
    with pytest.raises(InputError, match=r"procrustes, affine, mlp; not 'procrust'\. Did you mean"):
        workspace.fit_index("v0", "v1", tmp_path / "out", method="procrust")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        workspace.fit_index("v0", "v1", tmp_path / "full")
    few = Workspace(workspace.directory)
    few.config = few.config.replace("index", fit_rows=10)
    with pytest.raises(NothingToDoError, match=r"needs 50 rows .* \(there are 10 "):
        few.fit_index("v0", "v1", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_task_that_ranks_nothing_is_compared(tiny_model: Path, tmp_path: Path, write_pairs: Write) -> None:
    Workspace.init(tmp_path / "w", str(tiny_model))
    (tmp_path / "w" / "continual.toml").write_text(SETTINGS.replace("step = false", ""))
    workspace = Workspace(tmp_path / "w")
    workspace.ingest(write_pairs("med.parquet", make_pairs(40)), holdout=0.0)
    assert workspace.update().index is None
    with pytest.raises(NothingToDoError, match="continual task add"):
        workspace.compare_index("v0", "v1")
    with pytest.raises(NothingToDoError, match="continual task add"):
        workspace.fit_index("v0", "v1", tmp_path / "out")
