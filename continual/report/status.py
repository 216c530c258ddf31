"""The status of a workspace: its current version, the rows still to be learned, and an interrupted update."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.eval.ood import flags_of
from continual.registry import CURRENT, Registry
from continual.storage.locks import UPDATE_LOCK, holder


@dataclass(frozen=True)
class DomainStatus:
    """One domain of the stream.

    Attributes:
        rows: Number of training rows.
        learned: Number of these rows that the current version has learned.
        tasks: Names of the evaluation tasks that test the domain.
    """

    name: str
    rows: int
    learned: int
    tasks: list[str]
    kind: str


@dataclass(frozen=True)
class Status:
    """The status of a workspace.

    Attributes:
        current: Id of the current version.
        since: When it became current, ISO 8601 UTC.
        versions: Number of versions, the root base included.
        domains: In the order of the stream.
        ood_tasks: Names of the OOD tasks: those without a domain whose texts the current version was not trained on.
        running: Id of the version that a running update creates.
        interrupted: Id of the version whose update was interrupted.
        bytes: Size of the workspace on disk.
    """

    directory: str
    current: str
    since: str
    versions: int
    domains: list[DomainStatus]
    ood_tasks: list[str]
    running: str | None
    interrupted: str | None
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the status as plain data."""
        return asdict(self)


def read_status(directory: Path, registry: Registry) -> Status:
    """Return the status of the workspace in `directory`."""
    current, versions = registry.entry(CURRENT), registry.entries()
    event = registry.alias(CURRENT)
    assert event is not None  # init sets it
    learned = registry.learned(current)
    batches, tasks, run = registry.batches(), registry.tasks(), registry.interrupted()
    busy = holder(registry.root / UPDATE_LOCK) == "update"
    if run and not busy:
        run = registry.interrupted()  # the update may have ended before its lock was read
    flagged = flags_of(registry, current.id)
    domains = [
        DomainStatus(
            name=domain.name,
            rows=sum(batch.kept for batch in batches if batch.domain == domain.name),
            learned=sum(batch.kept for batch in batches if batch.domain == domain.name and batch.id in learned),
            tasks=[task.name for task in tasks if task.domain == domain.name],
            kind=domain.kind,
        )
        for domain in registry.domains()
    ]
    return Status(
        directory=str(directory),
        current=current.id,
        since=event.at.isoformat(timespec="seconds"),
        versions=len(versions),
        domains=domains,
        ood_tasks=[task.name for task in tasks if task.domain is None and task.name not in flagged],
        running=run.id if run and busy else None,
        interrupted=run.id if run and not busy else None,
        bytes=_size(registry.root),
    )


def _size(folder: Path) -> int:
    """Return the size of a folder in bytes; files may vanish while it is read."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
