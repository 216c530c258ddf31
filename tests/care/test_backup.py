"""Backups: what is copied, what only once, and that the restored workspace works."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from continual import Workspace
from continual.care import restore as backups
from continual.care.backup import remove_backup
from continual.care.store import Store
from continual.care.targets import read_targets
from continual.errors import DataError, InputError, NotFoundError, WorkspaceBusy
from continual.storage import files
from tests.commands import Run
from tests.kills import interrupt_update
from tests.rows import Write, make_pairs


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


def test_a_damaged_backup_is_refused_and_mended_by_the_next(learned: Workspace, tmp_path: Path, run: Run) -> None:
    learned.backup(tmp_path / "store")
    files = learned.registry.digests.recorded()["versions/v0"]
    (sha256,) = (digest.sha256 for digest in files if digest.path.endswith("model.safetensors"))
    file = tmp_path / "store" / "objects" / sha256[:2] / sha256
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged in .*continual backup .*store --verify"):
        Workspace.restore(tmp_path / "store", tmp_path / "w2")
    assert not (tmp_path / "w2").exists()
    assert learned.backup(tmp_path / "store").replaced == 0, "without --verify, its size alone is looked at"
    done = run("backup", tmp_path / "store", "-w", learned.directory, "--verify")
    assert (done.code, "Replaced: 1 damaged" in done.out) == (0, True), done.out + done.err
    assert file.read_bytes() == learned.registry.path("versions/v0/model.safetensors").read_bytes()
    Workspace.restore(tmp_path / "store", tmp_path / "w2")
    file.write_bytes(content[:-1])
    assert learned.backup(tmp_path / "store").replaced == 1, "another size is seen at once"
    file.unlink()
    with pytest.raises(DataError, match="is missing from"):
        Workspace.restore(tmp_path / "store", tmp_path / "w3")
    assert learned.backup(tmp_path / "store").replaced == 0
    Workspace.restore(tmp_path / "store", tmp_path / "w3")


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
    with pytest.raises(NotFoundError) as failed:
        Workspace.restore(tmp_path / "store", tmp_path / "w2", at="yesterday")
    assert str(failed.value).count(made.name) == 1
    with pytest.raises(InputError, match="is not empty"):
        Workspace.restore(tmp_path / "store", tmp_path / "mine")
    with pytest.raises(InputError, match="inside the workspace"):
        learned.backup(f"file://{learned.directory}/backups")


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


def test_what_is_rewritten_meanwhile_is_backed_up_as_it_was_read(
    learned: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An analysis or an edit of the settings may run meanwhile: the catalog does not record their files."""
    folder = learned.registry.path("conflicts")
    folder.mkdir(exist_ok=True)
    (folder / "x.json").write_text("before")
    (folder / "y.json").write_text("gone")
    settings = learned.directory / "continual.toml"
    put = Store.put

    def rewrite(self: Store, file: Path, *rest: Any) -> tuple[str, int]:
        if file in (folder / "x.json", settings):
            file.write_text("# after")
            (folder / "y.json").unlink(missing_ok=True)
        return put(self, file, *rest)

    monkeypatch.setattr(Store, "put", rewrite)
    made = learned.backup(tmp_path / "store")
    Workspace.restore(tmp_path / "store", tmp_path / "w2", at=made.name)
    restored = tmp_path / "w2"
    assert (restored / ".continual/conflicts/x.json").read_text() == "# after"
    assert (restored / "continual.toml").read_text() == "# after"
    assert not (restored / ".continual/conflicts/y.json").exists()


def test_the_place_is_remembered_before_anything_is_copied(
    learned: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `forget` removes meanwhile can be in the backup, so it must be able to name it."""
    known: list[str] = []
    put = Store.put

    def look(self: Store, *rest: Any) -> tuple[str, int]:
        known.extend(read_targets(learned.registry.root))
        return put(self, *rest)

    monkeypatch.setattr(Store, "put", look)
    learned.backup(tmp_path / "store")
    assert known[0] == str(tmp_path / "store")


def test_a_backup_is_removed_with_what_no_other_needs(learned: Workspace, tmp_path: Path, run: Run) -> None:
    store = tmp_path / "store"
    first = learned.backup(store)
    rows = learned.registry.batches()[0].path
    with learned.registry.catalog.transaction() as connection:  # as if they were forgotten
        connection.execute("DELETE FROM batches WHERE id = 'b1'")
        connection.execute("DELETE FROM files WHERE path = ?", [rows])
    second = learned.backup(store)
    (content,) = (
        store / "objects" / entry.sha256[:2] / entry.sha256
        for entry in Store(str(store)).read_manifest(first.name).files
        if entry.path == f".continual/{rows}"
    )
    assert content.exists()
    done = run("backup", store, "--remove", first.name)
    assert done.code == 0, done.err
    assert first.name in done.out
    assert not content.exists()
    assert backups.backups(str(store)) == [second.name]
    kept = {entry.sha256 for entry in Store(str(store)).read_manifest(second.name).files}
    assert {file.name for file in (store / "objects").rglob("*") if file.is_file()} == kept
    Workspace.restore(store, tmp_path / "w2")
    done = run("backup", store, "--remove", first.name)
    assert (done.code, "has no backup" in done.err) == (2, True)


def test_nothing_is_removed_if_another_backup_cannot_be_read(learned: Workspace, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, second = learned.backup(store), learned.backup(store)
    (store / "backups" / f"{second.name}.json").write_text("[1]")
    before = sorted(store.rglob("*"))
    with pytest.raises(DataError, match=f"{second.name}.* is damaged"):
        Workspace.remove_backup(store, first.name)
    assert sorted(store.rglob("*")) == before


def test_nothing_is_removed_while_a_backup_is_made(learned: Workspace, tmp_path: Path) -> None:
    made = learned.backup(tmp_path / "store")
    with (
        Store(str(tmp_path / "store")).in_use(alone=False, seconds=0),
        pytest.raises(WorkspaceBusy, match="is using the backups in"),
    ):
        remove_backup(str(tmp_path / "store"), made.name, seconds=0)


def test_what_a_killed_backup_left_is_removed_by_the_next(
    learned: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned.backup(tmp_path / "store")
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f"store/objects/.object.{files._machine()}-{dead.pid}-00000000.partial"
    left.write_text("half")
    learned.backup(tmp_path / "store")
    assert not left.exists()
