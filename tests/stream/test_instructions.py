"""Instructions of domains: before their queries, and no other text, in training, evaluation and service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers import SentenceTransformer

from continual import Workspace
from continual.config import TrainConfig
from continual.errors import InputError, InvalidNameError
from continual.models.folder import prompt_names
from continual.models.weights import weights_sha256
from continual.registry import Provenance
from continual.train.candidates import embed_pairs
from continual.train.objective import Objective
from continual.train.step import open_session
from continual.train.team import Team
from continual.versions.build import merge_members
from tests.rows import SCHEMA, Write, make_pairs

SAYS = "zat zot zil"
PROMPT = f"Instruct: {SAYS}\nQuery: "
CPU = torch.device("cpu")
SETTINGS = """
[train]
epochs = 1
batch_size = 16
max_length = 32
lora_rank = 4
[gate]
max_forgetting = 100
max_ood_loss = 100
min_gain = -100
"""


def table(told: list[bool]) -> pa.Table:
    rows = [pair | {"domain": f"d{int(each)}"} for pair, each in zip(make_pairs(len(told)), told, strict=True)]
    column = pa.array([SAYS if each else None for each in told], pa.string())
    return pa.Table.from_pylist(rows, SCHEMA).append_column("instruction", column)


def test_training_and_the_search_encode_what_is_served(tiny_model: Path) -> None:
    told = [True, False, True, False, True, True]
    config = TrainConfig(distillation=0, guide_margin="off", precision="fp32", max_negatives=0, mix_domains=True)
    opened = open_session(tiny_model, table(told), config, seed=0, team=Team(0, 1, CPU))
    loss, _ = opened.backward(np.arange(6))
    rows, model = table(told).to_pylist(), SentenceTransformer(str(tiny_model), device="cpu")
    queries = np.stack(
        [
            model.encode_query(row["query"], prompt=PROMPT) if each else model.encode_query(row["query"])
            for row, each in zip(rows, told, strict=True)
        ]
    )
    documents = model.encode_document([row["positive"] for row in rows])
    scores = queries.astype(np.float64) @ documents.T / config.temperature
    expected = np.logaddexp.reduce(scores, axis=1) - np.diag(scores)
    assert loss == pytest.approx(expected.mean(), abs=1e-4)
    unlike = model.encode_query(rows[0]["query"]) @ documents[0] / config.temperature
    assert abs(unlike - scores[0, 0]) > 1e-3, "or the test would not see the prompt"

    found, positives, _ = embed_pairs(tiny_model, table(told), config)
    np.testing.assert_allclose(found, queries, atol=1e-5)
    np.testing.assert_allclose(positives, documents, atol=1e-5)
    objective = Objective(tiny_model, table([True] * 4), config, device=CPU)
    (searched,) = objective.evaluate(objective.parameters()).values()
    trained = open_session(tiny_model, table([True] * 4), config, seed=0, team=Team(0, 1, CPU))
    assert searched == pytest.approx(trained.backward(objective.batches["d1"][0])[0], abs=1e-5)


def test_rows_without_an_instruction_are_those_of_before_there_were_any(tiny_model: Path) -> None:
    config = TrainConfig(max_length=32)
    plain = table([False] * 5)
    digests = [
        open_session(tiny_model, each, config, seed=0, team=Team(0, 1, CPU)).rows.digest
        for each in (plain, plain.drop_columns(["instruction"]), table([False] * 4 + [True]))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_map_is_fitted_on_queries_with_their_instructions(tiny_model: Path) -> None:
    from continual.eval.encoder import OnceEncoder
    from continual.index.rows import _vectors

    found = _vectors(OnceEncoder(tiny_model, "v0", "x"), ["bat", "bet", "bit"], [SAYS, None, SAYS])
    model = SentenceTransformer(str(tiny_model), device="cpu")
    expected = [
        model.encode_query("bat", prompt=PROMPT),
        model.encode_query("bet"),
        model.encode_query("bit", prompt=PROMPT),
    ]
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("method", ["linear", "opcm"])
def test_a_recipe_s_merge_has_the_prompts_of_all_that_it_learned(tiny_model: Path, tmp_path: Path, method: str) -> None:
    for name, instructions in {"plain": {}, "told": {"one": SAYS, "two": "bat"}}.items():
        provenance = Provenance(merge=method, weights=[1.0, 1.0], instructions=instructions)
        merge_members("v3", provenance, [tiny_model, tiny_model], tiny_model, tmp_path / name)
    own = prompt_names(tiny_model)
    assert prompt_names(tmp_path / "plain") == own
    assert prompt_names(tmp_path / "told") == [*own, "one", "two"]
    assert weights_sha256(tmp_path / "told") == weights_sha256(tmp_path / "plain")


@pytest.mark.slow
def test_a_domain_with_an_instruction_from_its_file_to_its_card(
    tiny_model: Path, tmp_path: Path, write_pairs: Write
) -> None:
    Workspace.init(tmp_path / "w", str(tiny_model))
    (tmp_path / "w" / "continual.toml").write_text(SETTINGS)
    workspace = Workspace(tmp_path / "w")
    source = write_pairs("told.parquet", make_pairs(80))
    workspace.ingest(source, instruction=f" {SAYS} ")
    more = write_pairs("more.parquet", make_pairs(10, seed=8))
    with pytest.raises(InputError, match=f"has the instruction '{SAYS}'.*Leave --instruction out"):
        workspace.ingest(more, domain="told", instruction="another")
    with pytest.raises(InputError, match="--instruction takes a sentence"):
        workspace.ingest(more, domain="new", instruction="two\nlines")
    with pytest.raises(InvalidNameError, match="already has a prompt 'query'"):
        workspace.ingest(more, domain="query", instruction=SAYS)
    assert workspace.ingest(source, domain="told", instruction=SAYS).unchanged
    first = workspace.update()
    workspace.ingest(write_pairs("plain.parquet", make_pairs(80, seed=1)))
    with pytest.raises(InputError, match="has no instruction"):
        workspace.ingest(more, domain="plain", instruction=SAYS)
    step = workspace.update(replay=0.5)
    assert step.spec.provenance.instructions == first.spec.provenance.instructions == {"told": SAYS}
    registry = workspace.registry
    assert [domain.instruction for domain in registry.domains()] == [SAYS, None]
    assert {task.name: task.instruction for task in registry.tasks()} == {"told": SAYS, "plain": None}

    settings = {(score.version, score.task): score.settings for score in registry.all_scores()}
    assert {version for version, _ in settings} == {"v0", "v1", "v2"}
    assert all(("instruction" in found) == (task == "told") for (_, task), found in settings.items())
    assert step.index is not None
    measured = {task.task: task.new_on_new for task in step.index.tasks}
    assert measured == pytest.approx({name: score.score for name, score in step.scores.items()}, abs=1e-6)

    model = SentenceTransformer(str(registry.path("versions/v2")), device="cpu")
    base = SentenceTransformer(str(tiny_model), device="cpu")
    assert model.prompts == base.prompts | {"told": PROMPT}
    assert np.array_equal(model.encode("bat", prompt_name="told"), model.encode("bat", prompt=PROMPT))
    assert np.array_equal(model.encode_query("bat"), model.encode_query("bat", prompt=base.prompts["query"]))
    config = registry.path("versions/v2/config_sentence_transformers.json")
    before = config.read_bytes()
    config.unlink()
    workspace.rebuild("v2")
    assert config.read_bytes() == before
    assert json.loads(before)["prompts"]["told"] == PROMPT

    out = workspace.export("v2", tmp_path / "out").directory
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"| `told` | `{SAYS}` |" in card
    assert SentenceTransformer(str(out), device="cpu").prompts["told"] == PROMPT
