"""Write docs/cli.md from the commands, so that the page can't differ from them.

    python docs/generate_cli.py            writes the page
    python docs/generate_cli.py --check    exits with 1 if the page differs from the commands

The text comes from the declared parameters and not from a help screen, so it doesn't depend on the width or the
colours of a terminal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from continual.cli import app

PAGE = Path(__file__).parent / "cli.md"

INTRODUCTION = """\
# Command line

`make docs` writes this page from the commands. Don't edit it by hand.

Every command works on one workspace: the folder given with `-w`, or `$CONTINUAL_WORKSPACE`, or the nearest folder
upwards with a `continual.toml`. With `--json` it prints one JSON object on standard output. Progress and messages go to
standard error.

A command with `--set` takes any setting of `continual.toml` for one call: `--set train.epochs=2`. The value is TOML,
but a word needs no quotes. A key of a table has its own name: `--set merge.parameters.density=0.5`. Everyday settings
have options of their own.
"""

EXIT_CODES = """\
## Exit codes

| Code | Meaning |
|---|---|
| 0 | Done. |
| 1 | A bug in continual; the traceback says where. |
| 2 | The input or the options are wrong, and nothing was changed. Or `continual doctor` found something. |
| 3 | The gate refused the update; its version is kept as a candidate. |
| 4 | Another process uses the workspace. |
| 130 | Interrupted. Finished work is kept; run the command again to continue, or `continual update --resume`. |

Of several files, `continual ingest` stores one after the other: if it ends with 2, the files before the wrong one are
stored, and the message names them.
"""


def commands(group: Any = None, prefix: tuple[str, ...] = ("continual",)) -> Iterator[tuple[str, Any]]:
    """Yield (full name, command) of every command, including those in groups, in the order of declaration."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))
        elif not command.hidden:
            yield " ".join((*prefix, name)), command


def render() -> str:
    """Return the whole page."""
    named = list(commands())
    index = "\n".join(_index_line(name, command) for name, command in named)
    sections = [_section(name, command) for name, command in named]
    return "\n".join([INTRODUCTION, index + "\n", *sections, EXIT_CODES])


def _index_line(name: str, command: Any) -> str:
    summary = (command.help or "").partition("\n")[0]
    return f"- [`{name}`](#{name.replace(' ', '-')}): {summary}"


def _section(name: str, command: Any) -> str:
    options = [parameter for parameter in command.params if _is_option(parameter)]
    arguments = [parameter for parameter in command.params if not _is_option(parameter)]
    usage = " ".join([name, *(["[OPTIONS]"] if options else []), *map(_usage, arguments)])
    parts = [f"## {name}", (command.help or "").strip(), f"```\n{usage}\n```"]
    if arguments:
        rows = [(f"`{_plain(argument)}`", _meaning(argument)) for argument in arguments]
        parts.append(_table(("Argument", "Meaning"), rows))
    if options:
        rows = [(_names(option), _value(option), _default(option), option.help) for option in options]
        parts.append(_table(("Option", "Value", "Default", "Meaning"), rows))
    return "\n\n".join(parts) + "\n"


def _plain(argument: Any) -> str:
    return str(argument.metavar).replace("[", "").replace("]", "")


def _usage(argument: Any) -> str:
    return _plain(argument) if argument.required else f"[{_plain(argument)}]"


def _meaning(argument: Any) -> str:
    told = argument.required or not isinstance(argument.default, str) or "by default" in argument.help
    return argument.help if told else f"{argument.help.rstrip('.')}; by default {argument.default}."


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _names(option: Any) -> str:
    names = sorted([*option.opts, *option.secondary_opts], key=len)
    return ", ".join(f"`{name}`" for name in names)


def _value(option: Any) -> str:
    if option.is_flag:
        return ""
    return f"`{option.metavar or option.name.upper()}`"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    return "" if option.default is None or option.is_flag else f"`{option.default}`"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    # An unescaped bar would end the cell.
    return "\n".join("| " + " | ".join(str(cell or "").replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    """Write or check the page; return the exit code."""
    parser = argparse.ArgumentParser(description="Write docs/cli.md from the commands.")
    parser.add_argument("--check", action="store_true", help="only compare, and exit with 1 if they differ")
    check = parser.parse_args().check
    page = render()
    if not check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        print(f"{PAGE} does not match the commands. Run `make docs`, and commit the page.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
