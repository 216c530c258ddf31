"""Training rows as arrays: token ids of every distinct text, and integer codes for equal texts and documents."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from continual.models.encoder import encoding_prompts
from continual.progress import SILENT, Progress
from continual.registry import Cuts
from continual.registry.records import INSTRUCTED
from continual.registry.text import normalise
from continual.train.batching import Indices
from continual.train.losses import false_negatives, only_given

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_CHUNK = 512  # texts per call of the tokenizer
_PER_TOKEN = ("input_ids", "token_type_ids")

_PromptGroup = tuple[list[str], str | None, str]
"""Distinct texts that are encoded with one prompt, the prompt, and the task, "query" or "document"."""


class Tokens:
    """Token ids of many texts, stored without padding.

    Attributes:
        lengths: Number of tokens of each text, [texts].
        groups: Group code of each text, [texts]. Only texts of one group can be encoded together.
        cut: Whether each text was cut at the model's maximum length, [texts], bool.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.lengths: Indices = np.zeros(0, np.int64)
        self.groups: Indices = np.zeros(0, np.int64)
        self.cut: NDArray[np.bool_] = np.zeros(0, bool)
        self._starts: Indices = np.zeros(1, np.int64)
        self._flat: dict[str, NDArray[np.int32]] = {}
        self._constants: list[dict[str, Any]] = []
        tokenizer = model.tokenizer
        self._left = getattr(tokenizer, "padding_side", "right") == "left"
        self._pads = {
            "input_ids": getattr(tokenizer, "pad_token_id", None) or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", None) or 0,
        }

    def add(self, texts: list[str], prompt: str | None, task: str, progress: Progress = SILENT) -> None:
        """Tokenise texts as the model's `encode` does, with prompt and truncation.

        Args:
            texts: At least one text.
            prompt: Text to put before each text.
            task: "query" or "document".
            progress: Advanced by the number of texts; not started or finished here.
        """
        lengths, cut = [self.lengths], [self.cut]
        flat: dict[str, list[NDArray[np.int32]]] = {name: [kept] for name, kept in self._flat.items()}
        constants: dict[str, Any] = {}
        for start in range(0, len(texts), _CHUNK):
            features = self.model.preprocess(texts[start : start + _CHUNK], prompt=prompt, task=task)
            mask = features["attention_mask"].numpy().astype(bool)  # [texts, tokens]
            lengths.append(mask.sum(axis=1))
            cut.append(_cut(features, lengths[-1], self.model.max_seq_length))
            for name in _PER_TOKEN:
                if name in features:
                    flat.setdefault(name, []).append(features[name].numpy()[mask].astype(np.int32))
            constants = constant_features(self.model, features)
            progress.advance(len(texts[start : start + _CHUNK]))
        if constants not in self._constants:
            self._constants.append(constants)
        group = self._constants.index(constants)
        self.groups = np.concatenate([self.groups, np.full(len(texts), group)])
        self.lengths, self.cut = np.concatenate(lengths), np.concatenate(cut)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = {name: np.concatenate(parts) for name, parts in flat.items()}

    def features(self, texts: Indices, device: torch.device, width: int = 0) -> dict[str, Any]:
        """Return the padded model input for texts of one group.

        Args:
            texts: Indices of at least one text.
            device: The device of the tensors.
            width: Minimum number of tokens to pad to; longer texts make it wider.
        """
        lengths = self.lengths[texts]
        width = max(width, int(lengths.max()))
        columns = np.arange(width)[None, :]
        offsets = (width - lengths if self._left else np.zeros_like(lengths))[:, None]
        mask = (columns >= offsets) & (columns < offsets + lengths[:, None])  # [texts, width]
        places = (self._starts[texts][:, None] + columns - offsets)[mask]
        features: dict[str, Any] = dict(self._constants[self.groups[texts[0]]])
        for name, flat in self._flat.items():
            padded = np.full(mask.shape, self._pads[name], np.int64)
            padded[mask] = flat[places]
            features[name] = torch.from_numpy(padded).to(device, non_blocking=True)
        features["attention_mask"] = torch.from_numpy(mask.astype(np.int64)).to(device, non_blocking=True)
        return features


def _cut(features: Any, lengths: Indices, limit: int | None) -> NDArray[np.bool_]:
    """Return which texts of a preprocessed input were cut, [texts].

    A slow tokenizer doesn't say so; with it, every text as long as the limit counts as cut.
    """
    if encodings := getattr(features, "encodings", None):
        return np.fromiter((bool(encoding.overflowing) for encoding in encodings), bool, len(encodings))
    return lengths >= limit if limit else np.zeros(len(lengths), bool)


def constant_features(model: SentenceTransformer, features: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a preprocessed input that are not tensors and that a module of the model uses."""
    constants = {name: value for name, value in features.items() if not isinstance(value, torch.Tensor)}
    if not any(getattr(module, "include_prompt", True) is False for module in model):
        constants.pop("prompt_length", None)  # only modules that leave the prompt out use its length
    return constants


@dataclass(frozen=True)
class TrainingRows:
    """A training table as arrays. Texts are stored as their index in `tokens`.

    Attributes:
        tokens: The distinct texts.
        domains: Domain code of each row, in the order of the sorted domain names, [rows].
        query: Text of each row's query, [rows].
        positive: Text of each row's positive, [rows].
        negatives: Texts of the given negatives, row after row, [all negatives].
        offsets: Start of each row's negatives in `negatives`, [rows + 1].
        document: Code of each row's document id, -1 if it has none, [rows].
        same: Code of each text; texts that are equal after normalisation have the same code, [texts].
        replayed: Whether a text belongs to a replayed row, [texts], bool.
        in_batch: Whether a row has in-batch negatives, [rows], bool; otherwise it uses only its own negatives.
        scores: Score of each graded pair, 0 to 1; NaN for other rows, [rows].
        digest: sha256 of the rows in their order.
        cuts: What of the texts and the given negatives is not used.
    """

    tokens: Tokens
    domains: Indices
    query: Indices
    positive: Indices
    negatives: Indices
    offsets: Indices
    document: Indices
    same: Indices
    replayed: Indices
    in_batch: NDArray[np.bool_]
    scores: NDArray[np.float64]
    digest: str
    cuts: Cuts

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.query)

    @property
    def graded(self) -> NDArray[np.bool_]:
        """Return whether each row is a graded pair, [rows]."""
        return ~np.isnan(self.scores)

    def batch_scores(self, batch: Indices) -> torch.Tensor | None:
        """Return the scores of a batch of graded pairs, [b], or None for a batch of other rows."""
        scores = self.scores[batch]
        return None if np.isnan(scores).any() else torch.from_numpy(scores)

    def given(self, batch: Indices) -> Indices:
        """Return the texts of the given negatives of a batch, row after row, [m]."""
        return np.concatenate([self.negatives[self.offsets[row] : self.offsets[row + 1]] for row in batch])

    def mask(self, batch: Indices) -> torch.Tensor:
        """Return which documents of a batch must not be negatives of which row, from texts and document ids.

        Returns:
            Booleans [b, b + m]: the positives, then the given negatives in the order of `given`. The diagonal is false.
        """
        same, counts = self.same, np.diff(self.offsets)[batch]
        codes = (same[self.query[batch]], same[self.positive[batch]], same[self.given(batch)], self.document[batch])
        mask = false_negatives(*map(torch.from_numpy, codes))
        if self.in_batch[batch].all():
            return mask
        owner = torch.from_numpy(np.repeat(np.arange(len(batch)), counts))
        return mask | only_given(torch.from_numpy(self.in_batch[batch]), owner)

    def longest(self) -> Indices:
        """Return the number of tokens of the longest text of each row, [rows]."""
        lengths = self.tokens.lengths
        longest = np.maximum(lengths[self.query], lengths[self.positive])
        np.maximum.at(longest, np.repeat(np.arange(len(self)), np.diff(self.offsets)), lengths[self.negatives])
        return longest


def read_rows(
    table: pa.Table, model: SentenceTransformer, max_length: int, max_negatives: int, progress: Progress = SILENT
) -> TrainingRows:
    """Tokenise a training table.

    Args:
        table: Columns query, positive: string; negatives: list of string; doc_id: string or null; domain: string.
            Optional columns replayed: bool, default false; in_batch: bool, default true; score: double or null, that
            of a graded pair; instruction: string or null, put before the query instead of the model's query prompt.
        model: The model whose tokenizer and prompts are used. Its maximum length is lowered to `max_length`.
        max_length: Maximum tokens per text; the model's own limit also applies.
        max_negatives: Maximum given negatives per row.
        progress: Counts distinct texts.
    """
    own = model.max_seq_length
    model.max_seq_length = min(max_length, own) if own else max_length
    queries, documents = _strings(table["query"]), [_strings(table["positive"])]
    counts = np.zeros(len(table))
    if max_negatives:
        negatives = table["negatives"].cast(pa.large_list(pa.large_string())).combine_chunks()
        given = pc.list_slice(negatives, 0, max_negatives)
        counts = pc.list_value_length(given).to_numpy(zero_copy_only=False)
        documents.append(given.flatten())

    instructions = _instructions(table)
    codes, groups = _encode_texts(queries, documents, instructions, model)
    tokens = _tokenise(model, groups, progress)
    texts = [text for group_texts, *_ in groups for text in group_texts]

    rows = len(table)
    names, domains = np.unique(np.asarray(table["domain"].to_pylist(), dtype=object), return_inverse=True)
    arrays = {
        "domains": domains.astype(np.int64),
        "query": codes[:rows],
        "positive": codes[rows : 2 * rows],
        "negatives": codes[2 * rows :],
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "document": _document_codes(table),
        "same": _same(texts),
    }
    arrays["replayed"] = _replayed(table, arrays, len(texts))
    in_batch = table["in_batch"].to_numpy() if "in_batch" in table.column_names else np.ones(rows, bool)
    strings = [*map(str, names), *texts, *filter(None, dict.fromkeys(instructions))]
    scores = _scores(table)
    digest, limit = _digest(strings, arrays, in_batch, scores), int(model.max_seq_length or 0)
    cuts = _cuts(table, tokens, arrays, limit=limit, own=limit < max_length, max_negatives=max_negatives)
    return TrainingRows(tokens=tokens, digest=digest, in_batch=in_batch, scores=scores, cuts=cuts, **arrays)


def _encode_texts(
    queries: pa.Array, documents: list[pa.Array], instructions: list[str | None], model: SentenceTransformer
) -> tuple[Indices, list[_PromptGroup]]:
    """Return the code of each text, queries first, and the distinct texts in the order of their codes, by prompt.

    Args:
        queries: Query of each row, [rows].
        documents: Positives, then given negatives.
        instructions: Instruction of each row's query, or None for the model's own prompt, [rows].
        model: The model that has the prompts.
    """
    query_prompt, document_prompt = encoding_prompts(model)
    if query_prompt == document_prompt and _one_length(model) and not any(instructions):
        codes, texts = _codes(pa.concat_arrays([queries, *documents]))
        return codes, [(texts, query_prompt, "document")]
    groups: list[_PromptGroup] = []
    codes = np.zeros(len(queries), np.int64)
    first = 0  # code of the next group's first text
    for instruction in dict.fromkeys(instructions):
        own = np.array([row_instruction == instruction for row_instruction in instructions], bool)
        prompt = query_prompt if instruction is None else INSTRUCTED.format(instruction)
        own_codes, texts = _codes(queries.filter(pa.array(own)))
        codes[own] = own_codes + first
        groups.append((texts, prompt, "query"))
        first += len(texts)
    document_codes, texts = _codes(pa.concat_arrays(documents))
    groups.append((texts, document_prompt, "document"))
    return np.concatenate([codes, document_codes + first]), groups


def _tokenise(model: SentenceTransformer, groups: list[_PromptGroup], progress: Progress) -> Tokens:
    tokens = Tokens(model)
    progress.start("tokenising", sum(len(texts) for texts, *_ in groups), "texts")
    for texts, prompt, task in groups:
        if texts:
            tokens.add(texts, prompt, task, progress)
    progress.finish()
    return tokens


def _scores(table: pa.Table) -> NDArray[np.float64]:
    """Return the score of each row, NaN without one, [rows]."""
    if "score" not in table.column_names:
        return np.full(len(table), np.nan)
    scores = table["score"].cast(pa.float64()).combine_chunks()
    return np.asarray(pc.fill_null(scores, np.nan).to_numpy(zero_copy_only=False), np.float64)


def _digest(
    strings: list[str], arrays: dict[str, Indices], in_batch: NDArray[np.bool_], scores: NDArray[np.float64]
) -> str:
    digest = hashlib.sha256()
    for text in strings:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    for array in arrays.values():
        digest.update(array.tobytes())
    if not in_batch.all():  # left out if all rows are in-batch, so that older checkpoints can be resumed
        digest.update(in_batch.tobytes())
    if not np.isnan(scores).all():  # likewise, without graded pairs
        digest.update(scores.tobytes())
    return digest.hexdigest()


def _cuts(table: pa.Table, tokens: Tokens, arrays: dict[str, Indices], **limits: Any) -> Cuts:
    passages = np.concatenate([arrays["positive"], arrays["negatives"]])
    return Cuts(
        queries=len(table),
        cut_queries=int(tokens.cut[arrays["query"]].sum()),
        passages=len(passages),
        cut_passages=int(tokens.cut[passages].sum()),
        negatives=pc.sum(pc.list_value_length(table["negatives"])).as_py() or 0,
        used_negatives=len(arrays["negatives"]),
        **limits,
    )


def _document_codes(table: pa.Table) -> Indices:
    """Return the code of each row's document, -1 if it has no id. An id is unique only within its domain."""
    identifiers = pc.binary_join_element_wise(
        *(_strings(table[name]) for name in ("domain", "doc_id")), pa.scalar("\0", pa.large_string())
    )
    indices = identifiers.dictionary_encode().indices
    codes: Indices = indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _instructions(table: pa.Table) -> list[str | None]:
    if "instruction" not in table.column_names:
        return [None] * len(table)
    instructions: list[str | None] = table["instruction"].to_pylist()
    return instructions


def _strings(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.large_string()).combine_chunks()  # 64-bit offsets: one array holds any number of texts


def _codes(texts: pa.Array) -> tuple[Indices, list[str]]:
    """Return the code of each text, and the distinct texts in the order of their codes, that of first use."""
    encoded = texts.dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _same(texts: list[str]) -> Indices:
    codes: dict[str, int] = {}
    return np.fromiter(
        (codes.setdefault(normalise(text), len(codes)) for text in texts),
        np.int64,
        len(texts),
    )


def _replayed(table: pa.Table, arrays: dict[str, Indices], texts: int) -> Indices:
    replayed = np.zeros(texts, bool)
    if "replayed" in table.column_names:
        rows = table["replayed"].to_numpy()
        replayed[arrays["query"][rows]] = replayed[arrays["positive"][rows]] = True
        replayed[arrays["negatives"][np.repeat(rows, np.diff(arrays["offsets"]))]] = True
    return replayed


def _one_length(model: SentenceTransformer) -> bool:
    """Return whether the model differs between queries and documents only in their prompts."""
    first = model[0]
    lengths = {getattr(first, name, None) for name in ("query_length", "document_length")}
    return len(lengths) == 1 and not getattr(first, "query_expansion", None)
