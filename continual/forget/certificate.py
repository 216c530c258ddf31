"""The certificate: what was done, in numbers and hashes. It holds none of the removed texts."""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from continual import __version__
from continual.registry import Registry
from continual.registry.catalog import now
from continual.storage.aside import LOST
from continual.storage.files import publish

FOLDER = "certificates"
"""Folder below `.continual/`."""

SCHEMA = 2


@dataclass(frozen=True)
class ChangedFile:
    """A file that was written again or removed.

    Attributes:
        path: Relative to `.continual/`.
        before: Its sha256 before; None if none was recorded.
        after: Its sha256 after; None if it was removed.
    """

    path: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Beside:
    """The search of the files beside `.continual/`, in the folder of the workspace. They are the user's.

    Attributes:
        files: Number of files that were read.
        bytes: Their size.
        found: Files that hold a removed text.
        unread: Files and folders that can't be read.
        links: Links that lead out of the folder, and were not followed.
    """

    files: int
    bytes: int
    found: list[str]
    unread: list[str]
    links: list[str]


@dataclass(frozen=True)
class SearchResult:
    """The search of every file of the workspace for the removed texts. Paths are relative to `.continual/`.

    Attributes:
        texts: Number of texts that were searched for.
        whole_only: Number of these that are short, or also a part of other texts or of the base model, so that only
            whole cells were compared with them.
        files: Number of files that were read.
        bytes: Their size.
        cleared: Files without a record that held a removed text, and were removed.
        found: Files that still hold one, and columns of the catalog; empty if all went well.
        short: Files without a record in which only a cell equals a short removed text. They stay.
        unread: Files and folders that can't be read.
        beside: The search beside `.continual/`; None if it was not made, because the command was killed.
    """

    texts: int
    whole_only: int
    files: int
    bytes: int
    cleared: list[str]
    found: list[str]
    short: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    beside: Beside | None = None


@dataclass(frozen=True)
class Rebuilt:
    """The lineage that was made again.

    Attributes:
        old: The version that was current before.
        new: The version that is current now.
        steps: What was done with every step, as (old version, new version or None, "composed", "retrained" or "left
            out").
        exact: Whether the new version equals one that was made without the rows, up to rounding.
        why: How exact it is, in words.
        distance: L2 norm of new minus old weights, divided by that of old minus base; None if it wasn't measured.
        cosine: Mean cosine between the embeddings of old and new on texts of the tasks; None likewise.
        refused: New versions that the gate would have refused.
        removed: Versions whose models were removed.
    """

    old: str
    new: str
    steps: list[tuple[str, str | None, str]]
    exact: bool
    why: str
    distance: float | None
    cosine: float | None
    refused: list[str]
    removed: list[str]


@dataclass(frozen=True)
class Certificate:
    """What a call of `continual forget` did.

    Attributes:
        selection: "domain", "rows" or "query"; None if only models were rebuilt.
        domain: The name of a forgotten domain, which is kept in clear; None for rows and queries.
        selection_sha256: sha256 of the salt and of the rows or the query; None for a domain.
        salt: Random hex digits; None for a domain.
        asked: Number of rows in the file of rows; 0 for the other two.
        removed: Numbers of removed things by name, such as "rows" and "task_queries".
        shared: Number of texts that stay, because rows that were not selected have them too.
        missed: Number of rows that later files lost because of what is removed now, at most, by id of the batch.
        versions: Versions whose weights depend on the rows, with the reason in words.
        discarded: The interrupted update that was discarded.
        files: Files that were written again or removed.
        backups: Places of backups that were made before, which still hold the rows.
        search: The search for the removed texts; None while it has not been made.
        rebuilt: The lineage that was made again; None if that was not asked.
        at: Time, ISO 8601 UTC.
        path: The file of the certificate, relative to `.continual/`; None for a dry run.
        lost: Models among the lost files; nobody knows what they were trained on.
    """

    selection: str | None = None
    domain: str | None = None
    selection_sha256: str | None = None
    salt: str | None = None
    asked: int = 0
    removed: dict[str, int] = field(default_factory=dict)
    shared: int = 0
    missed: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    discarded: str | None = None
    files: list[ChangedFile] = field(default_factory=list)
    backups: list[str] = field(default_factory=list)
    search: SearchResult | None = None
    rebuilt: Rebuilt | None = None
    at: str = ""
    path: str | None = None
    lost: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the certificate as plain data."""
        return {"schema": SCHEMA, "continual": __version__, **asdict(self)}


def salted(value: str) -> tuple[str, str]:
    """Return a random salt, and the sha256 of the salt and a value."""
    salt = secrets.token_hex(16)
    return salt, hashlib.sha256((salt + value).encode()).hexdigest()


def new_place() -> tuple[str, str]:
    """Return the time, and the path of a new certificate."""
    moment = now()
    return moment.isoformat(timespec="seconds"), f"{FOLDER}/{moment.strftime('%Y%m%dT%H%M%S%fZ')}.json"


def write_certificate(registry: Registry, certificate: Certificate) -> None:
    """Write a certificate to its place."""
    assert certificate.path is not None, "a certificate that is written has a place"
    with publish(registry.path(certificate.path)) as partial:
        text = json.dumps(certificate.to_json(), indent=2, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")


def lost_models(root: Path) -> list[str]:
    """Return the folders below the lost files that hold weights, relative to `.continual/`."""
    files = (root / LOST).rglob("*.safetensors")
    return sorted({file.parent.relative_to(root).as_posix() for file in files})
