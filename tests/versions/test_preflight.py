"""A base that cannot be padded, cut, trained or folded is refused by `init`, before anything is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from continual import Workspace
from continual.errors import ModelError
from continual.models.complete import stored_names
from continual.models.weights import weights_sha256
from tests.models.zoo import SPECIAL, make_model
from tests.rows import WORDS, Write, make_pairs
from tests.workspaces import make_workspace


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bert", {"tokenizer": {"pad_token": None}}, "has no padding token"),
        ("bert", {"vocab_size": len(SPECIAL) + len(WORDS) - 1}, rf"'{WORDS[-1]}' \(\d+\)"),
        ("roberta", {"max_seq_length": None}, '"max_seq_length": 63'),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 2, "eos_token_id": 3}, "Conv1D"),
        ("bert", {"tokenizer": {"model_input_names": ["input_ids"]}}, "differently alone and padded"),
    ],
    ids=["no-padding-token", "tokens-beyond-the-matrix", "roberta", "conv1d", "no-attention-mask"],
)
def test_a_base_that_an_update_cannot_use_is_refused(
    tmp_path: Path, kind: str, options: dict[str, Any], message: str
) -> None:
    base = make_model(tmp_path, kind, **options)
    with pytest.raises(ModelError, match=message) as caught:
        Workspace.init(tmp_path / "w", str(base))
    assert str(tmp_path / "w") not in str(caught.value)  # it names the base, not a temporary copy
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("kind", ["roberta", "mpnet", "distilbert", "qwen3", "t5"])
def test_other_architectures_are_accepted_as_they_are(tmp_path: Path, kind: str) -> None:
    sizes: dict[str, dict[str, Any]] = {
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
        "qwen3": {"pooling": "lasttoken", "num_key_value_heads": 2, "head_dim": 8},
        "t5": {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4},
    }
    base = make_model(tmp_path, kind, **sizes.get(kind, {}))
    workspace = Workspace.init(tmp_path / "w", str(base))
    assert workspace.version().sha256 == weights_sha256(base)
    assert [path.name for path in (tmp_path / "w" / ".continual" / "versions").iterdir()] == ["v0"]


def test_special_tokens_that_no_text_has_may_lack_a_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = make_model(tmp_path, "bert")
    model = SentenceTransformer(str(base), device="cpu")
    model.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    model.tokenizer.save_pretrained(str(base))
    Workspace.init(tmp_path / "w", str(base))
    assert any("<image>" in record.getMessage() for record in caplog.records)


def test_the_head_of_a_language_model_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    base = make_model(tmp_path, "bert")
    file = base / "model.safetensors"
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(file).items()}
    tensors["cls.predictions.bias"] = tensors["bert.pooler.dense.bias"].clone()
    save_file(tensors, file, {"format": "pt"})
    Workspace.init(tmp_path / "w", str(base))
    (record,) = caplog.records
    assert f"{base} stores 1 tensors" in record.getMessage()
    assert "cls.predictions.bias" in record.getMessage()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nomic_bert", "gte"])
def test_weights_that_transformers_converts_are_stored_converted(
    tmp_path: Path, write_pairs: Write, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    pytest.importorskip(f"transformers.models.{kind}")
    base = make_model(tmp_path, kind)
    assert not any("q_proj" in name for name in stored_names(base))
    workspace = make_workspace(tmp_path / "w", base)
    assert any("under the names" in record.getMessage() for record in caplog.records)
    root = workspace.registry.path(workspace.version().path)
    assert any("q_proj" in name for name in stored_names(root))
    texts = [" ".join(WORDS[:5]), WORDS[7]]
    expected = SentenceTransformer(str(base), device="cpu").encode(texts)
    np.testing.assert_array_equal(SentenceTransformer(str(root), device="cpu").encode(texts), expected)
    assert json.loads((root / "config.json").read_text())["model_type"] == kind
    workspace.ingest(write_pairs("a.parquet", make_pairs(40)))
    assert workspace.update().passed
    workspace.export("current", tmp_path / "out")
    assert not np.array_equal(SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(texts), expected)
