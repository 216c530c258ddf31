"""Options that several commands share, and the opening of the workspace that they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from continual.storage.terminal import harmless_json, say

if TYPE_CHECKING:
    from continual.workspace import Workspace

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        help="Workspace; by default $CONTINUAL_WORKSPACE, or this folder or its nearest parent with a continual.toml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Setting of continual.toml for this call only, such as train.learning_rate=3e-4 or "
        "merge.parameters.density=0.5; repeatable.",
    ),
]
ExecutorOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where the trainings run: processes:N on this machine, ray, or ray://HOST:PORT. By default one after the "
        "other in this process, which is also the time that a plan gives.",
    ),
]
VersionArgument = Annotated[
    str, typer.Argument(metavar="VERSION", help="Version: an id such as v3, or an alias such as current.")
]


def open_workspace(directory: Path | None) -> Workspace:
    """Open the workspace that a command was called for."""
    from continual.workspace import Workspace

    return Workspace(directory)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    say(harmless_json(json.dumps(value, indent=2, ensure_ascii=False, default=str)))
