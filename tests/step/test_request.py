"""The options of one update: what contradicts itself is refused, and nothing is chosen silently."""

from __future__ import annotations

from typing import Any

import pytest

from continual import Workspace
from continual.config import Config
from continual.errors import InputError, NothingToDoError
from continual.step.request import Request


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"replay": 0.3}, {"replay": {"share": 0.5}}, "--replay sets replay.share to 0.3, but --set replay.share=0.5"),
        ({"merge": 0.5}, {"merge": {"weight": 0.9}}, "--merge sets merge.weight to 0.5, but --set merge.weight=0.9"),
        ({"merge": 0.5}, {"merge": {"method": "ties"}}, "--merge sets merge.method to interpolate, but .*=ties"),
        ({"merge": "ties"}, {"merge": {"method": "linear"}}, "--merge sets merge.method to ties, but .*=linear"),
        ({"start": "base"}, {"merge": {"start": "current"}}, "--from sets merge.start to base, but .*=current"),
        ({"compatible": True}, {"train": {"anchor": "base"}}, "--compatible sets train.anchor to current, but .*=base"),
        ({"merge": "search"}, {"merge": {"weight": 0.5}}, "--merge search finds the weight itself"),
    ],
)
def test_an_option_and_a_setting_that_contradict_are_refused(
    options: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Request.of(**options, settings=settings).resolve(Config())


def test_an_option_and_a_setting_that_agree_are_taken() -> None:
    request = Request.of(
        replay=0.5,
        merge="ties",
        compatible=True,
        settings={"replay": {"share": 0.5}, "merge": {"weight": 0.4}, "train": {"anchor": "current"}},
    )
    config = request.resolve(Config())
    assert (config.replay.share, config.merge.method, config.merge.weight) == (0.5, "ties", 0.4)
    assert config.train.anchor == "current"


def test_a_restart_without_an_interrupted_update_is_said(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(NothingToDoError):
        workspace.update(restart=True)
    assert "No update was interrupted, so --restart discards nothing" in caplog.text
