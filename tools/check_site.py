"""Check that the pages in site/ load nothing from another host, and that the search index is there.

    python tools/check_site.py

Links that a reader clicks may lead anywhere; scripts, styles, fonts, images and frames may not. Standard library only.
"""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

SITE = Path(__file__).parent.parent / "site"

LOADS = {
    "audio": ["src"],
    "embed": ["src"],
    "iframe": ["src"],
    "image": ["href", "xlink:href"],
    "img": ["src", "srcset"],
    "link": ["href"],
    "object": ["data"],
    "script": ["src"],
    "source": ["src", "srcset"],
    "use": ["href", "xlink:href"],
    "video": ["src", "poster"],
}
"""Attributes whose address a browser fetches by itself, by tag."""

IN_STYLE = re.compile(r"(?:url\(|@import)\s*[\"']?\s*((?:https?:)?//[^\"')\s]+)")


class Loads(HTMLParser):
    """Collects the addresses on other hosts that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Look at one tag."""
        values = dict(attrs)
        addresses = [values.get(name) or "" for name in LOADS.get(tag, [])]
        self.found += [f"<{tag}> {address}" for address in addresses if re.match(r"(https?:)?//", address)]
        self.found += [f"style {address}" for address in IN_STYLE.findall(values.get("style") or "")]
        if "mermaid" in (values.get("class") or "").split():
            self.found.append("a mermaid diagram, whose script the theme takes from another host")


def check(path: Path) -> list[str]:
    """Return a line for each address that a page or a style sheet loads from another host."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".css":
        return [f"{path.relative_to(SITE)}: {address}" for address in IN_STYLE.findall(text)]
    loads = Loads()
    loads.feed(text)
    return [f"{path.relative_to(SITE)}: {line}" for line in loads.found]


def main() -> int:
    """Check the site; return the exit code."""
    pages = sorted(SITE.rglob("*.html"))
    if not pages:
        print(f"{SITE} holds no page. Run `make site`.", file=sys.stderr)
        return 1
    wrong = [line for path in [*pages, *sorted(SITE.rglob("*.css"))] for line in check(path)]
    wrong += [f"{name} is missing" for name in ("search/search_index.js",) if not (SITE / name).is_file()]
    if wrong:
        print("\n".join(wrong), file=sys.stderr)
        print("The site must work without a network. Put these files into docs/, or leave them out.", file=sys.stderr)
        return 1
    print(f"{len(pages)} pages, none of which loads anything from another host: open {SITE / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
