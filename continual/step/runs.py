"""One update at a time: started, resumed after an interruption, or restarted."""

from __future__ import annotations

import logging

from continual.config import Config
from continual.errors import InputError, NothingToDoError
from continual.pairs.request import mine_batches
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, Registry
from continual.step.request import Request
from continual.step.spec import new_batches, prepare, reopen
from continual.step.tracking import tracked
from continual.step.update import StepResult, update
from continual.storage.locks import UPDATE_LOCK
from continual.storage.recorder import Recorder
from continual.versions.sweep import discard_run, sweep_steps

_logger = logging.getLogger(__name__)


def run_update(
    registry: Registry,
    config: Config,
    request: Request,
    *,
    resume: bool = False,
    restart: bool = False,
    progress: Progress = SILENT,
) -> StepResult:
    """Take a step, or continue the one that was interrupted; see `Workspace.update`."""
    if resume and restart:
        raise InputError("--resume continues the interrupted update and --restart discards it. Choose one.")
    with registry.lock(UPDATE_LOCK, "update"):
        sweep_steps(registry)
        run = registry.interrupted()
        if resume:
            if run is None:
                raise NothingToDoError(
                    "No update was interrupted, so there is nothing to resume. Start one with `continual update`."
                )
            if not request.empty:
                raise InputError(
                    f"--resume continues {run.id} with the options it was started with. Leave the other options "
                    "out, or start over with --restart."
                )
            spec, drawn = reopen(registry, run)
        else:
            if run is not None and not restart:
                raise InputError(
                    f"The update to {run.id} was interrupted. Continue it with `continual update --resume`, or discard "
                    "it with `continual update --restart`."
                )
            if run is None and restart:
                _logger.warning("No update was interrupted, so --restart discards nothing.")
            if request.mine:
                new = [batch.id for batch in new_batches(registry, request.domains)]
                mine_batches(registry, request.resolve(config), registry.version(CURRENT).id, new, progress)
            spec, drawn = prepare(registry, config, request, progress=progress)
        with tracked(registry, spec, resume=resume) as log:
            if run is not None and restart:
                discard_run(registry, run)
            recorder = Recorder(registry.path(f"runs/{spec.version}"), progress, log)
            return update(registry, spec, drawn, resume=resume, progress=recorder, log=recorder.log)
