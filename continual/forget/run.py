"""Forget rows: remove them from everything that is stored, and, on request, make the current version without them."""

from __future__ import annotations

from dataclasses import replace

from continual.care.targets import read_targets
from continual.config import Config
from continual.errors import NothingToDoError
from continual.forget.certificate import Certificate, ChangedFile, lost_models, new_place
from continual.forget.journal import Intent, alone, apply, commit, others, resume, write_intent
from continual.forget.plan import write_plan
from continual.forget.rebuild import artifacts_of, rebuild_lineage
from continual.forget.request import Request
from continual.forget.select import select
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.erase import Erasure
from continual.storage.files import scratch
from continual.storage.locks import UPDATE_LOCK
from continual.stream.sweep import sweep_ingest
from continual.versions.sweep import sweep_steps


def forget(registry: Registry, config: Config, request: Request, progress: Progress = SILENT) -> Certificate:
    """Forget rows; see `Workspace.forget`."""
    request.check()
    if request.dry_run:
        selection = select(registry, config.ingest, request, progress)
        with scratch(registry.root, "forget") as folder:
            return replace(write_plan(registry, selection, folder), path=None)
    registry.catalog.require_writable("forget")
    resume(registry)
    certificate = None
    if (request.domain, request.rows, request.query) != (None, None, None):
        with alone(registry):
            sweep_ingest(registry)
            sweep_steps(registry)
            # 1. Find the rows, and write everything new beside the workspace's files.
            selection = select(registry, config.ingest, request, progress)
            commit(registry, lambda folder: write_plan(registry, selection, folder))
            # 2. Put it in place, and search for what was removed.
            certificate = apply(registry, progress)
    if request.rebuild:
        # 3. Make the current version without the rows, and remove the models that learned them.
        with registry.lock(UPDATE_LOCK, "forget"):
            certificate = _rebuild(registry, config, certificate, progress)
    assert certificate is not None, "a request without rows rebuilds"
    return certificate


def _rebuild(registry: Registry, config: Config, erased: Certificate | None, progress: Progress) -> Certificate:
    """Rebuild the lineage, move the alias, and remove the models that depend on forgotten rows."""
    rebuilt = rebuild_lineage(registry, config, progress)
    if rebuilt is None:
        if erased is None:
            raise NothingToDoError("No version depends on forgotten rows, so there is nothing to rebuild.")
        return erased
    removed = artifacts_of(registry, rebuilt.removed)
    if registry.path("vectors").exists():
        removed.append("vectors")
    recorded = registry.digests.recorded()
    files = [ChangedFile(digest.path, digest.sha256, None) for path in removed for digest in recorded.get(path, [])]
    erasure = Erasure(
        dropped_versions=rebuilt.removed,
        dropped_artifacts=removed,
        current=None if rebuilt.old == rebuilt.new else rebuilt.new,
    )
    if erased is None:
        at, path = new_place()
        erased = Certificate(at=at, path=path, backups=read_targets(registry.root), lost=lost_models(registry.root))
    certificate = replace(erased, rebuilt=rebuilt, files=[*erased.files, *files])
    intent = Intent(erasure, certificate, removed=removed)
    with others(registry):
        commit(registry, lambda folder: write_intent(folder, intent, [], []))
        return apply(registry, progress)
