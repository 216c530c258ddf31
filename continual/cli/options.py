"""Options that every command shares, and the opening of the workspace they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from continual.workspace import Workspace

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="DIR",
        help="The workspace; by default $CONTINUAL_WORKSPACE, or the nearest folder upwards with a continual.toml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]

ParameterOption = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Parameter of the merge method; once for each."),
]


def parse_parameters(given: list[str] | None) -> dict[str, float] | None:
    """Return `KEY=VALUE` texts as numbers by name; true and false are 1 and 0.

    Raises:
        InputError: One is not of this form, or two are of one parameter.
    """
    if not given:
        return None
    from continual.errors import InputError

    words = {"true": 1.0, "false": 0.0}
    found: dict[str, float] = {}
    for text in given:
        key, equals, value = (part.strip() for part in text.partition("="))
        if key in found:
            raise InputError(f"-p sets {key} twice. Give it once.")
        try:
            found[key] = words[value.lower()] if value.lower() in words else float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InputError(f"-p takes KEY=VALUE with a number, such as -p density=0.5; not {text!r}.")
    return found


SettingOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="A setting of continual.toml for this call alone, such as train.learning_rate=3e-4; once for each.",
    ),
]


def parse_settings(given: list[str] | None) -> dict[str, dict[str, Any]] | None:
    """Return `SECTION.KEY=VALUE` texts as settings by section; a value is TOML, and a word may go without quotes.

    Raises:
        InputError: One is not of this form, or two are of one setting.
    """
    if not given:
        return None
    import tomllib

    from continual.errors import InputError

    found: dict[str, dict[str, Any]] = {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        section, dot, key = name.partition(".")
        if not (equals and dot and section and key and value):
            raise InputError(f"--set takes SECTION.KEY=VALUE, such as train.epochs=1; not {text!r}.")
        if key in found.get(section, {}):
            raise InputError(f"--set sets {name} twice. Give it once.")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        found.setdefault(section, {})[key] = parsed
    return found


def open_workspace(directory: Path | None) -> Workspace:
    """Open the workspace that a command was called for."""
    from continual.workspace import Workspace

    return Workspace(directory)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))
