"""The log of experiments keeps its form, and its long tables can be printed."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

from tests import ROOT

LOG = (ROOT / "docs" / "LOG.md").read_text(encoding="utf-8")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load(ROOT / "benchmarks" / "tables.py")


def test_entries_are_newest_first_and_have_the_same_parts():
    entries = LOG.split("\n## ")[1:]
    dates = [entry[:10] for entry in entries]
    assert dates == sorted(dates, reverse=True)
    for entry in entries:
        assert all(part in entry for part in ("**Question.**", "**Command.**", "**What follows.**")), entry[:80]


def test_tables_of_the_log_are_small():
    assert [row for row in re.findall(r"^\|.*\|$", LOG, re.M) if row.count("|") > 8] == []


def test_the_log_names_every_entry_of_the_results_and_no_other():
    results = tables.read()
    assert set(re.findall(r"\d{4}-\d\d-\d\d-[\w-]+", LOG)) == results.keys()


def test_numbers_of_a_column_share_their_decimals_and_changes_have_a_sign():
    rows = [
        {"run": "a", "gain": 7.25, "fall": -0.1, "pairs": 2000},
        {"run": "b", "gain": 6.0, "fall": 1.0, "pairs": None},
    ]
    assert tables.markdown(rows).splitlines() == [
        "| run | gain | fall | pairs |",
        "|---|---|---|---|",
        "| a | +7.25 | -0.1 | 2,000 |",
        "| b | +6.00 | 1.0 |  |",
    ]
