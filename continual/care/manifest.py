"""What a backup consists of, read strictly: a backup may come from a stranger."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from continual.errors import DataError, InputError
from continual.registry import Registry
from continual.versions.create import SETTINGS, STORE

SCHEMA = 1

MAX_BYTES = 64 << 20
"""Largest manifest, which names about 400,000 files."""

CATALOG = f"{STORE}/catalog.duckdb"

UNRECORDED = ("conflicts", "rejects", "certificates")
"""Folders whose files the catalog does not record, and which are worth keeping."""

_FOLDERS = ("data", "tasks", "adapters", "versions", "scores", *UNRECORDED)
"""Folders below `.continual/` that hold files of a backup."""

_LONGEST_NAME, _LONGEST_PATH = 255, 1024
"""Longest name of a file, in bytes, on the usual file systems, and longest path, in characters."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Entry(_Strict):
    """A file of a backup: its path relative to the workspace, its SHA-256 and its size in bytes."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}\z")]
    size: Annotated[int, Field(ge=0, lt=2**63)]


class Manifest(_Strict):
    """A backup.

    Attributes:
        number: The schema of the manifest.
        continual: The release that wrote it.
        files: Its files.
        left_out: What is not in it, in words.
    """

    number: int = Field(alias="schema")
    continual: str
    files: list[Entry]
    left_out: list[str]

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(entry.size for entry in self.files)


class _Head(BaseModel):
    model_config = ConfigDict(strict=True)
    number: int = Field(alias="schema")


def read(content: bytes, where: str) -> Manifest:
    """Return a manifest whose files all lie in a workspace.

    Args:
        content: JSON.
        where: The backup, for messages.

    Raises:
        InputError: A newer continual wrote it.
        DataError: It is damaged, or names a file that no workspace holds.
    """
    try:
        number = _Head.model_validate_json(content).number
        if number != SCHEMA:
            raise InputError(
                f"{where} has schema {number}, but this continual reads {SCHEMA}. Restore it with the newer."
            )
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise DataError(
            f"The manifest of {where} is damaged: {place or 'it'}: {first['msg']}. Choose another backup with --at."
        ) from None
    problem = _problem(entry.path for entry in manifest.files)
    if problem is not None:
        raise DataError(f"{where} {problem}. It may come from a stranger, so nothing of it is restored.")
    return manifest


def write(manifest: Manifest) -> bytes:
    """Return a manifest as JSON that `read` accepts."""
    content = manifest.model_dump_json(by_alias=True, indent=1).encode()
    if len(content) > MAX_BYTES:
        raise InputError(
            f"The workspace has {len(manifest.files):,} files, more than a backup holds. Drop snapshots with "
            "`continual gc`, or copy the folder while no command runs."
        )
    assert _problem(entry.path for entry in manifest.files) is None
    return content


def check_catalog(registry: Registry, where: str) -> None:
    """Check that a restored catalog names nothing outside of its folder: commands write to and remove what it names.

    Raises:
        DataError: It does.
    """
    with registry.catalog.together():
        paths = [artifact.path for artifact in registry.artifacts()]
        paths += [version.path for version in registry.versions()]
        names = [version.id for version in registry.versions()] + [run.id for run in registry.runs()]
        names += [*registry.domain_names(), *(task.name for task in registry.tasks())]
    wrong = [path for path in paths if not _is_inside(path)]
    wrong += [name for name in names if "/" in name or "\0" in name or name.startswith(".")]
    if wrong:
        raise DataError(
            f"The catalog of {where} names {wrong[0][:100]!r}, which is outside the workspace. Nothing is restored."
        )


def _problem(paths: Iterable[str]) -> str | None:
    """Return what is wrong with the paths of a backup, in words."""
    known: set[str] = set()
    for path in paths:
        if path not in (SETTINGS, CATALOG) and not (
            path.startswith(f"{STORE}/") and _is_inside(path[len(STORE) + 1 :])
        ):
            return f"names the file {path[:100]!r}, which is outside the workspace or no part of one"
        if path in known:
            return f"names the file {path!r} twice"
        known.add(path)
    for path in known:
        if above := next((str(each) for each in PurePosixPath(path).parents if str(each) in known), None):
            return f"names {above!r} both as a file and as a folder"
    missing = {SETTINGS, CATALOG} - known
    return f"lacks {min(missing)}" if missing else None


def _is_inside(path: str) -> bool:
    """Return whether a path relative to `.continual/` leads to one of the folders of a backup."""
    if len(path) > _LONGEST_PATH:
        return False
    parts = path.split("/")
    whole = all(part not in ("", ".", "..") and "\0" not in part and _fits(part) for part in parts)
    return whole and len(parts) > 1 and parts[0] in _FOLDERS


def _fits(name: str) -> bool:
    return len(name.encode("utf-8", "surrogatepass")) <= _LONGEST_NAME
