"""Training rows as numbers: every distinct text tokenised once, and codes that tell which texts are equal."""

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
from continual.registry.records import INSTRUCTED
from continual.registry.text import normalise
from continual.train.batching import Indices
from continual.train.losses import false_negatives, only_given

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_CHUNK = 512  # texts tokenised at a time
_PER_TOKEN = ("input_ids", "token_type_ids")


class Tokens:
    """Token ids of many texts without their padding, and the way back to padded tensors.

    Attributes:
        lengths: Tokens of each text, [texts].
        groups: Code per text of what can be encoded together, [texts].
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model = model
        self.lengths: Indices = np.zeros(0, np.int64)
        self.groups: Indices = np.zeros(0, np.int64)
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
        """Tokenise texts as the model's encode does, prompt and truncation included.

        Args:
            texts: At least one.
            prompt: What to put before each.
            task: "query" or "document".
            progress: Advanced by every text.
        """
        lengths = [self.lengths]
        flat: dict[str, list[NDArray[np.int32]]] = {name: [kept] for name, kept in self._flat.items()}
        constants: dict[str, Any] = {}
        for start in range(0, len(texts), _CHUNK):
            features = self.model.preprocess(texts[start : start + _CHUNK], prompt=prompt, task=task)
            mask = features["attention_mask"].numpy().astype(bool)  # [texts, tokens]
            lengths.append(mask.sum(axis=1))
            for name in _PER_TOKEN:
                if name in features:
                    flat.setdefault(name, []).append(features[name].numpy()[mask].astype(np.int32))
            constants = constant_features(self.model, features)
            progress.advance(len(texts[start : start + _CHUNK]))
        if constants not in self._constants:
            self._constants.append(constants)
        group = self._constants.index(constants)
        self.groups = np.concatenate([self.groups, np.full(len(texts), group)])
        self.lengths = np.concatenate(lengths)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._flat = {name: np.concatenate(parts) for name, parts in flat.items()}

    def features(self, texts: Indices, device: torch.device, width: int = 0) -> dict[str, Any]:
        """Return the padded input of the model for some texts of one group.

        Args:
            texts: Indices of at least one text.
            device: Where to put the tensors.
            width: Tokens to pad to, at least; the longest text's if it has more.
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


def constant_features(model: SentenceTransformer, features: dict[str, Any]) -> dict[str, Any]:
    """Return what a preprocessed input holds besides tensors, and some module of the model asks for."""
    constants = {name: value for name, value in features.items() if not isinstance(value, torch.Tensor)}
    if not any(getattr(module, "include_prompt", True) is False for module in model):
        constants.pop("prompt_length", None)  # no module asks where the prompt ends
    return constants


@dataclass(frozen=True)
class Rows:
    """A training table as numbers; a text is its index in `tokens`.

    Attributes:
        tokens: The distinct texts.
        domains: Code of each row's domain, by sorted name, [rows].
        query: Text of each row's query, [rows].
        positive: Text of each row's positive, [rows].
        negatives: Texts of the given negatives, row after row, [all negatives].
        offsets: Where a row's negatives begin in `negatives`, [rows + 1].
        document: Code of each row's document id; -1 where there is none, [rows].
        same: Code of each text such that texts with equal normal forms have equal codes, [texts].
        replayed: Whether a text is one of a replayed row, [texts], bool.
        in_batch: Whether a row's negatives are also those of the rows that share its batch, [rows], bool.
        digest: sha256 of all of it: rows in another order have another one.
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
    digest: str

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.query)

    def given(self, batch: Indices) -> Indices:
        """Return the texts of the given negatives of some rows, one after the other."""
        return np.concatenate([self.negatives[self.offsets[row] : self.offsets[row + 1]] for row in batch])

    def mask(self, batch: Indices) -> torch.Tensor:
        """Return which documents of a batch are not to be negatives of which row, as far as its rows tell.

        Returns:
            Booleans [b, b + m]: positives, then given negatives in the order of `given`; the diagonal is false.
        """
        same, counts = self.same, np.diff(self.offsets)[batch]
        codes = (same[self.query[batch]], same[self.positive[batch]], same[self.given(batch)], self.document[batch])
        mask = false_negatives(*map(torch.from_numpy, codes))
        if self.in_batch[batch].all():
            return mask
        owner = torch.from_numpy(np.repeat(np.arange(len(batch)), counts))
        return mask | only_given(torch.from_numpy(self.in_batch[batch]), owner)

    def longest(self) -> Indices:
        """Return the tokens of the longest text of each row, [rows]."""
        lengths = self.tokens.lengths
        found = np.maximum(lengths[self.query], lengths[self.positive])
        np.maximum.at(found, np.repeat(np.arange(len(self)), np.diff(self.offsets)), lengths[self.negatives])
        return found


def read_rows(
    table: pa.Table, model: SentenceTransformer, max_length: int, max_negatives: int, progress: Progress = SILENT
) -> Rows:
    """Tokenise a training table.

    Args:
        table: query, positive: string; negatives: list of string; doc_id: string or null; domain: string;
            replayed: bool, false where the column is missing; in_batch: bool, true where it is; instruction: string
            or null, put before the query instead of the model's own prompt.
        model: Its tokenizer and prompts are used, and its maximum length is lowered to `max_length`.
        max_length: Tokens per text, at most; the model's own limit holds too.
        max_negatives: Given negatives used per row, at most.
        progress: A bar over the distinct texts.
    """
    own = model.max_seq_length
    model.max_seq_length = min(max_length, own) if own else max_length
    given = None
    if max_negatives:
        negatives = table["negatives"].cast(pa.large_list(pa.large_string())).combine_chunks()
        given = pc.list_slice(negatives, 0, max_negatives)
    counts = pc.list_value_length(given).to_numpy(zero_copy_only=False) if given is not None else np.zeros(len(table))
    queries, documents = _strings(table["query"]), [_strings(table["positive"])]
    if given is not None:
        documents.append(given.flatten())

    tokens = Tokens(model)
    query_prompt, document_prompt = encoding_prompts(model)
    instructions = _instructions(table)
    if query_prompt == document_prompt and _one_length(model) and not any(instructions):
        codes, texts = _codes(pa.concat_arrays([queries, *documents]))
        kinds = [(texts, query_prompt, "document")]
    else:
        kinds, codes = [], np.zeros(len(table), np.int64)
        for instruction in dict.fromkeys(instructions):  # queries of one prompt after those of another
            own = np.array([each == instruction for each in instructions], bool)
            prompt = query_prompt if instruction is None else INSTRUCTED.format(instruction)
            known = sum(len(some) for some, *_ in kinds)
            found, texts = _codes(queries.filter(pa.array(own)))
            codes[own] = found + known
            kinds.append((texts, prompt, "query"))
        known = sum(len(some) for some, *_ in kinds)
        others, more = _codes(pa.concat_arrays(documents))
        codes = np.concatenate([codes, others + known])
        kinds.append((more, document_prompt, "document"))
        texts = [text for some, *_ in kinds for text in some]
    progress.start("tokenising", len(texts), "texts")
    for some, prompt, task in kinds:
        if some:
            tokens.add(some, prompt, task, progress)
    progress.finish()

    rows = len(table)
    names, domains = np.unique(np.asarray(table["domain"].to_pylist(), dtype=object), return_inverse=True)
    owned = pc.binary_join_element_wise(
        *(_strings(table[name]) for name in ("domain", "doc_id")), pa.scalar("\0", pa.large_string())
    )
    identifiers = owned.dictionary_encode().indices  # two domains may give one id to different documents
    arrays = {
        "domains": domains.astype(np.int64),
        "query": codes[:rows],
        "positive": codes[rows : 2 * rows],
        "negatives": codes[2 * rows :],
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "document": identifiers.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64),
        "same": _same(texts),
    }
    arrays["replayed"] = _replayed(table, arrays, len(texts))
    in_batch = table["in_batch"].to_numpy() if "in_batch" in table.column_names else np.ones(rows, bool)
    digest = hashlib.sha256()
    for text in [*map(str, names), *texts, *filter(None, dict.fromkeys(instructions))]:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    for array in arrays.values():
        digest.update(array.tobytes())
    if not in_batch.all():  # where all are, the digest is that of before there were others
        digest.update(in_batch.tobytes())
    return Rows(tokens=tokens, digest=digest.hexdigest(), in_batch=in_batch, **arrays)


def _instructions(table: pa.Table) -> list[str | None]:
    if "instruction" not in table.column_names:
        return [None] * len(table)
    found: list[str | None] = table["instruction"].to_pylist()
    return found


def _strings(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(pa.large_string()).combine_chunks()  # 64-bit offsets: all texts of a table in one array


def _codes(texts: pa.Array) -> tuple[Indices, list[str]]:
    """Return the index of each text among the distinct ones, in order of first use, and these."""
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
    found = np.zeros(texts, bool)
    if "replayed" in table.column_names:
        rows = table["replayed"].to_numpy()
        found[arrays["query"][rows]] = found[arrays["positive"][rows]] = True
        found[arrays["negatives"][np.repeat(rows, np.diff(arrays["offsets"]))]] = True
    return found


def _one_length(model: SentenceTransformer) -> bool:
    """Whether the model treats queries and documents alike but for their prompts."""
    first = model[0]
    lengths = {getattr(first, name, None) for name in ("query_length", "document_length")}
    return len(lengths) == 1 and not getattr(first, "query_expansion", None)
