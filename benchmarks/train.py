"""Compare the training speed of our loop and `SentenceTransformerTrainer`, alternating in one process.

    python benchmarks/train.py --data TRAIN.parquet [--rows N] [--repeats K] [--model packaged] [--negatives 0]

Both train the same LoRA (rank 16, alpha 32, the same layers) on the same rows, with the same batch size, maximum
length, in-batch negatives, number of given negatives, precision and learning-rate schedule. Tokenising is timed;
importing, loading the model and building the trainer are not. The peer runs without evaluation, logging, saving and
trackers, and with the dropout of the model's configuration.

The last line is one JSON object: `ratio` (our median divided by the peer's), `ours_pairs_per_s`, `peer_pairs_per_s`,
`loss_difference` (between the two losses on one batch, in fp32, without dropout), `precision`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from continual.config import TrainConfig
from continual.models.base import resolve_base
from continual.models.encoder import encoding_prompts, load_encoder
from continual.train import step as our_step
from continual.train.hardware import resolve_precision
from continual.train.job import Job
from continual.train.loop import train
from continual.train.lora import attach
from continual.train.team import Team

clock = time.perf_counter
BATCH, LENGTH, RANK, ALPHA, RATE = 64, 128, 16, 32, 1e-3


def read(path: Path, rows: int, negatives: int) -> pa.Table:
    """Return the first rows of a training file that have at least `negatives` negatives."""
    table = pq.read_table(path)
    if negatives:
        table = table.filter(pc.greater_equal(pc.list_value_length(table["negatives"]), negatives))
    table = table.slice(0, rows)
    return table.append_column("domain", pa.array(["benchmark"] * len(table)))


def ours(model: Path, table: pa.Table, config: TrainConfig) -> tuple[float, float]:
    """Return the seconds of a training without loading the model, and its mean loss."""
    loading = 0.0
    load = our_step.load_encoder

    def timed(*args: Any, **kwargs: Any) -> Any:
        nonlocal loading
        began = clock()
        found = load(*args, **kwargs)
        loading += clock() - began
        return found

    our_step.load_encoder = timed
    try:
        with tempfile.TemporaryDirectory() as folder:
            began = clock()
            job = Job(model, table, config, seed=0, run_dir=Path(folder, "r"), adapter_dir=Path(folder, "a"))
            result = train(job)
            return clock() - began - loading, statistics.mean(loss for _, loss in result.curve)
    finally:
        our_step.load_encoder = load


def peer(model: Path, table: pa.Table, config: TrainConfig, layers: list[str], precision: str) -> tuple[float, float]:
    """Return the seconds of `SentenceTransformerTrainer.train`, and its mean loss."""
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    encoder = load_encoder(model)
    encoder.max_seq_length = min(LENGTH, encoder.max_seq_length or LENGTH)
    encoder.model_card_data.generate_widget_examples = False
    encoder.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules=layers))
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            folder,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=config.warmup,
            bf16=precision == "bf16",
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="no",
            eval_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=encoder,
            args=arguments,
            train_dataset=Dataset.from_dict(columns(table, config.max_negatives)),
            loss=MultipleNegativesRankingLoss(encoder, scale=1 / config.temperature),
        )
        began = clock()
        output = trainer.train()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return clock() - began, output.training_loss


def columns(table: pa.Table, negatives: int) -> dict[str, list[str]]:
    """Return the rows in the peer's columns: anchor, positive, and one column per negative."""
    given = table["negatives"].to_pylist()
    more = {f"negative_{n}": [texts[n] for texts in given] for n in range(negatives)}
    return {"anchor": table["query"].to_pylist(), "positive": table["positive"].to_pylist()} | more


def loss_difference(model: Path, table: pa.Table, config: TrainConfig) -> float:
    """Return the difference of the two losses on one batch in fp32, without dropout and with nonzero LoRA factors."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = config.model_copy(update={"precision": "fp32"})
    session = our_step.open_session(model, distinct(table), config, seed=0, team=Team(0, 1, device))
    for number, (_, parameter) in enumerate(session.parameters):
        torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator(device).manual_seed(number))
    session.refresh()
    batch = torch.arange(len(session.rows)).numpy()
    mine, _ = session.backward(batch)
    session.fused.undo()  # so that peft's own layers compute the peer's loss
    features = []
    for name, texts in columns(distinct(table), config.max_negatives).items():
        task = "query" if name == "anchor" else "document"
        prompt = encoding_prompts(session.model)[name != "anchor"]
        found = session.model.preprocess(texts, prompt=prompt, task=task)
        features.append({k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in found.items()})
    with torch.no_grad():
        theirs = MultipleNegativesRankingLoss(session.model, scale=1 / config.temperature)(features, None)
    print(f"loss on one batch of {len(batch)}: ours {mine:.6f}, sentence-transformers {float(theirs):.6f}")
    return abs(mine - float(theirs))


def distinct(table: pa.Table) -> pa.Table:
    """Return a batch without repeated texts or document ids, so that our loss masks nothing."""
    seen: set[str] = set()
    kept = []
    for number, row in enumerate(table.to_pylist()):
        keys = {"q" + row["query"], "d" + row["positive"], "i" + str(row["doc_id"])}
        keys |= {"d" + text for text in row["negatives"]}
        if len(kept) < BATCH and not keys & seen:
            seen |= keys
            kept.append(number)
    return table.take(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet with query, positive, negatives, doc_id.")
    parser.add_argument("--rows", type=int, default=512, help="Rows trained per repeat.")
    parser.add_argument("--repeats", type=int, default=3, help="Trainings per side.")
    parser.add_argument("--model", default="packaged", help="A sentence-transformers folder, Hub id, or 'packaged'.")
    parser.add_argument("--negatives", type=int, default=0, help="Given negatives per row, for both sides.")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument(
        "--cpu-time", action="store_true", help="Use one thread and measure CPU time; for a busy machine."
    )
    args = parser.parse_args()
    if args.cpu_time:
        global clock
        clock = time.process_time
        torch.set_num_threads(1)
    model = resolve_base(args.model)
    precision = resolve_precision(args.precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    config = TrainConfig(
        epochs=1,
        batch_size=BATCH,
        max_length=LENGTH,
        max_negatives=args.negatives,
        learning_rate=RATE,
        lora_rank=RANK,
        lora_alpha=ALPHA,
        precision=precision,
        distillation=0.0,  # as in the peer's loss
        guide_margin="off",
    )
    table = read(args.data, args.rows, args.negatives)
    layers = sorted({name.split(".lora_")[0] for name, _ in attach(load_encoder(model), RANK, ALPHA, 0)})
    difference = loss_difference(model, table, config)
    ours(model, table.slice(0, BATCH), config)  # once untimed, to load libraries and choose kernels
    peer(model, table.slice(0, BATCH), config, layers, precision)

    speeds: dict[str, list[float]] = {"ours": [], "peer": []}
    print(f"{len(table)} rows, batch {BATCH}, {args.negatives} given negatives, {precision}", flush=True)
    print(f"{'repeat':>6} {'ours pairs/s':>13} {'peer pairs/s':>13} {'ours loss':>10} {'peer loss':>10}")
    for repeat in range(args.repeats):
        mine, my_loss = ours(model, table, config)
        theirs, their_loss = peer(model, table, config, layers, precision)
        speeds["ours"].append(len(table) / mine)
        speeds["peer"].append(len(table) / theirs)
        row = f"{repeat + 1:>6} {speeds['ours'][-1]:>13.2f} {speeds['peer'][-1]:>13.2f}"
        print(f"{row} {my_loss:>10.4f} {their_loss:>10.4f}", flush=True)
    mine, theirs = statistics.median(speeds["ours"]), statistics.median(speeds["peer"])
    figures = {
        "ratio": round(mine / theirs, 3),
        "ours_pairs_per_s": round(mine, 2),
        "peer_pairs_per_s": round(theirs, 2),
        "loss_difference": difference,
        "precision": precision,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
