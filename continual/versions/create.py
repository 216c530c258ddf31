"""Create a workspace (settings, catalog, and version v0, a copy of the base model), or find one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from continual.config import Config, load_config
from continual.errors import InputError, ModelError, NotFoundError
from continual.models.base import recorded_name, resolve_base
from continual.models.weights import weights_sha256
from continual.registry import ROOT, Provenance, Registry, Version
from continual.registry.catalog import now
from continual.storage.files import publish, sweep_unfinished
from continual.versions.settings import render_config

SETTINGS = "continual.toml"
STORE = ".continual"


def create_workspace(directory: str | Path, base: str, *, trust_remote_code: bool) -> Path:
    """Create a workspace and return its folder; see `Workspace.init`."""
    directory = Path(directory).expanduser().resolve()
    sweep_unfinished(directory, STORE)
    if (directory / STORE).exists():
        if (directory / SETTINGS).exists():
            hint = f"Show it with `continual status -w {directory}`, or choose another folder."
        else:
            hint = f"Only its {SETTINGS} is missing: `touch {directory / SETTINGS}` creates one with the defaults."
        raise InputError(f"{directory} already holds a workspace. {hint}")
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file, but a workspace is a folder. Choose another path.")
    folder = resolve_base(base)
    given = directory / SETTINGS
    config = load_config(given) if given.exists() else _settings(trust_remote_code)
    if trust_remote_code and not config.trust_remote_code:
        raise InputError(
            f"--trust-remote-code was given, but {given} does not allow it. Set trust_remote_code = true there."
        )
    absent = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    try:
        with publish(directory / STORE) as partial:
            _fill(partial, folder, recorded_name(base), config.trust_remote_code)
            # The settings are written before the store: `init` accepts a folder that holds only settings.
            if not given.exists():
                with publish(given) as file:
                    file.write_text(render_config(config), encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"A workspace cannot be created in {directory}: {error.strerror or error}. Choose another folder."
        ) from None
    finally:
        for made in absent:  # a refused call leaves no empty folders
            with suppress(OSError):
                made.rmdir()
    return directory


def _settings(trust_remote_code: bool) -> Config:
    """Return the settings of a new workspace. Its scores are computed in what this machine computes fast."""
    import torch
    from sentence_transformers.util import get_device_name

    from continual.models.precision import resolve_precision

    precision = resolve_precision("auto", torch.device(get_device_name()))
    return Config(trust_remote_code=trust_remote_code).replace("eval", precision=precision)


def _fill(store: Path, base: Path, name: str, trust_remote_code: bool) -> None:
    """Write the catalog and version v0, a copy of the base model, into an empty store."""
    import torch

    from continual.merge.engine import save_model
    from continual.merge.sources import Model
    from continual.versions.dtypes import stored_dtype
    from continual.versions.preflight import preflight

    registry = Registry(store)
    registry.catalog.create()
    snapshot = store / "versions" / ROOT
    # In fp32: half precision would round small updates away, and score the root base in another precision.
    save_model(Model(base), snapshot, torch.float32)
    try:
        preflight(snapshot, name, trust_remote_code=trust_remote_code)  # fail now, not in the first update
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
        provenance=Provenance(base=name, dtype=stored_dtype(base)),
        verdict=None,
        created_at=now(),
    )
    registry.add_version(root, promote="init")


def find_workspace(directory: str | Path | None) -> Path:
    """Return the folder of a workspace.

    Args:
        directory: The folder; None takes the environment variable CONTINUAL_WORKSPACE, or else the working directory
            or the nearest folder above it that holds a workspace.

    Raises:
        NotFoundError: There is no workspace.
    """
    if directory is None:
        directory = os.environ.get("CONTINUAL_WORKSPACE") or None
    if directory is not None:
        folder = Path(directory).expanduser().resolve()
        if not (folder / SETTINGS).is_file():
            if (folder / STORE).is_dir():
                raise NotFoundError(
                    f"The workspace {folder} has no {SETTINGS}. `touch {folder / SETTINGS}` creates one with the "
                    "defaults."
                )
            raise NotFoundError(
                f"{folder} does not hold a workspace (no {SETTINGS}). Create one with `continual init {directory}`."
            )
        return folder
    working = Path.cwd().resolve()
    for folder in (working, *working.parents):
        if (folder / SETTINGS).is_file():
            return folder
    raise NotFoundError(
        f"Neither {working} nor a folder above it holds a workspace (no {SETTINGS}). Create one with "
        "`continual init`, or name one with -w DIR."
    )
