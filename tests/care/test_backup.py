"""Backups: what is copied, what only once, and that the restored workspace works."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest

from continual import Workspace
from continual.care import backup as backups
from continual.care.store import Store
from continual.errors import DataError, InputError, NotFoundError
from tests.commands import Run
from tests.kills import interrupt_update
from tests.pairs import Write, make_pairs


def digests(workspace: Workspace) -> list[str]:
    return [version.sha256 for version in workspace.versions()]


@pytest.mark.slow
def test_a_restored_workspace_is_whole_and_learns_on(learned: Workspace, tmp_path: Path, write_pairs: Write) -> None:
    made = learned.backup(tmp_path / "store", verify=True)
    assert made.new_files < made.files, "v0, v1 and v2 share files"
    assert made.verified
    assert Workspace.restore(tmp_path / "store", tmp_path / "other" / "w").name == made.name
    restored = Workspace(tmp_path / "other" / "w")
    found = restored.doctor(full=True)
    assert found.healthy, found.findings
    assert digests(restored) == digests(learned)
    texts = ["bal cem dis", "fol gum haj"]
    assert (restored.load().encode(texts) == learned.load().encode(texts)).all()
    new = write_pairs("new.parquet", make_pairs(40, seed=7))
    steps = []
    for workspace in (learned, restored):
        workspace.ingest(new)
        steps.append(workspace.update(seed=3))
    assert steps[0].version.sha256 == steps[1].version.sha256


def test_a_second_backup_copies_what_is_new(learned: Workspace, tmp_path: Path, write_pairs: Write) -> None:
    first = learned.backup(tmp_path / "store")
    again = learned.backup(tmp_path / "store")
    assert again.new_files <= 1  # the catalog, if its copy has other bytes
    assert again.name > first.name
    learned.ingest(write_pairs("new.parquet", make_pairs(40, seed=7)))
    third = learned.backup(tmp_path / "store")
    batch = learned.registry.batches()[-1]
    assert 1 < third.new_files < first.files
    names = {
        entry["path"] for entry in json.loads((tmp_path / f"store/backups/{third.name}.json").read_text())["files"]
    }
    assert f".continual/{batch.path}" in names
    Workspace.restore(tmp_path / "store", tmp_path / "before", at=first.name)
    assert len(Workspace(tmp_path / "before").registry.batches()) == 2
    assert backups.backups(str(tmp_path / "store")) == [first.name, again.name, third.name]


@pytest.mark.slow
def test_what_is_not_in_a_backup_is_said(learned: Workspace, tmp_path: Path, write_pairs: Write) -> None:
    shutil.rmtree(learned.registry.path("versions/v1"))  # as gc drops it
    learned.ingest(write_pairs("new.parquet", make_pairs(40, seed=7)))
    interrupt_update(learned, "training", 1)
    made = learned.backup(tmp_path / "store")
    assert made.left_out == [
        "the update to v3, which has not ended",
        "the snapshot of v1, which was dropped and can be rebuilt",
    ]
    assert learned.status().interrupted == "v3"
    Workspace.restore(tmp_path / "store", tmp_path / "w2")
    restored = Workspace(tmp_path / "w2")
    assert restored.status().interrupted is None
    restored.rebuild("v1")


@pytest.mark.slow
def test_a_backup_while_others_work(learned: Workspace, tmp_path: Path, write_pairs: Write) -> None:
    files = [write_pairs(f"new{n}.parquet", make_pairs(30, seed=20 + n)) for n in range(4)]
    worker = threading.Thread(target=lambda: [learned.ingest(file) for file in files])
    worker.start()
    names = []
    while worker.is_alive():
        names.append(Workspace(learned.directory).backup(tmp_path / "store").name)
    worker.join()
    assert len(learned.registry.batches()) == 6
    for number, name in enumerate(names):
        Workspace.restore(tmp_path / "store", tmp_path / f"w{number}", at=name)
        found = Workspace(tmp_path / f"w{number}").doctor(full=True)
        assert found.healthy, found.findings


@pytest.mark.parametrize("name", ["versions/v2/model.safetensors", "adapters/v1/adapter_model.safetensors"])
def test_damage_is_not_backed_up(learned: Workspace, tmp_path: Path, name: str) -> None:
    file = learned.registry.path(name)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged.*doctor --full"):
        learned.backup(tmp_path / "store")
    file.unlink()
    with pytest.raises(DataError, match="is missing"):
        learned.backup(tmp_path / "store")
    assert backups.backups(str(tmp_path / "store")) == []
    assert not list((tmp_path / "store").rglob("*.partial"))


def test_a_damaged_backup_is_refused_and_mended_by_the_next(learned: Workspace, tmp_path: Path) -> None:
    learned.backup(tmp_path / "store")
    files = learned.registry.digests.recorded()["versions/v0"]
    (sha256,) = (digest.sha256 for digest in files if digest.path.endswith("model.safetensors"))
    file = tmp_path / "store" / "objects" / sha256[:2] / sha256
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2")
    assert not (tmp_path / "w2").exists()
    with pytest.raises(DataError, match="is damaged"):
        learned.backup(tmp_path / "store", verify=True)
    assert learned.backup(tmp_path / "store", verify=True).new_files >= 1
    file.unlink()
    with pytest.raises(DataError, match="lacks the content"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2")


def test_a_url_of_fsspec(learned: Workspace, tmp_path: Path) -> None:
    learned.backup("memory://backups")
    Workspace.restore("memory://backups", tmp_path / "w2")
    assert digests(Workspace(tmp_path / "w2")) == digests(learned)


def test_refusals(learned: Workspace, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file.txt").write_text("keep")
    with pytest.raises(InputError, match="is not empty and holds no backups"):
        learned.backup(tmp_path / "mine")
    with pytest.raises(InputError, match="inside the workspace"):
        learned.backup(learned.directory / "backups")
    with pytest.raises(InputError, match="cannot be opened"):
        learned.backup("nothing://host/dir")
    with pytest.raises(NotFoundError, match="holds no backups"):
        Workspace.restore(tmp_path / "mine", tmp_path / "w2")
    made = learned.backup(tmp_path / "store")
    with pytest.raises(NotFoundError, match=f"It has {made.name}"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2", at="yesterday")
    with pytest.raises(InputError, match="is not empty"):
        Workspace.restore(tmp_path / "store", tmp_path / "mine")
    # A manifest from a stranger can't write outside the folder.
    manifest = Store(str(tmp_path / "store")).read_manifest(made.name)
    manifest["files"][0]["path"] = "../outside"
    (tmp_path / f"store/backups/{made.name}.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="outside the workspace"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2")
    assert not (tmp_path / "outside").exists()


def test_the_commands(learned: Workspace, tmp_path: Path, run: Run) -> None:
    store = tmp_path / "store"
    done = run("backup", store, "-w", learned.directory)
    assert done.code == 0, done.err
    assert "were new" in done.out
    (name,) = json.loads(run("restore", store, "--list", "--json").out)
    assert name in done.out
    assert run("restore", store).code == 2
    done = run("restore", store, tmp_path / "w2")
    assert done.code == 0, done.err
    assert "doctor --full" in done.out
    assert run("status", "-w", tmp_path / "w2").code == 0
