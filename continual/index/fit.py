"""A query encoder of a new version for the index that an old one filled: fit a map, measure it, write the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Config
from continual.errors import InputError, NothingToDoError, did_you_mean
from continual.eval.suites import suite_tasks
from continual.index.check import NO_TASK, compare_pair, described, learned_batches
from continual.index.pair import Pair, open_pair
from continual.index.result import IndexComparison
from continual.index.rows import fitting_texts
from continual.progress import SILENT, Progress
from continual.registry import Registry, Version
from continual.storage.files import empty_folder, publish
from continual.versions.build import kept

if TYPE_CHECKING:
    from continual.index.maps import QueryMap

PROOF_TEXTS = 16
"""Texts on which a fitted folder is compared with its map."""


@dataclass(frozen=True)
class FittedFolder:
    """A query encoder for an old index.

    Attributes:
        directory: The folder; `SentenceTransformer` loads it.
        comparison: What its queries find in the old index, task by task.
        tried: Every map that was tried, the simplest first: method, settings, and agreement on held-out rows.
    """

    directory: Path
    comparison: IndexComparison
    tried: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data: directory, tried, and the keys of `IndexComparison.to_json`."""
        return {"directory": str(self.directory), "tried": self.tried, **self.comparison.to_json()}


def fit_index(
    registry: Registry,
    config: Config,
    old: str,
    new: str,
    out: str | Path,
    *,
    method: str = "auto",
    seed: int = 0,
    progress: Progress = SILENT,
) -> FittedFolder:
    """Make a query encoder of a new version for the index of an old one; see `Workspace.fit_index`.

    Raises:
        FoldError: The folder does not encode as the map does.
    """
    first, second = registry.version(old), registry.version(new)
    try:
        return _fit(registry, config, first, second, out, method, seed, progress)
    except OSError as error:
        raise InputError(f"The query encoder cannot be written to {out}: {error.strerror or error}.") from None


def _fit(
    registry: Registry,
    config: Config,
    old: Version,
    new: Version,
    out: str | Path,
    method: str,
    seed: int,
    progress: Progress,
) -> FittedFolder:
    from continual.index.cross import comparable
    from continual.index.fitting import LEAST
    from continual.index.fitting import fit as fit_map
    from continual.index.maps import METHODS

    known = ("auto", *METHODS)
    if method not in known:
        raise InputError(f"--method takes {', '.join(known)}; not {method!r}.{did_you_mean(method, known)}")
    target, batches = empty_folder(out), learned_batches(registry, old, new)
    tasks = comparable(suite_tasks(registry.tasks(), config, "step"))
    if not tasks:
        raise NothingToDoError(NO_TASK)
    pair = open_pair(registry, config, old, new, progress)
    asked, texts = fitting_texts(pair, tasks, batches, config.index.fit_rows)
    if texts is None:
        raise NothingToDoError(
            f"A query map needs {LEAST} rows that {old.id} or {new.id} has learned (there are {len(asked)} within "
            "index.fit_rows), and a model that compares by cosine or dot product."
        )
    fitted = fit_map(texts, method, seed=seed, progress=progress)
    found = compare_pair(pair, tasks, fitted)
    tried = [described(each.map) | {"agreement": each.agreement} for each in fitted.candidates]
    result = FittedFolder(target, found, tried)
    _write(pair, new, fitted.map, asked[:PROOF_TEXTS], result)
    registry.add_compatibility(found.to_json())
    return result


def _write(pair: Pair, new: Version, query_map: QueryMap, proof: list[str], result: FittedFolder) -> None:
    from continual.eval.tasks import local_metadata
    from continual.index.adapter import prove_adapter, write_adapter
    from continual.train.similarity import similarity_of

    expected = query_map(pair.new.vectors("query", proof, local_metadata("texts")))
    length, trust = pair.config.eval.max_length, pair.config.trust_remote_code
    with publish(result.directory) as partial:
        with kept(pair.registry, new.id, progress=pair.progress) as (folder,):
            write_adapter(folder, query_map, partial, result.to_json(), similarity_of(pair.new.wrapper.model))
        prove_adapter(partial, proof, expected, max_length=length, trust_remote_code=trust)
