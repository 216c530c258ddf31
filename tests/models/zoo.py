"""Tiny random models of other architectures, as sentence-transformers folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from tests.rows import WORDS

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def make_model(
    folder: Path,
    kind: str,
    *,
    max_seq_length: int | None = 48,
    pooling: str = "mean",
    tokenizer: dict[str, Any] | None = None,
    vocabulary: list[str] | None = None,
    **settings: Any,
) -> Path:
    """Save a random model.

    Args:
        folder: The folder to create.
        kind: A model type of transformers, such as "roberta".
        max_seq_length: None leaves it to the library.
        pooling: The pooling mode.
        tokenizer: Special tokens of the tokenizer.
        vocabulary: Its tokens.
        **settings: Of the configuration; None removes one of `SIZES`.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel

    tokens = {word: index for index, word in enumerate(vocabulary or [*SPECIAL, *WORDS])}
    backend = Tokenizer(models.WordLevel(tokens, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", tokens["[CLS]"]), ("[SEP]", tokens["[SEP]"])]
    )
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    chosen = {role: token for role, token in (roles | (tokenizer or {})).items() if token is not None}
    options = {name: value for name, value in (SIZES | settings).items() if value is not None}
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **options))
    model.save_pretrained(str(folder / "inner"))
    PreTrainedTokenizerFast(tokenizer_object=backend, **chosen).save_pretrained(str(folder / "inner"))
    transformer = Transformer(str(folder / "inner"), max_seq_length=max_seq_length)
    width = transformer.get_embedding_dimension()
    built = SentenceTransformer(modules=[transformer, Pooling(width, pooling_mode=pooling)], device="cpu")
    built.save_pretrained(str(folder / "model"))
    return folder / "model"
