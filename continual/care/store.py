"""Where backups lie: a folder or a URL of fsspec, with each content stored once under its SHA-256."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ValidationError

from continual.care.manifest import MAX_BYTES, Manifest, read, write
from continual.errors import DataError, InputError, NotFoundError
from continual.progress import SILENT, Progress
from continual.storage.files import beside, sweep_unfinished, sync
from continual.storage.locks import guard

MARK = "continual-backup.json"
"""File that makes a folder a store of backups."""

LOCK = "continual-backup.lock"

FORMAT = 1

_CHUNK = 1 << 20

_OBJECT = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")

_MARK_BYTES = 1 << 10
"""Largest file that marks a store."""


class _Mark(BaseModel):
    format: int


class Store:
    """A folder of backups: `objects/ab/SHA256` holds contents, `backups/NAME.json` which of them a backup consists of.

    Attributes:
        folder: The folder, if it is on this machine; None for other URLs.

    Args:
        url: A path, or a URL such as `s3://bucket/folder`; fsspec reads it, and some need a package of their own.

    Raises:
        InputError: The URL cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, self._root = url_to_fs(str(Path(url).expanduser()) if "://" not in url else url)
        except (ValueError, ImportError, OSError) as error:
            raise InputError(f"{url} cannot be opened: {error}. Give a folder or a URL that fsspec knows.") from None
        self.folder = Path(self._root) if isinstance(self._files, LocalFileSystem) else None

    def create(self) -> None:
        """Make the folder a store if it is empty or new, and remove what killed backups left in it.

        Raises:
            InputError: It holds something else, or a newer continual wrote it.
        """
        if self._files.exists(self._path(MARK)):
            self._check_format()
        else:
            if self._files.exists(self._root) and self._files.ls(self._root):
                raise InputError(f"{self.url} is not empty and holds no backups. Choose a new or an empty folder.")
            self._write(MARK, _Mark(format=FORMAT).model_dump_json().encode())
        if self.folder is not None:
            for name in ("objects", "backups"):
                sweep_unfinished(self.folder / name)

    @contextmanager
    def in_use(self, *, alone: bool, seconds: float) -> Iterator[None]:
        """Let no other command remove contents while the body runs, or be the only one that uses the store.

        Stores that are not on this machine have no lock.

        Raises:
            WorkspaceBusy: Other commands used it for longer than `seconds`.
        """
        if self.folder is None:
            yield
            return
        with guard(self.folder / LOCK, f"the backups in {self.url}", alone=alone, seconds=seconds):
            yield

    def names(self) -> list[str]:
        """Return the names of the backups, the oldest first.

        Raises:
            NotFoundError: There is no store at the URL.
        """
        if not self._files.exists(self._path(MARK)):
            raise NotFoundError(
                f"{self.url} holds no backups. Give the folder or URL that `continual backup` wrote to."
            )
        self._check_format()
        return sorted(posixpath.splitext(name)[0] for name in self._names("backups") if name.endswith(".json"))

    def read_manifest(self, name: str) -> Manifest:
        """Return the manifest of a backup.

        Raises:
            InputError: A newer continual wrote it.
            DataError: It is damaged, or names files that no workspace holds.
        """
        return read(self._read(f"backups/{name}.json", MAX_BYTES), f"the backup {name} in {self.url}")

    def write_manifest(self, name: str, manifest: Manifest) -> None:
        """Record a backup; all its objects are stored already."""
        self._write(f"backups/{name}.json", write(manifest))

    def find(self, sha256: str, size: int) -> Literal["stored", "missing", "damaged"]:
        """Return whether a content is stored, judged by its size alone."""
        path = self._path(_object(sha256))
        if not self._files.exists(path):
            return "missing"
        info = self._files.info(path)
        return "stored" if _is_plain(info) and info["size"] == size else "damaged"

    def put(self, file: Path, sha256: str | None, progress: Progress = SILENT) -> tuple[str, int]:
        """Store the content of a file, and return its digest and size. What was stored under its digest is replaced.

        Args:
            sha256: The digest that it must have; None if it may have changed.

        Raises:
            FileNotFoundError: There is no such file.
            DataError: It has another digest.
        """
        digest, size, partial = hashlib.sha256(), 0, self._path(f"objects/{beside(Path('object')).name}")
        with file.open("rb") as source:
            self._files.makedirs(posixpath.dirname(partial), exist_ok=True)
            try:
                with self._files.open(partial, "wb") as target:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        size += len(chunk)
                        target.write(chunk)
                        progress.advance(len(chunk))
                found = digest.hexdigest()
                if found != (sha256 or found):
                    raise DataError(
                        f"{file} is damaged: its sha256 is {found[:12]}, but {str(sha256)[:12]} was recorded. Run "
                        "`continual doctor --full`."
                    )
                self._move(partial, _object(found))
            finally:
                if self._files.exists(partial):
                    self._files.rm_file(partial)
        return found, size

    def get(self, sha256: str, size: int, target: Path | None, progress: Progress = SILENT) -> None:
        """Copy a content to a file, or only read it if `target` is None, and check its size and digest.

        Raises:
            DataError: The content is missing or damaged. No more than `size` bytes of it were written.
        """
        try:
            path = self._plain(_object(sha256))
            with self._files.open(path, "rb") as source:
                written = None if target is None else target.open("wb")
                try:
                    found = self._copy(source, written, size, progress)
                finally:
                    if written is not None:
                        written.close()
        except FileNotFoundError:
            raise self._unusable(sha256, "missing from") from None
        if found != sha256:
            raise self._unusable(sha256, "damaged in")

    def remove(self, name: str) -> tuple[int, int]:
        """Remove a backup and the contents that no other backup consists of; the caller is alone.

        Returns:
            How many contents were removed, and their bytes.

        Raises:
            DataError: Another backup cannot be read, so nobody knows what it consists of. Nothing is removed.
        """
        others = [self.read_manifest(other) for other in self.names() if other != name]
        used = {entry.sha256 for other in others for entry in other.files}
        self._files.rm_file(self._path(f"backups/{name}.json"))
        removed, size = 0, 0
        for folder in self._names("objects"):
            for each in self._names(f"objects/{folder}"):
                path = self._path(f"objects/{folder}/{each}")
                if _OBJECT.fullmatch(f"{folder}/{each}") and each not in used:
                    removed, size = removed + 1, size + int(self._files.info(path)["size"] or 0)
                    self._files.rm_file(path)
        return removed, size

    def _unusable(self, sha256: str, problem: str) -> DataError:
        return DataError(
            f"The content {sha256[:12]} is {problem} {self.url}. Choose another backup with --at, or make a new one "
            f"with `continual backup {self.url} --verify`, which stores again what is damaged or missing."
        )

    @staticmethod
    def _copy(source: Any, target: Any, size: int, progress: Progress) -> str:
        """Copy a stream, and return its digest; "" if it has another size, of which no more than `size` is written."""
        digest, left = hashlib.sha256(), size
        while chunk := source.read(min(_CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                return ""
            digest.update(chunk)
            progress.advance(len(chunk))
            if target is not None:
                target.write(chunk)
        return "" if left else digest.hexdigest()

    def _check_format(self) -> None:
        try:
            found = _Mark.model_validate_json(self._read(MARK, _MARK_BYTES)).format
        except (DataError, ValidationError):
            found = None
        if found != FORMAT:
            raise InputError(
                f"{self.url} holds backups of format {found}, but this continual reads format {FORMAT}. Use the "
                "release that wrote them."
            )

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _names(self, folder: str) -> list[str]:
        """Return the names in a folder, without its folders' content; empty if there is none."""
        path = self._path(folder)
        found = self._files.ls(path, detail=False) if self._files.isdir(path) else []
        return [posixpath.basename(each.rstrip("/")) for each in found]

    def _plain(self, name: str) -> str:
        """Return the path of a file, which must be no link: a backup may come from a stranger.

        Raises:
            FileNotFoundError: It is missing.
            DataError: It is a link, a folder or a device.
        """
        path = self._path(name)
        if not _is_plain(self._files.info(path)):
            raise DataError(f"{name} in {self.url} is not a plain file. Choose another backup with --at.")
        return path

    def _read(self, name: str, limit: int) -> bytes:
        try:
            with self._files.open(self._plain(name), "rb") as file:
                content = bytes(file.read(limit + 1))
        except OSError as error:
            raise DataError(f"{name} in {self.url} cannot be read: {error}.") from None
        if len(content) > limit:
            raise DataError(f"{name} in {self.url} has more than {limit:,} bytes. Choose another backup with --at.")
        return content

    def _write(self, name: str, content: bytes) -> None:
        partial = posixpath.join(posixpath.dirname(self._path(name)), beside(Path(name)).name)
        self._files.makedirs(posixpath.dirname(partial), exist_ok=True)
        with self._files.open(partial, "wb") as file:
            file.write(content)
        self._move(partial, name)

    def _move(self, partial: str, name: str) -> None:
        """Give a written file its name. On this machine it is on the disk before and after."""
        path = self._path(name)
        self._files.makedirs(posixpath.dirname(path), exist_ok=True)
        if self.folder is None:
            self._files.mv(partial, path)
            return
        sync(Path(partial))
        Path(partial).replace(path)
        sync(Path(path).parent)


def _is_plain(info: dict[str, Any]) -> bool:
    return info["type"] == "file" and not info.get("islink")


def _object(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"
