"""Fixtures: a tiny real model, workspaces that have learned from small real data, and the command line."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any Hugging Face library is imported
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads would wait for each other, not work

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer.main
from filelock import FileLock
from hypothesis import settings

from continual import Workspace
from continual.cli import main
from tests.commands import Result, Run
from tests.rows import WORDS, Write
from tests.workspaces import Once, learn, make_workspace

# No test fails for being slow, and CI draws the same examples every time.
settings.register_profile("steady", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("steady")

# Temporary files are in memory, because thousands of flushes to a disk take a minute. No test needs a file that
# outlives the machine.
_MEMORY, _NEEDED = Path("/dev/shm"), 4 << 30
if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# Typer builds all commands again for each call of the command line, which a user's process makes only once.
typer.main.get_command = cache(typer.main.get_command)

# Avalanche has an environment of its own: `make test-avalanche`.
collect_ignore = [] if importlib.util.find_spec("avalanche") else ["stream/test_avalanche.py"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Measure the coverage of the fast tests alone: measuring takes half as long again, and these reach 96 %.

    What a module runs when it is imported counts too, also if a test that isn't measured would import it first.
    """
    if config.pluginmanager.hasplugin("_cov"):
        importlib.import_module("tests.faults.warm")
        for item in items:
            if any(map(item.get_closest_marker, ("slow", "kill", "real_model", "browser"))):
                item.add_marker("no_cover")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a function that makes a folder once for all workers of a run. Tests copy it before they change it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, unfinished = shared / name, shared / f"{name}.unfinished"
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)
        return folder

    return make_once


@pytest.fixture(scope="session")
def tiny_model(once: Once) -> Path:
    """A random BERT (2 layers, 32 dimensions) as a sentence-transformers folder, with prompts and normalisation."""
    return once("tiny", make_tiny_model) / "model"


def make_tiny_model(folder: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

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


@pytest.fixture(scope="session")
def other_model(once: Once, tiny_model: Path) -> Path:
    """The tiny model with other weights and a query prompt."""

    def make(folder: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(tiny_model), device="cpu")
        torch.manual_seed(7)
        for weight in model.parameters():
            weight.data += 0.2 * torch.randn_like(weight)
        model.save_pretrained(str(folder / "model"))

    return once("other", make) / "model"


@pytest.fixture
def write_pairs(tmp_path: Path) -> Write:
    """Return a function that writes rows to a Parquet file and gives its path."""

    def write(name: str, rows: list[dict[str, object]]) -> Path:
        path = tmp_path / name
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path

    return write


@pytest.fixture(scope="session")
def no_steps(once: Once, tiny_model: Path) -> Path:
    """A workspace that has learned nothing."""
    return once("no-steps", lambda folder: make_workspace(folder / "w", tiny_model)) / "w"


@pytest.fixture(scope="session")
def two_steps(once: Once, no_steps: Path) -> Path:
    """A workspace that has learned two domains, in two steps."""

    def make(folder: Path) -> None:
        made = Workspace(shutil.copytree(no_steps, folder / "w"))
        for seed, domain in enumerate(("first", "second")):
            learn(made, domain, 80, seed=seed, replay=0.5)

    return once("two-steps", make) / "w"


@pytest.fixture
def workspace(no_steps: Path, tmp_path: Path) -> Workspace:
    """A copy of the workspace that has learned nothing."""
    return Workspace(shutil.copytree(no_steps, tmp_path / "w"))


@pytest.fixture
def learned(two_steps: Path, tmp_path: Path) -> Workspace:
    """A copy of the workspace that has learned two domains."""
    return Workspace(shutil.copytree(two_steps, tmp_path / "w"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that calls the command line in this process."""

    def call(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["continual", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
            raise SystemExit(0)
        streams = capsys.readouterr()
        code = ended.value.code
        return Result(code if isinstance(code, int) else 0, streams.out, streams.err)

    return call
