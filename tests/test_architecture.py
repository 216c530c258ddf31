"""The map in docs/architecture.md is exact, and imports go down it."""

import ast
import re
from functools import cache
from pathlib import Path

from tests import ROOT

PACKAGE = ROOT / "continual"
MAP = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

ORDER = [
    "__main__",
    "cli",
    "workspace",
    "forget",
    "step",
    "recipes",
    "pairs",
    "export",
    "care",
    "report",
    "index",
    "conflicts",
    "versions",
    "eval",
    "stream",
    "executors",
    "train",
    "merge",
    "replay",
    "registry",
    "models",
    "storage",
    "config",
    "errors",
    "progress",
]
"""Rooms and single modules of the package, from the top down. A room imports only what comes after it."""


def name_of(path: Path) -> str:
    """Return the name of a module within the package, such as "merge.methods.ties"; for `__init__`, its folder's."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(name: str) -> str:
    """Return the room, or the single module, that a module belongs to."""
    return name.partition(".")[0]


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(importer: str) -> set[str]:
    """Return the modules of the package that a module imports, at its top, in functions, and for types."""
    imported = set()
    for node in ast.walk(ast.parse(MODULES[importer].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{importer} has a relative import"
            # `from continual.eval import run` imports the module `eval.run`, if there is one.
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("continual.") in MODULES else str(node.module) for name in members]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        imported |= {name.removeprefix("continual.") for name in names if name.startswith("continual.")}
    return imported & MODULES.keys()


def rooms() -> dict[str, set[str]]:
    """Return the names in each room of the package: its modules, and its folders with a slash at the end."""
    listed: dict[str, set[str]] = {}
    for name in MODULES:
        room, _, inner = name.partition(".")
        if inner:
            module, _, below = inner.partition(".")
            is_folder = below or MODULES[name].name == "__init__.py"
            listed.setdefault(f"{room}/", set()).add(f"{module}/" if is_folder else module)
        elif MODULES[name].name != "__init__.py":
            listed.setdefault(f"{room}.py", set())
    return listed


def mapped() -> dict[str, set[str]]:
    """Return the rooms of the map in the documentation, with the modules in the last column of each row."""
    rows = re.findall(r"^\| `([a-z_/.]+)` \|.*\|([^|]*)\|$", MAP, re.M)
    return {room: set(re.findall(r"`([^`]+)`", modules)) for room, modules in rows}


def test_the_map_names_every_module_and_no_other():
    assert mapped() == rooms()


def test_the_map_is_in_the_order_of_the_imports():
    assert [room.strip("/").removesuffix(".py") for room in mapped()] == ORDER


def test_imports_go_down():
    level = {room: position for position, room in enumerate(ORDER)}
    pairs = [(name, imported) for name in MODULES if name for imported in imports(name)]
    assert [pair for pair in pairs if level[room_of(pair[0])] > level[room_of(pair[1])]] == []


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imports(name) for name in MODULES if name}
    # Remove modules without imports again and again; what remains is in a circle, or imports one.
    while leaves := {name for name, others in graph.items() if not others & graph.keys()}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    assert graph.keys() == set()
