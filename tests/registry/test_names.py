"""Names of domains, tasks and versions."""

from __future__ import annotations

import pytest

from continual.errors import InvalidNameError
from continual.registry.names import check_name


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\b", "..", ".hidden", "-flag", "a\x00b", "a\nb", " a", "x" * 101, "\u202eabc"]
)
def test_names_that_could_harm_are_refused(name: str) -> None:
    with pytest.raises(InvalidNameError, match="not allowed as the name of a domain"):
        check_name(name, "domain")


@pytest.mark.parametrize("name", ["medquad", "legal_de", "Fragen & Antworten", "médical", "<img src=x>"])
def test_names_that_people_use_are_kept(name: str) -> None:
    assert check_name(name, "domain") == name
