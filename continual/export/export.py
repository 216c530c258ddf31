"""Export a version: its model folder, a model card, and its scores in mteb's format."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from continual.errors import InputError, did_you_mean
from continual.export.card import CARD, model_card
from continual.export.rounding import Rounding, measure_rounding, proof_texts
from continual.models.weights import weights_sha256
from continual.progress import SILENT, Progress
from continual.registry import ROOT, Registry, Version
from continual.registry.digests import is_hidden
from continual.storage.files import empty_folder, publish, remove
from continual.versions.build import kept
from continual.versions.dtypes import FP32, NAMES, base_dtype, torch_dtype

AUTO = "auto"
"""Value of `--dtype` for the type of the base model."""

RESULTS = "mteb"
"""Name of the folder with mteb's result files, readable by `mteb.ResultCache`."""


def write_export(
    registry: Registry,
    version: Version,
    snapshot: Path,
    target: Path,
    dtype: str = FP32,
    *,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> Rounding | None:
    """Copy a version to a new folder, with its own model card instead of the base's.

    Args:
        snapshot: The version's model folder.
        target: The folder to create.
        dtype: "fp32", "bf16" or "fp16": the type of all floating-point weights.
        trust_remote_code: Run code that the model brings with it.

    Returns:
        What the type changes; None for fp32, which is the version's own.
    """
    scored, rounding = any(owner == version.id for owner, _ in registry.scores()), None
    with publish(target) as partial:
        if dtype == FP32:
            shutil.copytree(snapshot, partial, symlinks=False, ignore=lambda _, names: [*filter(is_hidden, names)])
        else:
            from continual.merge.engine import save_model
            from continual.merge.sources import Model

            save_model(Model(snapshot), partial, torch_dtype(dtype), progress)
            texts = proof_texts(registry, version)
            rounding = measure_rounding(snapshot, partial, texts, trust_remote_code=trust_remote_code)
        (partial / CARD).write_text(model_card(registry, version, snapshot, dtype, rounding), encoding="utf-8")
        remove(partial / RESULTS)  # present if the base is itself an export
        if scored:
            from continual.export.mteb_results import write_results

            write_results(registry, [version], partial / RESULTS)
    return rounding


@dataclass(frozen=True)
class Exported:
    """An exported version.

    Attributes:
        version: Id of the version.
        sha256: Digest of the folder's weights; in fp32 that of the version.
        directory: The folder, which `SentenceTransformer` loads.
        dtype: Type of its weights: "fp32", "bf16" or "fp16".
        rounding: What that type changes; None for fp32, which is the version's own.
    """

    version: str
    sha256: str
    directory: Path
    dtype: str = FP32
    rounding: Rounding | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as plain data."""
        return asdict(self) | {"directory": str(self.directory)}


def export_version(
    registry: Registry,
    name: str,
    out: str | Path,
    dtype: str = AUTO,
    *,
    trust_remote_code: bool = False,
    progress: Progress = SILENT,
) -> Exported:
    """Copy a version to a new folder; see `Workspace.export`."""
    if dtype not in (known := (AUTO, *NAMES)):
        raise InputError(f"--dtype takes {', '.join(known)}; not {dtype!r}.{did_you_mean(dtype, known)}")
    target, version = empty_folder(out), registry.version(name)
    stored = base_dtype(registry.version(ROOT)) if dtype == AUTO else dtype
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "progress": progress}
    try:
        with kept(registry, version.id, progress=progress) as (folder,):
            rounding = write_export(registry, version, folder, target, stored, **options)
    except OSError as error:
        raise InputError(
            f"{name} cannot be exported to {target}: {error.strerror or error}. Name another folder."
        ) from None
    return Exported(version.id, weights_sha256(target), target, stored, rounding)


def export_scores(registry: Registry, directory: str | Path) -> Path:
    """Write the scores of every version as mteb's result files; see `Workspace.export_scores`."""
    from continual.export.mteb_results import write_results

    target = Path(directory).expanduser().resolve()
    try:
        write_results(registry, registry.versions(), target)
    except OSError as error:
        raise InputError(
            f"The scores cannot be written to {target}: {error.strerror or error}. Name another folder."
        ) from None
    return target
