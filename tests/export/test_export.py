"""Exports: models that load everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from continual import Workspace
from continual.errors import (
    InputError,
    NotFoundError,
)
from continual.export.rounding import PLAIN_TEXTS
from continual.models.weights import weights_sha256
from continual.versions.dtypes import base_dtype, stored_dtype
from tests.commands import Run
from tests.rows import make_pairs
from tests.variants import variant


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


@pytest.mark.parametrize(("name", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_an_export_has_the_type_of_the_base_and_versions_are_fp32(
    tiny_model: Path, tmp_path: Path, run: Run, name: str, dtype: str
) -> None:
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformer

    base = variant(tiny_model, tmp_path / "base", dtype=dtype)
    tensors = load_file(base / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    buffer = tensors["embeddings.position_ids"] = torch.arange(64)[None]  # a buffer of integers
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    workspace = Workspace.init(tmp_path / "w", str(base))
    assert workspace.version("v0").provenance.dtype == name
    kept = load_file(workspace.registry.path("versions/v0") / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32, torch.int64}

    done = workspace.export("v0", tmp_path / "out")
    stored = load_file(done.directory / "model.safetensors")
    assert {tensor.dtype for key, tensor in stored.items() if key != "embeddings.position_ids"} == {
        getattr(torch, dtype)
    }
    torch.testing.assert_close(stored["embeddings.position_ids"], buffer)
    assert all(stored[key].equal(tensor) for key, tensor in tensors.items())  # what was rounded before loses nothing
    assert json.loads((done.directory / "config.json").read_text())["dtype"] == dtype
    assert done.sha256 == weights_sha256(done.directory) != workspace.version("v0").sha256
    loaded = SentenceTransformer(str(done.directory), device="cpu")
    assert loaded[0].auto_model.dtype == getattr(torch, dtype)
    exact = workspace.load()
    found = [torch.as_tensor(model.encode_query(PLAIN_TEXTS)).double() for model in (exact, loaded)]
    distance = float(1 - torch.nn.functional.cosine_similarity(*found, dim=-1).min())
    assert done.rounding is not None
    assert done.rounding.texts == len(PLAIN_TEXTS)
    assert 0 < done.rounding.largest < 1e-2
    assert done.rounding.largest == pytest.approx(distance, rel=1e-6)
    assert f"stored as {name}" in (done.directory / "README.md").read_text()

    where = ("-w", workspace.directory)
    said = run("export", "v0", "-o", tmp_path / "again", *where).out
    assert f"rounded from fp32 to {name}: on 4 texts" in said
    assert f"{distance:.1e}" in said
    data = json.loads(run("export", "v0", "-o", tmp_path / "json", "--dtype", "fp32", "--json", *where).out)
    assert (data["dtype"], data["rounding"], data["sha256"]) == ("fp32", None, workspace.version("v0").sha256)
    assert json.loads((tmp_path / "json" / "config.json").read_text())["dtype"] == "float32"
    small, large = ((tmp_path / each / "model.safetensors").stat().st_size for each in ("out", "json"))
    assert small < 0.6 * large


def test_a_base_in_fp32_is_exported_as_it_is_unless_asked(learned: Workspace, tmp_path: Path, run: Run) -> None:
    exact = learned.export("v1", tmp_path / "exact")
    assert (exact.dtype, exact.rounding, exact.sha256) == ("fp32", None, learned.version("v1").sha256)
    assert "stored as" not in (exact.directory / "README.md").read_text()
    half = learned.export("v1", tmp_path / "half", dtype="bf16")
    assert half.rounding is not None
    assert half.rounding.texts == 16  # learned queries
    refused = run("export", "v1", "-o", tmp_path / "no", "--dtype", "bf32", "-w", learned.directory)
    assert refused.code == 2
    assert "--dtype takes auto, fp32, bf16, fp16; not 'bf32'. Did you mean" in refused.err
    assert not (tmp_path / "no").exists()


def test_an_old_workspace_finds_the_type_of_its_base_where_it_is(tiny_model: Path, tmp_path: Path) -> None:
    base = variant(tiny_model, tmp_path / "base", dtype="bfloat16")
    root = Workspace.init(tmp_path / "w", str(base)).version("v0")
    old = replace(root, provenance=replace(root.provenance, dtype=None))
    assert base_dtype(old) == "bf16"
    assert base_dtype(replace(old, provenance=replace(old.provenance, base=str(tmp_path / "gone")))) == "fp32"
    assert stored_dtype(tiny_model) == "fp32"


def test_export_never_overwrites(learned: Workspace, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(InputError, match="not empty"):
        learned.export("v1", tmp_path / "full")
    with pytest.raises(NotFoundError, match="There is no version 'v9'"):
        learned.export("v9", tmp_path / "new")
