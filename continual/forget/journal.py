"""The intent: what is to be done is written down as a whole, and then done. A killed command is finished by the next.

Until the folder of the intent is published, nothing has changed. All locks are held by then, so what was planned still
holds. From then on every part can be repeated: one transaction changes the records and puts new files into their
places, files are removed, the catalog is written again, and a search shows what is left.

Only what records name must succeed. The search is a report: a file that it can't read or remove is listed.
"""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from continual.care.targets import read_targets
from continual.conflicts.run import LOCK as CONFLICTS_LOCK
from continual.errors import ContinualError, WorkspaceBusy
from continual.forget.certificate import Certificate, SearchResult, write_certificate
from continual.forget.scan import Search, search_folder
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.erase import Erasure, erase
from continual.storage.faults import writable
from continual.storage.files import PRIVATE, publish, remove
from continual.storage.files import replace as replace_path
from continual.storage.locks import FORGET, FORGETTING, INGEST_LOCK, UPDATE_LOCK
from continual.versions.build import hold_snapshots

PLAN, TEXTS, APART, NEW = "plan.json", "texts.parquet", "apart.parquet", "new"

_logger = logging.getLogger("continual")


@dataclass(frozen=True)
class Intent:
    """What is to be done.

    Attributes:
        erasure: Changes of the catalog.
        certificate: The certificate, without the search.
        moved: Files that were written again, relative to `.continual/`; the new ones are below the intent's folder.
        removed: Files and folders that are removed, relative to `.continual/`.
    """

    erasure: Erasure
    certificate: Certificate
    moved: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


def write_intent(folder: Path, intent: Intent, texts: Sequence[str], apart: Sequence[bytes]) -> None:
    """Write an intent into a folder, before it is published.

    Args:
        texts: Removed texts to search for.
        apart: As in `Search`.
    """
    (folder / PLAN).write_text(json.dumps(asdict(intent), default=str), encoding="utf-8")
    pq.write_table(pa.table({"text": pa.array(sorted(texts), pa.string())}), folder / TEXTS)
    pq.write_table(pa.table({"form": pa.array(sorted(apart), pa.binary())}), folder / APART)


def read_intent(folder: Path) -> Intent:
    """Return the intent in a folder."""
    return _adapter().validate_python(json.loads((folder / PLAN).read_text(encoding="utf-8")))


@cache
def _adapter() -> TypeAdapter[Intent]:
    return TypeAdapter(Intent)


def read_search(folder: Path) -> Search | None:
    """Return the search for the removed texts in the folder of an intent; None if there are none."""
    texts = pq.read_table(folder / TEXTS)["text"].to_pylist()
    return Search(texts, set(pq.read_table(folder / APART)["form"].to_pylist())) if texts else None


@contextmanager
def alone(registry: Registry) -> Iterator[None]:
    """Hold the locks of all commands that write."""
    with registry.lock(UPDATE_LOCK, FORGET), others(registry):
        yield


@contextmanager
def others(registry: Registry) -> Iterator[None]:
    """Hold the locks of the commands that store rows or read them, beside the update lock."""
    with registry.lock(INGEST_LOCK, FORGET), registry.lock(CONFLICTS_LOCK, FORGET):
        yield


def carry_out(
    registry: Registry, write: Callable[[Path], object], progress: Progress = SILENT
) -> tuple[Certificate, Search | None]:
    """Publish an intent, and do what it says. If the command is killed after the first, the next one does the rest.

    The caller holds the locks of all commands that write. Those that read the models are waited for before anything is
    published.

    Args:
        write: Called with the folder to write the intent and the new files to.

    Returns:
        The certificate, and the search, to use it on other files.

    Raises:
        WorkspaceBusy: A command reads the models for too long. Nothing was changed.
    """
    with ExitStack() as snapshots:
        with publish(registry.root / FORGETTING) as partial:
            partial.mkdir(mode=PRIVATE)
            write(partial)
            snapshots.enter_context(hold_snapshots(registry))
        _change(registry)
    return _conclude(registry, progress)


def resume(registry: Registry) -> None:
    """Finish what a killed `continual forget` began. Every command calls it when it opens the workspace.

    If it can't be finished now, commands that only read go on, and those that write are refused by the locks.
    """
    if not ((registry.root / FORGETTING).is_dir() and writable(registry.catalog.path)):
        return
    patient = Registry(registry.root, busy_seconds=0.0)
    try:
        with suppress(WorkspaceBusy), alone(patient):  # the command may be running
            if (registry.root / FORGETTING).is_dir():
                with hold_snapshots(patient):
                    _change(registry)
                certificate, _ = _conclude(registry)
                if certificate.search is not None and certificate.search.found:
                    _logger.warning("continual: %s", left_over(registry, certificate))
    except (ContinualError, OSError) as error:
        _logger.warning(
            "continual: a `continual forget` was stopped and could not be finished: %s. Until it is, commands that "
            "write to the workspace are refused.",
            str(error).rstrip("."),
        )


def _change(registry: Registry) -> None:
    """Change the records, put the new files into their places, and remove files. The caller holds all locks."""
    folder = registry.root / FORGETTING
    intent = read_intent(folder)

    def place() -> None:
        for path in intent.moved:
            new = folder / NEW / path
            if new.exists():
                _move(new, registry.path(path))

    erase(registry.catalog, intent.erasure, place)
    for path in intent.removed:
        linked = registry.path(path).resolve()  # a part of the store may lie on another disk
        remove(linked)  # first: without the link, a repetition would not find it
        remove(registry.path(path))
    _remove_empty(registry.root)
    registry.catalog.rewrite()


def _move(new: Path, target: Path) -> None:
    """Replace a stored file by a new one; where it is a link, the file that it leads to."""
    try:
        replace_path(new, target.resolve())
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with publish(target.resolve()) as partial:
            shutil.copyfile(new, partial)


def _conclude(registry: Registry, progress: Progress = SILENT) -> tuple[Certificate, Search | None]:
    """Search the workspace, write the certificate, and remove the intent. The caller holds the locks of all writers."""
    folder = registry.root / FORGETTING
    certificate, search = read_intent(folder).certificate, read_search(folder)
    searched = None if search is None else _search(registry, search, progress)
    backups = read_targets(registry.root)  # another may have been made since the plan
    certificate = replace(certificate, search=searched or certificate.search, backups=backups)
    write_certificate(registry, certificate)
    remove(folder)
    return certificate, search


def _search(registry: Registry, search: Search, progress: Progress) -> SearchResult:
    """Search the workspace for the removed texts; remove files without a record that hold one."""
    root, catalog = registry.root, registry.catalog
    store = search_folder(root, search, without=[root / FORGETTING], follow=True, progress=progress)
    owned = {artifact.path for artifact in registry.artifacts()} | {catalog.path.name}

    def recorded(path: str) -> bool:
        return bool(owned & {path, *(parent.as_posix() for parent in Path(path).parents)})

    found, cleared = [path for path in [*store.hits, *store.short] if recorded(path)], list[str]()
    for path in store.hits:
        if path not in found:
            (cleared if _clear(root, path) else found).append(path)
    if columns := search.in_catalog(catalog):
        found = [path for path in found if path != catalog.path.name]
        found += [f"{catalog.path.name} ({column})" for column in columns]
    return SearchResult(
        texts=len(search.texts),
        whole_only=search.whole_only,
        files=store.files,
        bytes=store.bytes,
        cleared=cleared,
        found=found,
        short=[path for path in store.short if path not in found],
        unread=store.unread,
    )


def _clear(root: Path, path: str) -> bool:
    """Remove a file; return False if it can't be removed, or lies elsewhere, where a link leads to."""
    if not (root / path).resolve().is_relative_to(root.resolve()):
        return False
    try:
        remove(root / path)
    except OSError:
        return False
    return True


def left_over(registry: Registry, certificate: Certificate) -> str:
    """Return the message for removed texts that were found afterwards."""
    found = certificate.search.found if certificate.search is not None else []
    more = f" and {len(found) - 5} more" if found[5:] else ""
    return (
        f"The rows were removed, but a removed text is also in {', '.join(found[:5])}{more}, in {registry.root}. "
        "Forget does not change these: remove files by hand if you know that nothing needs them, and look at columns "
        "of the catalog, which hold names and settings, not rows. The certificate is "
        f"{registry.path(str(certificate.path))}."
    )


def _remove_empty(root: Path) -> None:
    """Remove the folders of domains and of scores that have no file any more."""
    for path in [*root.glob("scores/*/*/"), *root.glob("scores/*/"), *root.glob("data/*/")]:
        with suppress(OSError):
            path.rmdir()
