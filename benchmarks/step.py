"""Show where the seconds of an update go, and compare the whole step with a joint retraining.

    python benchmarks/step.py --data DIR [--steps 5] [--show 1 5] [--rows 1000] [--whole] [--against joint]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. The first five steps learn
the domains of the standard stream with their own test sets. Each later step learns the next `--rows` rows of these
domains as a new domain, and `ingest` holds its test set out. This needs a DIR with all rows of the domains.

All steps run in this process with the default settings. Of the steps in `--show`, the time is divided by what the step
does; "everything else" is the rest. `--against joint` then trains a LoRA of the same size with
`SentenceTransformerTrainer` on all rows of the stream, two epochs, and scores it once on the same tasks with
`InformationRetrievalEvaluator`. `--joint-share 0.2` trains on every fifth row and multiplies the seconds by five.

`--whole` takes the last step twice: in a copy of the workspace with `eval.step_texts = "all"`, and then as it is.

The last line is one JSON object: `steps` (seconds by part, by step), `evaluation_per_training` (of the last step shown)
and, with a joint training, `share` (seconds of the last step, divided by those of the joint training).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from continual import Workspace
from continual.step import update as the_step
from continual.train import loop as the_loop

DOMAINS = ["nl2bash", "medquad", "tatqa", "metatool", "banking77"]
OOD = ["squad_en", "gsm8k", "scitldr"]
PARTS = (
    "draw",
    "tokenise",
    "embed before",
    "train",
    "fold",
    "merge",
    "evaluate base",
    "evaluate parent",
    "evaluate new",
    "index comparison",
    "write",
    "everything else",
)
EVALUATION = ("evaluate base", "evaluate parent", "evaluate new", "index comparison")
TRAINING = ("tokenise", "embed before", "train")
JOINT_EPOCHS, JOINT_BATCH, JOINT_RATE = 2, 64, 1e-3


class Clock:
    """Divides time into parts. It is also a progress bar: the label of a bar tells the part.

    Args:
        parent: Id of the version that the step continues.
    """

    def __init__(self, parent: str) -> None:
        self._names = {parent: "parent", "v0": "base"}
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._stack = ["everything else"]
        self._since = time.perf_counter()

    def turn(self, part: str) -> None:
        """Count the time from now on in a part."""
        self._count()
        self._stack[-1] = part

    @contextmanager
    def part(self, part: str) -> Iterator[None]:
        """Count the time of a block in a part."""
        self._count()
        self._stack.append(part)
        try:
            yield
        finally:
            self._count()
            self._stack.pop()

    def _count(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1]] += now - self._since
        self._since = now

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Turn to the part that a bar belongs to, if its label tells more than the function that shows it."""
        del total, unit, done
        parts = {"tokenising": "tokenise", "embedding before": "embed before", "training": "train"}
        for beginning, part in parts.items():
            if label.startswith(beginning):
                self.turn(part)
        if label.startswith("evaluating v"):
            self.turn(f"evaluate {self._names.get(label.split()[1], 'new')}")

    def advance(self, count: int) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing: what follows a bar belongs to it until another part begins."""


def timed(clock: Clock, owner: Any, name: str, part: str) -> Callable[[], None]:
    """Count the time of a function in a part; return what undoes this."""
    original = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        with clock.part(part):
            return original(*args, **options)

    setattr(owner, name, call)
    return lambda: setattr(owner, name, original)


def run_step(workspace: Workspace, settings: dict[str, Any] | None = None) -> tuple[dict[str, float], float, bool]:
    """Take one step; return its seconds by part, all its seconds, and whether the gate accepted it."""
    from continual.step import runs
    from continual.train import lora

    clock = Clock(workspace.status().current)
    undo = [
        timed(clock, runs, "prepare", "draw"),
        timed(clock, the_loop, "train", "train"),
        timed(clock, lora, "fold", "fold"),
        timed(clock, lora, "prove_fold", "fold"),
        timed(clock, the_step, "merge", "merge"),
        timed(clock, the_step, "evaluate", "evaluate new"),
        timed(clock, the_step, "measure_step", "index comparison"),
        timed(clock, the_step, "record", "write"),
    ]
    began = time.perf_counter()
    try:
        result = workspace.update(progress=clock, settings=settings)
    finally:
        for each in undo:
            each()
    clock.turn("everything else")
    return clock.seconds, time.perf_counter() - began, result.passed


def rows_of(data: Path, step: int, rows: int, folder: Path) -> tuple[Path, str, Path | None]:
    """Return the training file, the domain and the test folder of a step, counted from 1."""
    name, turn = DOMAINS[(step - 1) % len(DOMAINS)], (step - 1) // len(DOMAINS)
    table = pq.read_table(data / name / "train.parquet").slice(turn * rows, rows)
    if not len(table):
        raise SystemExit(f"{data / name} has too few rows for step {step}: choose fewer --rows, or the whole domains.")
    file = folder / f"{name}-{turn}.parquet"
    pq.write_table(table, file)
    return file, name if turn == 0 else f"{name}-{turn}", data / name / "test" if turn == 0 else None


def joint(base: Path, files: list[Path], tests: dict[str, Path], batch: int, share: float) -> dict[str, float]:
    """Return the seconds of a joint training with sentence-transformers, and of its evaluation.

    Args:
        share: Share of the rows that are trained; the seconds of training are those of all.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    table = pa.concat_tables([pq.read_table(file, columns=["query", "positive"]) for file in files])
    table = table.take(list(range(0, len(table), round(1 / share))))
    model = SentenceTransformer(str(base))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the trainer's fastest setting, see train.py --tuned
        elif isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0  # of attention
    model.add_adapter(LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    model.max_seq_length = min(128, model.max_seq_length or 128)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            folder,
            num_train_epochs=JOINT_EPOCHS,
            per_device_train_batch_size=batch,
            learning_rate=JOINT_RATE,
            use_cpu=not torch.cuda.is_available(),
            save_strategy="no",
            eval_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        columns = {"anchor": table["query"].to_pylist(), "positive": table["positive"].to_pylist()}
        trainer = SentenceTransformerTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model),
        )
        trainer.train()
    trained = time.perf_counter()
    model.max_seq_length = SentenceTransformer(str(base)).max_seq_length
    for name, test in tests.items():
        parts = {part: pq.read_table(test / f"{part}.parquet").to_pydict() for part in ("queries", "corpus", "qrels")}
        relevant: dict[str, set[str]] = {}
        for query, document, score in zip(
            *(parts["qrels"][key] for key in ("query_id", "doc_id", "score")), strict=True
        ):
            if score > 0:
                relevant.setdefault(query, set()).add(document)
        queries = dict(zip(parts["queries"]["query_id"], parts["queries"]["text"], strict=True))
        corpus = dict(zip(parts["corpus"]["doc_id"], parts["corpus"]["text"], strict=True))
        InformationRetrievalEvaluator(queries, corpus, relevant, name=name, show_progress_bar=False)(model)
    return {"train": (trained - began) / share, "evaluate": time.perf_counter() - trained}


def table(steps: dict[int, dict[str, float]], whole: dict[int, float]) -> str:
    """Return the seconds by part as a Markdown table, a column per step."""
    lines = [
        "| seconds | " + " | ".join(f"step {step}" if step else "all texts" for step in steps) + " |",
        "|---|" + "---:|" * len(steps),
    ]
    for part in PARTS:
        lines.append(f"| {part} | " + " | ".join(f"{found[part]:.1f}" for found in steps.values()) + " |")
    lines.append("| **all** | " + " | ".join(f"{whole[step]:.1f}" for step in steps) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--show", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--set", action="append", default=[], help="Text for continual.toml, such as '[eval]\\n...'.")
    parser.add_argument("--against", choices=["joint"], help="Also time a joint retraining.")
    parser.add_argument("--joint-share", type=float, default=1.0, help="Share of the rows to train on.")
    parser.add_argument("--whole", action="store_true", help="Take the last step with eval.step_texts = all, too.")
    parser.add_argument("--batch", type=int, default=JOINT_BATCH, help="Batch size of the joint training.")
    args = parser.parse_args()
    steps: dict[int, dict[str, float]] = {}
    whole: dict[int, float] = {}
    files: list[Path] = []
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.init(Path(scratch) / "w", args.base)
        if args.set:
            settings = workspace.directory / "continual.toml"
            settings.write_text(settings.read_text() + "".join(each.replace("\\n", "\n") + "\n" for each in args.set))
            workspace = Workspace(workspace.directory)
        tests = {name: args.data / name / "test" for name in [*OOD, *DOMAINS[: args.steps]]}
        for name in OOD:
            workspace.add_task(name, tests[name])
        for step in range(1, args.steps + 1):
            file, domain, test = rows_of(args.data, step, args.rows, Path(scratch))
            files.append(file)
            workspace.ingest(file, domain=domain, **({"task": test} if test else {}))
            if args.whole and step == args.steps:
                copy = Workspace(shutil.copytree(workspace.directory, Path(scratch) / "copy"))
                steps[0], whole[0], _ = run_step(copy, {"eval": {"step_texts": "all"}})
                print(f"step {step} with all texts: {whole[0]:.1f} s", flush=True)
            found, seconds, passed = run_step(workspace)
            print(f"step {step} ({domain}): {seconds:.1f} s, {'accepted' if passed else 'refused'}", flush=True)
            if step in args.show:
                steps[step], whole[step] = found, seconds
        print(table(steps, whole))
        last = max(steps)
        evaluation, training = (sum(steps[last][part] for part in parts) for parts in (EVALUATION, TRAINING))
        result: dict[str, Any] = {
            "steps": {step: {part: round(value, 2) for part, value in found.items()} for step, found in steps.items()},
            "evaluation_per_training": round(evaluation / training, 3),
        }
        if args.against:
            spent = joint(workspace.registry.path("versions/v0"), files, tests, args.batch, args.joint_share)
            print(f"joint: {spent['train']:.1f} s of training, {spent['evaluate']:.1f} s of evaluation")
            result |= {"joint": spent, "share": round(whole[last] / sum(spent.values()), 3)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
