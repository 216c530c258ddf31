"""The intent: what is to be done is written down as a whole, and then done. A killed command is finished by the next.

Until the folder of the intent is published, nothing has changed. From then on every part can be repeated: files are
moved into their places, one transaction changes the records, files are removed, the catalog is written again, and a
search shows that no removed text is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from continual.conflicts.run import LOCK as CONFLICTS_LOCK
from continual.errors import DataError, WorkspaceBusy
from continual.forget.certificate import Certificate, SearchResult, write_certificate
from continual.forget.scan import Search, search_folder
from continual.progress import SILENT, Progress
from continual.registry import Registry
from continual.registry.erase import FORGETTING, Erasure, erase
from continual.storage.faults import writable
from continual.storage.files import publish, remove
from continual.storage.files import replace as replace_path
from continual.storage.locks import INGEST_LOCK, UPDATE_LOCK
from continual.versions.build import hold_snapshots

PLAN, TEXTS, APART, NEW = "plan.json", "texts.parquet", "apart.parquet", "new"


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
    return TypeAdapter(Intent).validate_python(json.loads((folder / PLAN).read_text(encoding="utf-8")))


@contextmanager
def alone(registry: Registry) -> Iterator[None]:
    """Hold the locks of all commands that write."""
    with registry.lock(UPDATE_LOCK, "forget"), others(registry):
        yield


@contextmanager
def others(registry: Registry) -> Iterator[None]:
    """Hold the locks of the commands that store rows or read them, beside the update lock."""
    with registry.lock(INGEST_LOCK, "forget"), registry.lock(CONFLICTS_LOCK, "forget"):
        yield


def resume(registry: Registry) -> None:
    """Finish what a killed `continual forget` began. Every command calls it when it opens the workspace."""
    if (registry.root / FORGETTING).is_dir() and writable(registry.catalog.path):
        patient = Registry(registry.root, busy_seconds=0.0)
        with suppress(WorkspaceBusy), alone(patient):  # the command may be running
            if (registry.root / FORGETTING).is_dir():
                apply(registry)


def apply(registry: Registry, progress: Progress = SILENT) -> Certificate:
    """Do what the intent says, write the certificate, and remove the intent. The caller holds all locks.

    Raises:
        DataError: A removed text was found afterwards; the certificate names the files.
    """
    folder = registry.root / FORGETTING
    intent = read_intent(folder)
    with hold_snapshots(registry):
        for path in intent.moved:
            new = folder / NEW / path
            if new.exists():
                replace_path(new, registry.path(path))
        erase(registry.catalog, intent.erasure)
        for path in intent.removed:
            remove(registry.path(path))
    _remove_empty(registry.root)
    registry.catalog.rewrite()
    certificate = intent.certificate
    searched = _search(registry, folder, progress)
    if searched is not None:
        certificate = replace(certificate, search=searched)
    write_certificate(registry, certificate)
    remove(folder)
    found = searched.found if searched else []
    if found:
        raise DataError(
            f"The rows were removed, but a removed text was found in {', '.join(found[:5])}"
            f"{f' and {len(found) - 5} more files' if found[5:] else ''}. Run `continual doctor --full`, and remove "
            f"what it does not know. The certificate is {registry.path(str(certificate.path))}."
        )
    return certificate


def _search(registry: Registry, folder: Path, progress: Progress) -> SearchResult | None:
    """Search the workspace for the removed texts; remove files without a record that hold one."""
    texts = pq.read_table(folder / TEXTS)["text"].to_pylist()
    if not texts:
        return None
    apart = set(pq.read_table(folder / APART)["form"].to_pylist())
    search = Search(texts, apart)
    store = search_folder(registry.root, search, without=[folder], progress=progress)
    owned = {artifact.path for artifact in registry.artifacts()} | {registry.catalog.path.name}
    found = [path for path in store.hits if owned & {path, *(parent.as_posix() for parent in Path(path).parents)}]
    cleared = [path for path in store.hits if path not in found]
    for path in cleared:
        remove(registry.path(path))
    if search.in_catalog(registry.catalog) and registry.catalog.path.name not in found:
        found.append(registry.catalog.path.name)
    outside = search_folder(registry.root.parent, search, without=[registry.root], progress=progress)
    return SearchResult(
        texts=len(search.texts),
        whole_only=search.whole_only,
        files=store.files + outside.files,
        bytes=store.bytes + outside.bytes,
        cleared=cleared,
        found=found,
        outside=outside.hits,
    )


def _remove_empty(root: Path) -> None:
    """Remove the folders of domains and of scores that have no file any more."""
    for path in [*root.glob("scores/*/*/"), *root.glob("scores/*/"), *root.glob("data/*/")]:
        with suppress(OSError):
            path.rmdir()


def commit(registry: Registry, write: Callable[[Path], object]) -> None:
    """Publish an intent: from here on it is done, by this command or by the next.

    Args:
        write: Called with the folder to write the intent and the new files to.
    """
    with publish(registry.root / FORGETTING) as partial:
        partial.mkdir(parents=True)
        write(partial)
