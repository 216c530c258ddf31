"""The progress of the running update, read from files only, so that readers never open the catalog."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from continual.storage.locks import UPDATE_LOCK, holder
from continual.storage.recorder import PROGRESS_FILE

PART_OF_LABEL = (
    ("tokenising", 2),
    ("embedding before", 2),
    ("training", 2),
    ("searching", 4),
    ("writing weights", 4),
    ("evaluating", 5),
    ("encoding learned texts", 5),
    ("fitting maps", 5),
    ("comparing the indexes", 5),
)
"""The first words of progress labels, and the part of a step they belong to: 2 train, 4 merge, 5 evaluate. Labels that
aren't listed belong to part 1, draw."""


@dataclass(frozen=True)
class Live:
    """The progress of an update that is running or was interrupted.

    Attributes:
        version: Id of the version that the update creates.
        state: "interrupted" if no process is working on it.
        part: Part of the step, 1 to 6, as numbered in `continual.step.update`.
        label: Label of the progress bar, such as "training".
        done: Units done.
        total: Units in all, if known.
        unit: Name of the units.
        rate: Units per second, if known.
        left: Seconds left of the progress bar, if known.
        losses: The loss curve as (optimizer step, loss).
    """

    version: str
    state: Literal["running", "interrupted"]
    part: int
    label: str
    done: int
    total: int | None
    unit: str
    rate: float | None
    left: float | None
    losses: list[tuple[int, float]]

    def to_json(self) -> dict[str, Any]:
        """Return the progress as plain data."""
        return asdict(self)


def part_of(label: str) -> int:
    """Return the part of a step, 1 to 6, that a progress label belongs to."""
    return next((part for start, part in PART_OF_LABEL if label.startswith(start)), 1)


def read_live(store: Path) -> Live | None:
    """Return the progress of the update in a `.continual` folder, or None if no update is running or interrupted."""
    running = holder(store / UPDATE_LOCK) == "update"
    # The lock is read first: an update that ends in between has no file left, and isn't reported as interrupted.
    states = [state for file in store.glob(f"runs/*/{PROGRESS_FILE}") if (state := _read(file)) is not None]
    if not states:
        return None
    state = max(states, key=lambda state: state["at"])
    done, total = state["done"], state["total"]
    fresh, seconds = done - state["before"], state["at"] - state["began"]
    rate = fresh / seconds if fresh > 0 and seconds > 0.5 else None
    return Live(
        version=state["version"],
        state="running" if running else "interrupted",
        part=part_of(state["label"]),
        label=state["label"],
        done=done,
        total=total,
        unit=state["unit"],
        rate=rate,
        left=max(0, total - done) / rate if rate and total else None,
        losses=[(step, loss) for step, loss in state["losses"]],
    )


def _read(file: Path) -> dict[str, Any] | None:
    """Return the content of a progress file; None if the update just ended, or the file has another format."""
    types = {"version": str, "label": str, "unit": str, "done": int, "before": int, "at": float, "began": float}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        valid = all(isinstance(state[name], expected) for name, expected in types.items())
        return state if valid and isinstance(state["total"], int | None) and isinstance(state["losses"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
