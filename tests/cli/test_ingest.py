"""What `continual ingest` prints about rows that are not trained on and columns that are not read."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from continual.cli import app
from continual.cli.render.ingest import print_ingest
from continual.stream import Columns, ingest
from tests.stream.rows import CONFIG, new_registry


def test_reasons_and_columns_without_a_name_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text(",query,positive\n" + "".join(f"{n},q{n},p{n}\n" for n in range(30)) + "30\n", "utf-8")
    registry = new_registry(tmp_path)
    print_ingest(ingest(registry, CONFIG, str(path), holdout=0), registry.root)
    printed = " ".join(capsys.readouterr().out.split())
    assert "rejected 1 1 field instead of 3 " in printed
    assert "not read: (no name)" in printed


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["ingest", "a.csv", "--positive-at", "1", "--positive-at", "0"], "--positive-at"),
        (["ingest", "a.csv", "--quote", "--no-quote"], "--quote/--no-quote"),
        (["task", "add", "a", "b", "--domain", "c", "--domain", "d"], "--domain"),
    ],
)
def test_options_with_one_value_are_given_once(arguments: list[str], option: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert f"{option} is given twice" in result.output


def test_repeatable_options_and_flags_may_be_repeated(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["update", "--domain", "a", "--domain", "b", "--json", "--json", "-w", str(tmp_path)]
    )
    assert "given twice" not in result.output


def test_scores_unread_columns_and_warnings_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(
        'query\tpositive\tscore\turl\na\t["p", "r"]\t1\tu\na\tn\t0\tu\na\tm\t0.5\tu\nb\t"quoted"\t0.9\tu\n', "utf-8"
    )
    registry = new_registry(tmp_path)
    report = ingest(registry, CONFIG, str(path), columns=Columns(positive_at=0.9, negative_at=0.1), holdout=0)
    print_ingest(report, registry.root)
    printed = " ".join(capsys.readouterr().out.split())
    assert "rows in 5 1 row with several positives, each counted" in printed
    assert "not positive 2 scores are from 0 to 1, 1 left out, 1 negative, which gave 1 hard negatives" in printed
    assert "score from score" in printed
    assert "not read: url" in printed
    assert "Warning: 1 cell has a double quote at both ends" in printed


def test_long_lists_are_cut_and_reasons_are_told_from_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.csv"
    names = ",".join(f"c{number}" for number in range(40))
    cells = ",".join(["x"] * 40)
    good = "".join(f"q{number},p{number},{cells}\n" for number in range(90))
    path.write_text(f"query,positive,{names}\n{good}only\na,b\nc,d\n")
    registry = new_registry(tmp_path)
    print_ingest(ingest(registry, CONFIG, str(path), holdout=0), registry.root)
    printed = " ".join(capsys.readouterr().out.split())
    assert "rejected 3 2 fields instead of 42 (2), 1 field instead of 42 (1)" in printed
    assert "c9 and 30 more" in printed
    assert "c10" not in printed
