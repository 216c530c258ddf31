"""What is read of long streams: no command parses the provenances of all versions to name, list or promote one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from continual import Workspace
from continual.errors import SchemaError
from continual.eval import ood
from continual.registry import Provenance, Registry, Version, Window, rows
from continual.registry.catalog import now
from continual.registry.records import Leak
from tests.registries import batch, version
from tests.reports import make_task


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The provenances that are parsed from the catalog."""
    texts: list[str] = []

    def read(text: str) -> Provenance:
        texts.append(text)
        return Provenance.from_json(text)

    monkeypatch.setitem(rows._FROM_TEXT, "provenance", read)
    return texts


def make_workspace(folder: Path, versions: int) -> Workspace:
    """A line of versions, the last one current; each learned a batch, and the last two have a snapshot."""
    registry = Registry(folder / ".continual")
    registry.catalog.create()
    (folder / "continual.toml").write_text("")
    for number in range(versions):
        if number:
            registry.add_batch(batch(f"domain-{number}", f"b{number}"))
        if number >= versions - 2:
            registry.path(f"versions/v{number}").mkdir(parents=True)
            (registry.path(f"versions/v{number}") / "config.json").write_text("{}")
        parent, learned = (f"v{number - 1}", [f"b{number}"]) if number else (None, [])
        registry.add_version(version(f"v{number}", parent, learned), promote="made")
    return Workspace(folder)


@pytest.mark.parametrize("versions", [3, 9])
def test_lists_and_lookups_parse_the_same_few_provenances_for_any_number_of_versions(
    tmp_path: Path, parsed: list[str], versions: int
) -> None:
    workspace = make_workspace(tmp_path, versions)
    status, listed = workspace.status(), workspace.list_versions(full=False)
    assert (status.versions, len(listed.versions), len(workspace.history())) == (versions, versions, versions)
    assert [domain.learned for domain in status.domains] == [8] * (versions - 1)
    assert parsed == []
    workspace.promote(f"v{versions - 2}")
    workspace.version("current")
    assert len(parsed) == 2  # of the promoted version, once each


def test_entries_are_the_versions_without_provenance_and_verdict(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, 4)
    full, short = workspace.list_versions().to_json(), workspace.list_versions(full=False).to_json()
    for row in full["versions"]:
        del row["provenance"], row["verdict"]
    assert short == full
    registry = workspace.registry
    assert [entry.id for entry in registry.ancestry("v2")] == [
        each.id for each in registry.lineage(registry.version("v2"))
    ]
    assert registry.learned(registry.entry("v2")) == {"b1", "b2"}


def test_a_query_is_run_once_for_any_number_of_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    counts = []
    for versions in (3, 9):
        registry = make_workspace(tmp_path / str(versions), versions).registry
        opened.clear()
        monkeypatch.setattr(
            "continual.registry.registry.read_records", lambda *given: opened.append(given) or rows.read_records(*given)
        )
        Workspace(tmp_path / str(versions)).status()
        registry.lineage(registry.version("current"))
        counts.append(len(opened))
    assert counts[0] == counts[1]


def test_nested_reads_together_keep_their_state(registry: Registry) -> None:
    with registry.catalog.together():
        before = registry.versions()
        with registry.catalog.together():
            pass
        other = Registry(registry.root, 0.2)
        assert registry.versions() == before
        with pytest.raises(Exception, match="in use"):  # still attached read-only: nobody writes between the reads
            other.pin("v0", True)


def test_outlines_keep_recipe_and_cost(registry: Registry) -> None:
    stored = version("v0")
    window = Window("a", "0" * 32, "f" * 32, 1, "0")
    made = Provenance(recipe="joint", phase="merged", base=None, replay=[window])
    registry.add_version(Version(**{**{name: getattr(stored, name) for name in stored.__slots__}, "provenance": made}))
    (outline,) = registry.outlines()
    assert (outline.provenance.recipe, outline.provenance.phase, outline.provenance.replay) == ("joint", "merged", [])
    assert registry.versions()[0].provenance == made


def test_provenances_read_from_text_are_those_read_from_objects() -> None:
    made = Provenance(merge="interpolate", weight=0.1, config={"replay": {"share": 0.3}}, cursors={"a": "b"})
    assert Provenance.from_json(json.dumps(made.to_json())) == Provenance.from_json(made.to_json()) == made
    with pytest.raises(SchemaError, match="The provenance is damaged: weight"):
        Provenance.from_json('{"schema": 1, "weight": "heavy"}')
    with pytest.raises(SchemaError, match="schema 9"):
        Provenance.from_json('{"schema": 9, "weight": 1}')


def test_flags_read_the_provenance_of_the_versions_that_trained_on_leaks_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = make_workspace(tmp_path, 5).registry
    task = replace(make_task("late", None), created_at=now())
    registry.path(task.path).mkdir(parents=True)
    found = registry.versions()[0].created_at
    registry.add_task(task, leaks=[Leak("late", "b2", 3, 1, found)])
    asked: list[list[str]] = []
    guarded = registry.guarded
    monkeypatch.setattr(Registry, "guarded", lambda self, versions: asked.append(list(versions)) or guarded(versions))
    flags = ood.flags(registry)
    assert asked == [["v2"]]
    assert [version for version, _ in flags] == ["v2", "v3", "v4"], "descendants inherit the flag"
    assert {flag.learned_by[0] for flag in flags.values()} == {"v2"}


def test_records_are_read_without_heavy_imports() -> None:
    code = (
        "import sys, continual.workspace, continual.cli.render.version, continual.merge.methods as methods;"
        "methods.methods(); print(*{'torch', 'transformers', 'pyarrow', 'scipy', 'mteb'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
