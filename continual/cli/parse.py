"""From the text of an option to its value."""

from __future__ import annotations

import math
from typing import Any

from continual.errors import InputError


def parse_settings(given: list[str] | None) -> dict[str, dict[str, Any]] | None:
    """Return the `SECTION.KEY=VALUE` texts of --set as settings by section.

    A value is TOML, but a word needs no quotes. A key of a table has its own name: `merge.parameters.density=0.5`.

    Raises:
        InputError: A text has another form, or a setting is given twice.
    """
    if not given:
        return None
    found: dict[str, dict[str, Any]] = {}
    whole: set[str] = set()
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        *sections, key = name.split(".")
        if not (equals and sections and all(sections) and key and value):
            raise InputError(f"--set takes SECTION.KEY=VALUE, such as train.epochs=1; not {text!r}.")
        table: dict[str, Any] = found
        for depth, section in enumerate(sections, 1):
            if ".".join(sections[:depth]) in whole:
                raise InputError(f"--set sets {name} and all of {'.'.join(sections[:depth])}. Give one of the two.")
            table = table.setdefault(section, {})
        if key in table:
            raise InputError(f"--set sets {name} twice. Give it once.")
        table[key] = _toml(value)
        whole.add(name)
    return found


def parse_pairs(given: list[str] | None, flag: str, example: str) -> dict[str, str]:
    """Return the `NAME=VALUE` texts of an option as values by name.

    Args:
        flag: The option, for the message.
        example: A good value, for the message.

    Raises:
        InputError: A text has another form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise InputError(f"{flag} takes NAME=VALUE, such as {flag} {example}; not {text!r}.")
        if name in found:
            raise InputError(f"{flag} sets {name} twice. Give it once.")
        found[name] = value
    return found


def parse_parameters(given: list[str] | None) -> dict[str, float] | None:
    """Return the `NAME=VALUE` texts of --parameter as numbers by name; true and false are 1 and 0.

    Raises:
        InputError: A value is no number, or a name is given twice.
    """
    words = {"true": 1.0, "false": 0.0}
    found: dict[str, float] = {}
    for name, value in parse_pairs(given, "-p", "density=0.5").items():
        try:
            found[name] = words[value.lower()] if value.lower() in words else _finite(value)
        except ValueError:
            raise InputError(f"-p {name} takes a number, such as -p density=0.5; not {value!r}.") from None
    return found or None


def parse_merge(text: str | None) -> str | float | None:
    """Return --merge as a weight if it is a number, otherwise as the name of a rule."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def parse_rows(text: str) -> int:
    """Return --rows as a number; 0 for all.

    Raises:
        InputError: It is neither a number nor "all".
    """
    try:
        return 0 if text == "all" else int(text)
    except ValueError:
        raise InputError(f"--rows takes a number, or all; not {text!r}.") from None


def parse_weights(text: str | None) -> list[float] | None:
    """Return --weights as numbers.

    Raises:
        InputError: They are not numbers with commas between them.
    """
    if text is None:
        return None
    try:
        return [_finite(number) for number in text.split(",")]
    except ValueError:
        raise InputError(f"--weights takes numbers with commas, such as 0.4,0.6; not {text!r}.") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # a word, a number with thousands of digits, or a list in lists in lists
        return text
