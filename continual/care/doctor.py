"""Check a workspace: its files against the catalog both ways, and its records against each other.

Nothing is changed, except that a full check records the digests of files that have none yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from continual.care.disk import check_disk
from continual.care.findings import Diagnosis, Finding, Mend
from continual.care.records import check_records
from continual.errors import DataError
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.artifacts import Artifact
from continual.registry.digests import Damage, FileDigest
from continual.versions.build import prove

SEVERITIES = ("error", "warning", "note")


def diagnose(registry: Registry, *, full: bool = False, alone: bool = False, progress: Progress = SILENT) -> Diagnosis:
    """Check a workspace.

    Args:
        full: Read every file. If not, read only those whose size, times or inode changed since they were last read.
        alone: Whether the caller holds the locks, so that no other command is writing.
        progress: A bar over the bytes.
    """
    if full:
        registry.catalog.read_in_full()
    artifacts = registry.artifacts()
    recorded = registry.digests.recorded()
    chosen = [digest for artifact in artifacts for digest in recorded.get(artifact.path, [])]
    size = sum(digest.size for digest in chosen)
    progress.start("reading files" if full else "checking files", size, "bytes")
    findings = [
        *_damaged(registry, artifacts, recorded, full=full, progress=progress),
        *_without_digests(registry, [artifact for artifact in artifacts if artifact.path not in recorded], full=full),
        *check_disk(registry, artifacts, recorded, alone=alone),
        *check_records(registry, full=full),
        *(_checkpoints(registry) if full else ()),
    ]
    progress.finish()
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return Diagnosis(full, len(chosen), size, findings)


def _damaged(
    registry: Registry,
    artifacts: list[Artifact],
    recorded: dict[str, list[FileDigest]],
    *,
    full: bool,
    progress: Progress,
) -> Iterator[Finding]:
    """Yield the files that differ from their digests."""
    snapshots = {version.path: version for version in registry.versions()}
    scores = {score.path for score in registry.all_scores()}
    for damage in registry.digests.find_damage(artifacts, recorded, full=full, progress=progress):
        artifact = damage.artifact
        mend: Mend | None = None
        subject = damage.path
        if damage.added:
            mend = "aside"
        elif artifact.path in snapshots and snapshots[artifact.path].parent is not None:
            mend, subject = "rebuild", snapshots[artifact.path].id
        elif artifact.path in scores:
            mend = "rescore"
        yield _damage(damage, mend, subject)


def _damage(damage: Damage, mend: Mend | None, subject: str) -> Finding:
    artifact = damage.artifact
    affects = f"{artifact.owner}; commands that need it are refused"
    return Finding("error", f".continual/{damage.path}", damage.problem, affects, damage.cure, mend, subject)


def _checkpoints(registry: Registry) -> Iterator[Finding]:
    """Yield the damaged checkpoints of trainings that were interrupted. They hold their own digests."""
    from continual.train.checkpoint import FILE, is_damaged

    for path in sorted(registry.root.glob(f"runs/*/{FILE}")):
        if is_damaged(path):
            place = path.relative_to(registry.root.parent).as_posix()
            cure = f"Start again: `continual update --restart`; if `continual train` made it, remove {place}."
            yield Finding("error", place, "differs from the digest in it", "the interrupted training", cure)


def _without_digests(registry: Registry, artifacts: list[Artifact], *, full: bool) -> Iterator[Finding]:
    """Yield the artifacts that are missing, and say which have no digests; a full check records those now."""
    versions = {version.path: version for version in registry.versions()}
    new: list[Artifact] = []
    for artifact in artifacts:
        where = f".continual/{artifact.path}"
        if not registry.path(artifact.path).exists():
            yield Finding("error", where, "is missing", artifact.owner, artifact.cure)
        elif full and artifact.path in versions:
            try:
                prove(registry, versions[artifact.path])
                new.append(artifact)
            except DataError as error:
                mend: Mend | None = "rebuild" if versions[artifact.path].parent else None
                subject = versions[artifact.path].id
                yield Finding("error", where, str(error), artifact.owner, artifact.cure, mend, subject)
        else:
            new.append(artifact)
    if full:
        registry.digests.check(*new, full=True)
    if new:
        names = ", ".join(artifact.owner for artifact in new[:3]) + (f" and {len(new) - 3} more" if new[3:] else "")
        done = (
            "They were recorded now, from the files as they are." if full else "`continual doctor --full` records them."
        )
        yield Finding(
            "note", "catalog", f"an older release recorded no digests of {names}", "the search for damage", done
        )
