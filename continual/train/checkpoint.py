"""Checkpoints: one safetensors file per run, replaced whole, so that a kill leaves the last one or the next."""

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
class Progressed:
    """How far a run is.

    Attributes:
        step: Optimizer steps done.
        pairs: Rows trained, each as often as it was.
        tokens: Tokens encoded with a gradient, padding not counted.
        seconds: Time spent, over all resumptions.
        losses: Loss of every step.
    """

    step: int = 0
    pairs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def save(
    run_dir: Path, done: Progressed, parameters: Parameters, optimizer: torch.optim.Optimizer, identity: dict[str, Any]
) -> None:
    """Write the checkpoint of a run, in place of the one before.

    Args:
        run_dir: The run's folder.
        done: How far it is.
        parameters: What is trained, with names.
        optimizer: AdamW over them.
        identity: What decides the weights: start, rows, settings, seed.
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
) -> Progressed:
    """Load the checkpoint of a run into the model and the optimizer; without one, the run is at its start.

    Raises:
        ConfigError: The checkpoint is of another run: other rows, settings, seed or start.
    """
    from safetensors import safe_open

    path = run_dir / FILE
    if not path.exists():
        return Progressed()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    known = json.loads(metadata["identity"])
    if other := sorted(key for key in identity if known.get(key) != identity[key]):
        raise ConfigError(
            f"The checkpoint in {run_dir} belongs to another training: it differs in {', '.join(other)}. "
            f"Go on with it where it was begun; or remove {path}, and the same command begins this training anew."
        )
    done = Progressed(**json.loads(metadata["state"]))
    done.losses = tensors["losses"].tolist()
    for name, parameter in parameters:
        with torch.no_grad():
            parameter.copy_(tensors[f"parameter/{name}"])
        moments = {moment: tensors[f"{moment}/{name}"].to(parameter.device) for moment in _MOMENTS}
        optimizer.state[parameter] = {"step": torch.tensor(float(done.step)), **moments}
    return done


def steps_done(run_dir: Path) -> int:
    """Return the optimizer steps that the checkpoint of a run holds; 0 without one."""
    from safetensors import safe_open

    path = run_dir / FILE
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


def clear(run_dir: Path, *, keep_last: bool) -> None:
    """Remove what killed runs left half written, and the checkpoint itself unless `keep_last`."""
    for path in run_dir.glob(f".{FILE}.*{SUFFIX}"):
        path.unlink()
    if not keep_last:
        (run_dir / FILE).unlink(missing_ok=True)
