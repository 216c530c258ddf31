"""SVG drawings. All texts and attributes are escaped here, and colour names are replaced by values."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
SIZE = 12.5
"""Font size, pixels."""

MARGIN = 16
"""Margin around a drawing that is saved as a file, pixels."""

LETTER, BROAD, NARROW, FULL = 0.64, 0.98, 0.42, 1.0
"""Width of a letter as a share of the font size: most letters, broad ones, narrow ones, and full-width (such as
Chinese) ones. The values are those of DejaVu Sans, the widest font of `FONT`."""


class Svg:
    """A drawing of fixed size, in pixels.

    Args:
        palette: Colour values by name; None to use the page's CSS variables.
    """

    def __init__(self, width: float, height: float, palette: Mapping[str, str] | None = None) -> None:
        self.width, self.height = width, height
        self._palette = palette
        self._parts: list[str] = []

    def add(self, tag: str, text: str | None = None, **attributes: Any) -> None:
        """Append an element.

        Args:
            text: Content of the element.
            **attributes: `_` in a name becomes `-`, None omits the attribute, and `fill` and `stroke` take colour
                names.
        """
        head = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{self._value(name, value)}"'
            for name, value in attributes.items()
            if value is not None
        )
        self._parts.append(f"<{tag}{head}/>" if text is None else f"<{tag}{head}>{escape(text, quote=False)}</{tag}>")

    def text(self, x: float, y: float, text: str, colour: str = "soft", **attributes: Any) -> None:
        """Append a text with its baseline at `y`."""
        self.add("text", text, x=x, y=y, fill=colour, **attributes)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, **attributes: Any) -> None:
        """Append a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour, **attributes)

    def render(self, title: str, about: str, identity: str, data: Mapping[str, float] | None = None) -> str:
        """Return the drawing with its title and description.

        Args:
            about: Description for screen readers.
            identity: Prefix of the ids, unique on the page.
            data: Numbers for the page's script, written as `data-` attributes.
        """
        extra = "".join(f' data-{name}="{_number(value)}"' for name, value in (data or {}).items())
        # A drawing on the page has the page's background; a file needs its own, and a margin.
        margin = 0 if self._palette is None else MARGIN
        width, height = (_number(length + 2 * margin) for length in (self.width, self.height))
        box = f"{-margin} {-margin} {width} {height}"
        background = ""
        if self._palette is not None:
            background = (
                f'<rect x="{-margin}" y="{-margin}" width="100%" height="100%" fill="{self._palette["card"]}"/>'
            )
        names = f"{escape(identity)}-t", f"{escape(identity)}-d"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{width}" height="{height}" role="img" '
            f'aria-labelledby="{" ".join(names)}" font-size="{SIZE}" font-family="{escape(FONT)}"{extra}>'
            f'<title id="{names[0]}">{escape(title, quote=False)}</title>'
            f'<desc id="{names[1]}">{escape(about, quote=False)}</desc>{background}{"".join(self._parts)}</svg>'
        )

    def _value(self, name: str, value: str | float) -> str:
        if not isinstance(value, str):
            return _number(value)
        if name in ("fill", "stroke") and value != "none":
            return f"var(--{value})" if self._palette is None else self._palette[value]
        return escape(value)


def path(points: Iterable[tuple[float, float] | None]) -> str:
    """Return the SVG path data of a line through points; None interrupts the line."""
    parts, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        parts.append(f"{pen}{_number(point[0])} {_number(point[1])}")
        pen = "L"
    return "".join(parts)


def text_width(text: str, size: float = SIZE) -> float:
    """Return the approximate width of a text, pixels."""
    return size * sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return FULL
    return BROAD if letter in "mwMW@%…" else NARROW if letter in "fijlrtIJ .,:;!|'()[]-/" else LETTER


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
