"""What a caller asks of a step: stated once, validated once, and used by the plan, the update and the command line."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Literal

from pydantic import Field

from continual.config import Config, Options, Seed
from continual.errors import InputError
from continual.merge.rules import find_rule
from continual.recipes import find_recipe

_logger = logging.getLogger(__name__)


class Request(Options):
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
        mine: Mine hard negatives for the new rows first, with the current version; see `continual.pairs`.
        settings: Settings of `continual.toml` for this step alone, by section: `{"train": {"learning_rate": 3e-4}}`.
    """

    call = "update"
    takes = {  # noqa: RUF012  pydantic reads the annotation of the base class
        "replay": "--replay takes a share from 0 to 1, such as 0.3",
        "merge": "--merge takes the name of a rule, or a weight above 0 and up to 1 (with 0 the new version would "
        "equal its parent, and its rows would count as learned)",
        "start": "--from takes current or base",
        "seed": "--seed must be an integer of 0 or more, below 2^63",
    }

    replay: Annotated[float, Field(ge=0, le=1)] | None = None
    merge: Annotated[float, Field(gt=0, le=1)] | str | None = None
    start: Literal["current", "base"] | None = None
    recipe: str | None = None
    domains: list[str] | None = None
    seed: Seed | None = None
    compatible: bool = False
    mine: bool = False
    settings: dict[str, dict[str, Any]] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is asked."""
        return self in (Request(), Request(settings={}))

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
        self._check_contradictions()
        config = config.change(step).change(self.settings or {})
        config = self._merge(config).replace("replay", share=self.replay)
        return config.replace("train", anchor="current" if self.compatible else None)

    def _check_contradictions(self) -> None:
        """Refuse an option and a setting of this call that say different things, of which one would be ignored."""
        weight = self.merge if isinstance(self.merge, float) else None
        asked = {
            "replay.share": ("--replay", self.replay),
            "merge.method": ("--merge", "interpolate" if weight is not None else self.merge),
            "merge.weight": ("--merge", weight),
            "merge.start": ("--from", self.start),
            "train.anchor": ("--compatible", "current" if self.compatible else None),
        }
        for setting, (option, value) in asked.items():
            section, name = setting.split(".")
            given = (self.settings or {}).get(section, {}).get(name)
            if value is not None and given is not None and given != value:
                raise InputError(
                    f"{option} sets {setting} to {value}, but --set {setting}={given} sets it to {given}. Leave one of "
                    "the two out."
                )
        if "weight" in (self.settings or {}).get("merge", {}) and isinstance(self.merge, str):
            rule = find_rule(self.merge)
            if rule.searches:
                raise InputError(
                    f"--merge {rule.name} finds the weight itself, so --set merge.weight would have no effect. Leave "
                    "one of the two out."
                )

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
