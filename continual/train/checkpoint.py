"""Checkpoints: one safetensors file per run, replaced atomically, so that a killed run leaves a complete one."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from continual.errors import ConfigError, DataError
from continual.storage.files import SUFFIX, publish, remove

FILE = "checkpoint.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")

Parameters = list[tuple[str, nn.Parameter]]


@dataclass
class RunState:
    """How far a run has come.

    Attributes:
        step: Optimizer steps done.
        pairs: Training pairs so far, over all epochs.
        tokens: Tokens encoded with a gradient, without padding.
        seconds: Training time, including the time before the run was resumed.
        losses: Loss of every step.
    """

    step: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def save(
    run_dir: Path, done: RunState, parameters: Parameters, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> None:
    """Write the checkpoint of a run, and replace the previous one.

    Args:
        run_dir: Folder of the checkpoint.
        done: How far the run has come.
        parameters: The trained parameters with their names.
        optimizer: An AdamW optimizer of these parameters.
        identity: All that decides the weights: start, rows, settings, seed and so on, as JSON values.
    """
    from safetensors.torch import save_file

    tensors = {"losses": torch.tensor(done.losses, dtype=torch.float64)}
    for name, parameter in parameters:
        tensors[f"parameter/{name}"] = parameter.detach().cpu().contiguous()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment].cpu().contiguous()
    metadata = {"state": json.dumps(asdict(done) | {"losses": None}), "identity": json.dumps(identity)}
    metadata["content"] = _sha256(tensors, metadata)
    with publish(run_dir / FILE) as partial:
        save_file(tensors, partial, metadata=metadata)


def restore(
    run_dir: Path, parameters: Parameters, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> RunState:
    """Load the checkpoint of a run into the parameters and the optimizer. Without one, do nothing and return step 0.

    Raises:
        ConfigError: The checkpoint was written with other rows, settings, seed or start.
        DataError: The checkpoint is damaged.
    """
    path = run_dir / FILE
    if not path.exists():
        return RunState()
    tensors, metadata = _read(path)
    saved_identity = json.loads(metadata["identity"])
    if different := sorted(key for key in identity if saved_identity.get(key) != identity[key]):
        raise ConfigError(
            f"The checkpoint in {run_dir} belongs to another training: it differs in {', '.join(different)}. Continue "
            f"with the original inputs and settings, or remove {path} and run the same command to start again."
        )
    done = RunState(**json.loads(metadata["state"]))
    done.losses = tensors["losses"].tolist()
    for name, parameter in parameters:
        with torch.no_grad():
            parameter.copy_(tensors[f"parameter/{name}"])
        moments = {moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in _MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(done.step)), **moments}
    return done


def steps_done(run_dir: Path) -> int:
    """Return the number of optimizer steps in the checkpoint of a run, 0 if there is none or it is damaged."""
    path = run_dir / FILE
    if not path.exists():
        return 0
    with suppress(DataError):
        return int(json.loads(_read(path)[1]["state"])["step"])
    return 0


def is_damaged(path: Path) -> bool:
    """Return whether the content of a checkpoint differs from the digest in it, or can't be read."""
    try:
        _read(path)
    except FileNotFoundError:
        return False  # a running training replaced or removed it
    except (DataError, OSError):
        return True
    return False


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a checkpoint, whose content must be as it was written.

    Raises:
        DataError: It is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise _damaged(path, str(error)) from error
    # Older releases wrote no digest of the content.
    if {"state", "identity"} - metadata.keys() or metadata.get("content", "") not in ("", _sha256(tensors, metadata)):
        raise _damaged(path, "its content is not as it was written")
    return tensors, metadata


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path}, the checkpoint of a training that was interrupted, is damaged: {reason}. Train from the start: "
        "run `continual update` without --resume; for `continual train` remove this file and run the same command."
    )


def _sha256(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Return the digest of the tensors by name, and of the state and the identity."""
    digest = hashlib.sha256(json.dumps([metadata["state"], metadata["identity"]]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def clear(run_dir: Path, *, keep_last: bool) -> None:
    """Remove unfinished files of killed runs, and the checkpoint itself unless `keep_last`."""
    for path in run_dir.glob(f".{FILE}.*{SUFFIX}"):
        remove(path)
    if not keep_last:
        (run_dir / FILE).unlink(missing_ok=True)
