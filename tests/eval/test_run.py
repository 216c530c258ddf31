"""Scores of a stored task: equal to pytrec_eval's, one version's never another's, every text encoded once."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from continual.config import EvalConfig
from continual.errors import DataError, InvalidNameError, ModelError
from continual.registry import Task
from tests.encodings import spied
from tests.tasks import write_task


class Counter:
    """Remembers what progress was told."""

    def __init__(self) -> None:
        self.bars: list[tuple[str, int | None, str]] = []
        self.count = 0

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        self.bars.append((label, total, unit))

    def advance(self, count: int) -> None:
        self.count += count

    def finish(self) -> None:
        self.bars.append(("finished", None, ""))


def reference(
    model: Path, root: Path, task: Task, max_length: int | None = None, prompt: str | None = None
) -> dict[str, dict[str, float]]:
    """Score by hand: encode with sentence-transformers, dot products, pytrec_eval."""
    import pytrec_eval
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    if max_length:
        loaded.max_seq_length = max_length
    parts = {part: pq.read_table(root / task.path / f"{part}.parquet") for part in ("corpus", "queries", "qrels")}
    qrels: dict[str, dict[str, int]] = {}
    for row in parts["qrels"].to_pylist():
        qrels.setdefault(row["query_id"], {})[row["doc_id"]] = row["score"]
    documents = parts["corpus"]["doc_id"].to_pylist()
    # Double precision, and one vector for equal texts, so that ties are ties.
    vectors = loaded.encode_document(parts["corpus"]["text"].to_pylist()).astype(np.float64)
    vectors[documents.index("twin")] = vectors[documents.index("d0")]
    asked = loaded.encode_query(parts["queries"]["text"].to_pylist(), prompt=prompt).astype(np.float64)
    run = {
        query: dict(zip(documents, map(float, vectors @ vector), strict=True))
        for query, vector in zip(parts["queries"]["query_id"].to_pylist(), asked, strict=True)
    }
    measures = {"ndcg_cut.10", "map_cut.10,100", "recall.10,100", "recip_rank"}
    return pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)


def test_scores_equal_pytrec_eval(tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
    """The cache trap, too: mteb caches by model name and revision, and local models have neither."""
    from continual.eval.run import score_tasks

    tasks = [write_task(tmp_path, "first"), write_task(tmp_path, "second", seed=1)]
    seen = {}
    for version, model in (("v0", tiny_model), ("v1", other_model)):
        scores = score_tasks(model, version, f"sha-{version}", tasks, tmp_path, EvalConfig())
        assert [score.task for score in scores] == ["first", "second"]
        for task, score in zip(tasks, scores, strict=True):
            expected = reference(model, tmp_path, task)
            assert score.metric == "ndcg_at_10"
            assert score.queries == len(expected) == 12
            for name, measure in {
                "map_at_10": "map_cut_10",
                "map_at_100": "map_cut_100",
                "recall_at_10": "recall_10",
                "recall_at_100": "recall_100",
                "mrr_at_100": "recip_rank",
            }.items():
                mean = 100 * np.mean([values[measure] for values in expected.values()])
                assert score.details[name] == pytest.approx(mean, abs=1e-6), name
            main = np.mean([values["ndcg_cut_10"] for values in expected.values()])
            assert score.score == pytest.approx(100 * main, abs=1e-6)
            assert score.path == f"scores/{version}/{task.name}.parquet"
            kept = pq.read_table(tmp_path / score.path)
            assert kept.schema.types == [pa.string(), pa.float64(), pa.list_(pa.string())]
            judged = pq.read_table(tmp_path / task.path / "qrels.parquet").to_pylist()
            for row in kept.to_pylist():
                assert row["score"] == pytest.approx(expected[row["query_id"]]["ndcg_cut_10"], abs=1e-6)
                # The documents that are kept, in their order, give that score.
                relevant = {each["doc_id"]: each["score"] for each in judged if each["query_id"] == row["query_id"]}
                gains = [relevant.get(document, 0) for document in row["documents"]]
                ideal = sorted(relevant.values(), reverse=True)[:10]
                dcg, best = (sum(g / np.log2(place + 2) for place, g in enumerate(each)) for each in (gains, ideal))
                assert len(gains) == 10
                assert row["score"] == pytest.approx(dcg / best, abs=1e-6)
        seen[version] = [score.score for score in scores]
    assert seen["v0"] != seen["v1"]
    assert not list(tmp_path.rglob("*.partial"))


def test_every_text_is_encoded_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from continual.eval.run import score_tasks

    tasks = [write_task(tmp_path, "first"), write_task(tmp_path, "again"), write_task(tmp_path, "second", seed=1)]
    encoded = spied(monkeypatch)
    progress = Counter()
    score_tasks(tiny_model, "v0", "x", tasks, tmp_path, EvalConfig(batch_size=4), progress=progress)
    assert len(encoded) == len(set(encoded))
    assert progress.bars == [("evaluating v0", len(encoded), "texts"), ("finished", None, "")]
    assert progress.count == len(encoded)
    assert capfd.readouterr() == ("", "")


def test_without_prompts_a_text_has_one_role(tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from continual.eval.encoder import OnceEncoder
    from continual.eval.tasks import FolderTask

    task = FolderTask("t", {"d": "a"}, {"q": "a"}, {"q": {"d": 1}}).metadata
    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.prompts = {"query": "", "document": ""}
    model.save_pretrained(str(tmp_path / "plain"))
    plain = OnceEncoder(tmp_path / "plain", "v0", "x")
    assert plain.missing("query", ["a", "b", "a"], task) == plain.missing("document", ["a", "b"], task)
    assert plain.missing("text", ["a"], task) == plain.missing("query", ["a"], task)
    prompted = OnceEncoder(tiny_model, "v0", "x")
    assert prompted.missing("query", ["a"], task) != prompted.missing("document", ["a"], task)


def test_an_instruction_is_before_the_queries_of_its_task_alone(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    from continual.eval.run import score_tasks
    from continual.models.folder import add_prompts

    says = "zat zot zil bat"
    prompt = f"Instruct: {says}\nQuery: "
    plain, twin = write_task(tmp_path, "plain"), write_task(tmp_path, "twin")  # the same texts
    told = dataclasses.replace(twin, instruction=says)
    expected = {
        name: np.mean([values["ndcg_cut_10"] for values in reference(tiny_model, tmp_path, plain, None, each).values()])
        for name, each in {"plain": None, "told": prompt}.items()
    }
    assert expected["plain"] != expected["told"]
    progress = Counter()
    scores = score_tasks(tiny_model, "v0", "x", [plain, told], tmp_path, EvalConfig(), progress=progress)
    assert [score.score for score in scores] == pytest.approx([100 * each for each in expected.values()], abs=1e-6)
    assert progress.count == 2 * 12 + 40  # the queries twice, and the documents of both, of which two are equal, once
    assert scores[0].settings == "max_length=model"
    assert scores[1].settings.startswith("max_length=model, instruction=")
    assert score_tasks(tiny_model, "v0", "x", [told], tmp_path, EvalConfig())[0].score == scores[1].score

    # The prompt of a domain that has the name of one of mteb's types is not put before all that is of this type.
    shutil.copytree(tiny_model, tmp_path / "served")
    add_prompts(tmp_path / "served", {"Retrieval": prompt})
    found = [
        score_tasks(tmp_path / "served", "v1", "y", [plain], tmp_path, EvalConfig(), instructed=hidden)[0].score
        for hidden in ((), ("Retrieval",))
    ]
    assert found[0] != found[1] == scores[0].score


def test_a_task_named_like_a_role_gets_the_right_prompts(tiny_model: Path, tmp_path: Path) -> None:
    from continual.eval.run import score_tasks

    task = write_task(tmp_path, "query")
    (score,) = score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())
    expected = np.mean([values["ndcg_cut_10"] for values in reference(tiny_model, tmp_path, task).values()])
    assert score.score == pytest.approx(100 * expected, abs=1e-6)


def test_max_length_cuts_texts_and_never_raises_the_models_own(tiny_model: Path, tmp_path: Path) -> None:
    from continual.eval.encoder import OnceEncoder
    from continual.eval.run import score_tasks

    task = write_task(tmp_path, "first")
    (cut,) = score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig(max_length=5))
    expected = np.mean([values["ndcg_cut_10"] for values in reference(tiny_model, tmp_path, task, 5).values()])
    assert cut.score == pytest.approx(100 * expected, abs=1e-6)
    assert OnceEncoder(tiny_model, "v0", "x", max_length=10_000).wrapper.model.max_seq_length == 48


def test_it_says_how_many_texts_are_cut(tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from continual.eval.run import score_tasks

    task = write_task(tmp_path, "words")
    texts = [
        pq.read_table(tmp_path / task.path / f"{part}.parquet")["text"].to_pylist() for part in ("queries", "corpus")
    ]
    distinct = [set(each) for each in texts]  # queries have a prompt, so a text of both is encoded twice
    longer = sum(len(text.split()) > 10 for each in distinct for text in each)  # with two special tokens, over 12
    score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig(max_length=12))
    total = sum(map(len, distinct)) - 1  # a query without judgements is not encoded
    assert 0 < longer < total
    said = f"Evaluation of v0: {longer} of {total} texts ({100 * longer / total:.3g}%) were cut at 12 tokens "
    assert caplog.messages == [f"{said}(eval.max_length)."]
    caplog.clear()
    score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())  # the model's own limit, 48, cuts nothing
    assert caplog.messages == []


def test_the_random_states_stay_as_they_were(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    from continual.eval.run import score_tasks

    task = write_task(tmp_path, "first")

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draws()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())
    assert draws() == expected


def test_the_same_version_scores_the_same_twice(tiny_model: Path, tmp_path: Path) -> None:
    from continual.eval.run import score_tasks

    task = write_task(tmp_path, "first")
    (one,) = score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())
    before = (tmp_path / one.path).read_bytes()
    (two,) = score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())
    assert one == two
    assert before == (tmp_path / two.path).read_bytes()


def test_scores_in_another_precision_are_other_scores(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from continual.eval import encoder
    from continual.eval.run import score_tasks

    used: list[str] = []
    original = encoder.encode

    def encode(*args: Any, precision: str, **options: Any) -> Any:
        used.append(precision)
        return original(*args, precision=precision, **options)

    monkeypatch.setattr(encoder, "encode", encode)

    task = write_task(tmp_path, "t", seed=1)
    exact, rounded = (
        score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig(precision=precision))[0]
        for precision in ("fp32", "bf16")
    )
    assert rounded.settings == f"{exact.settings}, precision=bf16"
    assert rounded.path != exact.path
    assert list(dict.fromkeys(used)) == ["fp32", "bf16"]
    assert rounded.score == pytest.approx(exact.score, abs=5)


def test_kept_vectors_of_another_precision_are_not_used(tiny_model: Path, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from continual.eval.encoder import OnceEncoder

    def kept(precision: str, file: Path) -> OnceEncoder:
        return OnceEncoder(tiny_model, "v0", "x", precision=precision, kept=file)  # type: ignore[arg-type]

    for made, read in (("bf16", "fp32"), ("fp32", "bf16")):
        file = tmp_path / f"{made}.safetensors"
        encoder = kept(made, file)
        encoder.learn("document", ["bal cem", "dis"], SimpleNamespace(name="t", type="Retrieval"))
        encoder.save(file)
        assert kept(made, file)._kept
        assert not kept(read, file)._kept


def test_mteb_computes_no_metrics_that_nobody_reads(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb._evaluators import retrieval_metrics

    from continual.eval.run import score_tasks

    task = write_task(tmp_path, "first")
    original, calls = retrieval_metrics.evaluate_abstention, []
    monkeypatch.setattr(retrieval_metrics, "nauc", lambda *_: calls.append(1))
    (score,) = score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())
    assert not calls
    assert retrieval_metrics.evaluate_abstention is original
    monkeypatch.undo()
    # With them, as where a release of mteb calls the function something else, the score is the same.
    monkeypatch.setattr("continual.eval.mteb_evaluate._without_abstention", contextlib.nullcontext)
    assert score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig()) == [score]


def test_what_cannot_be_scored_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from continual.eval.run import score_tasks
    from continual.eval.tasks import load_task

    assert score_tasks(tiny_model, "v0", "x", [], tmp_path, EvalConfig()) == []
    with pytest.raises(DataError, match="continual task add"):
        load_task("missing", tmp_path / "missing")
    task = write_task(tmp_path, "empty")
    path = tmp_path / task.path / "qrels.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "score", pa.array([0] * len(table))), path)
    with pytest.raises(DataError, match="no query with a relevant document"):
        score_tasks(tiny_model, "v0", "x", [task], tmp_path, EvalConfig())
    with pytest.raises(InvalidNameError):
        score_tasks(tiny_model, "../v0", "x", [task], tmp_path, EvalConfig())


def test_embeddings_that_are_no_numbers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from continual.eval.run import score_tasks

    model = SentenceTransformer(str(tiny_model), device="cpu")
    next(model.parameters()).data[:] = float("nan")
    model.save_pretrained(str(tmp_path / "broken"))
    task = write_task(tmp_path, "first")
    with pytest.raises(ModelError, match="v9 gives embeddings that are not finite"):
        score_tasks(tmp_path / "broken", "v9", "x", [task], tmp_path, EvalConfig())
    assert not (tmp_path / "scores").exists()


def test_silence_is_lifted_again() -> None:
    import datasets

    from continual.eval.run import quiet

    datasets.enable_progress_bars()
    with quiet():
        assert datasets.are_progress_bars_disabled()
        warnings.warn("not shown", UserWarning, stacklevel=1)
    assert not datasets.are_progress_bars_disabled()
    with pytest.warns(UserWarning, match="shown"):
        warnings.warn("shown", UserWarning, stacklevel=1)
