"""The frame of a plot: positions of values, grid lines, and axis labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from continual.report.figures.numbers import tick_label, ticks
from continual.report.figures.svg import SIZE, Svg, text_width

TOP, BOTTOM = 26.0, 28.0
SMALL = SIZE - 0.5


@dataclass(frozen=True)
class Frame:
    """The rectangle of a plot in pixels, and the values at its edges."""

    left: float
    right: float
    top: float
    bottom: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return the pixel of a value on the horizontal axis."""
        return self.left + (value - self.x_low) / (self.x_high - self.x_low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Return the pixel of a value on the vertical axis."""
        return self.bottom - (value - self.y_low) / (self.y_high - self.y_low) * (self.bottom - self.top)

    def data(self) -> dict[str, float]:
        """Return the edges in pixels, for the page's script."""
        names = ("left", "right", "top", "bottom")
        return {name: getattr(self, name) for name in names}


def y_axis(
    svg: Svg, frame: Frame, unit: str, text: Callable[[float], str] = tick_label, about: int = 5, zero: bool = True
) -> None:
    """Draw the horizontal grid lines with their labels, and the unit above them."""
    for tick in ticks(frame.y_low, frame.y_high, about):
        y = frame.y(tick)
        strong = zero and tick == 0
        svg.line(frame.left, y, frame.right, y, "axis" if strong else "rule", stroke_width=1.25 if strong else 1)
        svg.text(frame.left - 8, y + 4, text(tick), text_anchor="end", font_size=SMALL)
    svg.text(0, 12, unit, font_size=SMALL)


def label_room(low: float, high: float, text: Callable[[float], str] = tick_label, about: int = 5) -> float:
    """Return the pixels that the labels of the vertical axis need."""
    return 14 + max((text_width(text(tick), SMALL) for tick in ticks(low, high, about)), default=0.0)


def category_labels(svg: Svg, labels: Sequence[str], x: Callable[[float], float], y: float) -> None:
    """Draw as many of the labels as fit, the last one always."""
    if not labels:
        return
    room = max(text_width(label, SMALL) for label in labels) + 14
    apart = abs(x(1) - x(0)) if len(labels) > 1 else room
    every = max(1, -int(-room // max(apart, 1e-6)))
    last = len(labels) - 1
    for place, label in enumerate(labels):
        if place == last or (place % every == 0 and last - place >= every):
            svg.text(x(place), y, label, text_anchor="middle", font_size=SMALL)


def number_labels(svg: Svg, frame: Frame, y: float, about: int = 6) -> None:
    """Draw the labels of a numeric horizontal axis."""
    for tick in ticks(frame.x_low, frame.x_high, about):
        svg.text(frame.x(tick), y, tick_label(tick), text_anchor="middle", font_size=SMALL)


def bounds(values: Sequence[float], least: float, zero: bool) -> tuple[float, float]:
    """Return the ends of an axis: the range of the values with a margin, at least `least` long.

    `least` keeps a flat curve flat.
    """
    included = [*values, 0.0] if zero else list(values)
    low, high = min(included), max(included)
    pad = max(0.06 * (high - low), (least - (high - low)) / 2, 1e-9)
    return low - pad, high + pad
