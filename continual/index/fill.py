"""Fill an index: embed the texts of a source with a version, and only those that are new or changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from continual.config import Config
from continual.errors import DataError, InputError
from continual.index.manifest import Manifest, describe, differences
from continual.index.vectors import VectorFolder, Vectors
from continual.models.encode import TOKENS, encode
from continual.models.encoder import encoding_prompts, load_encoder
from continual.models.tokens import Tokens
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.text import hash_text
from continual.stream.sample import identified_documents_of
from continual.versions.build import kept

PART = 4_096
"""Texts per file, and embedded at a time."""

PROBES = 32
"""Stored texts that a check embeds again."""

SAME = 0.9999
"""Least cosine of a stored vector and the vector of the same text now, if the model is the same."""

WORKS, MISMATCH, OTHER = "yes", "no", "unlike its manifest"


@dataclass(frozen=True)
class Filled:
    """What a fill did.

    Attributes:
        target: The folder.
        version: The version that embedded the texts.
        count: Vectors in the index now.
        embedded: Texts that were embedded.
        unchanged: Texts that were there already.
        removed: Texts that were there and are not in the source.
        seconds: Time, in seconds.
        bytes: Size of the folder.
    """

    target: str
    version: str
    count: int
    embedded: int
    unchanged: int
    removed: int
    seconds: float
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """Whether a version's queries may ask an index.

    Attributes:
        verdict: "yes", "no", or "unlike its manifest": the stored vectors are not what the manifest says.
        differences: What differs between the manifest and the version, in words.
        cosine: Least cosine of a stored vector and that of the same text embedded again; None if their sizes differ.
        probes: Texts that were embedded again.
        manifest: The manifest.
        version: The version.
    """

    verdict: str
    differences: list[str]
    cosine: float | None
    probes: int
    manifest: Manifest
    version: str

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)


def fill(
    registry: Registry, config: Config, source: str, target: Path, version: str, progress: Progress = SILENT
) -> Filled:
    """Fill an index with the texts of a source; see `Workspace.fill_index`."""
    began = time.monotonic()
    target = target.expanduser().resolve()
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, but an index is a folder. Choose another path.")
    store = VectorFolder(target)
    store.sweep()
    with kept(registry, version, progress=progress) as (model,):
        name = registry.version(version).id
        encoding, query_prompt = describe(model)
        before = store.begun()
        if before is not None and differences(before, encoding):
            raise InputError(
                f"{target} was filled by {before.version}, and {name} embeds texts otherwise: "
                f"{'; '.join(differences(before, encoding))}. Vectors of two models can't be mixed. Fill a new folder."
            )
        # The files say neither their number nor their time, so that the same texts give the same bytes.
        manifest = Manifest(name, encoding, query_prompt, "float32", 0, "")
        known = store.hashes()
        embedder = _Embedder(model, config, progress)
        seen: set[str] = set()
        embedded = 0
        progress.start("embedding texts for the index", None, "texts")
        for ids, hashes, texts in _pieces(source, known, seen):
            store.open()
            store.add(ids, hashes, texts, embedder(texts), manifest)
            embedded += len(ids)
        progress.finish()
        if not seen:
            raise DataError(f"{source} holds no text.")
        store.finish(replace(manifest, count=len(seen), created=_now()), seen)
    size = sum(file.stat().st_size for file in target.iterdir())
    return Filled(
        target=str(target),
        version=name,
        count=len(seen),
        embedded=embedded,
        unchanged=len(seen) - embedded,
        removed=len(known.keys() - seen),
        seconds=time.monotonic() - began,
        bytes=size,
    )


def check(registry: Registry, config: Config, target: Path, version: str, progress: Progress = SILENT) -> Checked:
    """Compare an index with a version; see `Workspace.check_index`."""
    name = registry.version(version).id
    store = VectorFolder(target.expanduser().resolve())
    manifest = store.manifest()
    if manifest is None:
        raise DataError(
            f"{store.folder} holds no filled index. Fill it with `continual index fill SOURCE {store.folder}`."
        )
    with kept(registry, version, progress=progress) as (model,):
        encoding, _ = describe(model)
        found = differences(manifest, encoding)
        texts, vectors = _probes(store)
        cosine = None
        if vectors.shape[1] == encoding.dimension:
            again = _Embedder(model, config, SILENT)(texts)
            cosine = float(_cosines(again, vectors).min())
    same = cosine is not None and cosine >= SAME
    verdict = MISMATCH if found else WORKS if same else OTHER
    return Checked(verdict, found, cosine, len(texts), manifest, name)


class _Embedder:
    """Embeds documents as the version does in service."""

    def __init__(self, model: Path, config: Config, progress: Progress) -> None:
        self._model = load_encoder(model, trust_remote_code=config.trust_remote_code)
        self._prompt = encoding_prompts(self._model)[1]
        self._config, self._progress = config, progress

    def __call__(self, texts: list[str]) -> Vectors:
        tokens = Tokens(self._model)
        tokens.add(texts, self._prompt, "document")
        options: dict[str, Any] = {"max_tokens": self._config.eval.batch_size * TOKENS, "task": "document"}
        return encode(self._model, tokens, progress=self._progress, **options)


def _pieces(source: str, known: dict[str, str], seen: set[str]) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Yield the ids, hashes and texts of a source that are not stored yet, a file's worth at a time; note all ids."""
    ids: list[str] = []
    hashes: list[str] = []
    texts: list[str] = []
    for name, text in identified_documents_of(source):
        key = hash_text(text)
        each = key if name is None else name
        if each in seen:
            if name is not None:
                raise DataError(f"{source} has the id {each!r} twice. Ids of an index must be unique.")
            continue
        seen.add(each)
        if known.get(each) == key:
            continue
        ids.append(each)
        hashes.append(key)
        texts.append(text)
        if len(ids) == PART:
            yield ids, hashes, texts
            ids, hashes, texts = [], [], []
    if ids:
        yield ids, hashes, texts


def _probes(store: VectorFolder) -> tuple[list[str], Vectors]:
    """Return some stored texts with their vectors, of the first and the last file and between."""
    texts: list[str] = []
    vectors: list[Vectors] = []
    pieces = list(store.parts)
    for stored in store.read():
        step = max(1, len(stored.texts) * len(pieces) // PROBES)
        places = list(range(0, len(stored.texts), step))
        texts += [stored.texts[place] for place in places]
        vectors += [stored.vectors[place] for place in places]
    if not texts:
        raise DataError(f"{store.folder} has a manifest and no vectors. Fill the index again.")
    chosen = np.unique(np.linspace(0, len(texts) - 1, PROBES).round().astype(int))
    return [texts[place] for place in chosen], np.stack([vectors[place] for place in chosen])


def _cosines(first: Vectors, second: Vectors) -> Vectors:
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found: Vectors = (first * second).sum(axis=1) / np.maximum(lengths, 1e-12)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
