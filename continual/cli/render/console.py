"""The console, and the plain tables that every command prints."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from continual.storage.terminal import make_console

console = make_console(highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Print plain text; what looks like markup in a name is printed as it is."""
    console.print(text, markup=False)


def table(*columns: str, numbers: tuple[int, int | None] | None = None, gap: int = 2, **options: Any) -> Table:
    """Return a table without lines.

    Args:
        numbers: The first and last column of numbers, aligned to the right; None as the last for the rest.
        gap: Spaces between columns.
        **options: Further options of `rich.table.Table`.
    """
    made = Table(*columns, box=None, pad_edge=False, padding=(0, gap, 0, 0), **options)
    if numbers is not None:
        for column in made.columns[numbers[0] : numbers[1]]:
            column.justify = "right"
    return made
