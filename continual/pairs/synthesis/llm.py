"""Queries written by a language model, through any endpoint that speaks OpenAI's protocol.

For each passage the model gets the nearest personas. It decides who asks what, how hard and how long, and then writes
the query: the pipeline of phased training (COLM 2025), in one request per passage.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from continual.errors import InputError, ModelError
from continual.pairs.synthesis.journal import Journal
from continual.pairs.synthesis.records import Candidate, Spent
from continual.progress import SILENT, Progress

PROMPTS = Path(__file__).with_name("prompts")
"""The packaged prompts and personas. Copy the folder and edit it for your own."""

FILES = ("system.txt", "query.txt", "personas.txt")
TRAITS = ("persona", "difficulty", "length", "language")
TYPES = ("keywords", "factual", "summary", "yes/no", "background", "how-to", "code")

ATTEMPTS = 3
"""Times a passage is asked for, if an answer can't be used."""

NO_ANSWER, UNUSABLE, OVER_BUDGET = "no answer", "unusable answer", "over budget"
"""Why a passage has no query."""

_ITEM = {
    "type": "object",
    "properties": {
        name: {"type": "string"} for name in ("persona", "type", "difficulty", "length", "language", "query")
    },
    "required": ["persona", "type", "difficulty", "length", "language", "query"],
    "additionalProperties": False,
}
_FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "queries",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"queries": {"type": "array", "items": _ITEM}},
            "required": ["queries"],
            "additionalProperties": False,
        },
    },
}


@dataclass(frozen=True)
class Writer:
    """How a language model is asked.

    Attributes:
        model: Name of the model at the endpoint.
        endpoint: URL of the endpoint, such as "http://localhost:8000/v1"; None: OPENAI_BASE_URL or the client's own.
        language: Language of the queries, or "that of the passage".
        prompts: Folder with system.txt, query.txt and personas.txt.
        at_once: Requests at a time.
        timeout: Seconds to wait for an answer.
        max_tokens: Most tokens of all requests and answers; None: no limit.
        max_cost: Most money; None: no limit. It needs the prices.
        prices: Price of a million tokens of requests, and of answers.
        retries: Times that a request is repeated when the endpoint fails or asks to wait.
    """

    model: str
    endpoint: str | None = None
    language: str = "that of the passage"
    prompts: Path = PROMPTS
    at_once: int = 8
    timeout: float = 120.0
    max_tokens: int | None = None
    max_cost: float | None = None
    prices: tuple[float, float] | None = None
    retries: int = 6


@dataclass
class Written:
    """The candidates, and the passages without any by reason."""

    candidates: list[Candidate] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)
    spent: Spent = field(default_factory=Spent)


def read_prompts(folder: Path) -> tuple[str, str, list[str]]:
    """Return the system prompt, the template of a request, and the personas.

    Raises:
        InputError: A file is missing, or the template lacks a field.
    """
    texts = {}
    for name in FILES:
        try:
            texts[name] = (folder / name).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise InputError(
                f"{folder / name} cannot be read as text. Copy the packaged prompts from {PROMPTS}."
            ) from None
    try:
        texts["query.txt"].format(count=1, language="", personas="", passage="")
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{folder / 'query.txt'} has a field that is not one of {{count}}, {{language}}, {{personas}} and "
            f"{{passage}} ({error}). Double braces that are meant as text."
        ) from None
    if "{passage}" not in texts["query.txt"]:
        raise InputError(f"{folder / 'query.txt'} lacks the field {{passage}}, so the model would not see the passage.")
    return (
        texts["system.txt"],
        texts["query.txt"],
        [line for line in texts["personas.txt"].splitlines() if line.strip()],
    )


def write_queries(
    writer: Writer,
    passages: Sequence[str],
    personas: Sequence[Sequence[str]],
    count: int,
    journal: Path,
    progress: Progress = SILENT,
) -> Written:
    """Ask for queries for passages. What the journal holds is not asked again.

    Args:
        passages: Distinct passages.
        personas: Personas to choose from for each passage.
        count: Queries per passage.
        journal: File of requests and answers.

    Returns:
        The candidates in the order of the passages, and how many passages have none, by reason.

    Raises:
        InputError: The client is not installed, a limit lacks prices, or the endpoint refuses the call for good.
        ModelError: The endpoint cannot be reached.
    """
    system, template, _ = read_prompts(writer.prompts)
    if writer.max_cost is not None and writer.prices is None:
        raise InputError("--max-cost needs the prices of the model: --prices IN,OUT per million tokens.")
    client = _client(writer)
    found: list[list[Candidate] | str] = [OVER_BUDGET] * len(passages)
    with Journal(journal) as answers:
        purse = _Purse(writer, answers)
        progress.start("writing queries", len(passages), "passages")

        def work(index: int) -> tuple[int, list[Candidate] | str]:
            user = template.format(
                count=count,
                language=writer.language,
                personas="\n".join(f"- {persona}" for persona in personas[index]),
                passage=passages[index],
            )
            messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
            return index, _ask(client, writer, answers, purse, messages, passages[index], index, count)

        with ThreadPoolExecutor(writer.at_once) as pool:
            try:
                for done in as_completed([pool.submit(work, index) for index in range(len(passages))]):
                    index, found[index] = done.result()
                    progress.advance(1)
            except BaseException:
                purse.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        progress.finish()
        result = Written(spent=purse.spent())
    for outcome in found:
        if isinstance(outcome, str):
            result.missing[outcome] += 1
        else:
            result.candidates += outcome
    return result


class _Purse:
    """Counts tokens and money, and says when to stop."""

    def __init__(self, writer: Writer, answers: Journal) -> None:
        self._writer, self._answers = writer, answers
        self.stop = threading.Event()

    def spent(self) -> Spent:
        (asked, told), prices = self._answers.tokens, self._writer.prices
        cost = None if prices is None else (asked * prices[0] + told * prices[1]) / 1e6
        return Spent(len(self._answers), (asked, told), cost)

    @property
    def empty(self) -> bool:
        spent, writer = self.spent(), self._writer
        tokens = writer.max_tokens is not None and sum(spent.tokens) >= writer.max_tokens
        money = writer.max_cost is not None and (spent.cost or 0.0) >= writer.max_cost
        return self.stop.is_set() or tokens or money


def _client(writer: Writer) -> Any:
    try:
        import openai
    except ImportError:
        raise InputError(
            "Writing queries by a language model needs the client of its protocol: pip install "
            "'continual-embeddings[llm]'"
        ) from None
    # Servers of one's own need no key, but the client does. A key is only read from the environment.
    key = os.environ.get("OPENAI_API_KEY") or "none"
    return openai.OpenAI(api_key=key, base_url=writer.endpoint, timeout=writer.timeout, max_retries=writer.retries)


def _ask(
    client: Any,
    writer: Writer,
    answers: Journal,
    purse: _Purse,
    messages: list[dict[str, str]],
    passage: str,
    index: int,
    count: int,
) -> list[Candidate] | str:
    """Return the queries for a passage, or why there are none."""
    why = OVER_BUDGET
    for attempt in range(ATTEMPTS):
        request = {"model": writer.model, "messages": messages, "attempt": attempt}
        entry = answers.find(request)
        if entry is None:
            if purse.empty:
                return OVER_BUDGET
            reply = _send(client, writer, messages)
            if reply is None:
                return NO_ANSWER
            entry = answers.add(request, answer=reply[0], usage=reply[1])
        queries = _parse(entry["answer"])
        if queries:
            return [Candidate(query, index, passage, kind, traits) for query, kind, traits in queries[:count]]
        why = UNUSABLE
    return why


def _send(client: Any, writer: Writer, messages: list[dict[str, str]]) -> tuple[str, list[int]] | None:
    """Return an answer with the tokens of request and answer; None if the endpoint failed too often.

    Raises:
        InputError: It refuses the call: a wrong key, an unknown model, a request that it does not understand.
        ModelError: It cannot be reached.
    """
    import openai

    try:
        try:
            reply = client.chat.completions.create(model=writer.model, messages=messages, response_format=_FORMAT)
        except openai.BadRequestError:  # some servers know no schemas
            reply = client.chat.completions.create(model=writer.model, messages=messages)
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise InputError(
            f"{client.base_url} refuses the key. Set OPENAI_API_KEY to a valid one in the environment."
        ) from None
    except openai.NotFoundError:
        raise InputError(
            f"{client.base_url} has no model {writer.model!r}. Name one that it serves with --model."
        ) from None
    except openai.BadRequestError as error:
        raise InputError(f"{client.base_url} does not accept the request: {error.message}") from None
    except (openai.RateLimitError, openai.InternalServerError, openai.APITimeoutError):
        return None
    except openai.APIConnectionError:
        raise ModelError(
            f"{client.base_url} cannot be reached. Start the server, or name another with --endpoint."
        ) from None
    except (openai.APIError, ValueError):  # an answer that is not one of the protocol
        return None
    choices = getattr(reply, "choices", None)
    text = (choices[0].message.content or "") if choices else ""
    usage = getattr(reply, "usage", None)
    tokens = [int(getattr(usage, name, 0) or 0) for name in ("prompt_tokens", "completion_tokens")]
    return text, tokens


def _parse(answer: str) -> list[tuple[str, str, dict[str, str]]]:
    """Return the queries in an answer with their type and traits; none if it is not the JSON asked for."""
    start, end = answer.find("{"), answer.rfind("}")
    try:
        data = json.loads(answer[start : end + 1])
        items = data["queries"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    found = []
    for item in items if isinstance(items, list) else []:
        query = item.get("query") if isinstance(item, dict) else None
        if not isinstance(query, str) or not query.strip():
            continue
        kind = str(item.get("type") or "").strip().lower()
        traits = {name: str(item[name]).strip() for name in TRAITS if isinstance(item.get(name), str) and item[name]}
        found.append((" ".join(query.split()), kind if kind in TYPES else "other", traits))
    return found
