"""Trackers: what a step sends to TensorBoard, W&B, MLflow and the like, through accelerate's trackers.

Trackers open before anything changes, so a missing package or a wrong key costs no training. A tracker that fails later
is dropped with a warning: a figure that can't be sent is no reason to lose a step.
"""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from continual.config import TrackConfig, validate
from continual.errors import InputError, NotFoundError, did_you_mean
from continual.progress import Log, no_log
from continual.registry import Registry, Score, Spec
from continual.storage.files import publish, remove

FOLDER = "tracking"
"""Folder below `.continual/` for the files of trackers and the ids of their runs."""

_IDS = "runs.json"
_PACKAGES = {"comet_ml": "comet-ml"}  # where pip uses another name than accelerate
_logger = logging.getLogger(__name__)


@contextmanager
def tracked(registry: Registry, spec: Spec, *, resume: bool = False) -> Iterator[Log]:
    """Open the trackers of a step, yield the function that logs to all of them, and close them.

    A resumed step continues its earlier runs in trackers that allow it: TensorBoard, W&B and MLflow. A tracker that
    can't start on resume is dropped with a warning, because the step can't start over without it.

    Args:
        spec: The step; `track` in its settings names the trackers.
        resume: Whether the step was interrupted and continues.

    Raises:
        NotFoundError: accelerate knows no such tracker.
        InputError: Its package is not installed, or it cannot start.
    """
    settings = validate(spec.provenance.config, "the run's settings").track
    names = list(dict.fromkeys(settings.trackers))
    if not resume:
        check_trackers(names)
    opened: dict[str, Any] = {}

    def log(values: Mapping[str, float], step: int) -> None:
        named = {_metric_name(name): float(value) for name, value in values.items()}
        for name, tracker in list(opened.items()):
            try:
                tracker.log(named, step=step)
            except Exception as error:
                del opened[name]
                _logger.warning("%s failed at step %d and gets no more figures of this update: %s", name, step, error)

    try:
        _open(registry, spec, settings, names, opened, resume)
        yield log if names else no_log
    finally:
        for name, tracker in opened.items():
            try:
                tracker.finish()
            except Exception as error:
                _logger.warning("%s could not be closed: %s", name, error)


def check_trackers(names: Sequence[str]) -> None:
    """Check that accelerate knows the trackers, and that their packages are installed.

    Raises:
        NotFoundError: accelerate knows no such tracker.
        InputError: A package is missing.
    """
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    from accelerate.utils import LoggerType

    built_in = {str(kind.value) for kind in LoggerType}
    available = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise NotFoundError(f"There is no tracker {name!r}.{did_you_mean(name, LOGGER_TYPE_TO_CLASS)}")
        if name in built_in and name not in available:
            raise InputError(
                f"The tracker {name} is not installed. Install it with `pip install {_PACKAGES.get(name, name)}`, or "
                "leave it out of track.trackers."
            )


def step_figures(scores: Mapping[str, Score], previous: Mapping[str, Score], passed: bool) -> dict[str, float]:
    """Return the figures that a step logs at its end.

    Args:
        scores: The new version's score on every task, in points.
        previous: The parent's scores.
        passed: Whether the gate accepted the version.

    Returns:
        `eval/TASK` and the change against the parent, `change/TASK`, in points; `gate/passed`, 1 or 0.
    """
    figures = {f"eval/{task}": score.score for task, score in scores.items()}
    figures |= {
        f"change/{task}": score.score - previous[task].score for task, score in scores.items() if task in previous
    }
    return figures | {"gate/passed": float(passed)}


def _open(
    registry: Registry, spec: Spec, settings: TrackConfig, names: Sequence[str], opened: dict[str, Any], resume: bool
) -> None:
    """Start the trackers one by one and add them to `opened`."""
    if not names:
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    from continual.train.checkpoint import steps_done

    root = registry.path(FOLDER)
    if not resume:
        remove(root / spec.version)  # left by a step that failed before it began, which freed its id
    ids = _read_ids(root / spec.version) if resume else {}
    known = dict(ids)
    first_step = steps_done(registry.path(f"runs/{spec.version}")) + 1 if resume else None
    project = settings.project or registry.root.resolve().parent.name
    (root / spec.version).mkdir(parents=True, exist_ok=True)
    for name in names:
        try:
            kind = LOGGER_TYPE_TO_CLASS[name]
            place = (spec.version, str(root)) if kind.requires_logging_directory else (project,)
            tracker = kind(*place, **_options(name, spec.version, root / spec.version, ids, first_step))
            tracker.start()
            opened[name] = tracker
            if not resume:
                tracker.store_init_configuration(_parameters(spec))
        except Exception as error:
            reason = str(error).strip().rstrip(".") or type(error).__name__
            if resume:
                _logger.warning("%s cannot continue and gets no more figures of this update: %s", name, reason)
                continue
            raise InputError(
                f"The tracker {name} cannot start: {reason}. Nothing was trained. Fix it, or leave {name} out of "
                "track.trackers."
            ) from error
    if "mlflow" in opened:
        ids["mlflow"] = opened["mlflow"].tracker.info.run_id
    if ids != known:
        with publish(root / spec.version / _IDS) as partial:
            partial.write_text(json.dumps(ids), encoding="utf-8")


def _options(name: str, version: str, folder: Path, ids: dict[str, str], first_step: int | None) -> dict[str, Any]:
    """Return the options by which a tracker names its run, or finds the interrupted one."""
    if name == "tensorboard":
        # Steps after the last checkpoint are logged a second time.
        return {} if first_step is None else {"purge_step": first_step}
    if name == "wandb":
        identity = ids.setdefault("wandb", uuid.uuid4().hex)
        return {"name": version, "id": identity, "resume": "allow", "dir": str(folder)}
    if name == "mlflow":
        return {"run_id": ids["mlflow"]} if "mlflow" in ids else {"run_name": version}
    return {}


def _read_ids(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / _IDS).read_text("utf-8")))
    except FileNotFoundError:
        return {}


def _parameters(spec: Spec) -> dict[str, str | float | bool]:
    """Return the options of a step as the flat values that trackers take."""
    made = spec.provenance
    plain: dict[str, Any] = {"version": spec.version, "parent": spec.parent, "joint_pairs": spec.joint_pairs}
    plain |= {"start": made.start, "merge": made.merge, "weight": made.weight, "seed": made.seed}
    for name, windows in (("new", made.new), ("replay", made.replay)):
        plain[f"{name}_domains"] = ", ".join(window.domain for window in windows)
        plain[f"{name}_rows"] = sum(window.rows for window in windows)
    for section in ("replay", "train", "merge"):
        plain |= {f"{section}.{key}": value for key, value in made.config[section].items()}
    return {
        key: value if isinstance(value, str | int | float) else json.dumps(value)
        for key, value in plain.items()
        if value is not None
    }


def _metric_name(name: str) -> str:
    """Return a name that MLflow accepts."""
    return re.sub(r"[^\w\-. :/]", "_", name)
