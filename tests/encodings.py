"""What the evaluation encodes."""

from __future__ import annotations

from typing import Any

import pytest

from continual.models.tokens import Tokens


def spied(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, str | None, str]]:
    """Return a list that fills with the role, the prompt and the text of all that is encoded from now on."""
    encoded: list[tuple[str | None, str | None, str]] = []
    original = Tokens.add

    def add(self: Tokens, texts: list[str], prompt: str | None, task: str | None, *more: Any) -> None:
        encoded.extend((task, prompt, text) for text in texts)
        original(self, texts, prompt, task, *more)

    monkeypatch.setattr(Tokens, "add", add)
    return encoded
