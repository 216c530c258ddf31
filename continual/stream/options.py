"""The options of an ingest, checked before any file is opened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from continual.errors import InputError, did_you_mean
from continual.registry import KINDS
from continual.stream.schema import Columns

MAX_INSTRUCTION = 500
"""Characters in a domain's instruction."""

MAX_LICENSE = 200
"""Characters in the name of a licence."""


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """What the caller asks of an ingest. `continual.stream.ingest.ingest` documents each option."""

    domain: str | None = None
    columns: Columns = Columns()  # noqa: RUF009  frozen
    holdout: float | None = None
    task: Path | None = None
    license: str | None = None
    kind: str | None = None
    instruction: str | None = None


def check_options(options: IngestOptions) -> IngestOptions:
    """Return the options with spaces around the licence and the instruction removed.

    Raises:
        InputError: An option is out of its range, or two options contradict each other.
    """
    if options.holdout is not None and not 0 <= options.holdout <= 1:
        raise InputError(f"--holdout is {options.holdout:g}, but it takes a share from 0 to 1. Try --holdout 0.1.")
    if options.holdout and options.task is not None:
        raise InputError(
            "--holdout and --task exclude each other: a domain has one evaluation task of its own. Leave one out."
        )
    license = None if options.license is None else _check_license(options.license)
    if options.kind is not None and options.kind not in KINDS:
        raise InputError(
            f"--kind takes the type of task that the rows belong to, not {options.kind!r}."
            f"{did_you_mean(options.kind, KINDS)}"
        )
    instruction = None if options.instruction is None else _check_instruction(options.instruction)
    return replace(options, license=license, instruction=instruction)


def _check_license(license: str) -> str:
    license = license.strip()
    if not 0 < len(license) <= MAX_LICENSE or not license.isprintable():
        raise InputError(
            f"--license takes a name of 1 to {MAX_LICENSE} characters on one line, such as cc-by-4.0, not {license!r}."
        )
    return license


def _check_instruction(instruction: str) -> str:
    instruction = instruction.strip()
    if not 0 < len(instruction) <= MAX_INSTRUCTION or not instruction.isprintable():
        raise InputError(
            f"--instruction takes a sentence of 1 to {MAX_INSTRUCTION} characters on one line, such as 'Given a "
            f"question, retrieve the passage that answers it', not {instruction!r}."
        )
    return instruction
