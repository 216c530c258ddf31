"""Exports: models that load everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from continual import Workspace
from continual.errors import (
    InputError,
    NotFoundError,
)
from tests.pairs import make_pairs


def test_every_version_loads_everywhere_and_keeps_what_the_base_was(
    learned: Workspace, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    texts = [str(row["positive"]) for row in make_pairs(100, seed=7)]
    exported = learned.export("current", tmp_path / "exported").directory
    ours = learned.load("current").encode(texts)
    np.testing.assert_allclose(SentenceTransformer(str(exported), device="cpu").encode(texts), ours, atol=1e-6)
    base = SentenceTransformer(str(tiny_model), device="cpu")
    loaded = learned.load()
    assert loaded.prompts == base.prompts
    assert loaded.max_seq_length == base.max_seq_length
    assert [type(module) for module in loaded] == [type(module) for module in base]
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1.0, atol=1e-5)
    assert np.abs(ours - base.encode(texts)).max() > 1e-3
    version = learned.version()
    start = learned.registry.path(learned.version("v1").path)
    adapter = learned.registry.path(version.adapter or "")
    assert PeftModel.from_pretrained(AutoModel.from_pretrained(start), adapter).peft_config


def test_a_base_in_half_precision_becomes_fp32(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer

    half = SentenceTransformer(str(tiny_model), device="cpu").half()
    half.save_pretrained(str(tmp_path / "half"))
    assert {str(t.dtype) for t in load_file(tmp_path / "half" / "model.safetensors").values()} == {"torch.float16"}
    workspace = Workspace.init(tmp_path / "w", str(tmp_path / "half"))
    exported = SentenceTransformer(str(workspace.export("v0", tmp_path / "out").directory), device="cpu")
    texts = [str(row["positive"]) for row in make_pairs(20)]
    np.testing.assert_allclose(exported.encode(texts), workspace.load().encode(texts), atol=1e-6)
    assert exported.encode(texts).dtype == np.float32


def test_export_never_overwrites(learned: Workspace, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        learned.export("v1", tmp_path / "full")
    with pytest.raises(NotFoundError, match="There is no version 'v9'"):
        learned.export("v9", tmp_path / "new")
