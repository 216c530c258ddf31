"""Forget rows: remove them from everything that is stored, and, on request, make the current version without them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from continual.config import Config
from continual.errors import DataError, NothingToDoError
from continual.forget.certificate import Beside, Certificate, ChangedFile, lost_models, new_place, write_certificate
from continual.forget.journal import Intent, alone, carry_out, left_over, others, resume, write_intent
from continual.forget.plan import write_plan
from continual.forget.rebuild import artifacts_of, rebuild_lineage
from continual.forget.request import Request
from continual.forget.scan import Search, search_folder
from continual.forget.select import select
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.erase import Erasure
from continual.storage.files import scratch
from continual.storage.locks import FORGET, UPDATE_LOCK, require_finished
from continual.stream.sweep import sweep_ingest
from continual.versions.sweep import sweep_steps


def forget(registry: Registry, config: Config, request: Request, progress: Progress = SILENT) -> Certificate:
    """Forget rows; see `Workspace.forget`."""
    request.check()
    if request.dry_run:
        # The workspace may be a read-only copy.
        with tempfile.TemporaryDirectory(prefix="continual-forget-") as folder:
            selection = select(registry, config.ingest, request, Path(folder), progress)
            return replace(write_plan(registry, selection, Path(folder)), path=None)
    registry.catalog.require_writable(FORGET)
    resume(registry)
    certificate = None
    if request.selects:
        certificate = _remove(registry, config, request, progress)
    if request.rebuild:
        # 4. Make the current version without the rows, and remove the models that learned them.
        with registry.lock(UPDATE_LOCK, FORGET):
            require_finished(registry.root, FORGET)
            certificate = _rebuild(registry, config, certificate, progress)
    assert certificate is not None, "a request without rows rebuilds"
    return certificate


def _remove(registry: Registry, config: Config, request: Request, progress: Progress) -> Certificate:
    """Remove the rows from everything that is stored, and report what the search finds.

    Raises:
        DataError: A removed text was found in the workspace afterwards; the certificate names the files.
    """
    with alone(registry):
        require_finished(registry.root, FORGET)
        sweep_ingest(registry)
        sweep_steps(registry)
        # 1. Find the rows, and write everything new beside the workspace's files.
        with scratch(registry.root, "forget-rows") as folder:
            selection = select(registry, config.ingest, request, folder, progress)
        # 2. Put it in place, and search the workspace for what was removed.
        certificate, search = carry_out(registry, lambda place: write_plan(registry, selection, place), progress)
    # 3. Search the user's own files. That can take long, and needs no lock.
    if search is not None and certificate.search is not None:
        beside = _beside(registry, search, progress)
        certificate = replace(certificate, search=replace(certificate.search, beside=beside))
        write_certificate(registry, certificate)
        if certificate.search is not None and certificate.search.found:
            raise DataError(left_over(registry, certificate))
    return certificate


def _beside(registry: Registry, search: Search, progress: Progress) -> Beside:
    """Search the files beside `.continual`, in the folder of the workspace."""
    found = search_folder(registry.root.parent, search, without=[registry.root], progress=progress)
    return Beside(found.files, found.bytes, found.hits, found.unread, found.links)


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
        erased = Certificate(at=at, path=path, lost=lost_models(registry.root))
    certificate = replace(erased, rebuilt=rebuilt, files=[*erased.files, *files])
    intent = Intent(erasure, certificate, removed=removed)
    with others(registry):
        return carry_out(registry, lambda folder: write_intent(folder, intent, [], []), progress)[0]
