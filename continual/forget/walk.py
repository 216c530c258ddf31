"""The files below a folder, and what of it can't be read."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Walk:
    """The files below a folder.

    Attributes:
        folder: The folder.
        files: Files with their sizes, in the order of their paths.
        unread: Files and folders that can't be read, relative to the folder.
        links: Links that lead out of the folder and were not followed, relative to it.
    """

    folder: Path
    files: list[tuple[Path, int]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(size for _, size in self.files)

    def name(self, path: str | Path) -> str:
        """Return a path relative to the folder."""
        return Path(path).relative_to(self.folder).as_posix()


def walk(folder: Path, *, without: Collection[Path] = (), follow: bool = False) -> Walk:
    """List the files below a folder.

    Args:
        without: Files and folders to leave out.
        follow: Whether to follow links that lead out of the folder. A folder is listed once.
    """
    found = Walk(folder)
    seen = {os.path.realpath(folder)}

    def failed(error: OSError) -> None:
        found.unread.append(found.name(error.filename))

    for place, folders, names in os.walk(folder, followlinks=follow, onerror=failed):
        inside = [name for name in folders if Path(place, name) not in without]
        folders[:] = sorted(name for name in inside if follow or not Path(place, name).is_symlink())
        if follow:
            folders[:] = [name for name in folders if not _known(Path(place, name), seen)]
        for path in (Path(place, name) for name in [*names, *(name for name in inside if name not in folders)]):
            if path in without:
                continue
            if not follow and path.is_symlink():
                found.links += [found.name(path)] if _leads_out(path, folder) else []
                continue
            try:
                if path.is_file():
                    found.files.append((path, path.stat().st_size))
            except OSError:
                found.unread.append(found.name(path))
    found.files.sort()
    found.links.sort()
    return found


def _known(folder: Path, seen: set[str]) -> bool:
    """Return whether a folder was listed already, under this or another name; note it."""
    real = os.path.realpath(folder)
    known = real in seen
    seen.add(real)
    return known


def _leads_out(link: Path, folder: Path) -> bool:
    """Return whether a link leads to something that exists outside of a folder."""
    with suppress(OSError, RuntimeError):  # a broken link, or a loop
        return not link.resolve(strict=True).is_relative_to(folder.resolve())
    return False


def chunks(file: Path, size: int, overlap: int) -> Iterator[bytes]:
    """Yield a file in chunks that overlap, so that no text is cut.

    Args:
        size: Bytes to read at a time.
        overlap: Length of the longest text.
    """
    before = b""
    with file.open("rb") as opened:
        while chunk := opened.read(size):
            yield before + chunk
            before = (before + chunk)[-max(overlap - 1, 1) :]
