"""Show whether a step costs more the longer a stream is: seconds, memory and disk of steps 1 to 200.

    python benchmarks/growth.py [--steps 200] [--rows 60] [--domains 20]

Each step ingests made-up rows and learns them with a random two-layer BERT. The first steps learn a new domain each,
and the others add to these domains in turn. Replay and scoring are bounded by `replay.rows`, `eval.step_texts`, and
probes of four queries. `continual gc` runs after each step, so that the disk holds what a step must keep.

All steps run in this process. A figure is the median of a step and the two on either side of it. Memory is what the
process holds after the step, and disk what the step added. The last line is one JSON object; `growth` divides the
figures of the last step by those of step 20.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from continual import Workspace

WORDS = [consonant + vowel + end for consonant in "bcdfghjklmnpqrstvwxyz" for vowel in "aeiou" for end in "lt"]
SETTINGS = """
[ingest]
holdout = 0.2
[replay]
rows = 200
[train]
batch_size = 16
max_length = 32
lora_rank = 4
[eval]
step_texts = 400
[suites]
probe = {queries = 4, documents = 2}
[gate]
max_forgetting = 100
max_ood_loss = 100
min_gain = -100
"""
SHOWN = (1, 5, 20, 50, 100, 150, 200)
FIGURES = ("ingest_s", "update_s", "memory_mb", "disk_kb")


def tiny_model(folder: Path) -> Path:
    """Write a random BERT of two layers and 32 dimensions as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size)).save_pretrained(
        folder / "bert"
    )
    BertTokenizerFast(vocab={word: place for place, word in enumerate(vocabulary)}).save_pretrained(folder / "bert")
    modules = [Transformer(str(folder / "bert"), max_seq_length=48), Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


def write_rows(file: Path, rows: int, seed: int) -> Path:
    """Write made-up rows whose queries share words with their positives."""
    rng = random.Random(seed)

    def words(count: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(count))

    topics = [words(4) for _ in range(rows)]
    pairs = [{"query": topic, "positive": f"{words(3)} {topic} {words(6)}"} for topic in topics]
    pq.write_table(pa.Table.from_pylist(pairs), file)
    return file


def held() -> float:
    """Return the memory that this process holds, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def size(folder: Path) -> float:
    """Return the size of the files in a folder, in kB."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e3


def figures_of(steps: list[dict[str, float]], step: int) -> dict[str, float]:
    """Return the median figures of a step, counted from 1, and its neighbours."""
    near = steps[max(0, step - 3) : step + 2]
    return {name: statistics.median(each[name] for each in near) for name in FIGURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--domains", type=int, default=20, help="How many; as many as steps: each has its own.")
    args = parser.parse_args()
    steps: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Workspace.init(folder / "w", str(tiny_model(folder)))
        (folder / "w" / "continual.toml").write_text(SETTINGS)
        workspace, disk = Workspace(folder / "w"), size(folder / "w")
        for step in range(1, args.steps + 1):
            file = write_rows(folder / f"d{step}.parquet", args.rows, step)
            began = time.perf_counter()
            workspace.ingest(file, domain=f"d{step % args.domains}")
            ingested = time.perf_counter()
            workspace.update()
            updated = time.perf_counter()
            workspace.gc()
            now = size(folder / "w")
            steps.append(dict(zip(FIGURES, (ingested - began, updated - ingested, held(), now - disk), strict=True)))
            disk = now
            if step % 20 == 0:
                print(f"step {step}: {steps[-1]}", flush=True)
    print("| step | ingest, s | update, s | memory, MB | disk added, kB |")
    print("|---:|---:|---:|---:|---:|")
    for step in (each for each in SHOWN if each <= args.steps):
        found = figures_of(steps, step)
        print(f"| {step} | " + " | ".join(f"{found[name]:.2f}" for name in FIGURES) + " |")
    last, early = figures_of(steps, args.steps), figures_of(steps, min(20, args.steps))
    growth = {name: round(last[name] / early[name], 3) if early[name] else None for name in FIGURES}
    print(json.dumps({"steps": args.steps, "growth": growth}))


if __name__ == "__main__":
    main()
