"""Loading models, refusing what is none, and tokenising as the model itself does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from continual.errors import ModelError
from continual.models.base import PACKAGED, resolve_base
from continual.models.encoder import embed, encoding_prompts, inner_transformer, load_encoder
from continual.models.folder import start_key
from continual.models.precision import resolve_precision
from continual.train.rows import TrainingRows, read_rows

ROWS = {
    "query": ["bal cem", "bal cem dis", "bal  cem"],
    "positive": ["fol gum haj bal cem dis " * 20, "kil lom", "fol gum"],
    "negatives": [["kil lom"], [], ["nan per", "rin sos", "tul van"]],
    "doc_id": ["a", None, "a"],
    "domain": ["x", "y", "x"],
}


def table() -> pa.Table:
    return pa.table(
        ROWS,
        schema=pa.schema(
            [(c, pa.string()) for c in ("query", "positive")]
            + [("negatives", pa.list_(pa.string())), ("doc_id", pa.string()), ("domain", pa.string())]
        ),
    )


def encoded(rows: TrainingRows, texts: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return embed(rows.tokens.model, rows.tokens.features(texts, torch.device("cpu"))).numpy()


def test_the_packaged_base_is_found_and_is_fp32() -> None:
    model = load_encoder(PACKAGED, device="cpu")
    assert model.get_embedding_dimension() == 384
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_stored_in_half_precision_is_loaded_as_fp32(tiny_model: Path, tmp_path: Path) -> None:
    model = load_encoder(tiny_model, device="cpu").bfloat16()
    model.save_pretrained(str(tmp_path / "half"))
    assert inner_transformer(load_encoder(tmp_path / "half", device="cpu")).dtype == torch.float32


def test_what_cannot_be_read_is_named(tiny_model: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = next(broken.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be loaded as a sentence-transformers model"):
        load_encoder(broken, device="cpu")
    with pytest.raises(ModelError, match=r"modules\.json"):
        load_encoder(tmp_path, device="cpu")


def test_a_model_without_a_transformer_is_refused() -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import BoW

    with pytest.raises(ModelError, match="BoW"):
        inner_transformer(SentenceTransformer(modules=[BoW(["bal"])], device="cpu"))


@pytest.mark.parametrize("include_prompt", [True, False])
def test_tokens_give_the_embeddings_of_the_model_itself(tiny_model: Path, include_prompt: bool) -> None:
    model = load_encoder(tiny_model, device="cpu")
    model.prompts = {"query": "query: ", "passage": "some doc: "}
    model.set_pooling_include_prompt(include_prompt)
    assert encoding_prompts(model) == ("query: ", "some doc: ")
    rows = read_rows(table(), model, 512, 2)
    assert model.max_seq_length == 48  # the model's own limit
    assert set(rows.tokens.groups) == ({0} if include_prompt else {0, 1})
    np.testing.assert_allclose(encoded(rows, rows.query), model.encode_query(ROWS["query"]), atol=1e-6)
    np.testing.assert_allclose(encoded(rows, rows.positive), model.encode_document(ROWS["positive"]), atol=1e-6)
    given = model.encode_document(["kil lom", "nan per", "rin sos"])
    np.testing.assert_allclose(encoded(rows, rows.given(np.arange(3))), given, atol=1e-6)


def test_padding_on_the_left(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    model.tokenizer.padding_side = "left"
    rows = read_rows(table(), model, 16, 0)
    features = rows.tokens.features(rows.positive, torch.device("cpu"))
    theirs = model.preprocess(ROWS["positive"])
    assert torch.equal(features["input_ids"], theirs["input_ids"])
    assert torch.equal(features["attention_mask"], theirs["attention_mask"])
    assert features["input_ids"].shape[1] == 16


def test_each_distinct_text_is_tokenised_once(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    model.prompts = {}
    rows = read_rows(table(), model, 48, 3)
    distinct = set(ROWS["query"]) | set(ROWS["positive"]) | {text for texts in ROWS["negatives"] for text in texts}
    assert len(rows.tokens.lengths) == len(distinct)
    assert rows.query[0] != rows.query[2]
    assert rows.same[rows.query[0]] == rows.same[rows.query[2]]  # equal but for white space
    assert rows.document[0] == rows.document[2] >= 0 > rows.document[1]
    assert rows.domains.tolist() == [0, 1, 0]
    assert rows.digest == read_rows(table(), model, 48, 3).digest
    assert rows.digest != read_rows(table().take([1, 0, 2]), model, 48, 3).digest


def test_prompts_follow_encode_query_and_encode_document(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    assert encoding_prompts(model) == ("query: ", None)
    model.prompts, model.default_prompt_name = {"all": "x "}, "all"
    assert encoding_prompts(model) == ("x ", "x ")


def test_bf16_is_used_where_the_hardware_computes_in_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpu = torch.device("cpu")
    cpuinfo.write_text("flags\t\t: fpu avx512f avx512_vnni\n")
    assert resolve_precision("auto", cpu, cpuinfo) == "fp32"
    assert resolve_precision("bf16", cpu, cpuinfo) == "bf16"
    cpuinfo.write_text("flags\t\t: fpu avx512f amx_bf16 amx_tile\n")
    assert resolve_precision("auto", cpu, cpuinfo) == "bf16"
    assert resolve_precision("fp32", cpu, cpuinfo) == "fp32"
    assert resolve_precision("auto", cpu, tmp_path / "none") == "fp32"
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


def test_the_packaged_base_has_its_modules() -> None:
    assert json.loads((resolve_base(PACKAGED) / "modules.json").read_text())[0]["type"].endswith("Transformer")


def test_two_domains_may_give_one_id_to_different_documents(tiny_model: Path) -> None:
    model = load_encoder(tiny_model, device="cpu")
    rows = {name: 2 * values for name, values in ROWS.items()} | {"domain": ["a"] * 3 + ["b"] * 3}
    found = read_rows(pa.table(rows, schema=table().schema), model, 48, 0).document.tolist()
    assert [found[place] == found[other] for place, other in ((0, 2), (3, 5), (0, 3))] == [True, True, False]
    assert found[1] == found[4] == -1


def test_models_that_compare_otherwise_are_other_starts(tmp_path: Path) -> None:
    found = set()
    for place, settings in enumerate(({}, {"similarity_fn_name": "dot"}, {"truncate_dim": 8}, {"truncate_dim": 16})):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
        found.add(start_key(folder, "abc"))
    assert len(found) == 4
    (folder / "config_sentence_transformers.json").write_text('{"similarity_fn_name": "cosine", "truncate_dim": null}')
    assert start_key(folder, "abc") == start_key(tmp_path, "abc") == "abc"
