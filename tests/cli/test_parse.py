"""From the text of an option to its value."""

from __future__ import annotations

import pytest

from continual.cli.parse import (
    parse_merge,
    parse_parameters,
    parse_rows,
    parse_settings,
    parse_weights,
)
from continual.errors import InputError


def test_settings_are_toml_by_section() -> None:
    given = ["train.learning_rate=3e-4", "replay.policy = balanced", "eval.max_length=64", "train.matryoshka=[8, 16]"]
    assert parse_settings(given) == {
        "train": {"learning_rate": 3e-4, "matryoshka": [8, 16]},
        "replay": {"policy": "balanced"},
        "eval": {"max_length": 64},
    }
    assert parse_settings(None) is None


def test_a_key_of_a_table_has_its_own_name() -> None:
    assert parse_settings(["merge.parameters.density=0.5", "merge.parameters.k=1", "suites.step.queries=10"]) == {
        "merge": {"parameters": {"density": 0.5, "k": 1}},
        "suites": {"step": {"queries": 10}},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["epochs=1"], "takes SECTION.KEY=VALUE"),
        (["train.epochs"], "takes SECTION.KEY=VALUE"),
        (["train.epochs="], "takes SECTION.KEY=VALUE"),
        (["train..epochs=1"], "takes SECTION.KEY=VALUE"),
        (["train.epochs=1", "train.epochs=2"], "sets train.epochs twice"),
        (["merge.parameters={}", "merge.parameters.k=1"], "sets merge.parameters.k and all of merge.parameters"),
        (["merge.parameters.k=1", "merge.parameters={}"], "sets merge.parameters twice"),
        (["merge.parameters=1", "merge.parameters.k=1"], "sets merge.parameters.k and all of merge.parameters"),
    ],
)
def test_settings_of_another_form(given: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_settings(given)


def test_other_values() -> None:
    assert parse_parameters(["density=0.5", "rescale=true"]) == {"density": 0.5, "rescale": 1.0}
    assert parse_parameters(None) is None
    assert [parse_merge(text) for text in ("0.6", "ties", None)] == [0.6, "ties", None]
    assert [parse_rows(text) for text in ("all", "64")] == [0, 64]
    assert parse_weights("1,0.5") == [1.0, 0.5]
    for parse, text in ((parse_rows, "few"), (parse_weights, "a,b")):
        with pytest.raises(InputError, match="takes"):
            parse(text)
    with pytest.raises(InputError, match="-p density takes a number"):
        parse_parameters(["density=half"])
