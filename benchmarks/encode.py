"""Compare the speed of our encoding and `SentenceTransformer.encode`, alternating in one process.

    python benchmarks/encode.py [--data CORPUS.parquet ...] [--texts 300] [--repeats 3] [--precision auto]

Each file has a column `text`; without files, texts of 5 to 57 random words are encoded. The peer is measured with
batches of 8, 32 and 128 texts, and its fastest counts. In bf16 the peer has all its weights in bf16.

The last line is one JSON object: `ratio` (our median divided by the peer's, over all files), `by_file`,
`texts_per_s`, `peer_texts_per_s`, `cosine` (the least between the two embeddings of a text), `precision`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from generated import write_pairs

from continual.models.base import resolve_base
from continual.models.encode import TOKENS, encode
from continual.models.encoder import load_encoder
from continual.models.precision import Precision, resolve_precision, store_for
from continual.models.tokens import Tokens

BATCHES = (8, 32, 128)


def ours(model: Any, texts: list[str], precision: Precision) -> np.ndarray:
    """Return our embeddings of texts, tokenised here."""
    tokens = Tokens(model)
    tokens.add(texts, None, None)
    return encode(model, tokens, max_tokens=64 * TOKENS, precision=precision)


def timed(call: Any, *arguments: Any) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    began = time.perf_counter()
    found = call(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, found


def read(files: list[Path], count: int) -> dict[str, list[str]]:
    """Return the first texts of each file by its name; made-up texts without a file."""
    if not files:
        with tempfile.TemporaryDirectory() as folder:
            write_pairs(Path(folder, "p.parquet"), count, count, negatives=False)
            return {"generated": pq.read_table(Path(folder, "p.parquet"))["positive"].to_pylist()}
    return {str(file): pq.read_table(file, columns=["text"])["text"].to_pylist()[:count] for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="*", default=[], help="Parquet with a column text.")
    parser.add_argument("--texts", type=int, default=300, help="Texts per file.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", default="packaged", help="A sentence-transformers folder, Hub id, or 'packaged'.")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    args = parser.parse_args()
    folder = resolve_base(args.model)
    model, peer = load_encoder(folder), load_encoder(folder)
    precision = resolve_precision(args.precision, model.device)
    store_for(model, precision)
    if precision == "bf16":
        peer = peer.bfloat16()

    def theirs(texts: list[str], batch: int) -> np.ndarray:
        return np.asarray(peer.encode(texts, batch_size=batch, show_progress_bar=False, convert_to_numpy=True))

    seconds: dict[str, dict[str, float]] = {}
    cosine, counted = 1.0, 0
    for name, texts in read(args.data, args.texts).items():
        counted += len(texts)
        fastest = min(BATCHES, key=lambda batch: timed(theirs, texts[:: max(1, len(texts) // 64)], batch)[0])
        spent: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(args.repeats):
            took, mine = timed(ours, model, texts, precision)
            spent["ours"].append(took)
            took, other = timed(theirs, texts, fastest)
            spent["peer"].append(took)
        products = (mine * other).sum(1) / np.linalg.norm(mine, axis=1) / np.linalg.norm(other, axis=1)
        cosine = min(cosine, float(products.min()))
        seconds[name] = {side: statistics.median(each) for side, each in spent.items()}
        rates = ", ".join(f"{side} {len(texts) / each:.1f} texts/s" for side, each in seconds[name].items())
        print(f"{name}: {rates} (batches of {fastest})", flush=True)
    whole = {side: sum(each[side] for each in seconds.values()) for side in ("ours", "peer")}
    print(
        json.dumps(
            {
                "ratio": round(whole["peer"] / whole["ours"], 3),
                "by_file": {name: round(each["peer"] / each["ours"], 3) for name, each in seconds.items()},
                "texts_per_s": round(counted / whole["ours"], 1),
                "peer_texts_per_s": round(counted / whole["peer"], 1),
                "cosine": round(cosine, 6),
                "precision": precision,
            }
        )
    )


if __name__ == "__main__":
    main()
