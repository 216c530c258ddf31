"""What a caller asks of a step: stated once, validated once, and used by the plan, the update and the command line."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from continual.config import Config
from continual.errors import InputError, did_you_mean
from continual.merge.rules import find_rule
from continual.recipes import find_recipe

_logger = logging.getLogger(__name__)

_FLAGS = {"replay": "--replay", "merge": "--merge", "start": "--from", "seed": "--seed", "domains": "--domain"}
"""The command line's names of fields, for messages."""


class Request(BaseModel):
    """The options of one update. None or False leaves the choice to the settings.

    Attributes:
        replay: Share of the training rows of every domain learned so far to train on again, 0 to 1: `replay.share`.
        merge: A merge rule, a merge method, or the weight of the update, above 0 and up to 1.
        start: The model that training starts from: the current version or the root base.
        recipe: A recipe that has steps, such as "boom": it sets replay, merge and training, and the other options
            override it.
        domains: Domains to learn; by default all that have new rows.
        seed: Seed of the step, from 0 up; 0 by default.
        compatible: Train for the index of the current version: keep texts near their embeddings under it, and
            queries near its documents (`train.anchor = "current"`).
        settings: Settings of `continual.toml` for this step alone, by section: `{"train": {"learning_rate": 3e-4}}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    replay: Annotated[float, Field(ge=0, le=1)] | None = None
    merge: Annotated[float, Field(gt=0, le=1)] | str | None = None
    start: Literal["current", "base"] | None = None
    recipe: str | None = None
    domains: list[str] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    compatible: bool = False
    settings: dict[str, dict[str, Any]] | None = None

    @classmethod
    def of(cls, **options: Any) -> Request:
        """Return the request with these options, validated.

        Raises:
            InputError: An option is unknown, or a value is out of its range; all faults are named.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise InputError(_describe(error)) from None

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        return self == Request()

    def resolve(self, config: Config) -> Config:
        """Return the settings with what the recipe, and then the request, changes.

        Raises:
            InputError: The recipe has no steps.
            ConfigError: A setting is unknown or out of its range.
            NotFoundError: There is no such recipe or merge rule.
        """
        name = self.recipe or "continual"
        step = find_recipe(name).step
        if step is None:
            raise InputError(
                f"The recipe {name} trains on all domains at once, not in steps. Run it with "
                f"`continual train --recipe {name}`."
            )
        config = config.change(step).change(self.settings or {})
        config = self._merge(config).replace("replay", share=self.replay)
        return config.replace("train", anchor="current" if self.compatible else None)

    def _merge(self, config: Config) -> Config:
        """Return the settings with where training starts and how the update is merged."""
        parameters = (self.settings or {}).get("merge", {}).get("parameters")
        if isinstance(self.merge, float):
            config = config.replace("merge", method="interpolate", weight=self.merge)
        elif self.merge is not None:
            rule = find_rule(self.merge)
            if self.start is None and rule.start not in (None, config.merge.start):
                places = {"base": "the root base", "current": "the current version"}
                _logger.warning(
                    "--merge %s needs an update trained from %s, so training starts there, as with --from %s.",
                    rule.name,
                    places[str(rule.start)],
                    rule.start,
                )
            config = config.replace("merge", method=self.merge, start=rule.start if self.start is None else None)
        if self.merge is not None:
            # Parameters in continual.toml belong to the merge rule there, not to this one.
            config = config.replace("merge", parameters=parameters or {})
        return config.replace("merge", start=self.start)


def _describe(error: ValidationError) -> str:
    """Return what is wrong with a request, in one sentence per option."""
    faults: dict[str, str] = {}
    for fault in error.errors():
        name = str(fault["loc"][0])
        flag = _FLAGS.get(name, name)
        if fault["type"] == "extra_forbidden":
            near = did_you_mean(name, Request.model_fields)
            faults[name] = f"update has no option {name!r}.{near} Pass other settings through `settings`."
        elif name == "replay":
            faults[name] = f"{flag} takes a share from 0 to 1, such as 0.3, not {fault['input']!r}."
        elif name == "merge":
            faults[name] = (
                f"{flag} takes a weight above 0 and up to 1, or the name of a rule, not {fault['input']!r}. With "
                "weight 0 the new version would equal its parent, and its rows would count as learned."
            )
        elif name == "start":
            near = did_you_mean(str(fault["input"]), ["current", "base"])
            faults[name] = f"{flag} takes current or base, not {fault['input']!r}.{near}"
        elif name == "seed":
            faults[name] = f"{flag} must be an integer of 0 or more, not {fault['input']!r}."
        else:
            faults[name] = f"{flag}: {fault['msg']} (got {fault['input']!r})."
    return " ".join(faults.values())
