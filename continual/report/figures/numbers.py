"""Numbers as people read them, and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

Kind = Literal[
    "text", "points", "change", "count", "share", "kept", "percent", "seconds", "number", "interval", "loss", "shift"
]
"""How a cell is shown: "share" is 0 to 1 and shown in percent, "kept" likewise with a digit more, for it has limits
such as 99 %; "percent" is so already, "interval" two ends, "shift" a difference of losses."""


def shown(value: Any, kind: Kind) -> str:
    """Return a value as text; an unknown one is a dash.

    Example:
        >>> shown(2.25, "change"), shown(0.7, "share"), shown(None, "points"), shown((1.0, 2.5), "interval")
        ('+2.2', '70 %', '–', '+1.0 to +2.5')
    """
    if value is None or value == "":
        return "–"
    if kind == "text":
        return str(value)
    if kind == "interval":
        return f"{change(value[0])} to {change(value[1])}"
    forms: dict[str, Callable[[Any], str]] = {
        "points": points,
        "change": change,
        "count": lambda each: f"{each:,}",
        "share": lambda each: f"{100 * each:.0f} %",
        "kept": lambda each: f"{100 * each:.1f} %",
        "percent": lambda each: f"{each:.0f} %",
        "seconds": duration,
        "number": lambda each: f"{each:.3g}",
        "loss": lambda each: f"{each:.4f}",
        "shift": shift,
    }
    return forms[kind](value)


def points(value: float) -> str:
    """Return points with one digit."""
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def change(value: float) -> str:
    """Return a difference in points, with its sign."""
    # A true minus sign is as wide as the plus, and a screen reader says it.
    return f"{value:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def probability(value: float) -> str:
    """Return a p-value with three digits; one that they would round to nothing is not nothing."""
    return f"{value:.3f}" if value >= 0.0005 else "<0.001"


def shift(value: float) -> str:
    """Return a difference of losses, with its sign."""
    return f"{value:+.3f}".replace("-0.000", "+0.000").replace("-", "−")


def duration(seconds: float) -> str:
    """Return a length of time as people read it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def short(name: str, most: int = 16) -> str:
    """Return a name cut to a length."""
    return name if len(name) <= most else name[: most - 1] + "…"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers that divide an axis, all of them within it.

    Example:
        >>> ticks(-3.2, 9.1)
        [-2.5, 0.0, 2.5, 5.0, 7.5]
    """
    raw = (high - low) / max(1, about)
    if raw <= 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * each for each in (1, 2, 2.5, 5, 10) if unit * each >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) + 0.0 for place in range(first, math.floor(high / step + 1e-9) + 1)]


def percent(value: float) -> str:
    """Return a tick of shares as text: 0.925 is "92.5 %"."""
    return f"{100 * value:.4g} %".replace("-", "−")


def label(value: float) -> str:
    """Return a tick as text: 1200000 is "1.2M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")
