"""The job scripts of examples/cluster: they parse, and call only options that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from tests import ROOT

FILES = sorted((ROOT / "examples/cluster").iterdir())


def test_there_are_scripts_for_both_launchers_and_both_schedulers() -> None:
    assert [file.name for file in FILES] == ["ray.slurm", "ray.yaml", "torchrun.slurm", "torchrun.yaml"]


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".slurm"], ids=lambda file: file.name)
def test_a_slurm_script_is_correct_bash(file: Path) -> None:
    subprocess.run(["bash", "-n", file], check=True)
    # Slurm reads #SBATCH lines only before the first command.
    lines = file.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".yaml"], ids=lambda file: file.name)
def test_a_manifest_mounts_what_it_claims(file: Path) -> None:
    def pods(value: object):
        if isinstance(value, dict):
            if "containers" in value:
                yield value
            for inner in value.values():
                yield from pods(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from pods(inner)

    (manifest,) = yaml.safe_load_all(file.read_text())
    assert {"apiVersion", "kind", "metadata", "spec"} <= manifest.keys()
    found = list(pods(manifest))
    assert found
    for pod in found:
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for box in pod["containers"] for mount in box["volumeMounts"]} <= volumes


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_script_calls_commands_with_options_that_they_have(run, file: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", file.read_text()).replace(", ", " ").replace("]", "")
    calls = re.findall(r"^[^#\n]*?\bcontinual ((?:train|update) .*)$", text, re.M)
    assert calls
    for call in calls:
        words = shlex.split(call.rstrip(" &"))
        assert words[-2] == "-w"
        if words[0] == "train":
            assert run(*words[:-2], "--plan", "-w", "/no/workspace").code == 2
        shown = run(words[0], "--help").out
        assert [word for word in words if word.startswith("--") and word not in shown] == []
