"""Printing to a terminal, which must not obey the texts, names and paths that people and files give.

Everything that continual prints goes through this module. Control characters could clear the screen or forge lines, and
marks that change the direction of writing could show one text as another, so they are shown as escapes.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

# C0 and C1 without tab and line feed, Arabic letter mark, directional marks, line and paragraph separators,
# embeddings, overrides and isolates, and surrogates, which no stream can encode. Joiners, which scripts need, stay.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str) -> str:
    """Return a text with everything that a terminal could obey as escapes, such as `\\x1b` or `\\u202e`."""
    return _HARMFUL.sub(_escape, text)


def harmless_json(text: str) -> str:
    """Return a JSON document that means the same, with what a terminal could obey as JSON's escapes."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a text and a line end at once, on stdout or another stream."""
    print(harmless(text), file=file or sys.stdout, flush=True)


def warn(text: str) -> None:
    """Print a message of `continual` on stderr."""
    say(f"continual: {text}", sys.stderr)


def make_console(**options: Any) -> Console:
    """Return a console of rich whose texts are harmless; its own colours and movements work.

    Args:
        **options: Options of `rich.console.Console`.
    """
    from rich.console import Console
    from rich.segment import Segment

    class SafeConsole(Console):
        def render_str(self, text: str, **more: Any) -> Any:
            # Here rather than below, so that the widths of columns are right.
            return super().render_str(harmless(text), **more)

        def render(self, renderable: Any, options: Any = None) -> Any:
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control else Segment(harmless(text), style)

    return SafeConsole(emoji=False, **options)  # ":bomb:" in a name stays as it is


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
