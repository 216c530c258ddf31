"""Workspaces of earlier releases: they open, report, rebuild every version bit for bit, and learn on.

`data/workspace-0.1.tar.gz` was made by release 0.1 with the tiny model. v1 and v2 are accepted updates, the second by
a search; v3 to v6 are the members of v7, by BOOM; v8 is an update that the gate refused. The snapshots of v0 and v2
were kept. The index and the conflicts were measured.
"""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from continual import Workspace
from continual.errors import InputError
from continual.models.weights import weights_sha256
from tests import ROOT
from tests.rows import Write, make_pairs
from tests.workspaces import Once

WEIGHTS = {
    "v1": "f4a42fcd073c",
    "v2": "40aafae81032",
    "v3": "32d320a15812",
    "v4": "fd4f852912a2",
    "v5": "642cfcdc1e84",
    "v6": "8796dbf6c162",
    "v7": "a09a8b4f8c57",
    "v8": "8bb14ceafcde",
}
"""How the sha256 of each version's weights begins."""

ARITHMETIC = "60b18c676a39"
"""How the sha256 of `products` begins where the archive was made."""


@pytest.fixture
def old(once: Once, tmp_path: Path) -> Workspace:
    def unpack(folder: Path) -> None:
        with tarfile.open(ROOT / "tests/data/workspace-0.1.tar.gz") as archive:
            archive.extractall(folder, filter="data")

    return Workspace(shutil.copytree(once("workspace-0.1", unpack) / "w", tmp_path / "w"))


def products(workspace: Workspace) -> str:
    """Return the sha256 of the products that a rebuild computes: of LoRA's factors, and of a model's tensors.

    All else in a rebuild is rounded as IEEE 754 demands. Products are summed as the processor does it best, so their
    last bits depend on it.
    """
    folder = workspace.directory / ".continual"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("adapters/*/adapter_model.safetensors")):
        factors = load_file(file)
        for name in sorted(factors):
            if "lora_A" in name:
                digest.update((factors[name.replace("lora_A", "lora_B")] @ factors[name]).numpy().tobytes())
    for name, tensor in sorted(load_file(folder / "versions/v2/model.safetensors").items()):
        if tensor.is_floating_point():
            rows = torch.stack([tensor.flatten(), tensor.flatten().flip(0)]).double()
            digest.update(name.encode() + torch.addmm(torch.zeros(2, 2).double(), rows, rows.T).numpy().tobytes())
    return digest.hexdigest()


def test_it_opens(old: Workspace) -> None:
    versions = old.versions()
    assert [version.id for version in versions] == [f"v{number}" for number in range(9)]
    assert [version.status for version in versions] == ["root", *["accepted"] * 2, *["trained"] * 5, "refused"]
    assert {version.id: version.sha256[:12] for version in versions[1:]} == WEIGHTS
    status = old.status()
    assert status.interrupted is None
    assert [(domain.name, domain.learned, domain.rows) for domain in status.domains] == [
        ("first", 48, 48),
        ("second", 48, 48),
        ("third", 0, 48),
    ]


def test_it_reports(old: Workspace) -> None:
    report = old.report().to_json()
    assert [version["id"] for version in report["versions"]] == ["v0", "v1", "v2", "v7", "v8"]
    assert [version["domains"] for version in report["versions"]] == [
        [],
        ["first"],
        ["second"],
        ["first", "second"],
        ["third"],
    ]
    assert [task["name"] for task in report["tasks"]] == ["first", "second", "third"]
    assert report["current"] == "v2"


def test_every_version_is_rebuilt_bit_for_bit(old: Workspace) -> None:
    if not products(old).startswith(ARITHMETIC):
        pytest.skip("this processor sums products in another order than the one that the archive was made on")
    for version, weights in WEIGHTS.items():
        old.rebuild(version)
        assert weights_sha256(old.directory / ".continual/versions" / version).startswith(weights)


def test_versions_are_compared(old: Workspace) -> None:
    found = old.compare("v1", "v2")
    scores = old.registry.scores()
    assert [task.task for task in found.tasks] == ["first", "second", "third"]
    for task in found.tasks:
        assert task.difference == pytest.approx(scores["v2", task.task].score - scores["v1", task.task].score)


@pytest.mark.slow
def test_it_learns_on_and_rolls_back(old: Workspace, write_pairs: Write) -> None:
    old.ingest(write_pairs("fourth.parquet", make_pairs(40, seed=4)))
    step = old.update(replay=0.5)
    assert step.passed
    assert step.parent.id == "v2"
    assert {window.domain for window in step.spec.provenance.replay} == {"first", "second"}
    assert old.status().domains[-1].learned > 0
    old.rollback()
    assert old.version().id == "v2"


@pytest.mark.slow
def test_a_domain_is_forgotten(old: Workspace) -> None:
    done = old.forget(domain="first")
    assert done.search is not None
    assert done.search.found == []
    assert {name for name, why in done.versions.items() if why.startswith("trained on")} >= {"v1"}
    assert done.versions["v2"]
    assert [domain.name for domain in old.registry.domains()] == ["second", "third"]
    old.report()
    done = old.forget(rebuild=True)
    assert done.rebuilt is not None
    assert done.rebuilt.steps[0] == ("v1", None, "left out")
    assert old.version().parent == "v0"
    found = old.doctor(full=True)
    assert found.healthy, found.findings


@pytest.mark.slow
def test_a_recipe_is_not_rebuilt_step_by_step(old: Workspace) -> None:
    old.promote("v7")
    with pytest.raises(InputError, match=r"The rows are removed, but v7 was made by the recipe boom"):
        old.forget(domain="first", rebuild=True)
    assert [domain.name for domain in old.registry.domains()] == ["second", "third"]
    old.promote("v0")
    done = old.forget(rebuild=True)
    assert done.rebuilt is not None
    assert (done.rebuilt.new, "v7" in done.rebuilt.removed) == ("v0", True)
    found = old.doctor(full=True)
    assert found.healthy, found.findings
