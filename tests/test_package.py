"""What is installed under the name of the distribution, and what it says that it needs."""

import importlib.metadata
import tomllib
from pathlib import Path

import continual

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_stated_once():
    assert "version" in PROJECT["dynamic"]
    assert importlib.metadata.version(PROJECT["name"]) == continual.__version__


def test_the_command_is_called_like_the_import():
    assert PROJECT["name"] == "continual-embeddings"
    assert set(PROJECT["scripts"]) == {continual.__name__}
