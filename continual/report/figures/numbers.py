"""Numbers as text, and the ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

Format = Literal[
    "text", "points", "change", "count", "share", "kept", "percent", "seconds", "number", "interval", "loss", "shift"
]
"""How a value is written. "share" (0 to 1) and "percent" (0 to 100) are written as whole percentages; "kept" is a
share with one decimal, because its limits are values such as 99 %; "interval" is a pair; "shift" is a difference of
losses."""


def format_value(value: Any, format: Format) -> str:
    """Return a value as text; an unknown value is a dash.

    Example:
        >>> format_value(2.25, "change"), format_value(0.7, "share"), format_value(None, "points")
        ('+2.2', '70 %', '–')
        >>> format_value((1.0, 2.5), "interval")
        '+1.0 to +2.5'
    """
    if value is None or value == "":
        return "–"
    if format == "text":
        return str(value)
    if format == "interval":
        return f"{format_change(value[0])} to {format_change(value[1])}"
    formatters: dict[str, Callable[[Any], str]] = {
        "points": format_points,
        "change": format_change,
        "count": lambda count: f"{count:,}",
        "share": lambda share: f"{100 * share:.0f} %",
        "kept": lambda share: f"{100 * share:.1f} %",
        "percent": lambda percentage: f"{percentage:.0f} %",
        "seconds": duration,
        "number": lambda number: f"{number:.3g}",
        "loss": lambda loss: f"{loss:.4f}",
        "shift": format_shift,
    }
    return formatters[format](value)


def format_points(value: float) -> str:
    """Return points with one decimal."""
    return f"{value:.1f}".replace("-0.0", "0.0").replace("-", "−")


def format_change(value: float) -> str:
    """Return a difference in points with one decimal and its sign."""
    # A true minus sign is as wide as the plus sign, and screen readers read it.
    return f"{value:+.1f}".replace("-0.0", "+0.0").replace("-", "−")


def probability(value: float) -> str:
    """Return a p-value with three decimals, or "<0.001" instead of 0.000."""
    return f"{value:.3f}" if value >= 0.0005 else "<0.001"


def format_shift(value: float) -> str:
    """Return a difference of losses with three decimals and its sign."""
    return f"{value:+.3f}".replace("-0.000", "+0.000").replace("-", "−")


def duration(seconds: float) -> str:
    """Return a duration in seconds, in minutes and seconds, or in hours and minutes."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def short(name: str, most: int = 16) -> str:
    """Return a name, cut to `most` characters with an ellipsis."""
    return name if len(name) <= most else name[: most - 1] + "…"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return about `about` round numbers between two ends.

    Example:
        >>> ticks(-3.2, 9.1)
        [-2.5, 0.0, 2.5, 5.0, 7.5]
    """
    raw = (high - low) / max(1, about)
    if raw <= 0:
        return [low]
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(place * step, 10) + 0.0 for place in range(first, math.floor(high / step + 1e-9) + 1)]


def percent_label(value: float) -> str:
    """Return a tick of an axis of shares as text: 0.925 is "92.5 %"."""
    return f"{100 * value:.4g} %".replace("-", "−")


def tick_label(value: float) -> str:
    """Return a tick as text: 1200000 is "1.2M"."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if float(f"{abs(value):.3g}") >= size:  # rounded first: 999,999 is "1M", not "1e+03k"
            return f"{value / size:.3g}{letter}".replace("-", "−")
    return f"{value:.3g}".replace("-", "−")
