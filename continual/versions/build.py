"""The weights of a version, built from its provenance.

An update merges with `merge_update` (its step 4), and a recipe merges its phases with `merge_members`. A rebuild calls
the same two functions: it folds the adapter of a version into the model it was trained from, and merges as the
provenance says. The same provenance gives the same bytes on the same platform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.errors import DataError, InputError, ModelError, RebuildError
from continual.models.folder import add_prompts
from continual.models.weights import weights_sha256
from continual.progress import SILENT, Progress
from continual.registry import INSTRUCTED, Provenance, Registry, Version
from continual.registry.artifacts import adapter_of, snapshot_of
from continual.registry.erase import FORGOTTEN
from continual.storage.files import remove, replace, scratch
from continual.storage.locks import guard

if TYPE_CHECKING:
    from continual.merge.sources import Model

LOCK = "versions.lock"
"""Lock on the snapshots: shared by readers, exclusive for a command that builds or drops one."""

_SNAPSHOTS = "the model snapshots of this workspace"

PHASE_RUN = "train-"
"""Prefix of the folder in runs/ with the checkpoint of a recipe's phase. The phase's key follows."""


def merge_update(
    version: str,
    provenance: Provenance,
    current: Path,
    update: Model,
    root: Path,
    out: Path,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Merge an update model with the current version.

    Args:
        version: Id of the new version.
        provenance: Its `merge`, `weight`, `parameters`, `state`, `seed` and `instructions` decide the merge.
        current: Folder of the version that was current when the step began.
        update: The update model.
        root: Folder of the root base.
        out: Folder of the new version.

    Returns:
        State of the merge rule, for the next step.
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
        # A seeded method must not drop the same entries of every update.
        seed=f"{provenance.seed}/{version}",
        progress=progress,
    )
    _add_instructions(provenance, out)
    return state


def merge_members(
    version: str,
    provenance: Provenance,
    members: Sequence[Path],
    base: Path,
    out: Path,
    progress: Progress = SILENT,
) -> None:
    """Merge the models of a recipe's phases.

    Args:
        version: Id of the new version.
        provenance: Its `merge` (a merge method), `weights`, `parameters`, `seed` and `instructions` decide the merge.
        members: Folders of the models, in the order of the weights.
        base: Folder of the model that task vectors are measured from; a method without a base ignores it.
        out: Folder of the new version.
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
    """Add the instruction of every learned domain to a version's prompts; a prompt has the name of its domain."""
    if provenance.instructions:
        add_prompts(folder, {domain: INSTRUCTED.format(text) for domain, text in provenance.instructions.items()})


def materialise(registry: Registry, version: Version, progress: Progress = SILENT) -> Path:
    """Return the folder of a version, rebuilt if its snapshot was dropped; `prove` checks its files.

    Raises:
        DataError: A file of what it is rebuilt from is damaged.
        ModelError: The root base, or an adapter of the lineage, is missing.
        RebuildError: The rebuilt weights differ from those recorded.
        WorkspaceBusy: Another command is building or dropping versions.
    """
    target = registry.path(version.path)
    if target.is_dir():
        return target
    if version.status == FORGOTTEN:
        raise ModelError(
            f"{version.id} was trained on rows that were forgotten, so its model was removed for good. Name another "
            "version: `continual versions list`."
        )
    if version.parent is None:
        raise ModelError(
            f"The root base is missing at {target}, and no version can be rebuilt without it. Put a copy of "
            f"{version.provenance.base} there whose weights have the sha256 {version.sha256[:12]}..."
        )
    with hold_snapshots(registry):
        if not target.is_dir():  # another command may have rebuilt it while this one waited
            with temporary_rebuild(registry, version, progress, from_root=False) as folder:
                _publish(registry, version, folder)
    return target


def _publish(registry: Registry, version: Version, folder: Path) -> None:
    """Replace the snapshot of a version by a rebuilt one, and record the digests of its files.

    They can differ from those recorded before: another release writes the same settings in other words.
    """
    replace(folder, registry.path(version.path))
    registry.digests.record(version.path)


def share_snapshots(registry: Registry) -> AbstractContextManager[None]:
    """Hold the snapshots together with other readers: no other process can drop one."""
    return guard(registry.root / LOCK, _SNAPSHOTS, alone=False, seconds=registry.catalog.busy_seconds)


def hold_snapshots(registry: Registry) -> AbstractContextManager[None]:
    """Hold the snapshots exclusively: no other process can read, build or drop one.

    Raises:
        WorkspaceBusy: Another process held them for longer than the configured wait.
    """
    return guard(registry.root / LOCK, _SNAPSHOTS, alone=True, seconds=registry.catalog.busy_seconds)


@contextmanager
def kept(registry: Registry, *names: str, progress: Progress = SILENT) -> Iterator[list[Path]]:
    """Yield the folders of versions; no other process can drop them while the body runs.

    Dropped snapshots are rebuilt first. Every file is checked against its digest.

    Args:
        *names: Ids or aliases.

    Raises:
        DataError: A file of a snapshot is damaged.
        ModelError: As `materialise`.
    """
    versions = [registry.version(name) for name in names]
    while True:
        folders = [materialise(registry, version, progress) for version in versions]
        with guard(registry.root / LOCK, _SNAPSHOTS, alone=False, seconds=registry.catalog.busy_seconds):
            if all(folder.is_dir() for folder in folders):  # none was dropped before the lock was taken
                for version in versions:
                    prove(registry, version)
                yield folders
                return


def prove(registry: Registry, version: Version, *, full: bool = True) -> None:
    """Check every file of a snapshot against its digest.

    A snapshot of an older release has no digests. They are recorded once its weights are those of the version.

    Args:
        full: As in `Digests.check`.

    Raises:
        DataError: A file is damaged or missing.
    """
    snapshot = snapshot_of(version)
    if not registry.digests.recorded([snapshot]):
        folder = registry.path(version.path)
        sha256 = weights_sha256(folder)
        if sha256 != version.sha256:
            raise DataError(
                f"{folder} was damaged or changed: its weights have the sha256 {sha256[:12]}..., but {version.id} was "
                f"recorded with {version.sha256[:12]}... {snapshot.cure}"
            )
    registry.digests.check(snapshot, full=full)


def rebuild(registry: Registry, version: Version, progress: Progress = SILENT) -> Path:
    """Rebuild a version from the root base and the adapters of its lineage, and replace its snapshot.

    The caller holds the update lock, because an update reads snapshots.

    Raises:
        InputError: It is the root base.
        RebuildError: The rebuilt weights differ from those recorded; the snapshot was not replaced.
        ModelError: An adapter of the lineage is missing.
        DataError: The root base, or an adapter of the lineage, is damaged.
    """
    if version.parent is None:
        raise InputError(
            f"{version.id} is the root base, which cannot be rebuilt. Name another version: `continual versions list`."
        )
    with temporary_rebuild(registry, version, progress, from_root=True) as folder, hold_snapshots(registry):
        _publish(registry, version, folder)
    return registry.path(version.path)


def has_adapter(registry: Registry, version: Version) -> bool:
    """Return whether a version has an adapter, and its files exist."""
    return version.adapter is not None and registry.path(version.adapter).is_dir()


@contextmanager
def temporary_rebuild(registry: Registry, version: Version, progress: Progress, *, from_root: bool) -> Iterator[Path]:
    """Rebuild a version in a temporary folder, check its weights, and yield the folder. The body may move it.

    Args:
        from_root: Start from the root base. If not, start from the nearest snapshot of the lineage, and only if that
            fails from the root base.

    Raises:
        RebuildError: The rebuilt weights differ from those recorded.
        ModelError: The root base, or an adapter of the lineage, is missing.
        DataError: One of them is damaged.
    """
    with scratch(registry.root / "versions", version.id) as folder:
        try:
            snapshot = _rebuild_lineage(registry, version, folder, progress, from_root=from_root)
        except (RebuildError, ModelError, DataError):
            if from_root:
                raise
            snapshot = _rebuild_lineage(registry, version, folder, progress, from_root=True)
        yield snapshot


def _rebuild_lineage(
    registry: Registry, version: Version, folder: Path, progress: Progress, *, from_root: bool
) -> Path:
    """Rebuild the versions of a lineage one after the other, from the root or the nearest snapshot; return the last."""
    lineage = registry.lineage(version)
    newest_first = range(len(lineage) - 2, 0, -1)
    first = 0 if from_root else next((i for i in newest_first if registry.path(lineage[i].path).is_dir()), 0)
    root = materialise(registry, lineage[0])  # raises if it is missing
    for start in {lineage[0].id: lineage[0], lineage[first].id: lineage[first]}.values():
        prove(registry, start)
    parent, parent_folder = lineage[first], registry.path(lineage[first].path)
    for link in lineage[first + 1 :]:
        out = folder / link.id
        if link.provenance.members:
            _rebuild_merge(registry, link, parent_folder, out, progress, from_root=from_root)
        else:
            _rebuild_update(registry, link, parent, parent_folder, root, out, progress)
        sha256 = weights_sha256(out)
        if sha256 != link.sha256:
            raise RebuildError(
                f"Rebuilding {link.id} gives weights with the sha256 {sha256[:12]}..., but {link.sha256[:12]}... was "
                f"recorded. Install the libraries it was made with ({_libraries(link)}); if they are the same, an "
                "adapter or the root base was changed: restore them from a backup."
            )
        if parent_folder.parent == folder:
            remove(parent_folder)
        parent, parent_folder = link, out
    return parent_folder


def _rebuild_update(
    registry: Registry, version: Version, parent: Version, current: Path, root: Path, out: Path, progress: Progress
) -> None:
    """Rebuild a version from its parent's folder and its adapter."""
    from continual.merge.sources import Adapted

    if version.adapter is None or not has_adapter(registry, version):
        raise ModelError(
            f"{registry.path(version.adapter or f'adapters/{version.id}')}, the adapter of {version.id}, is missing. "
            "Without it, neither this version nor any later one can be rebuilt. Restore it from a backup."
        )
    registry.digests.check(adapter_of(version), full=True)
    start = current if version.provenance.start == parent.id else root
    merge_update(
        version.id, version.provenance, current, Adapted(start, registry.path(version.adapter)), root, out, progress
    )


def _rebuild_merge(
    registry: Registry, version: Version, base: Path, out: Path, progress: Progress, *, from_root: bool
) -> None:
    """Rebuild a version from its base and its members, which are rebuilt too if their snapshots were dropped."""
    with scratch(out.parent, f"{version.id}-members") as folder:
        members = []
        for name in version.provenance.members:
            member = registry.version(name)
            snapshot = registry.path(member.path)
            if from_root or not snapshot.is_dir():
                snapshot = _rebuild_lineage(registry, member, folder / name, progress, from_root=from_root)
            else:
                prove(registry, member)
            members.append(snapshot)
        merge_members(version.id, version.provenance, members, base, out, progress)


def _libraries(version: Version) -> str:
    return ", ".join(f"{name} {number}" for name, number in version.provenance.libraries.items()) or "unknown"
