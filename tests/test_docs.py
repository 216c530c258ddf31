"""What the pages promise is what the commands do."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from continual.replay.policies import policies
from tests import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def load(path: Path) -> ModuleType:
    """Import a script that belongs to no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load(ROOT / "docs" / "generate_cli.py")
COMMANDS: dict[str, Any] = dict(generator.commands())


def shown(text: str) -> list[str]:
    """Return the `$ continual ...` lines of a page, without their comments."""
    return [shlex.join(shlex.split(line, comments=True)) for line in re.findall(r"^\$ (continual .*)$", text, re.M)]


@pytest.mark.parametrize("script", sorted((ROOT / "docs").glob("plot_*.py")), ids=lambda path: path.stem)
def test_pictures_are_what_their_scripts_draw(script: Path):
    plot = load(script)
    assert plot.PICTURE.read_text(encoding="utf-8") == plot.draw(), f"run `python docs/{script.name}`"


def test_every_command_of_the_product_is_there():
    names = ["init", "ingest", "task add", "update", "report", "status", "versions list", "versions show", "promote"]
    assert {f"continual {name}" for name in [*names, "rollback", "export"]} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_parameter_has_help(name: str):
    command = COMMANDS[name]
    assert (command.help or "").strip()
    assert [parameter.name for parameter in command.params if not parameter.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_workspace_and_json(name: str):
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert "--json" in options
    assert name == "continual merge" or {"-w", "--workspace"} <= options  # it needs no workspace


def test_every_replay_policy_is_in_the_table():
    table = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
    assert set(policies()) == set(re.findall(r"^\| `(\w+)` \|", table, re.M))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_on_the_page(name: str):
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"\n## {name}\n" in page


def test_the_page_is_what_the_generator_makes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == generator.render(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_on_a_page_exist(page: Path):
    for line in shown(page.read_text(encoding="utf-8")):
        words = line.split()
        name = next((" ".join(words[:n]) for n in (3, 2) if " ".join(words[:n]) in COMMANDS), None)
        assert name, f"{line!r} is no command"
        known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line


def test_the_demo_runs_what_the_readme_shows():
    demo = (ROOT / "examples" / "demo.sh").read_text(encoding="utf-8")
    runs = re.findall(r"^run (continual .*)$", demo, re.M)
    assert runs
    assert shown((ROOT / "README.md").read_text(encoding="utf-8")) == runs
