"""What a call asks of a step, and the step that it gets: one at a time, and resumed where it was killed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from continual.config import Config
from continual.errors import InputError, NothingToDoError, did_you_mean
from continual.merge.rules import find_rule
from continual.progress import SILENT, Progress, Recorder
from continual.recipes import find_recipe
from continual.registry import Registry
from continual.replay.policies import check_rows, check_share
from continual.step.spec import Plan, make_plan, prepare, reopen
from continual.step.tracking import tracked
from continual.step.update import StepResult, update
from continual.storage.locks import UPDATE_LOCK, exclusive
from continual.versions.sweep import discard_run, sweep_steps

_logger = logging.getLogger(__name__)

DEFAULT = "continual"
"""The recipe of a step where none is named."""


@dataclass(frozen=True)
class Request:
    """The arguments of `Workspace.update`, which describes them; None, or False, where nothing is asked."""

    replay: float | None = None
    replay_rows: int | None = None
    replay_policy: str | None = None
    domains: Sequence[str] | None = None
    start: str | None = None
    merge: str | float | None = None
    parameters: Mapping[str, float] | None = None
    seed: int | None = None
    compatible: bool = False
    recipe: str | None = None
    settings: Mapping[str, Mapping[str, Any]] | None = None
    track: Sequence[str] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        return all(getattr(self, field.name) is field.default for field in fields(self))

    @property
    def choice(self) -> dict[str, Any]:
        """What `prepare` takes besides the settings."""
        return {"domains": self.domains, "seed": self.seed or 0, "recipe": self.recipe or DEFAULT}

    def resolve(self, config: Config) -> Config:
        """Return the settings with what the recipe and then the call change.

        Raises:
            InputError: The recipe has no steps, or a value is none.
            ConfigError: A setting is unknown or out of its range.
            NotFoundError: There is no such recipe or merge rule.
        """
        step = find_recipe(self.recipe or DEFAULT).step
        if step is None:
            raise InputError(
                f"The recipe {self.recipe} has no steps: `continual train --recipe {self.recipe}` runs it."
            )
        config = config.change(step).change(self.settings or {})
        if self.replay is not None:
            check_share(self.replay)
        if self.replay_rows is not None:
            check_rows(self.replay_rows)
        changes = {"share": self.replay, "rows": self.replay_rows, "policy": self.replay_policy}
        config = self._merged(config).replace("replay", **changes)
        config = config.replace("train", anchor="current" if self.compatible else None)
        return config.replace("track", trackers=None if self.track is None else list(self.track))

    def _merged(self, config: Config) -> Config:
        """Return the settings with where training starts and how it is merged, a weight included."""
        start, merge, parameters = self.start, self.merge, self.parameters
        if start not in (None, "current", "base"):
            raise InputError(
                f"--from takes current or base, not {start!r}.{did_you_mean(str(start), ['current', 'base'])}"
            )
        if isinstance(merge, float | int):
            if not 0.0 < merge <= 1.0:
                raise InputError(
                    f"--merge takes a weight above 0, up to 1, not {merge:g}: with 0 the version would be what is in "
                    "service, and its rows would count as learned."
                )
            config = config.replace("merge", method="interpolate", weight=float(merge))
        elif merge is not None:
            rule = find_rule(merge)
            if start is None and rule.start not in (None, config.merge.start):
                places = {"base": "the root base", "current": "what is in service"}
                _logger.warning(
                    "--merge %s joins updates that were trained from %s, so this one starts there (--from %s) and not "
                    "from %s.",
                    rule.name,
                    places[str(rule.start)],
                    rule.start,
                    places[config.merge.start],
                )
            config = config.replace("merge", method=merge, start=rule.start if start is None else None)
        if merge is not None:
            # Those of continual.toml belong to its own rule; those of --set are meant for this one.
            given = (self.settings or {}).get("merge", {}).get("parameters", {})
            parameters = parameters or {name: config.merge.parameters[name] for name in given}
        return config.replace("merge", start=start, parameters=None if parameters is None else dict(parameters))


def plan_update(registry: Registry, config: Config, asked: Request, progress: Progress = SILENT) -> Plan:
    """Return what a step would do, and its cost. Changes nothing."""
    spec, drawn = prepare(registry, asked.resolve(config), **asked.choice, look=False, progress=progress)
    return make_plan(registry, spec, drawn, progress)


def run_update(
    registry: Registry, config: Config, asked: Request, *, resume: bool, restart: bool, progress: Progress = SILENT
) -> StepResult:
    """Take a step, or go on with the one that was interrupted; see `Workspace.update`."""
    if resume and restart:
        raise InputError("--resume continues what was interrupted and --restart discards it. Choose one.")
    with exclusive(registry.root / UPDATE_LOCK, "update"):
        sweep_steps(registry)
        run = registry.interrupted()
        if resume:
            if run is None:
                raise NothingToDoError("No update was interrupted, so there is nothing to resume.")
            if not asked.empty:
                raise InputError(
                    f"--resume continues {run.id} with the options it was begun with. Leave the others out, or "
                    "begin anew with --restart."
                )
            spec, drawn = reopen(registry, run)
        else:
            if run is not None and not restart:
                raise InputError(
                    f"The update to {run.id} was interrupted. Continue it with `continual update --resume`, or "
                    "discard it with `continual update --restart`."
                )
            spec, drawn = prepare(registry, asked.resolve(config), **asked.choice, progress=progress)
        with tracked(registry, spec, resume=resume) as log:
            if run is not None and restart:
                discard_run(registry, run)
            seen = Recorder(registry.path(f"runs/{spec.version}"), progress, log)
            return update(registry, spec, drawn, resume=resume, progress=seen, log=seen.log)
