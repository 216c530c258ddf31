"""Settings: files of earlier versions, and the changes of one call."""

from __future__ import annotations

from pathlib import Path

import pytest

from continual import Workspace
from continual.cli.parse import parse_settings
from continual.config import Config, load_config, validate
from continual.errors import ConfigError
from continual.versions.settings import render_config


def test_a_renamed_section_is_read_by_its_old_name(tmp_path: Path) -> None:
    file = tmp_path / "continual.toml"
    file.write_text("[compat]\nkeep = 0.9\n")
    assert load_config(file).index.keep == 0.9
    recorded = Config().model_dump(mode="json")
    recorded["compat"] = recorded.pop("index") | {"step": False}
    assert validate(recorded, "a recorded version").index.step is False


def test_both_names_of_a_section_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"continual.toml has both \[compat\] and \[index\].*Move all settings to"):
        validate({"compat": {"step": False}, "index": {"rows": 0}}, "continual.toml")


def test_new_files_have_the_new_name() -> None:
    assert "\n[index]" in render_config(Config())
    assert "compat]" not in render_config(Config())


def test_a_change_of_a_table_keeps_its_other_keys() -> None:
    config = Config().change({"merge": {"parameters": {"density": 0.5, "k": 2}}, "suites": {"step": {"queries": 9}}})
    assert config.suites.step.tasks == ["*"]
    changed = config.change({"merge": {"parameters": {"density": 0.9}}})
    assert changed.merge.parameters == {"density": 0.9, "k": 2.0}
    assert changed.change({"merge": {"parameters": {}}}).merge.parameters == {}


def test_a_single_name_is_a_list_of_one() -> None:
    assert Config().change({"track": {"trackers": "wandb"}}).track.trackers == ["wandb"]


def test_settings_without_effect_are_refused() -> None:
    assert Config().change({"store": {"keep_every": 3}}, only="store").store.keep_every == 3
    with pytest.raises(ConfigError, match=r"train.epochs would have no effect.*\[store\]"):
        Config().change({"train": {"epochs": 2}}, only="store")


def test_settings_are_checked_all_at_once(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text(
        "[train]\nepochs = 0\nlearning_rte = 1\n[gate]\nmin_gain = nan\n"
    )
    with pytest.raises(ConfigError, match=r"train.epochs.*train.learning_rte.*gate.min_gain"):
        Workspace(workspace.directory)


def test_settings_that_decide_nothing_any_more_are_still_read(workspace: Workspace) -> None:
    (workspace.directory / "continual.toml").write_text("[eval]\nbootstrap = 500\nconfidence = 0.9\n")
    assert Workspace(workspace.directory).config.eval.confidence == 0.9


def test_another_merge_method_drops_the_parameters_of_the_one_before() -> None:
    config = Config().change({"merge": {"method": "ties", "parameters": {"density": 0.2}}})
    assert config.change({"merge": {"parameters": {"lambda": 0.5}}}).merge.parameters == {"density": 0.2, "lambda": 0.5}
    changed = config.change({"merge": {"method": "task_arithmetic", "parameters": {"lambda": 0.5}}})
    assert changed.merge.parameters == {"lambda": 0.5}


def test_a_change_may_name_a_section_by_its_old_name() -> None:
    assert Config().change({"compat": {"step": False}}).index.step is False


@pytest.mark.parametrize("value", ["1e999", "nan", "1" + 400 * "0", "9" * 5000, "99999999999"])
def test_numbers_beyond_range_are_refused_in_a_short_message(value: str, tmp_path: Path) -> None:
    path = tmp_path / "continual.toml"
    for setting in ("train.epochs", "ingest.batch_rows", "replay.rows", "replay.share", "index.rows"):
        section, key = setting.split(".")
        path.write_text(f"[{section}]\n{key} = {value}\n")
        with pytest.raises(ConfigError) as error:
            load_config(path)
        assert len(str(error.value)) < 300 + len(str(path))
        with pytest.raises(ConfigError):
            Config().change(parse_settings([f"{setting}={value}"]) or {})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.guide_margin = false", r"train.guide_margin: must be a number or 'off' \(got False\)"),
        ("train.guide_margin = '0.1'", r"train.guide_margin: must be a number or 'off' \(got '0.1'\)"),
        ("train.distillation_scale = false", r"train.distillation_scale: must be a number or 'off' \(got False\)"),
        ("train.learning_rate = true", r"train.learning_rate: must be a number \(got True\)"),
        ("train.epochs = true", r"train.epochs: must be a whole number \(got True\)"),
        ("train.epochs = '2'", r"train.epochs: must be a whole number \(got '2'\)"),
        ("train.epochs = 1.5", r"train.epochs: must be a whole number \(got 1.5\)"),
        ("train.bidirectional = 'yes'", r"train.bidirectional: must be true or false \(got 'yes'\)"),
        ("train.bidirectional = 1", r"train.bidirectional: must be true or false \(got 1\)"),
        ("trust_remote_code = 'true'", r"trust_remote_code: must be true or false \(got 'true'\)"),
        ("train.matryoshka = ['16']", r"train.matryoshka: must be a whole number \(got '16'\)"),
        ("train.matryoshka = 16", r"train.matryoshka: must be a list \(got 16\)"),
        (
            "train.batch_sizes = [{tokens = '9', pairs = true}]",
            r"tokens: must be a whole number.*pairs: must be a whole",
        ),
        ("merge.parameters = {density = '0.5'}", r"merge.parameters.density: must be a number \(got '0.5'\)"),
        ("merge.weight = true", r"merge.weight: must be a number \(got True\)"),
        ("merge.method = 3", r"merge.method: must be a text \(got 3\)"),
        ("replay.rows = false", r"replay.rows: must be a whole number \(got False\)"),
        ("suites.step.queries = '9'", r"suites.step.queries: must be a whole number \(got '9'\)"),
        ("train = 3", r"train: must be a table \(got 3\)"),
    ],
)
def test_no_value_is_converted_from_another_type(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "continual.toml").write_text(line)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "continual.toml")
    name, _, value = line.partition(" = ")
    if "." in name:  # the value on a command line is TOML too
        with pytest.raises(ConfigError, match=message):
            Config().change(parse_settings([f"{name}={value}"]) or {})


def test_numbers_and_words_are_read_as_before(tmp_path: Path) -> None:
    text = "train.epochs = 2.0\ningest.batch_rows = 1e4\ntrain.max_grad_norm = 2\nmerge.parameters.normalize = true\n"
    (tmp_path / "continual.toml").write_text(text)
    config = load_config(tmp_path / "continual.toml")
    assert (config.train.epochs, config.ingest.batch_rows, config.train.max_grad_norm) == (2, 10_000, 2.0)
    assert config.merge.parameters == {"normalize": 1.0}
    given = ["train.guide_margin=off", "train.bidirectional=true", "replay.rows=9", "replay.share=1"]
    changed = config.change(parse_settings(given) or {})
    assert changed.train.guide_margin == "off"
    assert changed.train.bidirectional is True
    assert (changed.replay.rows, changed.replay.share) == (9, 1.0)
    assert config.change({"train": {"matryoshka": (8, 16)}}).train.matryoshka == [8, 16]
    assert validate(changed.model_dump(mode="json"), "a record") == changed


@pytest.mark.parametrize("text", ["a=" + "[" * 20_000, "a=" + "{b=" * 20_000])
def test_deeply_nested_settings_are_one_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "continual.toml").write_text(text)
    with pytest.raises(ConfigError, match="is not valid TOML: it is nested too deeply"):
        load_config(tmp_path / "continual.toml")
    assert parse_settings([f"train.epochs{text[1:]}"]) == {"train": {"epochs": text[2:]}}


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "continual.toml").write_bytes(b"\xef\xbb\xbf[train]\nepochs = 3\n")
    assert load_config(tmp_path / "continual.toml").train.epochs == 3
