"""The phases of the fault harness: a few attempts each, or thousands with `make faults`."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from tests import ROOT
from tests.faults import flips, killed, mutations, races, system
from tests.faults.bench import run, table
from tests.faults.sizes import NAME, SIZE

pytestmark = pytest.mark.faults

ALL: dict[str, ModuleType] = {
    "kills": killed,
    "races": races,
    "mutations": mutations,
    "flips": flips,
    "system": system,
}


PHASES = {name: phase for name, phase in ALL.items() if phase is not races or SIZE.seconds}


@pytest.fixture
def tell(capfd: pytest.CaptureFixture[str]) -> Callable[[str], object]:
    """Return a function that prints at once, past pytest."""

    def say(line: str) -> None:
        with capfd.disabled():
            print(line, flush=True)

    return say if NAME != "short" else lambda line: None


@pytest.mark.release
@pytest.mark.parametrize("phase", PHASES)
def test_phase(phase: str, stock: Path, tmp_path: Path, tell: Callable[[str], object]) -> None:
    out = (tmp_path if NAME == "short" else ROOT / "build" / "faults") / f"{phase}.jsonl"
    jobs = 1 if NAME == "short" else len(os.sched_getaffinity(0))
    only = int(number) if (number := os.environ.get("REPLAY")) else None
    found = run(partial(PHASES[phase].plan, SIZE), stock, out, jobs, only=only, tell=tell)
    out.with_suffix(".md").write_text(table(found) + "\n")
    wrong = [outcome for outcome in found if outcome.problem]
    assert not wrong, "\n".join(map(str, wrong[:20]))
