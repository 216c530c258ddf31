"""What a check of a workspace found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

Mend = Literal["rebuild", "sweep", "aside", "rescore"]
"""How `--fix` mends a finding: rebuild a snapshot, remove what a dead process left, move a file aside, drop a score."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a workspace.

    Attributes:
        severity: "error": a command will fail or use wrong data. "warning": nothing is wrong yet. "note": for
            information; it does not count.
        where: The file, relative to the workspace, or the record.
        what: What is wrong.
        affects: What depends on it.
        cure: What to do, with the command.
        mend: What `--fix` does; None if it can do nothing.
        subject: The version to rebuild, or the file below `.continual/` that is moved or removed.
    """

    severity: Severity
    where: str
    what: str
    affects: str
    cure: str
    mend: Mend | None = None
    subject: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The result of a check.

    Attributes:
        full: Whether every file was read.
        files: Number of files with a digest that were checked.
        bytes: Their size.
        findings: Errors first.
        fixed: What `--fix` did, as sentences.
    """

    full: bool
    files: int
    bytes: int
    findings: list[Finding]
    fixed: list[str] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong; notes do not count."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as plain data."""
        return asdict(self) | {"healthy": self.healthy}
