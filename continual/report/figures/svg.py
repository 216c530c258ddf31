"""SVG, element by element: every text and attribute is escaped here, and colours get their values."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

FONT = "Inter, system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
SIZE = 12.5
"""Pixels of a letter."""

MARGIN = 16
"""Pixels around a drawing that is a file of its own."""

LETTER, BROAD, NARROW, FULL = 0.64, 0.98, 0.42, 1.0
"""Width of a letter as a share of its size, as in DejaVu Sans, the broadest of the fonts: of most letters, of broad
and narrow ones, and of full ones, such as Chinese ones."""


class Svg:
    """A drawing of fixed size.

    Args:
        width: Pixels.
        height: Pixels.
        palette: Values of the colours by name. None leaves it to the page: colours are its CSS variables.
    """

    def __init__(self, width: float, height: float, palette: Mapping[str, str] | None = None) -> None:
        self.width, self.height = width, height
        self._palette = palette
        self._parts: list[str] = []

    def add(self, tag: str, text: str | None = None, **attributes: Any) -> None:
        """Append an element.

        Args:
            tag: Its name.
            text: What it says.
            **attributes: Texts and numbers; `_` in a name is `-`, None leaves one out, and `fill` and `stroke` take
                names of colours.
        """
        head = "".join(
            f' {name.rstrip("_").replace("_", "-")}="{self._value(name, value)}"'
            for name, value in attributes.items()
            if value is not None
        )
        self._parts.append(f"<{tag}{head}/>" if text is None else f"<{tag}{head}>{escape(text, quote=False)}</{tag}>")

    def text(self, x: float, y: float, text: str, colour: str = "soft", **attributes: Any) -> None:
        """Append a text whose baseline is at y."""
        self.add("text", text, x=x, y=y, fill=colour, **attributes)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, **attributes: Any) -> None:
        """Append a straight line."""
        self.add("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke=colour, **attributes)

    def render(self, title: str, about: str, identity: str, data: Mapping[str, float] | None = None) -> str:
        """Return the drawing with its title and description.

        Args:
            title: What it is.
            about: What it shows, for whoever does not see it.
            identity: Unique on the page.
            data: Numbers for scripts, as `data-` attributes.
        """
        more = "".join(f' data-{name}="{_number(value)}"' for name, value in (data or {}).items())
        # On the page the ground is the page's; in a file it is the drawing's own, with a margin.
        margin = 0 if self._palette is None else MARGIN
        width, height = (_number(each + 2 * margin) for each in (self.width, self.height))
        box = f"{-margin} {-margin} {width} {height}"
        ground = ""
        if self._palette is not None:
            ground = f'<rect x="{-margin}" y="{-margin}" width="100%" height="100%" fill="{self._palette["card"]}"/>'
        names = f"{escape(identity)}-t", f"{escape(identity)}-d"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{width}" height="{height}" role="img" '
            f'aria-labelledby="{" ".join(names)}" font-size="{SIZE}" font-family="{escape(FONT)}"{more}>'
            f'<title id="{names[0]}">{escape(title, quote=False)}</title>'
            f'<desc id="{names[1]}">{escape(about, quote=False)}</desc>{ground}{"".join(self._parts)}</svg>'
        )

    def _value(self, name: str, value: str | float) -> str:
        if not isinstance(value, str):
            return _number(value)
        if name in ("fill", "stroke") and value != "none":
            return f"var(--{value})" if self._palette is None else self._palette[value]
        return escape(value)


def path(points: Iterable[tuple[float, float] | None]) -> str:
    """Return path data through points; None interrupts the line."""
    parts, pen = [], "M"
    for point in points:
        if point is None:
            pen = "M"
            continue
        parts.append(f"{pen}{_number(point[0])} {_number(point[1])}")
        pen = "L"
    return "".join(parts)


def text_width(text: str, size: float = SIZE) -> float:
    """Return about how wide a text is, pixels."""
    return size * sum(map(_letter, text))


def _letter(each: str) -> float:
    if unicodedata.east_asian_width(each) in "WF":
        return FULL
    return BROAD if each in "mwMW@%…" else NARROW if each in "fijlrtIJ .,:;!|'()[]-/" else LETTER


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
