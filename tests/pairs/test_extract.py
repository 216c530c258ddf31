"""Queries that are parts of passages, and the filters that look at one query."""

from __future__ import annotations

import pytest

from continual.pairs.synthesis.extract import extract
from continual.pairs.synthesis.filters import COPIED, FORMAT, LANGUAGE, reason, script
from continual.pairs.synthesis.records import Candidate

ASTHMA = (
    "Asthma\n\nAsthma is a disease that affects the airways of the lungs. Its symptoms come and go over many years. "
    "People with it often use an inhaler when they have trouble with their breath. Cold air can make it worse."
)
RUST = (
    "Rust forms on iron that is left in damp air for some days. Rub it off with steel wool and a little vinegar. "
    "Then dry the pan in the oven and coat it with oil so that it does not come back."
)


def found(*passages: str) -> dict[tuple[int, str], Candidate]:
    return {(each.passage, each.type): each for each in extract(passages)}


def test_titles_definitions_terms_and_sentences_become_queries() -> None:
    made = found(ASTHMA, RUST)
    assert made[0, "title"].query == "Asthma"
    assert made[0, "title"].positive.startswith("Asthma is a disease")
    assert made[0, "question"].query == "What is asthma?"
    assert made[0, "question"].positive == ASTHMA
    assert made[0, "cloze"].query == "Its symptoms come and go over many years."
    assert "come and go" not in made[0, "cloze"].positive
    assert (1, "title") not in made
    assert (1, "question") not in made
    assert made[1, "keywords"].query.split()[0] in RUST.lower()
    assert all(made[key].passage == key[0] for key in made)


@pytest.mark.parametrize(
    ("passage", "query"),
    [
        ("Type 2 diabetes is a long-term disease.", "What is type 2 diabetes?"),
        ("The Golden Gate Bridge is a bridge in California.", "What is Golden Gate Bridge?"),
        ("Kidney stones (nephrolithiasis) are caused by minerals.", "What are kidney stones?"),
        ("It is a bridge.", None),
        ("We know what this is about.", None),
        ("Dies ist ein Satz.", None),
    ],
)
def test_only_what_is_defined_is_asked_for(passage: str, query: str | None) -> None:
    made = found(passage)
    assert (made[0, "question"].query if (0, "question") in made else None) == query


def test_the_same_passages_give_the_same_queries() -> None:
    assert list(extract([ASTHMA, RUST])) == list(extract([ASTHMA, RUST]))
    assert list(extract(["12 34", "?!", "a"])) == []


@pytest.mark.parametrize(
    ("query", "positive", "why"),
    [
        ("how to remove rust", RUST, None),
        ("rub it off with steel wool and a little vinegar", RUST, COPIED),
        ("", RUST, FORMAT),
        ("?!", RUST, FORMAT),
        ("two\nlines", RUST, FORMAT),
        ("x" * 401, RUST, FORMAT),
        ("как удалить ржавчину", RUST, LANGUAGE),
        ("2024", RUST, None),
        ("なぜ", "東京は日本の首都です。", None),
    ],
)
def test_reasons(query: str, positive: str, why: str | None) -> None:
    assert reason(Candidate(query, 0, positive, "keywords")) == why


def test_another_script_is_allowed_where_it_was_asked_for() -> None:
    assert reason(Candidate("как удалить ржавчину", 0, RUST, "factual"), any_language=True) is None
    assert script("Ω and a b") == "LATIN"
