"""An mteb encoder that computes every distinct text once, in batches of texts of one length."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from mteb.models import ModelMeta
from mteb.models.abs_encoder import get_prompt
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from continual.errors import ModelError
from continual.progress import SILENT, Progress
from continual.registry.records import INSTRUCTED
from continual.storage.files import publish

ROLES = {"query": PromptType.query, "document": PromptType.document, "text": None}
"""What a text is to its task; "text" where there is only one role, as in STS, classification or clustering."""

MEMORY = 2 << 30
"""Bytes of vectors above which those of earlier calls are forgotten, before new ones are computed."""

KEPT = 256 << 20
"""Bytes of vectors that `save` writes, at most."""

Key = tuple[str, str | None, str]
"""Role, prompt and text; the role is "" and the prompt None where they make no difference to the model."""


Vectors = np.ndarray[Any, np.dtype[np.float32]]


class OnceEncoder:
    """A sentence-transformers folder as mteb sees it, with an embedding memory for the length of one evaluation.

    Prompts are the model's own, chosen as mteb's wrapper chooses them by task, type of task and role. A text is
    encoded once for all tasks and roles that have the same prompt. Equal texts get the very same vector, so ties
    between duplicate documents are real ties, whatever batch they fell into.

    Args:
        model: A sentence-transformers folder.
        version: Name of the version; mteb knows the model as `continual/<version>`.
        sha256: Digest of its weights; mteb knows it as the revision, so that two versions are never one model.
        batch_size: Texts encoded at a time.
        max_length: Tokens per text, at most; None leaves the model's own limit.
        trust_remote_code: Run code that the model brings with it.
        progress: Told of every text that was encoded.
        kept: A file that `save` may have written: what it has of the same model is not encoded again.
        instructed: Domains whose prompts the folder may have, by their names. mteb would take one for that of both
            queries and documents of a task of its own that is called so: they are hidden from it.
    """

    def __init__(
        self,
        model: Path,
        version: str,
        sha256: str,
        *,
        batch_size: int = 64,
        max_length: int | None = None,
        trust_remote_code: bool = False,
        progress: Progress = SILENT,
        kept: Path | None = None,
        instructed: Collection[str] = (),
    ) -> None:
        self.version = version
        self.batch_size = batch_size
        self.progress = progress
        # Given a path, the wrapper loads it and looks nothing up; given a model, it would ask the Hub about it.
        self.wrapper = SentenceTransformerEncoderWrapper(str(model), trust_remote_code=trust_remote_code)
        known = self.wrapper.model_prompts or {}
        self._own = {name: text for name, text in known.items() if name not in instructed}
        self._prompts = self.wrapper.model_prompts = dict(self._own)
        inner = self.wrapper.model
        if max_length is not None:
            inner.max_seq_length = min(max_length, inner.max_seq_length or max_length)
        names = {"name": f"continual/{version}", "revision": sha256}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=names)
        self.compares_by = str(inner.similarity_fn_name)
        # What a Router or a module of the model's own does to a text may depend on the role itself.
        self._routed = "task" in inner.get_model_kwargs()
        self._prompted = any((inner.prompts or {}).values())
        self._vectors: dict[Key, Vectors] = {}
        self._identity = {"sha256": sha256, "max_length": str(inner.max_seq_length)}
        self._kept = _read(kept, self._identity) if kept is not None else {}

    def __len__(self) -> int:
        """Return the number of distinct texts encoded so far."""
        return len(self._vectors)

    def instruct(self, task: Any, instruction: str | None) -> None:
        """Put an instruction before the queries of a task from now on, in place of the model's prompt, or none.

        Args:
            task: mteb's metadata of the task.
            instruction: What its queries are for; None: they have the model's own prompt.
        """
        name = f"{task.name}-{PromptType.query.value}"  # which mteb looks up first
        prompt = self._own.get(name) if instruction is None else INSTRUCTED.format(instruction)
        if prompt is None:
            self._prompts.pop(name, None)
        else:
            self._prompts[name] = prompt

    def missing(self, role: str, texts: Iterable[str], task: Any) -> list[Key]:
        """Return the distinct texts that have no vector yet as they are known here, in the order they came.

        Args:
            role: "query", "document" or "text".
            texts: Any texts, in any order.
            task: mteb's metadata of the task they belong to.
        """
        way = self._way(role, task)
        wanted = [key for key in dict.fromkeys((*way, text) for text in texts) if key not in self._vectors]
        if self._kept:
            self._vectors.update((key, self._kept[name]) for key in wanted if (name := _digest(key)) in self._kept)
            wanted = [key for key in wanted if key not in self._vectors]
        return wanted

    def _way(self, role: str, task: Any) -> tuple[str, str | None]:
        """Return what of role and task the model's vectors depend on."""
        prompt = get_prompt(self.wrapper.model_prompts, task, ROLES[role])
        if prompt is None and self._prompted:
            return role, None  # sentence-transformers chooses one by role
        return (role if self._routed else ""), prompt or None

    def learn(self, role: str, texts: Iterable[str], task: Any) -> None:
        """Encode the texts that have no vector yet.

        Args:
            role: "query", "document" or "text".
            texts: Any texts, in any order.
            task: mteb's metadata of the task they belong to, which chooses the prompt.

        Raises:
            ModelError: The model gives numbers that are not finite.
        """
        wanted = self.missing(role, texts, task)
        # Longest first: what does not fit in memory fails at once, and the time left is never underestimated.
        # The sort is stable, so the same texts always meet in the same batches.
        lengths = self._tokens([text for *_, text in wanted])
        wanted = [wanted[index] for index in sorted(range(len(wanted)), key=lambda index: -lengths[index])]
        step = 4 * self.batch_size
        for start in range(0, len(wanted), step):
            chunk = wanted[start : start + step]
            loader = DataLoader(Dataset.from_dict({"text": [text for *_, text in chunk]}), batch_size=len(chunk))
            vectors = np.asarray(
                self.wrapper.encode(
                    loader,
                    task_metadata=task,
                    hf_split="test",
                    hf_subset="default",
                    prompt_type=ROLES[role],
                    batch_size=self.batch_size,
                    show_progress_bar=False,
                ),
                dtype=np.float32,
            )
            if not np.isfinite(vectors).all():
                raise ModelError(
                    f"{self.version} gives embeddings that are not finite numbers, so it cannot be scored. "
                    "Train again with a lower train.learning_rate."
                )
            self._vectors.update(zip(chunk, vectors, strict=True))
            self.progress.advance(len(chunk))

    def _tokens(self, texts: list[str]) -> list[int]:
        """Return each text's number of tokens, up to the model's limit.

        sentence-transformers sorts by characters, which leaves a fifth of the computed tokens padding; tokenizing
        twice costs far less.
        """
        tokenizer, limit = self.wrapper.model.tokenizer, self.wrapper.model.max_seq_length
        if not getattr(tokenizer, "is_fast", False) or limit is None:
            return [len(text) for text in texts]
        lengths: list[int] = []
        for start in range(0, len(texts), 4096):
            # Nearly all text has fewer than ten characters a token, so what lies beyond is cut off anyway.
            part = [text[: 10 * limit] for text in texts[start : start + 4096]]
            tokens = tokenizer(part, truncation=True, max_length=limit, return_attention_mask=False)["input_ids"]
            lengths += [len(ids) for ids in tokens]
        return lengths

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **_: Any) -> Vectors:
        """Return the vectors of mteb's batches, float32, of shape [texts, dimensions]."""
        role = next(name for name, kind in ROLES.items() if kind == prompt_type)
        return self.vectors(role, [text for batch in inputs for text in batch["text"]], task_metadata)

    def vectors(self, role: str, texts: list[str], task: Any) -> Vectors:
        """Return the vectors of texts, float32, of shape [texts, dimensions]; arguments as in `learn`."""
        if self._bytes() > MEMORY and self.missing(role, texts, task):
            self._vectors.clear()
        self.learn(role, texts, task)
        way = self._way(role, task)
        return np.stack([self._vectors[*way, text] for text in texts])

    def save(self, path: Path) -> None:
        """Write the vectors to a file, those of `kept` too, as far as `KEPT` goes: for another encoder of the model."""
        known = {_digest(key): vector for key, vector in self._vectors.items()} | self._kept
        size = next((vector.nbytes for vector in known.values()), 1)
        some = dict(list(known.items())[: KEPT // size])
        if some:
            names = np.frombuffer(b"".join(some), np.uint8).reshape(len(some), -1)
            with publish(path) as partial:
                tensors = {"names": names, "vectors": np.stack(list(some.values()))}
                save_file(tensors, partial, metadata=self._identity)

    def _bytes(self) -> int:
        return len(self._vectors) * next((vector.nbytes for vector in self._vectors.values()), 0)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the model's similarity of every pair, [first, second]."""
        return self.wrapper.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the model's similarity row by row, [rows]."""
        return self.wrapper.similarity_pairwise(embeddings1, embeddings2)


def _digest(key: Key) -> bytes:
    role, prompt, text = key
    parts = f"{len(role)},{'' if prompt is None else len(prompt)}:{role}{prompt or ''}{text}"
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).digest()[:16]


def _read(path: Path, identity: dict[str, str]) -> dict[bytes, Vectors]:
    """Return the vectors of a file by the digest of their texts; none if it is of another model, or not there."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "numpy") as file:
            if file.metadata() != identity:
                return {}
            names, vectors = file.get_tensor("names"), file.get_tensor("vectors")
    except SafetensorError:  # a damaged file saves nothing, and costs nothing but time
        return {}
    return {name.tobytes(): vector for name, vector in zip(names, vectors, strict=True)}
