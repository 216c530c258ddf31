"""Where a workspace is, and how one is founded: its settings, its catalog, and version v0, a copy of the base."""

from __future__ import annotations

import os
from pathlib import Path

from continual import config as settings
from continual.config import Config
from continual.errors import InputError, ModelError, NotFoundError
from continual.models.base import recorded_name, resolve_base
from continual.models.weights import weights_sha256
from continual.registry import Provenance, Registry, Version
from continual.registry.catalog import now
from continual.registry.registry import ROOT
from continual.storage.files import publish

SETTINGS = "continual.toml"
STORE = ".continual"


def found(directory: str | Path, base: str, *, trust_remote_code: bool) -> Path:
    """Make a workspace and return its folder; see `Workspace.init`."""
    directory = Path(directory).expanduser().resolve()
    if (directory / STORE).exists():
        known = (directory / SETTINGS).exists()
        hint = (
            f"See it with `continual status -w {directory}`."
            if known
            else f"It lacks {SETTINGS}: `touch {directory / SETTINGS}` makes one with the defaults."
        )
        raise InputError(f"{directory} holds a workspace already. {hint}")
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; a workspace is a folder.")
    folder = resolve_base(base)
    given = directory / SETTINGS
    config = settings.load(given) if given.exists() else Config(trust_remote_code=trust_remote_code)
    if trust_remote_code and not config.trust_remote_code:
        raise InputError(f"{given} does not trust the base's code. Set trust_remote_code = true there.")
    try:
        with publish(directory / STORE) as partial:
            _fill(partial, folder, recorded_name(base), config.trust_remote_code)
            # The settings come before the store: a folder that has only them can be initialised again.
            if not given.exists():
                with publish(given) as file:
                    file.write_text(settings.render(config), encoding="utf-8")
    except OSError as error:
        raise InputError(f"No workspace can be made in {directory}: {error.strerror or error}.") from None
    return directory


def _fill(store: Path, base: Path, name: str, trust_remote_code: bool) -> None:
    """Make a store whose version v0 is a copy of a base."""
    import torch

    from continual.merge.engine import save_model
    from continual.merge.sources import Model
    from continual.models.encoder import load_encoder

    registry = Registry(store)
    registry.catalog.create()
    snapshot = store / "versions" / ROOT
    # In fp32: a root in half precision would lose small updates in its rounding, and be scored with other arithmetic.
    save_model(Model(base), snapshot, torch.float32)
    try:
        load_encoder(snapshot, trust_remote_code=trust_remote_code)  # refuse now what no step could train
    except ModelError as error:
        raise ModelError(str(error).replace(str(snapshot), name)) from None
    root = Version(
        id=ROOT,
        parent=None,
        status="root",
        path=f"versions/{ROOT}",
        adapter=None,
        sha256=weights_sha256(snapshot),
        batches=[],
        pairs_trained=0,
        tokens_trained=0,
        seconds=0.0,
        joint_pairs=0,
        provenance=Provenance(base=name),
        verdict=None,
        created_at=now(),
    )
    registry.add_version(root, promote="init")


def find(directory: str | Path | None) -> Path:
    """Return the folder of a workspace; None looks for the nearest one, see `Workspace`.

    Raises:
        NotFoundError: There is none.
    """
    if directory is None:
        directory = os.environ.get("CONTINUAL_WORKSPACE") or None
    if directory is not None:
        found = Path(directory).expanduser().resolve()
        if not (found / SETTINGS).is_file():
            if (found / STORE).is_dir():
                raise NotFoundError(
                    f"{found} is a workspace that lacks {SETTINGS}: `touch {found / SETTINGS}` makes one with the "
                    "defaults."
                )
            raise NotFoundError(
                f"{found} holds no workspace (no {SETTINGS}). Make one with `continual init {directory}`."
            )
        return found
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / SETTINGS).is_file():
            return folder
    raise NotFoundError(
        f"Neither {here} nor a folder above it holds a workspace (no {SETTINGS}). Make one with `continual init`, "
        "or name one with -w DIR."
    )
