"""What `make site` makes of the pages: links, lists, settings, and nothing from another host."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from continual.config import Config

TOOLS = Path(__file__).parent.parent / "tools"

pytest.importorskip("mkdocs")


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    """Return a function that imports a module of tools/, as MkDocs does."""
    monkeypatch.syspath_prepend(str(TOOLS))

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("README.md", "[a](docs/replay.md#policies)", "[a](replay.md#policies)"),
        ("README.md", "![a](docs/report.png) [b](LICENSE)", "![a](report.png) [b](LICENSE.txt)"),
        ("README.md", "[a](docs/decisions)", "[a](decisions/index.md)"),
        ("docs/replay.md", "[a](../CONTRIBUTING.md)", "[a](contributing.md)"),
        (
            "docs/decisions/0001-one-package.md",
            "[a](../LOG.md), [b](../../README.md)",
            "[a](../LOG.md), [b](../index.md)",
        ),
        ("docs/replay.md", "[a](https://x.org/b.md) [b](#here)", "[a](https://x.org/b.md) [b](#here)"),
        ("docs/replay.md", "`[a](../README.md)`", "`[a](../README.md)`"),
        ("docs/replay.md", "```\n[a](../README.md)\n- b\n```", "```\n[a](../README.md)\n- b\n```"),
        ("docs/cli.md", "hf:NAME[:SPLIT]", "hf:NAME\\[:SPLIT]"),
        ("docs/replay.md", "Two:\n- a\n- b", "Two:\n\n- a\n- b"),
    ],
)
def test_pages_are_written_for_the_site(tool, name: str, text: str, expected: str):
    assert tool("site_hooks").relink(text, name) == expected


def test_every_setting_is_in_the_tables(tool):
    tables = tool("settings_table").tables()
    for section, field in Config.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        assert (f"## [{section}]" if keys else f"| `{section}` |") in tables
        assert all(f"| `{key}` |" in tables or f"## [{section}.{key}]" in tables for key in keys or {})
    assert "| `share` | number, 0 to 1 | `0.3` |" in tables


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<a href="https://x.org">x</a><script src="a.js"></script>', 0),
        ('<script src="https://x.org/a.js"></script>', 1),
        ('<link rel="stylesheet" href="//x.org/a.css">', 1),
        ('<p style="background: url(https://x.org/a.png)"></p>', 1),
        ('<pre class="mermaid"></pre>', 1),
    ],
)
def test_what_a_page_loads_from_another_host_is_found(tool, page: str, found: int):
    loads = tool("check_site").Loads()
    loads.feed(page)
    assert len(loads.found) == found
