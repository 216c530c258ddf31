"""The tests are laid out like the package, and share code by helper modules, not by importing each other."""

import ast
from pathlib import Path

from tests import ROOT

MODULES = sorted((ROOT / "tests").rglob("*.py"))


def imported(module: Path) -> list[str]:
    """Return the names of the modules that a module imports."""
    nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
    names = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return names + [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]


def test_nothing_is_imported_from_a_test_module():
    last = {name.rpartition(".")[2] for module in MODULES for name in imported(module) if name.startswith("tests.")}
    assert {name for name in last if name.startswith("test_") or name == "conftest"} == set()


def test_a_folder_of_tests_is_a_room_of_the_package():
    folders = {path.parent.relative_to(ROOT / "tests").as_posix() for path in MODULES}
    folders -= {".", "faults"}  # faults are tried on all rooms at once
    assert {folder for folder in folders if not (ROOT / "continual" / folder).is_dir()} == set()
