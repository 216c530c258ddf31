"""What a person asks first of a workspace: what is in service, what waits, what was interrupted."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.eval.ood import flags_of
from continual.registry import Registry
from continual.registry.registry import CURRENT
from continual.storage.locks import UPDATE_LOCK, holder


@dataclass(frozen=True)
class DomainStatus:
    """One domain of the stream.

    Attributes:
        name: The domain.
        rows: Its training rows.
        learned: How many of them the version in service has learned.
        tasks: Names of the evaluation tasks that test it.
        kind: The type of task that its rows are of.
    """

    name: str
    rows: int
    learned: int
    tasks: list[str]
    kind: str


@dataclass(frozen=True)
class Status:
    """The state of a workspace.

    Attributes:
        directory: The workspace.
        current: Id of the version in service.
        since: When it was put into service, ISO 8601 UTC.
        versions: How many versions there are, the root base included.
        domains: The stream, in its order.
        ood_tasks: Tasks of no domain that the version in service did not train on.
        running: Id of the version that an update is making now, or None.
        interrupted: Id of the version whose update was interrupted, or None.
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
    current = registry.version(CURRENT)
    event = registry.alias(CURRENT)
    assert event is not None  # init sets it
    learned = registry.learned(current)
    batches, tasks, run = registry.batches(), registry.tasks(), registry.interrupted()
    busy = holder(registry.root / UPDATE_LOCK) == "update"
    if run and not busy:
        run = registry.interrupted()  # it may have ended between the two questions
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
        versions=len(registry.versions()),
        domains=domains,
        ood_tasks=[task.name for task in tasks if task.domain is None and task.name not in flagged],
        running=run.id if run and busy else None,
        interrupted=run.id if run and not busy else None,
        bytes=_size(registry.root),
    )


def _size(folder: Path) -> int:
    """Return the bytes below a folder, while other commands write and remove files in it."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
