"""Try out a base model before anything is learned: padding, maximum length, vocabulary, LoRA, fold and merge.

A base that fails here would fail in an update, after hours of training.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from continual.errors import FoldError, ModelError
from continual.merge.engine import merge_models
from continual.merge.methods import find_method
from continual.merge.sources import Model
from continual.models.complete import difference, name_some
from continual.models.encoder import inner_transformer, load_encoder
from continual.models.folder import INDEX, read_modules
from continual.models.weights import weights_sha256
from continual.storage.files import remove, scratch
from continual.train.lora import attach, fold, prove_fold, save_adapter
from continual.train.similarity import similarity_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel

_logger = logging.getLogger(__name__)

_WORDS = "how do I find out which of these two documents answers my question"
_LONGEST = 600
"""Words of the long text: more tokens than the usual 512 positions, and encoded in a moment."""
_TOLERANCE = 1e-3
"""Largest allowed difference between the embeddings of a text alone and in a batch, relative to their norm."""
_ROLES = ("pad", "unk", "cls", "sep", "bos", "eos")
"""Roles of tokens that a tokenizer puts into texts by itself."""


def preflight(folder: Path, name: str, *, trust_remote_code: bool) -> None:
    """Check that a model can be encoded with, trained, folded and merged.

    Its weights are first stored under the names that transformers gives them when it loads the model, if these differ.

    Args:
        folder: A sentence-transformers folder with fp32 weights, which may be renamed.
        name: Name of the model for warnings.
        trust_remote_code: Run code that the model brings with it.

    Raises:
        ModelError: One of these fails; the message says which, why, and what to do.
    """
    model = load_encoder(folder, trust_remote_code=trust_remote_code)
    similarity_of(model, folder=folder)  # raises if there is no loss for it
    _check_vocabulary(model, folder, name)
    _check_length(model, folder)
    _check_padding(model, folder)
    model = _store_loaded_names(model, folder, name, trust_remote_code)
    _check_training(model, folder, trust_remote_code)


def _check_vocabulary(model: SentenceTransformer, folder: Path, name: str) -> None:
    """Check that there is a padding token, and a row of the embedding matrix for every token."""
    tokenizer: Any = model.tokenizer
    inner = inner_transformer(model)
    if tokenizer is None or tokenizer.pad_token_id is None:
        raise ModelError(
            f"The tokenizer of {folder} has no padding token, so texts of different lengths cannot share a batch. Set "
            "pad_token in its tokenizer_config.json to a token of the vocabulary that the model was trained to ignore, "
            "or choose another model."
        )
    rows = getattr(inner.get_input_embeddings(), "num_embeddings", None)
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if rows and number >= rows}
    if not beyond:
        return
    some = name_some([f"{token!r} ({number})" for token, number in beyond.items()])
    used = {getattr(tokenizer, f"{role}_token_id", None) for role in _ROLES}
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    if set(beyond.values()) <= special - used:
        _logger.warning(
            "The tokenizer of %s has special tokens without a row in the embedding matrix of %d rows: %s. A text that "
            "contains one cannot be encoded.",
            name,
            rows,
            some,
        )
        return
    raise ModelError(
        f"The tokenizer of {folder} has tokens beyond the {rows:,} rows of the embedding matrix: {some}. Texts with "
        "them cannot be encoded. Use the tokenizer that the model was trained with, or call "
        "`model[0].auto_model.resize_token_embeddings(...)`, train the new rows, and save the model again."
    )


def _check_length(model: SentenceTransformer, folder: Path) -> None:
    """Check that texts are cut before the positions run out."""
    inner, longest = inner_transformer(model), model.max_seq_length
    for name, module in inner.named_modules():
        if not isinstance(module, nn.Embedding) or name.rpartition(".")[2] not in ("position_embeddings", "wpe"):
            continue
        # With a padding index, as in RoBERTa, the first position comes after it.
        first = 0 if module.padding_idx is None else module.padding_idx + 1
        limit = module.num_embeddings - first
        if longest is None or longest > limit:
            raise ModelError(
                f"{folder} {'has no maximum length' if longest is None else f'cuts texts at {longest} tokens'}, but "
                f"has positions for {limit} tokens, so longer texts cannot be encoded. Set "
                f'"max_seq_length": {limit} in its sentence_bert_config.json.'
            )


def _check_padding(model: SentenceTransformer, folder: Path) -> None:
    """Check that a short and an over-long text have the same embeddings alone and in one padded batch."""
    short, long = _WORDS, " ".join([_WORDS] * (_LONGEST // len(_WORDS.split()) + 1))
    try:
        alone = torch.stack([_encode(model, [text])[0] for text in (short, long)])
        together = _encode(model, [short, long])
    except (IndexError, RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ModelError(
            f"{folder} cannot encode a short text and a long one in a batch: {reason.rstrip('.')}. Check its padding "
            "token and its maximum length, or choose another model."
        ) from error
    if not bool(alone.isfinite().all() and together.isfinite().all()):
        raise ModelError(
            f"{folder} gives embeddings that are infinite or not a number. Its weights are damaged, or overflow: copy "
            "the model again, or choose another one."
        )
    apart = float((alone - together).abs().max() / alone.norm(dim=-1).max())
    if not apart <= _TOLERANCE:
        raise ModelError(
            f"{folder} encodes a text differently alone and padded in a batch: the embeddings differ by {apart:.2g}, "
            f"but at most {_TOLERANCE:g} is allowed. Check its padding token, padding side and pooling, or choose "
            "another model."
        )


def _store_loaded_names(
    model: SentenceTransformer, folder: Path, name: str, trust_remote_code: bool
) -> SentenceTransformer:
    """Store the weights under their names in the loaded model, which LoRA uses, if transformers converts them.

    Returns:
        The model, loaded again if its weights were stored again.
    """
    inner = inner_transformer(model)
    found = difference(inner, folder)
    if found.ignored:
        _logger.warning(
            "%s stores %d tensors beside its encoder, which are not used: %s.",
            name,
            len(found.ignored),
            name_some(found.ignored),
        )
    if not found.renamed:
        return model
    before, place = _encode(model, [_WORDS]), folder / read_modules(folder)[0].path
    with scratch(folder.parent, "renamed") as temporary:
        _save_weights(inner, temporary)
        for path in [*place.glob("*.safetensors"), *place.glob(INDEX)]:
            remove(path)
        for path in [*temporary.glob("*.safetensors"), *temporary.glob(INDEX)]:
            path.rename(place / path.name)
    again = load_encoder(folder, trust_remote_code=trust_remote_code)
    if difference(inner_transformer(again), folder).renamed or not torch.equal(_encode(again, [_WORDS]), before):
        raise ModelError(
            f"transformers converts the weights of {folder} as it loads them, and does not load its own result as the "
            "same model, so an update could not be folded in. Choose another model."
        )
    _logger.warning("The weights of %s are stored in v0 under the names that transformers converts them to.", name)
    return again


def _save_weights(inner: PreTrainedModel, folder: Path) -> None:
    from continual.models.encoder import quiet

    with quiet():
        inner.save_pretrained(str(folder), save_original_format=False)


def _check_training(model: SentenceTransformer, folder: Path, trust_remote_code: bool) -> None:
    """Check that a LoRA can be attached and folded, and that the folded model merged with itself is itself."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in attach(model, 2, 4, seed=0):
        if "lora_B" in name:  # zero at the start, so it would change nothing
            parameter.data.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
    with scratch(folder.parent, "preflight") as temporary:
        adapter, folded, merged = (temporary / name for name in ("adapter", "folded", "merged"))
        save_adapter(model, weights_sha256(folder), adapter)
        del model
        fold(folder, adapter, folded)
        try:
            prove_fold(folder, adapter, folded, [_WORDS, "a"], trust_remote_code=trust_remote_code)
        except FoldError as error:
            raise ModelError(
                f"{folder} cannot be trained with LoRA: once folded into the weights, a trial adapter gives other "
                "embeddings than peft computes with it. Choose another model."
            ) from error
        merge_models([Model(folded), Model(folded)], find_method("linear"), merged, weights=[0.5, 0.5])
        if weights_sha256(merged) != weights_sha256(folded):
            raise ModelError(f"{folder} merged with itself is another model. Choose another model.")


def _encode(model: SentenceTransformer, texts: list[str]) -> torch.Tensor:
    return torch.as_tensor(model.encode(texts, show_progress_bar=False)).float().cpu()
