"""The header of a safetensors file: what the format forbids is refused, as the safetensors library does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from continual.errors import ModelError
from continual.merge.folders import merge_folders
from continual.models.tensors import read_header

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
    "b": {"dtype": "F32", "shape": [8], "data_offsets": [32, 64]},
}


def write(path: Path, header: object, size: int = 64) -> Path:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(size)))
    return path


def with_b(**changes: Any) -> dict[str, Any]:
    return {"a": GOOD["a"], "b": GOOD["b"] | changes}


TWICE = json.dumps(GOOD)[:-1] + ', "a": {"dtype": "F32", "shape": [0], "data_offsets": [64, 64]}}'

BAD = {
    "negative": with_b(data_offsets=[-32, 0]),
    "negative-shape": with_b(shape=[-2, -4]),
    "overlap": with_b(data_offsets=[16, 48]),
    "same place": with_b(data_offsets=[0, 32]),
    "gap": with_b(data_offsets=[33, 65]),
    "beyond": with_b(shape=[9], data_offsets=[32, 68]),
    "short": with_b(shape=[7], data_offsets=[32, 60]),
    "backwards": with_b(data_offsets=[64, 32]),
    "float shape": with_b(shape=[8.0]),
    "true shape": with_b(shape=[8, True]),
    "text shape": with_b(shape="8"),
    "no shape": {"a": GOOD["a"], "b": {"dtype": "F32", "data_offsets": [32, 64]}},
    "shape of another size": with_b(shape=[4]),
    "huge": with_b(shape=[0, 2**63, 2**63], data_offsets=[32, 32]),
    "float offsets": with_b(data_offsets=[32.0, 64.0]),
    "three offsets": with_b(data_offsets=[32, 48, 64]),
    "unknown dtype": with_b(dtype="F31"),
    "dtype list": with_b(dtype=["F32"]),
    "tensor is a list": {"a": GOOD["a"], "b": [32, 64]},
    "metadata": GOOD | {"__metadata__": {"format": 3}},
    "list": [1],
    "nested": '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_the_format_forbids_is_refused(kind: str, tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", BAD[kind])
    with pytest.raises((SafetensorError, OverflowError)), safe_open(path, "pt") as file:
        file.get_tensor("b")
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        read_header(path)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives a name twice"):
        read_header(write(tmp_path / "model.safetensors", TWICE))


def test_a_header_longer_than_its_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (10**6, 10**9, 2**64 - 1):
        path.write_bytes(length.to_bytes(8, "little") + b"{}")
        with pytest.raises(ModelError, match="impossible length"):
            read_header(path)


def test_what_the_format_allows_is_read(tmp_path: Path) -> None:
    tensors = {"scalar": torch.tensor(3.0), "empty": torch.zeros(0, 4), "half": torch.ones(3, dtype=torch.float16)}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    entries, metadata = read_header(tmp_path / "model.safetensors")
    assert metadata == {"format": "pt"}
    for name, tensor in tensors.items():
        assert torch.equal(entries[name].read(), tensor)
    assert list(read_header(write(tmp_path / "good", GOOD))[0]) == ["a", "b"]


@pytest.mark.parametrize("move", [-64, 64])
def test_no_model_is_made_of_a_file_whose_tensors_are_elsewhere(tiny_model: Path, tmp_path: Path, move: int) -> None:
    broken = Path(shutil.copytree(tiny_model, tmp_path / "broken"))
    file = broken / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = "embeddings.LayerNorm.bias"
    header[name]["data_offsets"] = [offset + move for offset in header[name]["data_offsets"]]
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(ModelError, match="cannot be read as safetensors"):
        merge_folders([tiny_model, broken], tmp_path / "out")
    assert not (tmp_path / "out").exists()
