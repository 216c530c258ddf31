"""A version is a recipe first: its weights are built from the root base and adapters, by a step and ever again.

`join` is step 4 of an update, and `rebuild` does the same once more: it folds the adapter of a version into what it
was trained on and merges the result as its recipe says. The same recipe gives the same bytes on the same platform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.errors import InputError, ModelError, RebuildError
from continual.models.folder import add_prompts
from continual.models.weights import weights_sha256
from continual.progress import SILENT, Progress
from continual.registry import INSTRUCTED, Provenance, Registry, Version
from continual.registry.registry import CURRENT, ROOT
from continual.storage.files import (
    SUFFIX,
    remove,
    replace,
    scratch,
)
from continual.storage.locks import guard

if TYPE_CHECKING:
    from continual.merge.sources import Model

LOCK = "versions.lock"
"""Held by those who read snapshots together, and by who builds or drops them alone."""

BEGUN = "train-"
"""Beginning of the name of the folder below runs/ with the checkpoint of a recipe's training, before its key."""


def join(
    version: str,
    provenance: Provenance,
    current: Path,
    update: Model,
    root: Path,
    out: Path,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Merge an update with the current version, as a provenance says.

    Args:
        version: Id of the version that this makes.
        provenance: How: its `merge`, `weight`, `parameters`, `state`, `seed` and `instructions` are read.
        current: Folder of the version that was current when the step began.
        update: The update model.
        root: Folder of the root base.
        out: Folder to publish.
        progress: Shows how far it is.

    Returns:
        What the rule must be given at the next step.
    """
    from continual.merge.methods import find_method
    from continual.merge.rules import find_rule
    from continual.merge.sequence import merge_next
    from continual.merge.sources import Model

    assert provenance.merge is not None, "an update has a merge rule"
    assert provenance.weight is not None, "an update has a weight"
    state = merge_next(
        Model(current),
        update,
        Model(root),
        find_method(find_rule(provenance.merge).method),
        out,
        weight=provenance.weight,
        parameters=provenance.parameters,
        state=provenance.state,
        # Another draw at every step: what a seeded method dropped of one update it must not drop of all.
        seed=f"{provenance.seed}/{version}",
        progress=progress,
    )
    _add_instructions(provenance, out)
    return state


def combine(
    version: str,
    provenance: Provenance,
    members: Sequence[Path],
    base: Path,
    out: Path,
    progress: Progress = SILENT,
) -> None:
    """Merge the models of a recipe's phases, as a provenance says.

    Args:
        version: Id of the version that this makes.
        provenance: How: its `merge` (a merge method), `weights`, `parameters`, `seed` and `instructions` are read.
        members: Folders of the models, in the order of the weights.
        base: Folder of the model that task vectors are measured from; unused by a method that takes no base.
        out: Folder to publish.
        progress: Shows how far it is.
    """
    from continual.merge.engine import merge_models
    from continual.merge.methods import find_method
    from continual.merge.sequence import merge_sequence
    from continual.merge.sources import Model

    assert provenance.merge is not None, "a merge of phases has a method"
    method, models = find_method(provenance.merge), [Model(folder) for folder in members]
    parameters, weights = provenance.parameters, provenance.weights
    if method.rescaled:
        merge_sequence(models, Model(base), method, out, parameters=parameters, progress=progress)
    else:
        merge_models(
            models,
            method,
            out,
            weights=[0.0, *weights] if method.base == "first" else weights,
            base=None if method.base == "none" else Model(base),
            parameters=parameters,
            seed=f"{provenance.seed}/{version}",
            progress=progress,
        )
    _add_instructions(provenance, out)


def _add_instructions(provenance: Provenance, folder: Path) -> None:
    """Add the instructions of the learned domains to a version's prompts, under the domains' names."""
    if provenance.instructions:
        add_prompts(folder, {domain: INSTRUCTED.format(text) for domain, text in provenance.instructions.items()})


def materialise(registry: Registry, version: Version, progress: Progress = SILENT) -> Path:
    """Return the folder of a version, built again if its snapshot was dropped.

    Raises:
        ModelError: It is the root base, and gone; or an adapter of the lineage is.
        RebuildError: What was built is not what was recorded.
        WorkspaceBusy: Another command builds or drops versions.
    """
    target = registry.path(version.path)
    if target.is_dir():
        return target
    if version.parent is None:
        raise ModelError(
            f"{target}, the root base, is gone, and nothing can be built without it. Put a copy of "
            f"{version.provenance.base} there that has the weights {version.sha256[:12]}."
        )
    with alone(registry):
        if not target.is_dir():  # another command may have built it while this one waited
            with _built(registry, version, progress, from_root=False) as folder:
                replace(folder, target)
    return target


def alone(registry: Registry) -> AbstractContextManager[None]:
    """Hold the snapshots: nobody else builds, drops or copies one."""
    return guard(registry.root / LOCK, alone=True, seconds=registry.catalog.busy_seconds)


@contextmanager
def kept(registry: Registry, *names: str, progress: Progress = SILENT) -> Iterator[list[Path]]:
    """Yield the folders of versions, built again where they were dropped, which stay while the body uses them.

    Their weights are those recorded: a damaged snapshot is refused, whatever it was wanted for.

    Args:
        registry: The workspace's registry.
        *names: Ids or aliases.
        progress: Shows how far it is.

    Raises:
        ModelError: As `materialise`; or the weights are not those recorded.
    """
    versions = [registry.version(name) for name in names]
    while True:
        folders = [materialise(registry, version, progress) for version in versions]
        with guard(registry.root / LOCK, alone=False, seconds=registry.catalog.busy_seconds):
            if all(folder.is_dir() for folder in folders):  # nobody dropped one in between
                for version, folder in zip(versions, folders, strict=True):
                    prove(version, folder)
                yield folders
                return


def prove(version: Version, folder: Path) -> None:
    """Refuse a snapshot whose weights are not those recorded.

    Raises:
        ModelError: They are not.
    """
    found = weights_sha256(folder)
    if found != version.sha256:
        cure = (
            f"Put a copy of {version.provenance.base} with these weights there."
            if version.parent is None
            else f"`continual versions rebuild {version.id}` builds it again."
        )
        raise ModelError(
            f"{folder} was damaged or changed: its weights are {found[:12]}, and {version.id} was recorded with "
            f"{version.sha256[:12]}. {cure}"
        )


def rebuild(registry: Registry, version: Version, progress: Progress = SILENT) -> Path:
    """Build a version from the root base and the adapters of its lineage, check its sha256, and put it in its place.

    The caller holds the update lock, for an update reads snapshots.

    Raises:
        InputError: It is the root base, which is built from nothing.
        RebuildError: What was built is not what was recorded.
        ModelError: An adapter of the lineage is gone.
    """
    if version.parent is None:
        raise InputError(f"{version.id} is the root base: the others are built from it.")
    target = registry.path(version.path)
    with _built(registry, version, progress, from_root=True) as folder, alone(registry):
        replace(folder, target)
    return target


@dataclass(frozen=True)
class Collected:
    """What `collect` did.

    Attributes:
        dropped: Ids of the versions whose snapshots were dropped.
        kept: Why each other snapshot stays, by id: "root", "current", "pinned", "every 10th", "no adapter" ...
        bytes: Bytes freed.
        checkpoints: Checkpoints removed, of trainings that a recipe began and did not end.
    """

    dropped: list[str]
    kept: dict[str, str]
    bytes: int
    checkpoints: int


def collect(registry: Registry, keep_every: int, *, dry_run: bool = False, progress: Progress = SILENT) -> Collected:
    """Drop the snapshots that can be built again; each one is built once more, and compared, before any is dropped.

    What is in service, the root base, pinned versions and every `keep_every`-th stay. Checkpoints of trainings that a
    recipe began and did not end go too: nobody knows whether it will be asked for again.

    Args:
        registry: The workspace's registry; the caller holds the update lock.
        keep_every: 0 keeps none besides.
        dry_run: Only say what would be dropped.
        progress: Shows how far it is.
    """
    stays: dict[str, str] = {}
    dropped: list[str] = []
    freed = 0

    def candidates() -> Iterator[tuple[Version, str | None]]:
        current = registry.version(CURRENT).id
        for position, version in enumerate(registry.versions()):
            if registry.path(version.path).is_dir():
                yield version, _reason(registry, version, position, current, keep_every)

    # Built again while others read, and asked anew under the lock: what is in service or pinned may have changed.
    proved = {}
    for version, reason in candidates():
        if reason is None:
            proved[version.id] = None if dry_run else _unbuildable(registry, version, progress)
    with alone(registry):
        for version, reason in candidates():
            reason = reason or proved.get(version.id, "came back meanwhile")
            if reason is not None:
                stays[version.id] = reason
                continue
            folder = registry.path(version.path)
            freed += _size(folder)
            dropped.append(version.id)
            if not dry_run:
                # Renamed first: a killed removal leaves nothing that looks like a version.
                gone = folder.with_name(f".{folder.name}.gone{SUFFIX}")
                remove(gone)
                folder.rename(gone)
                remove(gone)
    begun = sorted(registry.path("runs").glob(f"{BEGUN}*"))
    for folder in begun:
        freed += _size(folder)
        if not dry_run:
            remove(folder)
    return Collected(dropped, stays, freed, len(begun))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _unbuildable(registry: Registry, version: Version, progress: Progress) -> str | None:
    """Return why a version cannot be built again, or None if it was, and came out as recorded."""
    try:
        with _built(registry, version, progress, from_root=False):
            return None
    except (RebuildError, ModelError) as error:
        return f"cannot be built again: {error}"


def _reason(registry: Registry, version: Version, position: int, current: str, keep_every: int) -> str | None:
    """Return why a snapshot stays, or None."""
    if version.id in (ROOT, current):
        return "root" if version.id == ROOT else "current"
    if version.pinned:
        return "pinned"
    if keep_every and position % keep_every == 0:
        return f"every {keep_every}th"
    if not version.provenance.members and not _has_adapter(registry, version):
        return "its adapter is gone"
    return None


def _has_adapter(registry: Registry, version: Version) -> bool:
    return version.adapter is not None and registry.path(version.adapter).is_dir()


@contextmanager
def _built(registry: Registry, version: Version, progress: Progress, *, from_root: bool) -> Iterator[Path]:
    """Yield a folder with the version built again and proved, which is removed at the end if it is still there.

    Unless told to go from the root, it goes from the nearest snapshot, and from the root if that one is damaged.
    """
    with scratch(registry.root / "versions", version.id) as folder:
        try:
            found = _chain(registry, version, folder, progress, from_root=from_root)
        except (RebuildError, ModelError):
            if from_root:
                raise
            found = _chain(registry, version, folder, progress, from_root=True)
        yield found


def _chain(registry: Registry, version: Version, folder: Path, progress: Progress, *, from_root: bool) -> Path:
    """Build one version after the other in a folder, from the root or the nearest snapshot on; return the last one."""
    lineage = registry.lineage(version)
    near = range(len(lineage) - 2, 0, -1)
    first = 0 if from_root else next((i for i in near if registry.path(lineage[i].path).is_dir()), 0)
    root = materialise(registry, lineage[0])  # or say that it is gone
    parent, current = lineage[first], registry.path(lineage[first].path)
    for each in lineage[first + 1 :]:
        built = folder / each.id
        if each.provenance.members:
            _build_merged(registry, each, current, built, progress, from_root=from_root)
        else:
            _build(registry, each, parent, current, root, built, progress)
        found = weights_sha256(built)
        if found != each.sha256:
            raise RebuildError(
                f"{each.id} was recorded with the weights {each.sha256[:12]}, and the rebuild gives {found[:12]}. "
                f"It was made with {_libraries(each)}: install these to build it. Or an adapter, or the root base, was "
                "changed: put back a copy of them."
            )
        if current.parent == folder:
            remove(current)
        parent, current = each, built
    return current


def _build(
    registry: Registry, version: Version, parent: Version, current: Path, root: Path, out: Path, progress: Progress
) -> None:
    """Build a version from the one before it and its adapter."""
    from continual.merge.sources import Adapted

    if version.adapter is None or not _has_adapter(registry, version):
        raise ModelError(f"The adapter of {version.id} is gone, so neither it nor what came after can be built again.")
    start = current if version.provenance.start == parent.id else root
    join(version.id, version.provenance, current, Adapted(start, registry.path(version.adapter)), root, out, progress)


def _build_merged(
    registry: Registry, version: Version, base: Path, out: Path, progress: Progress, *, from_root: bool
) -> None:
    """Build a version from the models that it merged, each built again if need be, and the base before it."""
    with scratch(out.parent, f"{version.id}-members") as folder:
        members = []
        for name in version.provenance.members:
            member = registry.version(name)
            snapshot = registry.path(member.path)
            if from_root or not snapshot.is_dir():
                snapshot = _chain(registry, member, folder / name, progress, from_root=from_root)
            members.append(snapshot)
        combine(version.id, version.provenance, members, base, out, progress)


def _libraries(version: Version) -> str:
    return ", ".join(f"{name} {number}" for name, number in version.provenance.libraries.items()) or "unknown"
