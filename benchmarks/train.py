"""Compare the training speed of our loop and `SentenceTransformerTrainer`, alternating in one process.

    python benchmarks/train.py --data TRAIN.parquet [...] [--rows N] [--repeats K] [--length 128] [--tuned]

Both train the same LoRA (rank 16, alpha 32, the same layers) on the same rows, with the same batch size, maximum
length, in-batch negatives, number of given negatives, precision and learning-rate schedule. Tokenising is timed;
importing, loading the model and building the trainer are not. The peer runs without evaluation, logging, saving and
trackers, and with the dropout of the model's configuration. Of several files, each gives an equal share of the rows.

`--tuned` also times what makes the trainer faster: no dropout, `CachedMultipleNegativesRankingLoss` with
`mini_batch_num_tokens`, and workers that tokenise. The fastest combination counts as `tuned`.

The last line is one JSON object: `ratio` (our median divided by the peer's), `ratio_tuned`, `ours_pairs_per_s`,
`peer_pairs_per_s`, `tuned_pairs_per_s`, `loss_difference` (between the two losses on one batch, in fp32, without
dropout), `precision`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from continual.config import TrainConfig
from continual.models.base import resolve_base
from continual.models.encoder import encoding_prompts, load_encoder
from continual.models.precision import resolve_precision
from continual.train import step as our_step
from continual.train.job import Job
from continual.train.loop import train
from continual.train.lora import attach
from continual.train.team import Team

clock = time.perf_counter
BATCH, RANK, ALPHA, RATE = 64, 16, 32, 1e-3


class Tuning(NamedTuple):
    """How the peer trains."""

    mini_batch_tokens: int | None = None
    dropout: bool = True
    workers: int = 0


DEFAULT = Tuning()
TUNED = (Tuning(None, False, 0), Tuning(None, False, 2), Tuning(2048, False, 0), Tuning(8192, False, 0))


def read(paths: list[Path], rows: int, negatives: int) -> pa.Table:
    """Return the first rows of training files that have at least `negatives` negatives, equally many of each."""
    columns = ["query", "positive", "negatives", "doc_id"]
    tables = [pq.read_table(path, columns=columns) for path in paths]
    if negatives:
        tables = [each.filter(pc.greater_equal(pc.list_value_length(each["negatives"]), negatives)) for each in tables]
    table = pa.concat_tables([each.slice(0, rows // len(tables)) for each in tables], promote_options="permissive")
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


def peer(
    model: Path, table: pa.Table, config: TrainConfig, layers: list[str], precision: str, tuning: Tuning = DEFAULT
) -> tuple[float, float]:
    """Return the seconds of `SentenceTransformerTrainer.train`, and its mean loss."""
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )

    encoder = load_encoder(model)
    encoder.max_seq_length = min(config.max_length, encoder.max_seq_length or config.max_length)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout) and not tuning.dropout:
            module.p = 0.0
        elif not tuning.dropout and isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = 0.0  # of attention
    scale = 1 / config.temperature
    loss: torch.nn.Module = MultipleNegativesRankingLoss(encoder, scale=scale)
    if tuning.mini_batch_tokens:
        loss = CachedMultipleNegativesRankingLoss(encoder, scale, mini_batch_num_tokens=tuning.mini_batch_tokens)
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
            dataloader_num_workers=tuning.workers,
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
            loss=loss,
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
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="Parquet: query, positive, negatives, doc_id."
    )
    parser.add_argument("--rows", type=int, default=512, help="Rows trained per repeat.")
    parser.add_argument("--repeats", type=int, default=3, help="Trainings per side.")
    parser.add_argument("--model", default="packaged", help="A sentence-transformers folder, Hub id, or 'packaged'.")
    parser.add_argument("--negatives", type=int, default=0, help="Given negatives per row, for both sides.")
    parser.add_argument("--length", type=int, default=128, help="Maximum length in tokens.")
    parser.add_argument("--tuned", action="store_true", help="Also time the trainer's fastest settings.")
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
        max_length=args.length,
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

    tuned = DEFAULT
    if args.tuned:
        part = table.slice(0, 2 * BATCH)
        seconds = {tuning: peer(model, part, config, layers, precision, tuning)[0] for tuning in TUNED}
        tuned = min(seconds, key=seconds.__getitem__)
        for tuning, found in seconds.items():
            print(f"{tuning}: {len(part) / found:.2f} pairs/s")
    speeds: dict[str, list[float]] = {side: [] for side in ("ours", "peer", *(["tuned"] if args.tuned else []))}
    print(f"{len(table)} rows of at most {args.length} tokens, batch {BATCH}, {args.negatives} negatives, {precision}")
    for repeat in range(args.repeats):
        losses = {}
        for side, pairs in speeds.items():
            if side == "ours":
                spent, losses[side] = ours(model, table, config)
            else:
                how = tuned if side == "tuned" else DEFAULT
                spent, losses[side] = peer(model, table, config, layers, precision, how)
            pairs.append(len(table) / spent)
        found = ", ".join(f"{side} {pairs[-1]:.2f} pairs/s (loss {losses[side]:.4f})" for side, pairs in speeds.items())
        print(f"repeat {repeat + 1}: {found}", flush=True)
    median = {side: statistics.median(pairs) for side, pairs in speeds.items()}
    figures: dict[str, Any] = {"ratio": round(median["ours"] / median["peer"], 3)}
    if args.tuned:
        figures |= {"ratio_tuned": round(median["ours"] / median["tuned"], 3), "tuned": tuned._asdict()}
    figures |= {f"{side}_pairs_per_s": round(value, 2) for side, value in median.items()}
    figures |= {"loss_difference": difference, "precision": precision}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
