"""What is installed under the name of the distribution, and what it says that it needs."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import continual

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_stated_once():
    assert "version" in PROJECT["dynamic"]
    assert importlib.metadata.version(PROJECT["name"]) == continual.__version__


def test_the_command_is_called_like_the_import():
    assert PROJECT["name"] == "continual-embeddings"
    assert set(PROJECT["scripts"]) == {continual.__name__}


def pins(name: str) -> dict[str, Version]:
    """Return the versions that a file of constraints names."""
    lines = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / name).read_text(encoding="utf-8"), re.M)
    return {_plain(package): Version(version) for package, version in lines}


def _plain(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_the_lowest_versions_are_those_that_are_tested():
    needed = [Requirement(line) for line in PROJECT["dependencies"]]
    assert all([clause.operator for clause in each.specifier] == [">="] for each in needed)
    lowest = {_plain(each.name): Version(next(iter(each.specifier)).version) for each in needed}
    tested = pins("constraints-lowest.txt")
    assert lowest.pop("torch") <= tested["torch"]  # an older one cannot be installed everywhere
    assert {name: tested.get(name) for name in lowest} == lowest


def test_the_versions_of_the_tests_are_in_range():
    tested = pins("constraints.txt")
    needed = [Requirement(line) for line in PROJECT["dependencies"]]
    assert [str(each) for each in needed if tested[_plain(each.name)] not in each.specifier] == []
