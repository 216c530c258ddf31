"""Write the results of `make faults` into docs/reliability.md: a table per phase that was run."""

from __future__ import annotations

import datetime
from pathlib import Path

from tests import ROOT
from tests.faults.bench import Outcome, recorded, table

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "build" / "faults"
PHASES = ("kills", "races", "mutations", "flips", "system")


def section(phase: str, outcomes: list[Outcome], day: datetime.date) -> str:
    """Return the results of a phase, between the marks that the next run replaces."""
    return f"<!-- {phase} -->\n{day}\n\n{table(outcomes)}\n<!-- end of {phase} -->"


def write(page: str, folder: Path) -> str:
    """Return the page with the results in a folder; phases without results keep theirs."""
    for phase in PHASES:
        file = folder / f"{phase}.jsonl"
        if outcomes := recorded(file):
            day = datetime.datetime.fromtimestamp(file.stat().st_mtime, datetime.UTC).date()
            before, _, rest = page.partition(f"<!-- {phase} -->")
            _, _, after = rest.partition(f"<!-- end of {phase} -->")
            page = before + section(phase, outcomes, day) + after
    return page


if __name__ == "__main__":
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
