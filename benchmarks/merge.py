"""Compare speed and memory of `continual merge` and `mergekit-yaml`, on two generated models of 2 GB.

    python benchmarks/merge.py [--gigabytes 2] [--repeats 2] [--methods linear ties multislerp]

Both merge the same sharded fp32 models: two noisy copies of a Qwen3 encoder with random weights; `ties` also reads the
base. (With a BertModel, mergekit 0.1.5 stops with a TypeError.) Whole commands are timed, from start to flush to disk,
alternating: first *cold*, with the inputs out of the page cache, then *warm*. Peaks are resident memory as the kernel
counts it, including mapped files.

The last line is one JSON object:

- `ratio`: per method, the median wall time of mergekit divided by ours, warm; `ratio_cold`: the same, cold;
- `memory_ratio`: our largest peak divided by that of `SentenceTransformer.merge`, which holds all models;
- `copy_ratio`: our `linear`, warm, divided by the time to read the same inputs and write the same output without
  merging (both with the start of Python and torch).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

HIDDEN, VOCABULARY, SHARD = 1024, 30_522, "500MB"

COPY = """
import os, sys
from pathlib import Path
import torch
out, *inputs = map(Path, sys.argv[1:])
out.mkdir()
buffer = memoryview(bytearray(1 << 24))
for number, folder in enumerate(inputs):
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb", buffering=0) as source, (out / path.name).open("wb", buffering=0) as target:
            while count := source.readinto(buffer):
                if number == 0:
                    target.write(buffer[:count])
            os.fsync(target.fileno())
    out = out if number else out / "others"
    out.mkdir(exist_ok=True)
"""

HOLD = """
import sys
from sentence_transformers import SentenceTransformer
out, first, second = sys.argv[1:]
merged = SentenceTransformer.merge([first, second], method="linear")
merged.save_pretrained(out)
"""


def make_models(folder: Path, gigabytes: float) -> list[Path]:
    """Write a base with random weights, and two copies with different noise in every tensor."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertTokenizerFast, Qwen3Config, Qwen3Model

    heads, keys, width = 16, 8, 128
    layer = 2 * HIDDEN * width * (heads + keys) + 9 * HIDDEN**2  # parameters, without the norms
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        num_hidden_layers=round((gigabytes * 1e9 / 4 - VOCABULARY * HIDDEN) / layer),
        num_attention_heads=heads,
        num_key_value_heads=keys,
        head_dim=width,
        intermediate_size=3 * HIDDEN,
    )
    torch.manual_seed(0)
    model = Qwen3Model(config)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(str, range(100))]
    BertTokenizerFast(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder / "plain")
    config.save_pretrained(folder / "plain")
    model.save_pretrained(folder / "plain", max_shard_size="10GB")
    modules = [Transformer(str(folder / "plain")), Pooling(HIDDEN, "lasttoken")]
    wrapped = SentenceTransformer(modules=modules, device="cpu")
    shutil.rmtree(folder / "plain")
    made = []
    for name in ("base", "first", "second"):
        if name != "base":
            with torch.no_grad():
                for parameter in wrapped.parameters():
                    parameter += 0.01 * torch.randn(parameter.shape)
        wrapped.save_pretrained(str(folder / name), create_model_card=False)
        (folder / name / "model.safetensors").unlink()
        wrapped[0].auto_model.save_pretrained(folder / name, max_shard_size=SHARD)
        made.append(folder / name)
    return made


def run(command: list[str], out: Path) -> tuple[float, float]:
    """Run a command that writes `out`, and return its seconds and its peak in megabytes."""
    os.sync()
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status == 0:
        for path in [*out.rglob("*"), out]:
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)
    seconds = time.perf_counter() - began
    if status != 0:
        sys.exit(f"{' '.join(command)} ended with {status}:\n{errors[-3000:]}")
    shutil.rmtree(out)
    return seconds, usage.ru_maxrss / 1000


def forget(folders: list[Path]) -> None:
    """Drop the files of some folders from the page cache."""
    os.sync()
    for folder in folders:
        for path in folder.rglob("*.safetensors"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def mergekit_command(method: str, base: Path, models: list[Path], out: Path) -> list[str]:
    """Write mergekit's configuration of a merge and return the command."""
    parameters: dict[str, object] = {"weight": 0.5} | ({"density": 0.5} if method == "ties" else {})
    config: dict[str, object] = {
        "merge_method": method,
        "models": [{"model": str(model), "parameters": parameters} for model in models],
        "dtype": "float32",
    }
    if method == "ties":
        config["base_model"] = str(base)
    file = out.with_suffix(".json")  # JSON is YAML
    file.write_text(json.dumps(config))
    return [str(Path(sys.executable).with_name("mergekit-yaml")), str(file), str(out), "--lazy-unpickle", "--quiet"]


def our_command(method: str, base: Path, models: list[Path], out: Path) -> list[str]:
    """Return our command of the same merge."""
    more = ["--base", str(base), "-p", "density=0.5"] if method == "ties" else []
    words = ["merge", *map(str, models), "--method", method, "--weights", "0.5,0.5", *more, "-o", str(out)]
    return [sys.executable, "-m", "continual", *words]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=["linear", "ties", "multislerp"])
    parser.add_argument("--folder", type=Path, help="Folder to write to; needs about 5 times the size of a model.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        folder = Path(scratch)
        # In a separate process, because the peak of a command is never below that of the process that starts it.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            base, *models = pool.submit(make_models, folder, args.gigabytes).result()
        size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
        print(f"models of {size / 1e9:.2f} GB in {len(list(base.glob('*.safetensors')))} shards\n")
        out = folder / "out"
        print("method | | mergekit, s | ours, s | mergekit, MB | ours, MB\n---|---|---|---|---|---")
        ratio, cold, peaks, ours = {}, {}, [], {}
        for method in args.methods:
            sides = {"mergekit": mergekit_command, "ours": our_command}
            times: dict[str, list[float]] = {name: [] for name in sides}
            for repeat in range(args.repeats + 1):
                row = {}
                for name, command in sides.items():
                    if repeat == 0:
                        forget([base, *models])
                    row[name] = run(command(method, base, models, out), out)
                    times[name].append(row[name][0])
                peaks.append(row["ours"][1])
                label = "warm" if repeat else "cold"
                cells = [f"{row[name][place]:.{1 - place}f}" for place in (0, 1) for name in sides]
                print(f"{method} | {label} | " + " | ".join(cells), flush=True)
            warm = {name: statistics.median(some[1:]) for name, some in times.items()}
            ratio[method] = warm["mergekit"] / warm["ours"]
            cold[method] = times["mergekit"][0] / times["ours"][0]
            ours[method] = warm["ours"]
        copies = [run([sys.executable, "-c", COPY, str(out), *map(str, models)], out) for _ in range(args.repeats)]
        copy = statistics.median(seconds for seconds, _ in copies)
        held = run([sys.executable, "-c", HOLD, str(out), *map(str, models)], out)
    print(f"\ncopying the same bytes: {copy:.1f} s; SentenceTransformer.merge: {held[0]:.1f} s, {held[1]:,.0f} MB")
    result = {
        "ratio": {name: round(value, 2) for name, value in ratio.items()},
        "ratio_cold": {name: round(value, 2) for name, value in cold.items()},
        "memory_ratio": round(max(peaks) / held[1], 3),
        "copy_ratio": round(ours.get("linear", float("nan")) / copy, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
