"""Compare our scores and their cost with mteb alone and pytrec_eval, on real tasks.

    python benchmarks/evaluate.py --data DIR [--base MODEL] [--parts A B]

DIR holds a folder per domain with `test/{corpus,queries,qrels}.parquet`.

Part A scores the tasks of `--checked` with our code, with mteb's own wrapper and cut-offs, and with pytrec_eval from
the ranking of our vectors. It then scores a second version (the same model with noise in its weights) right after the
first.

Part B compares the time of `evaluate` on all tasks with the time that our encoder needs to encode each text once, in
the order encode, evaluate, evaluate, encode over the two halves of the tasks. Both load the model. On a busy machine,
use processor seconds (`cpu_ratio`) instead of wall time.

The last line is one JSON object: `max_difference` (the largest difference of any metric, 0 to 1, between ours and
theirs), `max_rounded` (the same, against mteb's values rounded to five digits), `versions_differ`, `ratio` and its
parts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pyarrow.parquet as pq
import pytrec_eval
import torch
from datasets import Dataset
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer

from continual.config import EvalConfig
from continual.eval.encoder import OnceEncoder
from continual.eval.run import own_randomness, quiet, score_tasks
from continual.eval.tasks import load_task
from continual.models.base import resolve_base
from continual.registry import Score, Task
from continual.registry.catalog import now

TASKS = ["nl2bash", "medquad", "tatqa", "metatool", "banking77", "squad_en", "gsm8k", "scitldr"]
CHECKED = ["nl2bash", "tatqa", "squad_en"]
PARTS = ("corpus", "queries", "qrels")
METRICS = {
    "ndcg_at_10": "ndcg_cut_10",
    "map_at_10": "map_cut_10",
    "map_at_100": "map_cut_100",
    "recall_at_10": "recall_10",
    "recall_at_100": "recall_100",
    "mrr_at_10": "recip_rank",
    "mrr_at_100": "recip_rank",
}
DEPTH = 100
NOISE = 0.05


class PlainTask(AbsTaskRetrieval):  # type: ignore[misc]
    """A folder as a task of mteb without our code: it uses mteb's cut-offs and keeps its scores per query."""

    data_loaded = False

    def __init__(self, name: str, folder: Path) -> None:
        self.metadata = TaskMetadata(
            name=f"plain:{name}",
            dataset={"path": "local", "revision": "local"},
            description="A local task.",
            type="Retrieval",
            category="t2t",
            eval_splits=["test"],
            eval_langs=["und-Zyyy"],
            main_score="ndcg_at_10",
        )
        super().__init__()
        tables = {part: pq.read_table(folder / f"{part}.parquet").to_pydict() for part in PARTS}
        qrels: dict[str, dict[str, int]] = {}
        for query, document, score in zip(
            *(tables["qrels"][key] for key in ("query_id", "doc_id", "score")), strict=True
        ):
            qrels.setdefault(query, {})[document] = score
        corpus = Dataset.from_dict({"id": tables["corpus"]["doc_id"], "text": tables["corpus"]["text"]})
        queries = Dataset.from_dict({"id": tables["queries"]["query_id"], "text": tables["queries"]["text"]})
        data = {"corpus": corpus, "queries": queries, "relevant_docs": qrels, "top_ranked": None}
        self.dataset = {"default": {"test": data}}
        self.data_loaded = True
        self.qrels = qrels
        self.per_query: dict[str, dict[str, float]] = {}

    def load_data(self, *_: Any, **__: Any) -> None:
        """Do nothing: the data is loaded in the constructor."""

    def task_specific_scores(self, scores: Any, qrels: Any, results: Any, **names: Any) -> dict[str, float]:
        """Keep the scores per query before mteb averages and rounds them."""
        del qrels, results, names
        self.per_query = scores
        return {}


def by_mteb(model: Path, task: PlainTask, max_length: int | None) -> tuple[dict[str, float], dict[str, float]]:
    """Return the means of mteb's scores per query, and mteb's own rounded means."""
    with quiet(), own_randomness():
        encoder = SentenceTransformerEncoderWrapper(str(model))
        encoder.model.max_seq_length = min(max_length or 10**6, encoder.model.max_seq_length)
        result = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False)
    (row,) = result.task_results[0].scores["test"]
    exact = {
        ours: float(np.mean([values[theirs] for values in task.per_query.values()]))
        for ours, theirs in METRICS.items()
        if theirs != "recip_rank"
    }
    return exact, {name: float(row[name]) for name in METRICS}


def by_pytrec_eval(encoder: OnceEncoder, folder: Path, qrels: dict[str, dict[str, int]]) -> dict[str, float]:
    """Return the means of pytrec_eval over the ranking that our encoder's vectors give, in double precision."""
    task = load_task("reference", folder)
    vectors = {}
    for role, part, key in (("query", "queries", "query_id"), ("document", "corpus", "doc_id")):
        table = pq.read_table(folder / f"{part}.parquet").to_pydict()
        found = encoder.vectors(role, table["text"], task.metadata).astype(np.float64)
        vectors[role] = table[key], found / np.linalg.norm(found, axis=1, keepdims=True)
    (queries, asked), (documents, corpus) = vectors["query"], vectors["document"]
    means = {}
    for depth in (10, DEPTH):
        run = {}
        for query, scores in zip(queries, asked @ corpus.T, strict=True):
            if query in qrels:
                # trec_eval breaks ties by document id, highest first; the cut must do the same.
                order = sorted(range(len(documents)), key=lambda place: (scores[place], documents[place]), reverse=True)
                run[query] = {documents[place]: float(scores[place]) for place in order[:depth]}
        measures = {"ndcg_cut.10", "map_cut.10,100", "recall.10,100", "recip_rank"}
        found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
        for ours, theirs in METRICS.items():
            if ours.endswith(f"_{depth}"):
                means[ours] = float(np.mean([values[theirs] for values in found.values()]))
    return means


def record(name: str, folder: Path) -> Task:
    return Task(name, None, str(folder), 0, 0, 0, "folder", "", now())


def ours(score: Score) -> dict[str, float]:
    figures = {score.metric: score.score, **score.details}
    return {name: figures[name] / 100 for name in METRICS}


def noisy(model: Path, target: Path) -> Path:
    """Write a second version: the model with noise in its weights."""
    changed = SentenceTransformer(str(model), device="cpu")
    torch.manual_seed(0)
    for weight in changed.parameters():
        weight.data += NOISE * weight.data.std(correction=0) * torch.randn_like(weight)
    changed.save_pretrained(str(target))
    return target


def part_a(args: argparse.Namespace, model: Path, work: Path, config: EvalConfig) -> dict[str, Any]:
    """Compare our scores with theirs, and those of a second version on the first task."""
    worst = {"mteb": 0.0, "pytrec_eval": 0.0, "rounded": 0.0}
    seen: dict[str, list[float]] = {}
    versions = {"v0": (model, args.checked), "v1": (noisy(model, work / "noisy"), args.checked[:1])}
    # In one run, like an update, so that anything cached of the first version would show in the second.
    scored = {
        version: score_tasks(
            folder, version, f"sha-{version}", [record(name, args.data / name / "test") for name in names], work, config
        )
        for version, (folder, names) in versions.items()
    }
    print("| version, task | metric | ours | mteb | pytrec_eval |\n|---|---|---|---|---|")
    for version, (folder, names) in versions.items():
        encoder = OnceEncoder(folder, version, version, max_length=config.max_length)
        for name, score in zip(names, scored[version], strict=True):
            test = args.data / name / "test"
            plain = PlainTask(name, test)
            exact, rounded = by_mteb(folder, plain, config.max_length)
            with quiet():
                reference = by_pytrec_eval(encoder, test, plain.qrels)
            mine = ours(score)
            for metric, value in mine.items():
                theirs = exact.get(metric)
                if theirs is not None:
                    worst["mteb"] = max(worst["mteb"], abs(value - theirs))
                worst["rounded"] = max(worst["rounded"], abs(round(value, 5) - rounded[metric]))
                worst["pytrec_eval"] = max(worst["pytrec_eval"], abs(value - reference[metric]))
                shown = f"{rounded[metric]:.5f}" if theirs is None else f"{theirs:.8f}"
                print(f"| {version}, {name} | {metric} | {value:.8f} | {shown} | {reference[metric]:.8f} |", flush=True)
            seen.setdefault(name, []).append(mine["ndcg_at_10"])
    return {
        "max_difference": max(worst["mteb"], worst["pytrec_eval"]),
        "max_mteb": worst["mteb"],
        "max_pytrec_eval": worst["pytrec_eval"],
        "max_rounded": worst["rounded"],
        "versions_differ": bool(abs(np.subtract(*seen[args.checked[0]])) > 1e-4),
    }


def encode_once(model: Path, folders: Sequence[Path], config: EvalConfig) -> int:
    """Load the model, encode every distinct text of some tasks with our encoder, and return the number of texts."""
    texts = {
        role: [text for folder in folders for text in pq.read_table(folder / f"{part}.parquet")["text"].to_pylist()]
        for role, part in (("query", "queries"), ("document", "corpus"))
    }
    task = load_task("texts", folders[0]).metadata
    with quiet():
        encoder = OnceEncoder(model, "v0", "v0", batch_size=config.batch_size, max_length=config.max_length)
        for role, some in texts.items():
            encoder.learn(role, some, task)
    return len(encoder)


def part_b(args: argparse.Namespace, model: Path, work: Path, config: EvalConfig) -> dict[str, Any]:
    """Compare the time of evaluating with that of encoding."""
    folders = {name: args.data / name / "test" for name in args.tasks}
    half = (len(args.tasks) + 1) // 2
    clock, cpu = {"encode": 0.0, "evaluate": 0.0}, {"encode": 0.0, "evaluate": 0.0}
    texts = 0
    for order, names in ((("encode", "evaluate"), args.tasks[:half]), (("evaluate", "encode"), args.tasks[half:])):
        for part in order:
            begun = time.perf_counter(), time.process_time()
            if part == "encode":
                texts += encode_once(model, [folders[name] for name in names], config)
            else:
                score_tasks(model, "v2", "v2", [record(name, folders[name]) for name in names], work, config)
            seconds, used = time.perf_counter() - begun[0], time.process_time() - begun[1]
            clock[part], cpu[part] = clock[part] + seconds, cpu[part] + used
            print(f"{part:8} {', '.join(names)}: {seconds:.1f} s, {used:.1f} processor s", flush=True)
    return {
        "ratio": round(clock["evaluate"] / clock["encode"], 4),
        "cpu_ratio": round(cpu["evaluate"] / cpu["encode"], 4),
        "evaluate_seconds": round(clock["evaluate"], 2),
        "encode_seconds": round(clock["encode"], 2),
        "texts": texts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--parts", nargs="+", choices=["A", "B"], default=["A", "B"])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--checked", nargs="+", default=CHECKED)
    parser.add_argument("--max-length", type=int, help="tokens per text; by default the model's own maximum")
    args = parser.parse_args()
    args.data = args.data.resolve()
    model, figures = resolve_base(args.base), {}
    config = EvalConfig(max_length=args.max_length)
    with tempfile.TemporaryDirectory() as scratch:
        if "A" in args.parts:
            figures |= part_a(args, model, Path(scratch), config)
        if "B" in args.parts:
            figures |= part_b(args, model, Path(scratch), config)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
