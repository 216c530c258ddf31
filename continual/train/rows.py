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
from continual.models.tokens import Indices, Tokens
from continual.progress import SILENT, Progress
from continual.registry import Cuts
from continual.registry.records import INSTRUCTED
from continual.registry.text import normalise
from continual.train.losses import false_negatives, only_given

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PromptGroup = tuple[list[str], str | None, str]
"""Distinct texts that are encoded with one prompt, the prompt, and the task, "query" or "document"."""


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
