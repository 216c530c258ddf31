"""How far the running update is, read from files alone: nobody who looks on holds the catalog."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from continual.progress import PROGRESS_FILE
from continual.storage.locks import UPDATE_LOCK, holder

PARTS = (
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
"""How the bars of a step begin, and its part that they belong to: 1 draw, 2 train, 3 fold, 4 merge, 5 evaluate."""


@dataclass(frozen=True)
class Live:
    """A step that runs, or was interrupted.

    Attributes:
        version: Id of the version that it will become.
        state: "running", or "interrupted" when no process works on it.
        part: Of the step, 1 to 6, as `continual.step.update` numbers them.
        label: What is being done, such as "training".
        done: Units done.
        total: Units in all, or None.
        unit: What is counted.
        rate: Units per second, or None.
        left: Seconds left of this part, or None.
        losses: Points of the loss curve: optimizer step and loss.
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
        """Return it as plain data."""
        return asdict(self)


def part_of(label: str) -> int:
    """Return the part of a step, 1 to 6, that a bar belongs to; what comes before the step is part of the draw."""
    return next((part for start, part in PARTS if label.startswith(start)), 1)


def read_live(store: Path) -> Live | None:
    """Return how far the step in a `.continual` folder is, or None if there is none.

    Args:
        store: The folder.
    """
    running = holder(store / UPDATE_LOCK) == "update"
    # After the lock: what ended between the two questions has no file any more, and is not taken for interrupted.
    found = [state for file in store.glob(f"runs/*/{PROGRESS_FILE}") if (state := _read(file)) is not None]
    if not found:
        return None
    state = max(found, key=lambda each: each["at"])
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
    """Return what a running step wrote; None where it ended just now, or the file is somebody else's."""
    kinds = {"version": str, "label": str, "unit": str, "done": int, "before": int, "at": float, "began": float}
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        fits = all(isinstance(state[name], kind) for name, kind in kinds.items())
        return state if fits and isinstance(state["total"], int | None) and isinstance(state["losses"], list) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
