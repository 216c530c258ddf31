"""Two versions and the index that the older one filled: what new queries find in it, and whether to re-index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from continual.config import Config
from continual.errors import InputError, NothingToDoError
from continual.eval.samples import samples_of
from continual.eval.suites import suite_tasks
from continual.index.pair import Pair, open_pair, pair_of
from continual.index.result import IndexComparison, MapUsed, judge_index
from continual.index.rows import fitting_texts
from continual.progress import SILENT, Progress
from continual.registry import (
    Batch,
    Registry,
    Task,
    Version,
)
from continual.versions.compare import version_pair

if TYPE_CHECKING:
    from continual.index.cross import Side
    from continual.index.fitting import Fitted
    from continual.index.maps import QueryMap

NO_TASK = (
    "No task of the suite `step` ranks documents, so there is no index to compare. Add one with `continual task add`."
)


def measure(pair: Pair, tasks: Sequence[Task], batches: Sequence[Batch]) -> IndexComparison | None:
    """Search tasks with both models in the indexes of both, and say whether to re-index.

    Args:
        pair: The models.
        tasks: Of the suite `step`; those that rank no documents are left out.
        batches: Learned batches. A linear query map is fitted on their rows, to see if an adapter helps.

    Returns:
        None if no task ranks documents.
    """
    from continual.index.cross import comparable
    from continual.index.fitting import fit as fit_map

    ranked = comparable(tasks)
    if not ranked:
        return None
    _, texts = fitting_texts(pair, ranked, batches, pair.config.index.rows)
    fitted = fit_map(texts, "linear", progress=pair.progress) if texts is not None else None
    return compare_pair(pair, ranked, fitted)


def measure_step(
    registry: Registry,
    config: Config,
    parent: Side,
    new: Side,
    tasks: Sequence[Task],
    learning: Sequence[str],
    progress: Progress = SILENT,
) -> IndexComparison | None:
    """Compare a version that an update is making with its parent, as `measure` does.

    The version's vectors are kept for the next update: those of the tasks and of the rows that a map was fitted on.

    Args:
        registry: The workspace's registry.
        config: The step's settings.
        parent: The version that filled the index.
        new: The version being made, already scored.
        tasks: Of the suite `step`.
        learning: Ids of the batches that the step learns.
    """
    learned = registry.learned(registry.version(parent.version)) | set(learning)
    pair = pair_of(registry, config, parent, new, progress)
    found = measure(pair, tasks, [batch for batch in registry.batches() if batch.id in learned])
    if found is not None and new.kept is not None:
        pair.new.save(new.kept)
    return found


def compare_index(
    registry: Registry, config: Config, a: str | None, b: str, progress: Progress = SILENT
) -> IndexComparison:
    """Compare two versions on the suite `step`, and keep the result; see `Workspace.compare_index`."""
    old, new = version_pair(registry, a, b)
    batches = learned_batches(registry, old, new)
    tasks = suite_tasks(registry.tasks(), config, "step")
    found = measure(open_pair(registry, config, old, new, progress), tasks, batches)
    if found is None:
        raise NothingToDoError(NO_TASK)
    registry.add_compatibility(found.to_json())
    return found


def index_comparisons(registry: Registry) -> list[IndexComparison]:
    """Return what was measured of every pair of versions, the oldest measurement first."""
    return [IndexComparison.from_json(found) for found in registry.compatibility().values()]


def learned_batches(registry: Registry, old: Version, new: Version) -> list[Batch]:
    """Return the batches that either version has learned.

    Raises:
        InputError: Both are the same version.
    """
    if old.id == new.id:
        raise InputError(
            f"Both versions are {old.id}, and a version always matches its own index. Name two different versions: "
            "first the one that filled the index."
        )
    learned = registry.learned(old) | registry.learned(new)
    return [batch for batch in registry.batches() if batch.id in learned]


def compare_pair(pair: Pair, tasks: Sequence[Task], fitted: Fitted | None) -> IndexComparison:
    """Search tasks with both models in the indexes of both, and through a fitted map if there is one."""
    from continual.index.cross import compare_indexes

    pair.registry.task_folders([task for task in tasks if task.mteb is None])  # checks their files
    # Without layers a map leaves every ranking as it is.
    query_map = fitted.map if fitted is not None and fitted.map.layers else None
    found = compare_indexes(
        pair.old,
        pair.new,
        tasks,
        pair.registry.root,
        samples=samples_of(pair.registry, tasks, pair.config, "step"),
        query_map=query_map,
        progress=pair.progress,
    )
    if fitted is not None and query_map is None:
        found = [replace(task, mapped_on_old=task.new_on_old) for task in found]
    used = None if fitted is None else MapUsed(**described(fitted.map), rows=fitted.rows, held_out=fitted.held_out)
    return judge_index(pair.old.version, pair.new.version, found, used, pair.config.index)


def described(query_map: QueryMap) -> dict[str, Any]:
    """Return a map's method and settings as plain data."""
    return {"method": query_map.method, "settings": query_map.settings}
