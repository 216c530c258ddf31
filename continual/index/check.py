"""A new version and the index that an old one filled: what it does to it, and a map that keeps it in use.

`measure` is what step 5 of an update does against the parent; `check` does it for any two versions, and `fit` makes a
query encoder for the old index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Config
from continual.errors import InputError, NothingToDoError, did_you_mean
from continual.eval.suites import sample_of, suite_tasks
from continual.index.result import Compatibility, MapUsed, judge
from continual.progress import SILENT, Progress
from continual.registry import (
    Batch,
    Registry,
    Task,
    Version,
)
from continual.replay import RowReader, allot
from continual.storage.files import empty_folder, publish, remove
from continual.versions.build import kept

if TYPE_CHECKING:
    from continual.eval.encoder import OnceEncoder
    from continual.index.cross import Side
    from continual.index.fitting import Fitted
    from continual.index.maps import QueryMap, Texts

FOLDER = "vectors"
"""The folder below `.continual/` with vectors of what is in service and of its parent: they are not encoded again."""

PROOF_TEXTS = 16
"""Texts on which a fitted folder is proved."""


@dataclass(frozen=True)
class FittedFolder:
    """A query encoder for an old index.

    Attributes:
        directory: The folder, as `SentenceTransformer` loads it.
        compatibility: What it does, task by task.
        tried: Every map that was tried, the simplest first: method, settings, and its agreement on held-out rows.
    """

    directory: Path
    compatibility: Compatibility
    tried: list[dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data: directory, tried, and what `Compatibility.to_json` gives."""
        return {"directory": str(self.directory), "tried": self.tried, **self.compatibility.to_json()}


@dataclass(frozen=True)
class Pair:
    """The encoders of the two models, the old one first, and where what they compare is."""

    registry: Registry
    config: Config
    old: OnceEncoder
    new: OnceEncoder
    progress: Progress


def vectors_file(registry: Registry, version: str) -> Path:
    """Return where the vectors of a version are kept while it is in service, or the parent of what is."""
    return registry.path(f"{FOLDER}/{version}.safetensors")


def drop_vectors(registry: Registry, current: Version) -> None:
    """Remove the vectors of all versions but what is in service, for the next step, and its parent, for `fit`."""
    for file in registry.path(FOLDER).glob("*.safetensors"):
        if file.stem not in (current.id, current.parent):
            remove(file)


def measure(pair: Pair, tasks: Sequence[Task], batches: Sequence[Batch]) -> Compatibility | None:
    """Search tasks with both models in the indexes of both, and say whether to re-index.

    Args:
        pair: The models.
        tasks: Of the suite `step`; those that rank no documents are left out.
        batches: What was learned: a linear map is fitted on rows of these, to see whether an adapter would do.

    Returns:
        None if no task ranks documents.
    """
    from continual.index.cross import comparable
    from continual.index.fitting import fit as fit_map

    ranked = comparable(tasks)
    if not ranked:
        return None
    _, texts = _texts(pair, ranked, batches, pair.config.compat.rows)
    fitted = fit_map(texts, "linear", progress=pair.progress) if texts is not None else None
    return _compare(pair, ranked, fitted)


def measure_step(
    registry: Registry,
    config: Config,
    parent: Side,
    new: Side,
    tasks: Sequence[Task],
    learning: Sequence[str],
    progress: Progress = SILENT,
) -> Compatibility | None:
    """Measure a version that is just being made against its parent, as `measure` does.

    The vectors that the next step needs of the version are kept: those of the tasks, and of the rows that a map was
    fitted on.

    Args:
        registry: The workspace's registry.
        config: The step's settings.
        parent: It filled the index.
        new: The version, scored already.
        tasks: Of the suite `step`.
        learning: Ids of the batches that the step learns.
        progress: Shows how far it is.
    """
    learned = registry.learned(registry.version(parent.version)) | set(learning)
    pair = _pair(registry, config, parent, new, progress)
    found = measure(pair, tasks, [batch for batch in registry.batches() if batch.id in learned])
    if found is not None and new.kept is not None:
        pair.new.save(new.kept)
    return found


def check(registry: Registry, config: Config, old: Version, new: Version, progress: Progress = SILENT) -> Compatibility:
    """Measure two versions on the suite `step`, and keep the result.

    Raises:
        InputError: They are the same.
        NothingToDoError: No task of the suite ranks documents.
    """
    batches = _learned(registry, old, new)
    tasks = suite_tasks(registry.tasks(), config, "step")
    found = measure(_open(registry, config, old, new, progress), tasks, batches)
    if found is None:
        raise NothingToDoError(_NO_TASK)
    registry.add_compatibility(found.to_json())
    return found


def fit(
    registry: Registry,
    config: Config,
    old: Version,
    new: Version,
    out: str | Path,
    *,
    method: str = "auto",
    seed: int = 0,
    progress: Progress = SILENT,
) -> FittedFolder:
    """Make a query encoder of a new version for the index of an old one, measure it, and keep the result.

    The map is fitted on rows that either version has learned, see `_rows`.

    Args:
        registry: The workspace's registry.
        config: Its settings.
        old: The version that filled the index.
        new: The one whose queries it is to answer.
        out: A folder that does not exist yet, or is empty.
        method: One of `continual.index.maps.METHODS`, or "auto".
        seed: Of what is random in fitting.
        progress: Shows how far it is.

    Raises:
        InputError: The versions are the same, there is no such method, or the folder holds something.
        NothingToDoError: Too few rows were learned, or no task ranks documents.
        FoldError: The folder does not encode as the map does.
    """
    from continual.index.cross import comparable
    from continual.index.fitting import LEAST
    from continual.index.fitting import fit as fit_map
    from continual.index.maps import METHODS

    known = ("auto", *METHODS)
    if method not in known:
        raise InputError(f"--method takes {', '.join(known)}; not {method!r}.{did_you_mean(method, known)}")
    target, batches = empty_folder(out), _learned(registry, old, new)
    tasks = comparable(suite_tasks(registry.tasks(), config, "step"))
    if not tasks:
        raise NothingToDoError(_NO_TASK)
    pair = _open(registry, config, old, new, progress)
    asked, texts = _texts(pair, tasks, batches, config.compat.fit_rows)
    if texts is None:
        raise NothingToDoError(
            f"A map needs {LEAST} rows that {old.id} or {new.id} has learned (there are {len(asked)} within "
            "compat.fit_rows), and a model that compares by cosine or dot product."
        )
    fitted = fit_map(texts, method, seed=seed, progress=progress)
    found = _compare(pair, tasks, fitted)
    tried = [_described(each.map) | {"agreement": each.agreement} for each in fitted.candidates]
    result = FittedFolder(target, found, tried)
    _write(pair, new, fitted.map, asked[:PROOF_TEXTS], result)
    registry.add_compatibility(found.to_json())
    return result


def _write(pair: Pair, new: Version, turn: QueryMap, proof: list[str], result: FittedFolder) -> None:
    from continual.eval.tasks import local_metadata
    from continual.index.adapter import prove_adapter, write_adapter

    expected = turn(pair.new.vectors("query", proof, local_metadata("texts")))
    length, trust = pair.config.eval.max_length, pair.config.trust_remote_code
    with publish(result.directory) as partial:
        with kept(pair.registry, new.id, progress=pair.progress) as (folder,):
            write_adapter(folder, turn, partial, result.to_json())
        prove_adapter(partial, proof, expected, max_length=length, trust_remote_code=trust)


_NO_TASK = (
    "No task of the suite `step` ranks documents, so there is no index to compare. Add one with `continual task add`."
)


def _learned(registry: Registry, old: Version, new: Version) -> list[Batch]:
    """Return the batches that either version has learned.

    Raises:
        InputError: They are the same version.
    """
    if old.id == new.id:
        raise InputError(f"{old.id} fits its own index. Name two versions, the one that filled the index first.")
    learned = registry.learned(old) | registry.learned(new)
    return [batch for batch in registry.batches() if batch.id in learned]


def _open(registry: Registry, config: Config, old: Version, new: Version, progress: Progress) -> Pair:
    """Load two versions; their folders are not needed afterwards."""
    from continual.index.cross import Side

    with kept(registry, old.id, new.id, progress=progress) as folders:
        first, second = (
            Side(version.id, version.sha256, folder, vectors_file(registry, version.id))
            for version, folder in zip((old, new), folders, strict=True)
        )
        return _pair(registry, config, first, second, progress)


def _pair(registry: Registry, config: Config, old: Side, new: Side, progress: Progress) -> Pair:
    first, second = (
        side.encoder(
            config.eval,
            trust_remote_code=config.trust_remote_code,
            instructed=registry.instructions(),
            progress=progress,
        )
        for side in (old, new)
    )
    return Pair(registry, config, first, second, progress)


def _compare(pair: Pair, tasks: Sequence[Task], fitted: Fitted | None) -> Compatibility:
    from continual.index.cross import compare_indexes

    # Without layers a map leaves every ranking as it is.
    turn = fitted.map if fitted is not None and fitted.map.layers else None
    found = compare_indexes(
        pair.old,
        pair.new,
        tasks,
        pair.registry.root,
        samples={task.name: sample_of(task, pair.config.suites.step) for task in tasks},
        turn=turn,
        progress=pair.progress,
    )
    if fitted is not None and turn is None:
        found = [replace(task, mapped_on_old=task.new_on_old) for task in found]
    used = None if fitted is None else MapUsed(**_described(fitted.map), rows=fitted.rows, held_out=fitted.held_out)
    return judge(pair.old.version, pair.new.version, found, used, pair.config.compat)


def _described(turn: QueryMap) -> dict[str, Any]:
    return {"method": turn.method, "settings": turn.settings}


def _texts(pair: Pair, tasks: Sequence[Task], batches: Sequence[Batch], rows: int) -> tuple[list[str], Texts | None]:
    """Return queries of learned rows, and the rows' vectors under both models; None where no map can be fitted."""
    from continual.eval.tasks import local_metadata
    from continual.index.fitting import LEAST
    from continual.index.maps import texts_of

    asked, passages, instructions = _rows(pair.registry, tasks, batches, rows)
    if len(asked) < LEAST or pair.new.compares_by not in ("cosine", "dot"):
        return asked, None
    pair.progress.start("encoding learned texts", None, "texts")
    texts = local_metadata("texts")
    queries = _vectors(pair.new, asked, instructions)
    old, new = (encoder.vectors("document", passages, texts) for encoder in (pair.old, pair.new))
    pair.progress.finish()
    return asked, texts_of(queries, old, new, normalise=pair.new.compares_by == "cosine")


def _vectors(encoder: OnceEncoder, queries: list[str], instructions: list[str | None]) -> Any:
    """Return the vectors of queries, each with its instruction, [queries, dimensions]."""
    import numpy as np

    from continual.eval.tasks import local_metadata

    found: dict[int, Any] = {}
    for number, instruction in enumerate(dict.fromkeys(instructions)):
        places = [place for place, each in enumerate(instructions) if each == instruction]
        name = local_metadata("texts" if instruction is None else f"texts-{number}")
        encoder.instruct(name, instruction)
        found.update(zip(places, encoder.vectors("query", [queries[place] for place in places], name), strict=True))
    return np.stack([found[place] for place in range(len(queries))])


def _rows(
    registry: Registry, tasks: Sequence[Task], batches: Sequence[Batch], rows: int
) -> tuple[list[str], list[str], list[str | None]]:
    """Return queries and passages of learned rows, as many of each domain, and the queries' instructions.

    Queries and relevant documents of tasks are never among them. Other documents of the tasks that are searched are
    left out where half of a domain's rows are left without: the corpus of a held-out task is filled up with passages
    that are trained on.
    """
    if not rows or not batches:
        return [], [], []
    with RowReader(registry) as source:
        table = source.draw([], batches, allot("balanced", source.count(batches), 1.0, rows), {}).table
    texts = [table[name].to_pylist() for name in ("domain", "query", "positive")]
    taken = _tested(registry, tasks, {text for column in texts[1:] for text in column})
    domains: dict[str, list[tuple[str, str]]] = {}
    for domain, *pair in zip(*texts, strict=True):
        domains.setdefault(domain, []).append((pair[0], pair[1]))
    pairs, instructions, known_to = [], [], registry.instructions()
    for domain, known in domains.items():
        others = [pair for pair in known if taken.isdisjoint(pair)]
        some = others if 2 * len(others) >= len(known) else known
        pairs += some
        instructions += [known_to.get(domain)] * len(some)
    return [query for query, _ in pairs], [passage for _, passage in pairs], instructions


def _tested(registry: Registry, tasks: Sequence[Task], texts: set[str]) -> set[str]:
    """Return which of some texts are in the local ones of some tasks, whose other texts are never made objects."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    found: set[str] = set()
    wanted = pa.array(texts, pa.string())
    for task in (task for task in tasks if task.mteb is None):
        for kind in ("queries", "corpus"):
            with pq.ParquetFile(registry.task_folder(task) / f"{kind}.parquet") as file:
                for batch in file.iter_batches(columns=["text"]):
                    known = pc.is_in(batch["text"], value_set=wanted)
                    found.update(batch["text"].filter(known).to_pylist())
    return found
