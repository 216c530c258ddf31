"""The file of clusters: what is read back, what is refused, and that what a person edited is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from continual.conflicts.clusters import is_edited, read_clusters, render_clusters
from continual.errors import ConfigError, NotFoundError

CLUSTERS = {"cluster-1": ["med", 'a "quoted" name'], "zwölf x": ["bash"]}
DOMAINS = ["med", "bash", 'a "quoted" name']


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(render_clusters(CLUSTERS, "Made by hand."), encoding="utf-8")
    found = read_clusters(path, DOMAINS)
    assert found == CLUSTERS
    assert list(found) == list(CLUSTERS)
    assert 'cluster-1 = ["med", ' in path.read_text(encoding="utf-8")


def test_an_edited_file_is_known(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    assert not is_edited(path)
    text = render_clusters({"a": ["x"], "b": ["y"]}, "Made by hand.")
    path.write_text(text, encoding="utf-8")
    assert not is_edited(path)
    for other in (text.replace('["y"]', '["y", "z"]'), text + "\n# mine\n", '[clusters]\na = ["x"]\n', ""):
        path.write_text(other, encoding="utf-8")
        assert is_edited(path), other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters = [", ["not valid TOML"]),
        ("clusters = " + "[" * 20_000, ["not valid TOML: it is nested too deeply"]),
        ("", ["has no clusters"]),
        ("[clusters]\n", ["has no clusters"]),
        ('clusters = "all"', ["has no clusters"]),
        ('[clusters]\na = ["med", "bash"]\n[more]\n', ["more is unknown"]),
        ('[clusters]\na = "med"\nb = ["bash"]', ["cluster a must be a list", "in no cluster: med"]),
        ('[clusters]\na = []\nb = ["bash", "med"]', ["cluster a must be a list"]),
        ('[clusters]\na = ["med", 3]\nb = ["bash"]', ["cluster a must be a list", "in no cluster: med"]),
        ('[clusters]\na = ["med", "bach"]', ["there is no domain 'bach'. Did you mean 'bash'?", "in no cluster: bash"]),
        ('[clusters]\na = ["med", "bash"]\nb = ["med"]', ["med is listed twice: in cluster a and in cluster b"]),
        ('[clusters]\na = ["med", "bash", "med"]', ["med is listed twice: in cluster a and in cluster a"]),
        ('[clusters]\na = ["med"]', ["in no cluster: bash"]),
    ],
)  # fmt: skip
def test_what_is_no_partition_is_refused(tmp_path: Path, text: str, said: list[str]) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        read_clusters(path, ["med", "bash"])
    assert str(path) in str(error.value)
    for part in said:
        assert part in str(error.value)


def test_what_is_not_there_is_said_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="continual analyze conflicts"):
        read_clusters(tmp_path / "none.toml", ["med"])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_clusters(tmp_path, ["med"])


def test_reading_needs_nothing_heavy() -> None:
    code = (
        "import sys, continual.conflicts.clusters\n"
        "heavy = {'torch', 'numpy', 'scipy', 'duckdb', 'pydantic', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
