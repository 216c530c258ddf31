"""Where backups lie: a folder or a URL of fsspec, with each content stored once under its SHA-256."""

from __future__ import annotations

import hashlib
import json
import posixpath
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from continual.errors import DataError, InputError, NotFoundError
from continual.progress import SILENT, Progress

MARK = "continual-backup.json"
"""File that makes a folder a store of backups."""

FORMAT = 1

_CHUNK = 1 << 20


class Store:
    """A folder of backups: `objects/ab/SHA256` holds contents, `backups/NAME.json` which of them a backup consists of.

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

    def create(self) -> None:
        """Make the folder a store, if it is empty or new.

        Raises:
            InputError: It holds something else, or a newer continual wrote it.
        """
        if self._files.exists(self._path(MARK)):
            self._check_format()
            return
        if self._files.exists(self._root) and self._files.ls(self._root):
            raise InputError(f"{self.url} is not empty and holds no backups. Choose a new or an empty folder.")
        self._write(MARK, json.dumps({"format": FORMAT}).encode())

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
        folder = self._path("backups")
        found = self._files.ls(folder, detail=False) if self._files.exists(folder) else []
        return sorted(Path(path).stem for path in found if path.endswith(".json"))

    def read_manifest(self, name: str) -> dict[str, Any]:
        """Return the manifest of a backup."""
        try:
            data = json.loads(self._files.cat_file(self._path(f"backups/{name}.json")))
        except (OSError, ValueError) as error:
            raise DataError(f"The manifest of the backup {name} in {self.url} cannot be read: {error}.") from None
        assert isinstance(data, dict)
        return data

    def write_manifest(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Record a backup; all its objects are stored already."""
        self._write(f"backups/{name}.json", json.dumps(manifest, indent=1).encode())

    def has(self, sha256: str, size: int) -> bool:
        """Return whether a content is stored, with its size."""
        path = self._path(_object(sha256))
        return bool(self._files.exists(path)) and self._files.size(path) == size

    def put(self, file: Path, sha256: str, progress: Progress = SILENT) -> None:
        """Store a file whose content must have a digest.

        Raises:
            DataError: It has another one.
        """
        digest, partial = hashlib.sha256(), self._path(f"objects/{uuid.uuid4().hex}.partial")
        self._files.makedirs(posixpath.dirname(self._path(_object(sha256))), exist_ok=True)
        if not file.is_file():
            raise DataError(f"{file} is missing. Run `continual doctor`, which says what it belongs to.")
        try:
            with file.open("rb") as source, self._files.open(partial, "wb") as target:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
                    progress.advance(len(chunk))
            if digest.hexdigest() != sha256:
                raise DataError(
                    f"{file} is damaged: its sha256 is {digest.hexdigest()[:12]}, but {sha256[:12]} was recorded. Run "
                    "`continual doctor --full`."
                )
            self._files.mv(partial, self._path(_object(sha256)))
        finally:
            if self._files.exists(partial):
                self._files.rm_file(partial)

    def get(self, sha256: str, target: Path | None, progress: Progress = SILENT) -> None:
        """Copy a content to a file, or only read it if `target` is None, and check its digest.

        Raises:
            DataError: The content is missing or damaged.
        """
        digest = hashlib.sha256()
        try:
            with self._files.open(self._path(_object(sha256)), "rb") as source:
                written = None if target is None else target.open("wb")
                try:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        progress.advance(len(chunk))
                        if written is not None:
                            written.write(chunk)
                finally:
                    if written is not None:
                        written.close()
        except FileNotFoundError:
            raise DataError(f"{self.url} lacks the content {sha256[:12]}. Choose another backup with --at.") from None
        if digest.hexdigest() != sha256:
            raise DataError(
                f"The content {sha256[:12]} in {self.url} is damaged. Back up again, which replaces it, or choose "
                "another backup with --at."
            )

    def drop(self, sha256: str) -> None:
        """Remove a content, so that the next backup stores it again."""
        self._files.rm_file(self._path(_object(sha256)))

    def _check_format(self) -> None:
        try:
            found = json.loads(self._files.cat_file(self._path(MARK)))["format"]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found != FORMAT:
            raise InputError(
                f"{self.url} holds backups of format {found}, but this continual reads format {FORMAT}. Use the "
                "release that wrote them."
            )

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name)

    def _write(self, name: str, content: bytes) -> None:
        path = self._path(name)
        self._files.makedirs(posixpath.dirname(path), exist_ok=True)
        partial = f"{path}.{uuid.uuid4().hex}.partial"
        with self._files.open(partial, "wb") as file:
            file.write(content)
        self._files.mv(partial, path)


def _object(sha256: str) -> str:
    return f"objects/{sha256[:2]}/{sha256}"
