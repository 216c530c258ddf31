"""Compare the gate's verdicts when a step may score few texts with those when it scores everything.

    python benchmarks/verdicts.py --data DIR [--rows 500] [--queries 120] [--documents 420] [--tokens 48]

DIR holds a folder per domain with `train.parquet` and `test/{corpus,queries,qrels}.parquet`. A stream of five domains
is learned, beside four OOD tasks. From the third step on, the version that the step made is judged, and so are versions
that were made badly on purpose from the same parent:

- `scaled`: the step's change of the weights times 0.5, 1.5, 2.5, 4, 6 and -1.
- `shuffled`: trained on the same queries with each other's positives.
- `rate`: trained with ten times the learning rate.
- `away`: the parent minus once, twice or three times the change by which an earlier domain was learned.
- `noise`: the parent plus noise as large as the step's change, and three times as large.

Each is judged twice with the limits of the gate by default: with `eval.step_texts` at `--share` of all texts, and with
"all". The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from continual import Workspace
from continual.config import Config, load_config
from continual.models.weights import weights_sha256
from continual.registry import Role
from continual.step.evaluate import Candidate, evaluate
from continual.step.reasons import explain

DOMAINS = ["nl2bash", "medquad", "tatqa", "metatool", "banking77"]
OOD = ["squad_en", "gsm8k", "scitldr", "fm2_claims"]
Weights = dict[str, torch.Tensor]
OPEN = {"gate": {"max_forgetting": 100.0, "max_ood_loss": 100.0, "min_gain": -100.0}}


def weights(workspace: Workspace, version: str) -> Weights:
    """Return the weights of a version."""
    return load_file(workspace.registry.path(workspace.version(version).path) / "model.safetensors")


def change(new: Weights, old: Weights) -> Weights:
    """Return the difference of two versions' weights."""
    return {name: new[name] - old[name] for name in old if old[name].is_floating_point()}


def plus(old: Weights, moved: Weights, scale: float) -> Weights:
    """Return weights moved along a change."""
    return {name: old[name] + scale * moved[name] if name in moved else old[name] for name in old}


def noise(moved: Weights, seed: int) -> Weights:
    """Return noise with the size of a change, tensor by tensor."""
    torch.manual_seed(seed)
    drawn = {name: torch.randn_like(part) for name, part in moved.items()}
    return {name: drawn[name] * moved[name].norm() / drawn[name].norm() for name in moved}


def trained(workspace: Workspace, scratch: Path, parent: str, domain: str, **settings: dict[str, Any]) -> Weights:
    """Return the weights of a step from a version, in a copy of the workspace, without a gate or an evaluation.

    Args:
        domain: The domain to learn; the version has not learned it.
    """
    copy = Workspace(shutil.copytree(workspace.directory, scratch / "copy"))
    copy.promote(parent)
    quick = {"suites": {"step": {"tasks": ["none*"]}}, "index": {"step": False}}
    made = copy.update(domains=[domain], settings=OPEN | quick | settings).version
    found = weights(copy, made.id)
    shutil.rmtree(copy.directory)
    return found


def bad_versions(
    workspace: Workspace, scratch: Path, step: int, new: str, parent: str, domain: str, rows: pa.Table
) -> Iterator[tuple[str, Callable[[], Weights]]]:
    """Yield names and makers of versions of a step."""
    old = weights(workspace, parent)
    moved = change(weights(workspace, new), old)
    yield "good", partial(plus, old, moved, 1.0)
    for scale in (0.5, 1.5, 2.5, 4.0, 6.0, -1.0):
        yield f"scaled {scale:g}", partial(plus, old, moved, scale)
    for scale in (1.0, 3.0):
        yield f"noise {scale:g}", partial(plus, old, noise(moved, step), scale)
    names = [version.id for version in workspace.registry.entries()]
    learned = change(weights(workspace, names[step - 1]), weights(workspace, names[step - 2]))
    for scale in (1.0, 2.0, 3.0):
        yield f"away {scale:g}", partial(plus, old, learned, -scale)

    def shuffled() -> Weights:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(step))
        wrong = rows.select(["query", "positive"])
        pq.write_table(
            wrong.set_column(1, "positive", wrong["positive"].take(pa.array(order.numpy()))), scratch / "bad"
        )
        copy = Workspace(shutil.copytree(workspace.directory, scratch / "shuffled"))
        copy.ingest((scratch / "bad").rename(scratch / "bad.parquet"), domain="shuffled", holdout=0.0)
        found = trained(copy, scratch, parent, "shuffled")
        shutil.rmtree(copy.directory)
        return found

    yield "shuffled", shuffled
    rate = load_config(workspace.directory / "continual.toml").train.learning_rate
    yield "rate", lambda: trained(workspace, scratch, parent, domain, train={"learning_rate": 10 * rate})


def judged(
    workspace: Workspace, config: Config, folder: Path, parent: str, domain: str, pairs: int
) -> tuple[bool, int, list[str]]:
    """Return whether a version passes, how many texts were scored for it, and why."""
    registry = workspace.registry
    before = registry.ancestry(parent)
    batches = {batch.id: batch.domain for batch in registry.batches()}
    learned = {batches[batch] for entry in before for batch in entry.batches}
    roles: dict[str, Role] = {}
    for task in registry.tasks():
        roles[task.name] = "new" if task.domain == domain else "learned" if task.domain in learned else "OOD"
    tasks = [task for task in registry.tasks() if task.domain in (None, domain, *learned)]
    candidate = Candidate(
        registry,
        config,
        "v99",
        folder,
        weights_sha256(folder),
        workspace.version("v0"),
        workspace.version(parent),
        tasks,
        roles={task.name: roles[task.name] for task in tasks},
        pairs=pairs,
    )
    counter = Counter()
    _, decision = evaluate(candidate, counter)
    shutil.rmtree(registry.path("scores/v99"))
    return decision.passed, counter.texts, explain(decision)


class Counter:
    """A progress bar that counts the texts that versions were evaluated on."""

    def __init__(self) -> None:
        self.texts, self._counts = 0, False

    def start(self, label: str, total: int | None, unit: str, done: int = 0) -> None:
        """Note whether the bar counts texts of the judged version."""
        del total, unit, done
        self._counts = label.startswith("evaluating v99")

    def advance(self, count: int) -> None:
        """Count."""
        self.texts += count * self._counts

    def finish(self) -> None:
        """Do nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", default="packaged")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--queries", type=int, default=120)
    parser.add_argument("--documents", type=int, default=420)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--share", type=float, default=0.4, help="Share of all texts that may be scored.")
    parser.add_argument("--first", type=int, default=3, help="First step whose versions are judged.")
    args = parser.parse_args()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        workspace = Workspace.init(scratch / "w", args.base)
        settings = workspace.directory / "continual.toml"
        settings.write_text(
            f'[train]\nmax_length = {args.tokens}\n[eval]\nmax_length = {args.tokens}\nstep_texts = "all"\n'
            f"[suites]\nstep = {{queries = {args.queries}, documents = {args.documents}}}\n[index]\nstep = false\n"
        )
        workspace = Workspace(workspace.directory)
        for name in OOD:
            workspace.add_task(name, args.data / name / "test")
        for step, domain in enumerate(DOMAINS, start=1):
            rows = pq.read_table(args.data / domain / "train.parquet").slice(0, args.rows)
            pq.write_table(rows, scratch / f"{domain}.parquet")
            workspace.ingest(scratch / f"{domain}.parquet", domain=domain, task=args.data / domain / "test")
            parent = workspace.version().id
            made = workspace.update(settings=OPEN).version
            if step < args.first:
                continue
            for name, make in bad_versions(workspace, scratch, step, made.id, parent, domain, rows):
                model = shutil.copytree(workspace.registry.path(made.path), scratch / "model")
                save_file(make(), model / "model.safetensors", {"format": "pt"})
                config = load_config(settings)
                began = time.perf_counter()
                full, all_texts, why = judged(workspace, config, model, parent, domain, made.pairs_trained)
                limited = config.replace("eval", step_texts=max(1, round(args.share * all_texts)))
                few, texts, why_few = judged(workspace, limited, model, parent, domain, made.pairs_trained)
                shutil.rmtree(model)
                found.append(
                    {"step": step, "version": name, "full": full, "few": few, "texts": texts, "all_texts": all_texts}
                )
                print(
                    f"step {step}, {name}: {'passes' if full else 'refused'} on {all_texts:,} texts, "
                    f"{'passes' if few else 'refused'} on {texts:,} ({time.perf_counter() - began:.0f} s)",
                    flush=True,
                )
                if few != full:
                    print(f"  on all texts: {'; '.join(why)}\n  on few: {'; '.join(why_few)}", flush=True)
    kinds = sorted({row["version"].split()[0] for row in found})
    print("| kind | versions | refused on all texts | refused on few | agree | share of the texts |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in [*kinds, ""]:
        rows_of = [row for row in found if not kind or row["version"].split()[0] == kind]
        share = sum(row["texts"] for row in rows_of) / sum(row["all_texts"] for row in rows_of)
        counts = [sum(not row[key] for row in rows_of) for key in ("full", "few")]
        agree = sum(row["full"] == row["few"] for row in rows_of)
        print(f"| {kind or '**all**'} | {len(rows_of)} | {counts[0]} | {counts[1]} | {agree} | {share:.2f} |")
    missed = [row for row in found if row["few"] and not row["full"]]
    agree = sum(row["full"] == row["few"] for row in found) / len(found)
    print(json.dumps({"versions": len(found), "agree": round(agree, 3), "missed": len(missed), "rows": found}))


if __name__ == "__main__":
    main()
