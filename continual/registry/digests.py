"""The size and SHA-256 of every file that a record owns, and the check of the files against them.

The catalog holds the digests; they are recorded in the transaction that records the artifact. A check reads a file only
if its size, times or inode changed since it was last read, or if it is asked to read all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from continual.errors import DataError, WorkspaceBusy
from continual.progress import SILENT, Progress
from continual.registry.artifacts import Artifact
from continual.registry.catalog import Catalog
from continual.storage.files import publish
from continual.storage.locks import FORGETTING

if TYPE_CHECKING:
    import duckdb

CHECKED = "checked.json"
"""File with the stamps of the files that were read and found right. Without it, all files are read again."""

Stamp = tuple[int, int, int, int]
"""Size, modification and change time (ns), and inode of a file. Programs can't set the change time."""

_CHUNK = 1 << 20

_MOVE = "Remove it, or move it to .continual/lost with `continual doctor --fix`."

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A recorded file: its path and that of its artifact relative to `.continual/`, its size and its SHA-256."""

    path: str
    artifact: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Damage:
    """A file that differs from its record.

    Attributes:
        artifact: What it belongs to.
        path: The file, relative to `.continual/`.
        problem: What is wrong, such as "is missing".
        missing: Whether there is no such file.
        added: Whether the file is not recorded.
    """

    artifact: Artifact
    path: str
    problem: str
    missing: bool = False
    added: bool = False

    @property
    def cure(self) -> str:
        """What to do."""
        return _MOVE if self.added else self.artifact.cure


class Digests:
    """The digests of a workspace.

    Args:
        root: The `.continual` folder.
        catalog: Its catalog.
    """

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self.root = root
        self._catalog = catalog
        self._stamps: dict[str, Stamp] | None = None

    def measure(self, *artifacts: str | None, progress: Progress = SILENT) -> list[FileDigest]:
        """Read files and return their digests.

        Args:
            *artifacts: Files or folders, relative to `.continual/`. None and missing ones are left out.
        """
        measured, stamps = [], {}
        for artifact in artifacts:
            for file in [] if artifact is None else files_below(self.root / artifact):
                path = file.relative_to(self.root).as_posix()
                stamps[path] = _stamp(file)
                measured.append(FileDigest(path, str(artifact), stamps[path][0], _sha256(file, progress)))
        self._remember(stamps)
        return measured

    def record(self, *artifacts: str | None, progress: Progress = SILENT) -> list[FileDigest]:
        """Read files and record their digests instead of those that their artifacts had."""
        measured = self.measure(*artifacts, progress=progress)
        with self._catalog.transaction() as connection:
            insert_digests(connection, measured)
        return measured

    def recorded(self, artifacts: Iterable[Artifact] | None = None) -> dict[str, list[FileDigest]]:
        """Return the recorded digests by path of the artifact, by default of all."""
        query = "SELECT path, artifact, size, sha256 FROM files"
        values = [] if artifacts is None else [[artifact.path for artifact in artifacts]]
        where = " WHERE artifact IN (SELECT unnest(?::VARCHAR[]))" if values else ""
        with self._catalog.reading() as connection:
            rows = connection.execute(f"{query}{where} ORDER BY path", values).fetchall()
        found: dict[str, list[FileDigest]] = {}
        for row in rows:
            found.setdefault(row[1], []).append(FileDigest(*row))
        return found

    def check(
        self,
        *artifacts: Artifact | None,
        full: bool = False,
        names: Collection[str] | None = None,
        missing_ok: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        """Check the files of artifacts against their digests.

        No file may be added either: libraries look for files by their names.

        Args:
            *artifacts: None is left out.
            full: Read every file, even if nothing shows that it changed. Artifacts without digests get them.
            names: With `full`, names of the files to read even so; by default all.
            missing_ok: Whether files may be missing.

        Raises:
            DataError: A file is damaged, missing, or not recorded.
        """
        chosen = [artifact for artifact in artifacts if artifact is not None]
        if not chosen:
            return
        recorded = self.recorded(chosen)
        for damage in self.find_damage(chosen, recorded, full=full, names=names, progress=progress):
            if not (missing_ok and damage.missing):
                self.require_settled(damage.artifact, changed=self.recorded(chosen) != recorded)
                raise damage_error(self.root, damage)
        if full:
            self._adopt([artifact for artifact in chosen if artifact.path not in recorded])

    def find_damage(
        self,
        artifacts: Sequence[Artifact],
        recorded: dict[str, list[FileDigest]] | None = None,
        *,
        full: bool = False,
        names: Collection[str] | None = None,
        progress: Progress = SILENT,
    ) -> list[Damage]:
        """Return the files of artifacts that differ from their digests, are missing, or are not recorded.

        Args:
            recorded: What `recorded` returned, if it was called before.
            full: As in `check`.
            names: As in `check`.
        """
        recorded = self.recorded(artifacts) if recorded is None else recorded
        stamps, right, found = self._load(), dict[str, Stamp](), list[Damage]()
        for artifact in artifacts:
            for digest in recorded.get(artifact.path, []):
                file = self.root / digest.path
                try:
                    stamp = _stamp(file)
                    again = full and (names is None or file.name in names)
                    if not again and stamps.get(digest.path) == stamp:
                        continue
                    problem = _problem(file, stamp, digest, progress)
                except FileNotFoundError:
                    if file.name not in artifact.rebuilt:
                        found.append(Damage(artifact, digest.path, "is missing", missing=True))
                    continue
                except OSError as error:
                    problem = f"cannot be read ({error.strerror})"
                if problem is None:
                    right[digest.path] = stamp
                else:
                    found.append(Damage(artifact, digest.path, problem))
            found += self._added(artifact, recorded.get(artifact.path, []))
        self._remember(right)
        return found

    def _added(self, artifact: Artifact, recorded: Sequence[FileDigest]) -> Iterator[Damage]:
        """Yield the files in the folder of an artifact that are not recorded. Without digests, nothing is known."""
        if not recorded or not (self.root / artifact.path).is_dir():
            return
        known = {digest.path for digest in recorded} | {f"{artifact.path}/{name}" for name in artifact.rebuilt}
        for file in _below(self.root / artifact.path):
            path = file.relative_to(self.root).as_posix()
            if path not in known:
                yield Damage(artifact, path, "was added: it is not recorded in the catalog", added=True)

    def require_settled(self, artifact: Artifact, *, changed: bool) -> None:
        """Check that what looks damaged or missing is not what a `continual forget` changes at this moment.

        Args:
            changed: Whether the record differs from the one that the files were compared with.

        Raises:
            WorkspaceBusy: It is.
        """
        if changed or (self.root / FORGETTING).is_dir():
            raise WorkspaceBusy(
                f"{artifact.path}, a part of {artifact.owner}, was changed while it was read, by another command such "
                "as `continual forget`. Run the command again."
            )

    def _adopt(self, artifacts: Sequence[Artifact]) -> None:
        """Record the digests of artifacts that have none, because an older release made them."""
        existing = [artifact for artifact in artifacts if (self.root / artifact.path).exists()]
        if not existing or not os.access(self._catalog.path, os.W_OK):
            return
        files = self.record(*(artifact.path for artifact in existing))
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        _logger.warning(
            "An older release recorded no digests of %s%s. Those of %d files were recorded now, as the files are.",
            existing[0].owner,
            more,
            len(files),
        )

    def _load(self) -> dict[str, Stamp]:
        if self._stamps is None:
            self._stamps = _read_stamps(self.root / CHECKED)
        return self._stamps

    def _remember(self, stamps: dict[str, Stamp]) -> None:
        """Remember files that were read; do nothing if the folder is read-only."""
        if not stamps or stamps.items() <= self._load().items():
            return
        # Another process may have added some. What two processes add at once, only one keeps: the other reads again.
        self._stamps = _read_stamps(self.root / CHECKED) | self._load() | stamps
        with suppress(OSError), publish(self.root / CHECKED) as partial:
            partial.write_text(json.dumps(self._stamps), encoding="utf-8")


def insert_digests(connection: duckdb.DuckDBPyConnection, digests: Sequence[FileDigest]) -> None:
    """Record digests in a transaction. All digests that their artifacts had are replaced."""
    for artifact in {digest.artifact for digest in digests}:
        connection.execute("DELETE FROM files WHERE artifact = ?", [artifact])
    for digest in digests:
        connection.execute(
            "INSERT INTO files (path, artifact, size, sha256) VALUES (?, ?, ?, ?)",
            [digest.path, digest.artifact, digest.size, digest.sha256],
        )


def damage_error(root: Path, damage: Damage) -> DataError:
    """Return the error for a damaged file: which, what it belongs to, and what to do."""
    return DataError(f"{root / damage.path}, a file of {damage.artifact.owner}, {damage.problem}. {damage.cure}")


def _problem(file: Path, stamp: Stamp, digest: FileDigest, progress: Progress) -> str | None:
    if stamp[0] != digest.size:
        return f"was damaged or changed: it has {stamp[0]:,} bytes, but {digest.size:,} were recorded"
    sha256 = _sha256(file, progress)
    if sha256 != digest.sha256:
        return f"was damaged or changed: its sha256 begins with {sha256[:12]}, but {digest.sha256[:12]} was recorded"
    return None


def is_hidden(name: str) -> bool:
    """Return whether a file or folder in an artifact does not belong to it: unfinished, hidden, or a cache of Python.

    Such files are not recorded, checked, exported or backed up.
    """
    return name.startswith(".") or name == "__pycache__"


def files_below(path: Path) -> list[Path]:
    """Return a file, or the files below a folder that are not hidden."""
    return [path] if path.is_file() else [each for each in _below(path) if each.is_file()]


def _below(folder: Path) -> list[Path]:
    """Return everything below a folder that is neither hidden nor a folder itself, with links to folders."""
    found: list[Path] = []
    for here, folders, files in os.walk(folder):
        links = [name for name in folders if Path(here, name).is_symlink()]
        found += [Path(here, name) for name in (*files, *links) if not is_hidden(name)]
        folders[:] = [name for name in folders if not is_hidden(name)]
    return sorted(found)


def _stamp(file: Path) -> Stamp:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _sha256(file: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            digest.update(chunk)
            progress.advance(len(chunk))
    return digest.hexdigest()


def _read_stamps(file: Path) -> dict[str, Stamp]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {str(path): (int(a), int(b), int(c), int(d)) for path, (a, b, c, d) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
