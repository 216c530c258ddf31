"""Every command has a case, and those that are said to write nothing do so."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from continual.cli import app
from tests.faults.cases import CASES, UNTRIED


def names(group: typer.Typer, prefix: str = "") -> Iterator[str]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield prefix + (command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from names(inner.typer_instance, f"{inner.name} ")


def test_every_command_has_a_case() -> None:
    """A new command that writes is killed and starved by the harness once it has a case here."""
    assert {case.name for case in CASES} | UNTRIED == set(names(app))
