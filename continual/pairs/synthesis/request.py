"""The options of a synthesis, and the function that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from continual.config import Config, Options
from continual.errors import InputError
from continual.pairs.encoder import PairEncoder
from continual.pairs.synthesis.extract import extract
from continual.pairs.synthesis.llm import PROMPTS, Writer, read_prompts, write_queries
from continual.pairs.synthesis.records import Synthesis
from continual.pairs.synthesis.run import QUERIES, Passages, held_texts, read_passages, synthesize
from continual.progress import SILENT, Progress
from continual.registry import CURRENT, Registry
from continual.versions.build import kept

PERSONAS = 5
"""Personas that the model chooses from, for each passage."""

OWN_LANGUAGE = "that of the passage"


class SynthesizeRequest(Options):
    """The options of `Workspace.synthesize`.

    Attributes:
        passages: A file of passages.
        out: The Parquet file to write; None: the name of the passages' file with `-synthetic.parquet`, in the working
            directory.
        method: "extract": parts of the passages themselves; "llm": a language model writes.
        per_passage: Most queries of a passage.
        consistency: A query is kept if its own passage is among this many nearest ones for the version; 0: always.
        version: Id or alias of that version; None: the current one.
        model: Name of the language model.
        endpoint: URL of its endpoint; None: the environment variable OPENAI_BASE_URL, or that of OpenAI.
        language: Language of the queries; None: that of the passage.
        prompts: Folder with prompts of your own.
        at_once: Requests at a time.
        max_tokens: Most tokens, of requests and answers together.
        max_cost: Most money; needs `prices`.
        prices: Price of a million tokens of requests, and of answers.
    """

    call = "synthesize"
    takes = {  # noqa: RUF012  pydantic reads the annotation of the base class
        "method": "--method takes extract or llm",
        "prices": "--prices takes two numbers, such as 0.15,0.60",
    }

    passages: str
    out: Path | None = None
    method: Literal["extract", "llm"] = "extract"
    per_passage: Annotated[int, Field(ge=1, le=100)] = 2
    consistency: Annotated[int, Field(ge=0)] = 20
    version: str | None = None
    model: str | None = None
    endpoint: str | None = None
    language: str | None = None
    prompts: Path | None = None
    at_once: Annotated[int, Field(ge=1, le=256)] = 8
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_cost: Annotated[float, Field(gt=0)] | None = None
    prices: tuple[float, float] | None = None

    def check(self) -> None:
        """Check that the options fit each other.

        Raises:
            InputError: The method lacks an option, or doesn't use one that is given.
        """
        asked = ("model", "endpoint", "language", "prompts", "max_tokens", "max_cost", "prices")
        given = [name for name in asked if getattr(self, name) is not None]
        if self.method == "extract" and given:
            option = given[0].replace("_", "-")
            raise InputError(
                f"--{option} is about a language model, which --method extract does not ask. Add --method llm."
            )
        if self.method == "llm" and self.model is None:
            raise InputError("--method llm needs the name of the model at the endpoint: --model NAME.")

    @property
    def target(self) -> Path:
        """The file to write."""
        stem = Path(self.passages).name.partition(".")[0]
        return (self.out or Path(f"{stem}-synthetic.parquet")).expanduser().absolute()


def run(registry: Registry, config: Config, request: SynthesizeRequest, progress: Progress = SILENT) -> Synthesis:
    """Write queries for passages; see `Workspace.synthesize`."""
    request.check()
    target = request.target
    if target.suffix != ".parquet" or not target.parent.is_dir():
        raise InputError(f"--out is {target}, but a .parquet file in an existing folder is expected.")
    held = held_texts(registry)
    passages = read_passages(request.passages, held)
    options: dict[str, Any] = {"method": request.method, "held": held, "per_passage": request.per_passage}
    options |= {"consistency": request.consistency, "progress": progress}
    with kept(registry, request.version or CURRENT, progress=progress) as (model,):
        version = registry.version(request.version or CURRENT).id
        if request.method == "extract":
            return synthesize(registry, config, model, version, passages, extract(passages.texts), target, **options)
        writer = Writer(
            model=str(request.model),
            endpoint=request.endpoint,
            language=request.language or OWN_LANGUAGE,
            prompts=request.prompts or PROMPTS,
            at_once=request.at_once,
            max_tokens=request.max_tokens,
            max_cost=request.max_cost,
            prices=request.prices,
        )
        personas = _nearest_personas(registry, config, model, passages, read_prompts(writer.prompts)[2], progress)
        journal = target.with_name(f"{target.name}.requests.jsonl")
        written = write_queries(writer, passages.texts, personas, request.per_passage, journal, progress)
        options |= {"any_language": request.language is not None, "missing": written.missing, "spent": written.spent}
        return synthesize(registry, config, model, version, passages, written.candidates, target, **options)


def _nearest_personas(
    registry: Registry, config: Config, model: Path, passages: Passages, personas: list[str], progress: Progress
) -> list[list[str]]:
    """Return the personas nearest to each passage, for the version."""
    if len(personas) <= PERSONAS:
        return [personas] * len(passages.texts)
    encoder = PairEncoder(model, config, None, progress)
    progress.start("choosing personas", len(personas) + len(passages.texts), "texts")
    known = encoder.queries(personas)
    chosen: list[list[str]] = []
    for start in range(0, len(passages.texts), QUERIES):
        scores = encoder.passages(passages.texts[start : start + QUERIES]) @ known.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :PERSONAS]
        chosen += [[personas[place] for place in row] for row in order]
    progress.finish()
    return chosen
