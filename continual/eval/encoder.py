"""An mteb encoder that encodes every distinct text only once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import get_prompt
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from continual.errors import ModelError
from continual.models.encode import TOKENS, encode
from continual.models.encoder import encoding_prompts
from continual.models.precision import Precision, store_for
from continual.models.tokens import Tokens
from continual.progress import SILENT, Progress
from continual.registry.records import INSTRUCTED
from continual.storage.files import publish

TASKS = {"query": "query", "document": "document", "text": None}
"""What sentence-transformers calls each role; texts of tasks with one role have none."""

PART = 16_384
"""Texts that are tokenised before they are encoded."""

ROLES = {"query": PromptType.query, "document": PromptType.document, "text": None}
"""mteb's prompt type of each role of a text; "text" is for tasks with one role: STS, classification, clustering."""

MEMORY = 2 << 30
"""Size of the stored vectors, in bytes, above which `vectors` drops them before it computes new ones."""

KEPT = 256 << 20
"""Maximum size of the vectors that `save` writes, in bytes."""

Key = tuple[str, str | None, str]
"""Role, prompt and text; the role is "" and the prompt None if they make no difference to the model."""

Vectors = np.ndarray[Any, np.dtype[np.float32]]


class OnceEncoder:
    """A sentence-transformers model as an mteb encoder that remembers all vectors during one evaluation.

    Prompts are the model's own, chosen like mteb's wrapper chooses them: by task, task type and role. A text is encoded
    once for all tasks and roles with the same prompt. Equal texts get identical vectors whatever batch they are in, so
    duplicate documents tie exactly.

    Args:
        model: A sentence-transformers folder.
        version: Id of the version; mteb's name for the model is `continual/<version>`.
        sha256: Digest of the model's weights; mteb uses it as the revision, so it never confuses two versions.
        batch_size: Number of texts of `TOKENS` tokens per forward pass; on a CPU it is smaller.
        max_length: Maximum number of tokens per text; None uses the model's own limit.
        precision: What the model computes in.
        trust_remote_code: Whether to run code that the model folder brings.
        progress: Advances by one for each encoded text.
        kept: A file that `save` wrote. Its vectors are reused if they are of the same model; it may be missing.
        instructed: Domains whose names may be prompt names in the folder. These prompts are hidden from mteb, which
            would apply one to both queries and documents of an mteb task with the same name.

    Attributes:
        counted: Texts encoded so far.
        cut: Those of them that are longer than the maximum number of tokens, with their prompts.
        limit: The maximum number of tokens per text, `max_length` or the model's own; None if there is none.
    """

    def __init__(
        self,
        model: Path,
        version: str,
        sha256: str,
        *,
        batch_size: int = 64,
        max_length: int | None = None,
        precision: Precision = "fp32",
        trust_remote_code: bool = False,
        progress: Progress = SILENT,
        kept: Path | None = None,
        instructed: Collection[str] = (),
    ) -> None:
        self.version = version
        self.batch_size = batch_size
        self.progress = progress
        # Given a path, the wrapper loads it locally; given a model object, it would query the Hub.
        self.wrapper = SentenceTransformerEncoderWrapper(str(model), trust_remote_code=trust_remote_code)
        prompts = self.wrapper.model_prompts or {}
        self._own = {name: text for name, text in prompts.items() if name not in instructed}
        self._prompts = self.wrapper.model_prompts = dict(self._own)
        inner = self.wrapper.model
        if max_length is not None:
            inner.max_seq_length = min(max_length, inner.max_seq_length or max_length)
        self.counted = self.cut = 0
        self.limit: int | None = inner.max_seq_length
        names = {"name": f"continual/{version}", "revision": sha256}
        self.mteb_model_meta = ModelMeta.create_empty(overwrites=names)
        self.compares_by = str(inner.similarity_fn_name)
        # The output of a Router or of a custom module can depend on the role itself.
        self._routed = "task" in inner.get_model_kwargs()
        query, document = encoding_prompts(inner)
        default = inner.prompts.get(inner.default_prompt_name) if inner.default_prompt_name else None
        self._by_role = {"query": query, "document": document, "text": default}
        self._vectors: dict[Key, Vectors] = {}
        self._precision: Precision = precision
        inner.float()  # the library takes the type that config.json names, whatever the weights are stored in
        store_for(inner, precision)
        self._identity = {"sha256": sha256, "max_length": str(inner.max_seq_length)}
        if precision != "fp32":
            self._identity["precision"] = precision
        self._kept = _read(kept, self._identity) if kept is not None else {}

    def __len__(self) -> int:
        """Return the number of stored vectors."""
        return len(self._vectors)

    def instruct(self, task: Any, instruction: str | None) -> None:
        """Set the instruction that replaces the model's prompt for the queries of a task.

        Args:
            task: mteb's metadata of the task.
            instruction: The instruction; None restores the model's own prompt.
        """
        name = f"{task.name}-{PromptType.query.value}"  # mteb looks this name up first
        prompt = self._own.get(name) if instruction is None else INSTRUCTED.format(instruction)
        if prompt is None:
            self._prompts.pop(name, None)
        else:
            self._prompts[name] = prompt

    def missing(self, role: str, texts: Iterable[str], task: Any) -> list[Key]:
        """Return the keys of the distinct texts that have no vector yet, in the order of `texts`.

        Args:
            role: "query", "document" or "text".
            task: mteb's metadata of the task that the texts belong to.
        """
        prefix = self._prefix(role, task)
        wanted = [key for key in dict.fromkeys((*prefix, text) for text in texts) if key not in self._vectors]
        if self._kept:
            self._vectors.update((key, self._kept[name]) for key in wanted if (name := _digest(key)) in self._kept)
            wanted = [key for key in wanted if key not in self._vectors]
        return wanted

    def _prefix(self, role: str, task: Any) -> tuple[str, str | None]:
        """Return the part of a text's key that depends on its role and task."""
        prompt = get_prompt(self.wrapper.model_prompts, task, ROLES[role])
        if prompt is None:
            prompt = self._by_role[role]
        return (role if self._routed else ""), prompt or None

    def learn(self, role: str, texts: Iterable[str], task: Any) -> None:
        """Encode the texts that have no vector yet.

        Args:
            role: "query", "document" or "text".
            task: mteb's metadata of the task that the texts belong to; it determines the prompt.

        Raises:
            ModelError: The model returns numbers that are not finite.
        """
        wanted = self.missing(role, texts, task)
        for start in range(0, len(wanted), PART):
            part = wanted[start : start + PART]
            vectors = self._encode(role, part[0][1], [text for *_, text in part])
            if not np.isfinite(vectors).all():
                raise ModelError(
                    f"{self.version} gives embeddings that are not finite numbers, so it cannot be scored. Train it "
                    "again with a lower train.learning_rate."
                )
            self._vectors.update(zip(part, vectors, strict=True))

    def _encode(self, role: str, prompt: str | None, texts: list[str]) -> Vectors:
        """Return the vectors of texts with one prompt, [texts, dimensions]."""
        model, task = self.wrapper.model, TASKS[role]
        tokens = Tokens(model)
        tokens.add(texts, prompt, task)
        self.counted += len(texts)
        self.cut += int(tokens.cut.sum())
        return encode(
            model,
            tokens,
            max_tokens=self.batch_size * TOKENS,
            task=task,
            precision=self._precision,
            progress=self.progress,
        )

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **_: Any) -> Vectors:
        """Return the vectors of the texts in mteb's batches, float32, of shape [texts, dimensions]."""
        role = next(name for name, its_type in ROLES.items() if its_type == prompt_type)
        return self.vectors(role, [text for batch in inputs for text in batch["text"]], task_metadata)

    def vectors(self, role: str, texts: list[str], task: Any) -> Vectors:
        """Return the vectors of texts, float32, of shape [texts, dimensions]; the arguments are those of `learn`."""
        if self._bytes() > MEMORY and self.missing(role, texts, task):
            self._vectors.clear()
        self.learn(role, texts, task)
        prefix = self._prefix(role, task)
        return np.stack([self._vectors[*prefix, text] for text in texts])

    def save(self, path: Path) -> None:
        """Write the vectors, including those from `kept` and at most `KEPT` bytes, to a file for later encoders."""
        stored = {_digest(key): vector for key, vector in self._vectors.items()} | self._kept
        size = next((vector.nbytes for vector in stored.values()), 1)
        stored = dict(list(stored.items())[: KEPT // size])
        if stored:
            names = np.frombuffer(b"".join(stored), np.uint8).reshape(len(stored), -1)
            with publish(path) as partial:
                vectors = np.stack(list(stored.values()))
                metadata = self._identity | {"content": _sha256(names, vectors)}
                save_file({"names": names, "vectors": vectors}, partial, metadata=metadata)

    def _bytes(self) -> int:
        return len(self._vectors) * next((vector.nbytes for vector in self._vectors.values()), 0)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the model's similarity of every pair, of shape [first, second]."""
        return self.wrapper.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the model's similarity row by row, of shape [rows]."""
        return self.wrapper.similarity_pairwise(embeddings1, embeddings2)


def _digest(key: Key) -> bytes:
    role, prompt, text = key
    parts = f"{len(role)},{'' if prompt is None else len(prompt)}:{role}{prompt or ''}{text}"
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).digest()[:16]


def _sha256(names: np.ndarray[Any, np.dtype[np.uint8]], vectors: Vectors) -> str:
    return hashlib.sha256(names.tobytes() + vectors.tobytes()).hexdigest()


def _read(path: Path, identity: dict[str, str]) -> dict[bytes, Vectors]:
    """Return the vectors of a file, by the digest of their keys; empty if it is missing or of another model."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            same = {name: metadata.get(name) for name in identity} == identity
            # Files of fp32 vectors don't name their precision.
            if not same or metadata.get("precision") != identity.get("precision"):
                return {}
            names, vectors = file.get_tensor("names"), file.get_tensor("vectors")
            if metadata.get("content") != _sha256(names, vectors):
                return {}
    except SafetensorError:  # a damaged file only costs the time to encode again
        return {}
    return {name.tobytes(): vector for name, vector in zip(names, vectors, strict=True)}
