"""Print the long tables behind docs/LOG.md as Markdown.

    python benchmarks/tables.py [ENTRY]

Without ENTRY, list the entries. ENTRY is a date and a slug, as in "2026-11-22-ingest".

Each line of results.jsonl is one row of a table: a JSON object with `entry`, `table`, and one key per column. Numbers
are stored as numbers. Columns of changes show a sign: `gain`, `OOD`, and those with a negative number, except falls.
The cells of the study are in study.jsonl; `python benchmarks/study.py --table` prints them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.jsonl")
SIGNED = {"gain", "OOD"}


def read(path: Path = RESULTS) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return the rows by entry and table, in the order of the file."""
    entries: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        entries.setdefault(row.pop("entry"), {}).setdefault(row.pop("table"), []).append(row)
    return entries


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table, with the columns in the order in which they first appear."""
    columns = {name: column(name, [row.get(name) for row in rows]) for row in rows for name in row}
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *(f"| {' | '.join(cells)} |" for cells in zip(*columns.values(), strict=True))])


def column(name: str, values: list[Any]) -> list[str]:
    """Return the cells of a column: all its floats with the decimals that the longest one needs.

    A column `value` holds figures of different things, so each keeps its own decimals.
    """
    if name == "value":
        return [value if isinstance(value, str) else f"{value:,}" for value in values]
    floats = [value for value in values if isinstance(value, float)]
    places = max((len(repr(value).partition(".")[2]) for value in floats), default=0)
    numbers = [value for value in values if isinstance(value, int | float)]
    changes = name in SIGNED or ("fall" not in name and any(value < 0 for value in numbers))
    sign = "+" if changes else ""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return f"{value:{sign}.{places}f}"
        return f"{value:{sign},}" if isinstance(value, int) else str(value)

    return [cell(value) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entry", nargs="?", metavar="ENTRY")
    entry = parser.parse_args().entry
    entries = read()
    if entry is None:
        print("\n".join(entries))
        return
    if entry not in entries:
        sys.exit(f"{RESULTS.name} has no entry {entry!r}. Run `python benchmarks/tables.py` to list the entries.")
    print("\n\n".join(f"**{table}**\n\n{markdown(rows)}" for table, rows in entries[entry].items()))


if __name__ == "__main__":
    main()
