"""Filling an index and checking it: what is embedded, what is said of other models, and kills."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from continual import Workspace
from continual.errors import DataError, InputError
from continual.index.manifest import Manifest, describe, differences, require
from continual.index.vectors import MANIFEST, VectorFolder
from continual.models.encoder import load_encoder
from tests.kills import At, interrupt
from tests.rows import make_pairs

TEXTS = {f"d{number}": str(row["positive"]) for number, row in enumerate(make_pairs(60))}


def write(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in texts.items()))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "corpus.jsonl", TEXTS)


def stored(folder: Path) -> dict[str, np.ndarray]:
    return {
        name: vector
        for part in VectorFolder(folder).read()
        for name, vector in zip(part.ids, part.vectors, strict=True)
    }


def test_vectors_are_those_of_the_version_with_a_manifest(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    filled = workspace.fill_index(corpus, tmp_path / "index")
    assert (filled.count, filled.embedded, filled.unchanged, filled.removed) == (60, 60, 0, 0)
    folder = workspace.registry.path("versions/v0")
    expected = load_encoder(folder, device="cpu").encode_document([*TEXTS.values()], show_progress_bar=False)
    found = stored(tmp_path / "index")
    np.testing.assert_allclose(np.stack([found[name] for name in TEXTS]), expected, atol=1e-5)
    table = pq.read_table(tmp_path / "index", columns=["id", "text", "vector"])
    assert table.schema.field("vector").type.list_size == 32
    manifest = VectorFolder(tmp_path / "index").manifest()
    assert manifest is not None
    assert (manifest.version, manifest.count, manifest.query_prompt) == ("v0", 60, "query: ")
    assert manifest.encoding == describe(folder)[0]
    assert (manifest.encoding.dimension, manifest.encoding.normalised, manifest.encoding.max_length) == (32, True, 48)


def test_only_what_changed_is_embedded_again(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    workspace.fill_index(corpus, tmp_path / "index")
    before = stored(tmp_path / "index")
    changed = {name: text for name, text in TEXTS.items() if name != "d3"} | {"d5": "bal cem dis", "new": "fol gum"}
    filled = workspace.fill_index(write(corpus, changed), tmp_path / "index")
    assert (filled.count, filled.embedded, filled.unchanged, filled.removed) == (60, 2, 58, 1)
    after = stored(tmp_path / "index")
    assert after.keys() == changed.keys()
    assert len(pq.read_table(tmp_path / "index")) == 60, "no id is there twice"
    assert all(np.array_equal(after[name], before[name]) for name in before if name not in ("d3", "d5"))
    assert not np.array_equal(after["d5"], before["d5"])
    again = workspace.fill_index(corpus, tmp_path / "index")
    assert (again.embedded, again.unchanged) == (0, 60)


def test_a_fill_that_was_killed_goes_on_where_it_stopped(
    workspace: Workspace, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("continual.index.fill.PART", 10)
    with pytest.raises(KeyboardInterrupt):
        workspace.fill_index(corpus, tmp_path / "index", progress=At(interrupt, "embedding texts", 4))
    whole = len(stored(tmp_path / "index"))
    assert 0 < whole < 60
    with pytest.raises(DataError, match="holds no filled index"):
        workspace.check_index(tmp_path / "index")
    filled = workspace.fill_index(corpus, tmp_path / "index")
    assert (filled.embedded, filled.unchanged) == (60 - whole, whole)
    workspace.fill_index(corpus, tmp_path / "other")
    one, other = stored(tmp_path / "index"), stored(tmp_path / "other")
    assert one.keys() == other.keys()
    assert all(np.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_an_index_that_is_being_changed_does_not_count_as_filled(
    workspace: Workspace, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.fill_index(corpus, tmp_path / "index")
    monkeypatch.setattr("continual.index.fill.PART", 1)
    changed = write(tmp_path / "new.jsonl", TEXTS | {"d5": "bal cem dis", "d6": "fol gum"})
    with pytest.raises(KeyboardInterrupt):
        workspace.fill_index(changed, tmp_path / "index", progress=At(interrupt, "embedding texts", 2))
    with pytest.raises(DataError, match="holds no filled index"):
        workspace.check_index(tmp_path / "index")
    assert workspace.fill_index(changed, tmp_path / "index").count == 60
    assert len(pq.read_table(tmp_path / "index")) == 60
    for part in VectorFolder(tmp_path / "index").parts:
        part.unlink()
    with pytest.raises(DataError, match="a manifest and no vectors"):
        workspace.check_index(tmp_path / "index")


def test_vectors_of_two_models_are_not_mixed(learned: Workspace, corpus: Path, tmp_path: Path) -> None:
    learned.fill_index(corpus, tmp_path / "index", "v0")
    with pytest.raises(InputError, match=r"was filled by v0, and v2 embeds texts otherwise: the weights"):
        learned.fill_index(corpus, tmp_path / "index", "v2")
    assert learned.check_index(tmp_path / "index", "v0").verdict == "yes"
    other = learned.check_index(tmp_path / "index", "v2")
    assert other.verdict == "no"
    assert other.cosine is not None
    assert other.cosine < 0.9999


CHANGES: list[tuple[str, Any, str]] = [
    (
        "config_sentence_transformers.json",
        {"prompts": {"query": "query: ", "document": "d: "}},
        "the prompt of documents",
    ),
    ("config_sentence_transformers.json", {"truncate_dim": 16}, "the dimensions"),
    ("config_sentence_transformers.json", {"similarity_fn_name": "dot"}, "the similarity"),
    ("tokenizer_config.json", {"model_max_length": 20}, "the maximum length"),
]


@pytest.mark.parametrize(("file", "change", "said"), CHANGES)
def test_what_decides_a_vector_is_compared(
    file: str, change: dict[str, Any], said: str, workspace: Workspace, corpus: Path, tmp_path: Path
) -> None:
    workspace.fill_index(corpus, tmp_path / "index")
    manifest = VectorFolder(tmp_path / "index").manifest()
    assert manifest is not None
    model = tmp_path / "model"
    shutil.copytree(workspace.registry.path("versions/v0"), model)
    require(manifest, model)
    data = json.loads((model / file).read_text()) | change
    (model / file).write_text(json.dumps(data))
    (found,) = [each for each in differences(manifest, describe(model)[0]) if said in each]
    assert found
    with pytest.raises(InputError, match=f"filled by v0, and .* embeds texts otherwise: .*{said}"):
        require(manifest, model)


def test_a_model_without_normalisation_differs(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(workspace.registry.path("versions/v0"), model)
    modules = json.loads((model / "modules.json").read_text())
    (model / "modules.json").write_text(json.dumps(modules[:-1]))
    before, after = describe(workspace.registry.path("versions/v0"))[0], describe(model)[0]
    assert (before.normalised, after.normalised) == (True, False)


def test_vectors_that_are_not_what_the_manifest_says(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    workspace.fill_index(corpus, tmp_path / "index")
    (part,) = VectorFolder(tmp_path / "index").parts
    table = pq.read_table(part)
    wrong = table.set_column(3, table.schema.field(3), table["vector"].combine_chunks().take(list(range(59, -1, -1))))
    pq.write_table(wrong, part)
    assert workspace.check_index(tmp_path / "index").verdict == "unlike its manifest"
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    (tmp_path / "index" / MANIFEST).write_text('{"schema": 1}')
    with pytest.raises(DataError, match=r"manifest of .*_manifest\.json is damaged"):
        workspace.check_index(tmp_path / "index")


def test_sources_that_cannot_fill_an_index(workspace: Workspace, tmp_path: Path) -> None:
    twice = tmp_path / "twice.jsonl"
    twice.write_text('{"_id": "a", "text": "bal"}\n{"_id": "a", "text": "cem"}\n')
    with pytest.raises(DataError, match="has the id 'a' twice"):
        workspace.fill_index(twice, tmp_path / "index")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, but an index is a folder"):
        workspace.fill_index(twice, tmp_path / "file")
    (tmp_path / "texts.txt").write_text("bal cem\nbal cem\ndis\n")
    assert workspace.fill_index(tmp_path / "texts.txt", tmp_path / "by-hash").count == 2


def test_the_manifest_is_read_without_torch(workspace: Workspace, corpus: Path, tmp_path: Path) -> None:
    workspace.fill_index(corpus, tmp_path / "index")
    file, model = tmp_path / "index" / MANIFEST, workspace.registry.path("versions/v0")
    code = f"""
import sys
from pathlib import Path
from continual.index.manifest import Manifest, require
require(Manifest.from_json(Path({str(file)!r}).read_text(), "the index"), {str(model)!r})
assert not {{"torch", "transformers", "sentence_transformers"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_commands_fill_and_check(learned: Workspace, corpus: Path, tmp_path: Path, run: Any) -> None:
    done = run("index", "fill", corpus, tmp_path / "index", "--version", "v1", "-w", learned.directory)
    assert done.code == 0, done.err
    assert "60 texts by v1" in done.out
    done = run("index", "check", tmp_path / "index", "v1", "-w", learned.directory)
    assert (done.code, done.out.startswith("Yes: v1 embeds as v1 did")) == (0, True)
    done = run("index", "check", tmp_path / "index", "-w", learned.directory)
    assert done.code == 2
    assert "No: v1 filled the index, and v2 embeds otherwise: the weights" in done.out.replace("\n", " ")
    assert (
        json.loads(run("index", "check", tmp_path / "index", "--json", "-w", learned.directory).out)["verdict"] == "no"
    )
    assert Manifest.from_json((tmp_path / "index" / MANIFEST).read_text(), "here").version == "v1"
