"""Checkpoints: one safetensors file per run, replaced atomically, so that a killed run leaves a complete one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from continual.errors import ConfigError
from continual.storage.files import SUFFIX, publish

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
    state = asdict(done) | {"losses": None}
    with publish(run_dir / FILE) as partial:
        save_file(tensors, partial, metadata={"state": json.dumps(state), "identity": json.dumps(identity)})


def restore(
    run_dir: Path, parameters: Parameters, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> RunState:
    """Load the checkpoint of a run into the parameters and the optimizer. Without one, do nothing and return step 0.

    Raises:
        ConfigError: The checkpoint was written with other rows, settings, seed or start.
    """
    from safetensors import safe_open

    path = run_dir / FILE
    if not path.exists():
        return RunState()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
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
    """Return the number of optimizer steps in the checkpoint of a run, 0 if there is none."""
    from safetensors import safe_open

    path = run_dir / FILE
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


def clear(run_dir: Path, *, keep_last: bool) -> None:
    """Remove unfinished files of killed runs, and the checkpoint itself unless `keep_last`."""
    for path in run_dir.glob(f".{FILE}.*{SUFFIX}"):
        path.unlink()
    if not keep_last:
        (run_dir / FILE).unlink(missing_ok=True)
