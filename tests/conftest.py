"""Fixtures: a tiny real model, and small real data, in seconds."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face library is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads would wait for each other, not work

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

# No test fails for being slow, and CI draws the same examples every time.
settings.register_profile("steady", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("steady")

# Avalanche has an environment of its own: `make test-avalanche`.
collect_ignore = [] if importlib.util.find_spec("avalanche") else ["stream/test_avalanche.py"]

WORDS = [consonant + vowel + end for consonant in "bcdfghjklmnpqrstvwxyz" for vowel in "aeiou" for end in "lt"]

SCHEMA = pa.schema(
    [
        ("query", pa.string()),
        ("positive", pa.string()),
        ("negatives", pa.list_(pa.string())),
        ("doc_id", pa.string()),
        ("domain", pa.string()),
    ]
)
"""Columns of a draw: what training reads."""


def sentence(rng: random.Random, words: int) -> str:
    """Return some made-up words."""
    return " ".join(rng.choice(WORDS) for _ in range(words))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT (2 layers, 32 dimensions) as a sentence-transformers folder, with prompts and normalisation."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghijklmnopqrstuvwxyz0123456789:.,?"]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab={word: index for index, word in enumerate(vocabulary)}).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=48)
    model = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode="mean"), Normalize()],
        prompts={"query": "query: ", "document": ""},
        device="cpu",
    )
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


def make_pairs(rows: int, seed: int = 0, offset: int = 0) -> list[dict[str, object]]:
    """Return rows whose query shares words with its positive: a domain that can be learned."""
    rng = random.Random(seed)
    pairs: list[dict[str, object]] = []
    for number in range(offset, offset + rows):
        topic = sentence(rng, 4)
        pairs.append(
            {
                "query": topic,
                "positive": f"{sentence(rng, 3)} {topic} {sentence(rng, 6)}",
                "negatives": [sentence(rng, 10)],
                "doc_id": f"d{seed}-{number}",
            }
        )
    return pairs


@pytest.fixture
def write_pairs(tmp_path: Path):
    """Return a function that writes rows to a Parquet file and gives its path."""

    def write(name: str, rows: list[dict[str, object]]) -> Path:
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    return write


KILLED = """
import json, os, signal, sys
from continual import Workspace

class Killer:
    done = 0
    def start(self, label, total, unit, done=0): self.label = label
    def finish(self): pass
    def advance(self, count):
        if self.label.startswith(sys.argv[2]):
            self.done += 1
            if self.done == int(sys.argv[3]):
                os.kill(os.getpid(), signal.SIGKILL)

Workspace(sys.argv[1]).update(**json.loads(sys.argv[4]), progress=Killer())
"""


def kill_update(directory: Path, label: str, advances: int, **options: object) -> None:
    """Run an update in another process and kill it at a moment of its progress."""
    command = [sys.executable, "-c", KILLED, str(directory), label, str(advances), json.dumps(options)]
    assert subprocess.run(command, env=os.environ, check=False).returncode == -signal.SIGKILL
