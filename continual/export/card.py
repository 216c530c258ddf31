"""The model card of a version: its origin, data, licences and scores, for readers and for the Hub.

huggingface_hub builds the metadata at the top, so the Hub can read them. Names and sources are user input, so they are
shown as code, never as markup.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.errors import NothingToDoError
from continual.export.rounding import Rounding
from continual.models.base import PACKAGED
from continual.registry import (
    Batch,
    Registry,
    Score,
    Task,
    Version,
)
from continual.versions.dtypes import FP32

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from continual.report.report import Report

CARD = "README.md"

PACKAGED_ID = "sentence-transformers/all-MiniLM-L6-v2"
"""Hub id of the packaged base model."""

TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "continual-learning", "continual"]

_NOT_STATED = "not stated"


def model_card(
    registry: Registry, version: Version, snapshot: Path, dtype: str = FP32, rounding: Rounding | None = None
) -> str:
    """Return the card of a version as Markdown with YAML metadata.

    Args:
        snapshot: The version's model folder. The base model's card in it gives the language and licence of the base.
        dtype: Type in which the weights are stored.
        rounding: What that type changes; None for fp32.
    """
    from continual.report.build import build_report

    lineage = registry.lineage(version)
    learned = registry.learned(version)
    batches = [batch for batch in registry.batches() if batch.id in learned]
    base = str(lineage[0].provenance.base)
    inherited = _metadata(snapshot / CARD)
    try:
        report = build_report(registry)
    except NothingToDoError:
        report = None
    data = _card_data(registry, version, batches, base, inherited)
    parts = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# {registry.root.resolve().parent.name} {version.id}\n",
        _introduction(version, base, batches),
        _USE,
        "" if rounding is None else _ROUNDED.format(dtype=dtype, **rounding.to_json()),
        _instructions(version),
        _verdict(version),
        _scores(report, version, registry.tasks()) if report is not None else "",
        _lineage(lineage, {batch.id: batch.domain for batch in batches}),
        _data(batches, base, inherited),
        _training(version),
    ]
    return "\n".join(part for part in parts if part)


def hub_id(base: str) -> str | None:
    """Return the Hub id of a base model as given to `init`; None for a local folder."""
    if base == PACKAGED:
        return PACKAGED_ID
    return base if re.fullmatch(r"[\w.-]+/[\w.-]+", base) and not base.startswith((".", "~")) else None


def _card_data(
    registry: Registry, version: Version, batches: Sequence[Batch], base: str, inherited: dict[str, Any]
) -> ModelCardData:
    from huggingface_hub import ModelCardData

    licences = {batch.license.lower() for batch in batches if batch.license}
    same = licences <= {str(inherited.get("license")).lower()}
    kept = {key: inherited[key] for key in ("license", "license_name", "license_link") if same and key in inherited}
    scores = registry.scores()
    results = [
        _eval_result(task, scores[version.id, task.name])
        for task in registry.tasks()
        if (version.id, task.name) in scores
    ]
    datasets = sorted({name for batch in batches if (name := _hub_data(batch.source))})
    return ModelCardData(
        language=inherited.get("language"),
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=TAGS,
        base_model=hub_id(base),
        datasets=datasets or None,
        model_name=f"{registry.root.resolve().parent.name}-{version.id}" if results else None,
        eval_results=results or None,
        **kept,
    )


_TYPES = {
    "BitextMining": "translation",
    "InstructionReranking": "text-ranking",
    "Reranking": "text-ranking",
    "STS": "sentence-similarity",
    "Summarization": "summarization",
    **dict.fromkeys(("InstructionRetrieval", "Retrieval"), "text-retrieval"),
    **dict.fromkeys(
        ("Classification", "Clustering", "MultilabelClassification", "PairClassification"), "text-classification"
    ),
}
"""The Hub's names of mteb's task types; the Hub has no name for clustering."""


def _eval_result(task: Task, score: Score) -> EvalResult:
    from huggingface_hub import EvalResult

    # "unknown" means that the task is not a single dataset on the Hub: a local task or an aggregate.
    dataset = {"type": "unknown", "config": task.name, "split": "test", "revision": task.sha256}
    if task.mteb is not None and len(task.mteb["parts"]) == 1:
        (part,) = task.mteb["parts"]
        dataset = {"type": part["dataset"], "revision": part["revision"]}
        dataset |= {"config": "+".join(part["subsets"]), "split": "+".join(part["splits"])}
    return EvalResult(
        task_type=_TYPES.get(task.task_type, "feature-extraction"),
        task_name=task.task_type,
        dataset_type=dataset["type"],
        dataset_name=task.name,
        dataset_config=dataset["config"],
        dataset_split=dataset["split"],
        dataset_revision=dataset["revision"],
        metric_type=score.metric,
        metric_name=f"{metric_title(score.metric)}, points",
        metric_value=round(score.score, 3),
    )


def metric_title(metric: str) -> str:
    """Return the usual spelling of an mteb metric, such as nDCG@10 for `ndcg_at_10`."""
    family, at, cut = metric.partition("_at_")
    names = {"ndcg": "nDCG", "map": "MAP", "mrr": "MRR", "recall": "recall", "precision": "precision"}
    return f"{names[family]}@{cut}" if at and family in names else metric


def _introduction(version: Version, base: str, batches: Sequence[Batch]) -> str:
    name = hub_id(base)
    origin = f"[{name}](https://huggingface.co/{name})" if name else f"the local model {_code(Path(base).name)}"
    if version.parent is None:
        return f"A copy of {origin}, the root base of a `continual` workspace.\n"
    domains = list(dict.fromkeys(batch.domain for batch in batches))
    added = ", plus the prompts below" if version.provenance.instructions else ""
    return (
        f"A text-embedding model that `continual` trained from {origin} on these domains, in this order: "
        f"{', '.join(map(_code, domains))}. Pooling, prompts and maximum length are those of the base model{added}.\n"
    )


_USE = """## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("PATH OR ID OF THIS MODEL")
queries = model.encode_query(["a question"])
documents = model.encode_document(["a passage that answers it", "another passage"])
print(model.similarity(queries, documents))
```
"""


_ROUNDED = """The weights are stored as {dtype}. Of {texts} texts, the embedding that rounding changes most has a cosine
distance of {largest:.1e} from the one with fp32 weights, which the scores below were measured with.
"""


def _instructions(version: Version) -> str:
    """Return how to encode queries of the domains that have an instruction."""
    instructions = version.provenance.instructions
    if not instructions:
        return ""
    rows = [(_code(domain), _code(text)) for domain, text in instructions.items()]
    return (
        "Queries of these domains were trained with an instruction instead of the model's own prompt. Encode them with "
        "`model.encode_query(queries, prompt_name=...)`. Documents need no instruction.\n\n"
        + _table(("`prompt_name`", "instruction"), rows)
    )


def _verdict(version: Version) -> str:
    if version.verdict is None:
        return ""
    outcome = {"accepted": "The gate accepted this version", "refused": "**The gate refused this version**"}
    reasons = "".join(f"- {_prose(reason)}\n" for reason in version.verdict.reasons)
    return f"{outcome.get(version.status, version.status)}{':' if reasons else '.'}\n\n{reasons}"


def _scores(report: Report, version: Version, tasks: Sequence[Task]) -> str:
    if version.id not in {row.id for row in report.versions}:
        return ""  # an unscored phase of a recipe
    position = report.position(version.id)
    row, root = report.versions[position], report.versions[0]
    if not row.scores:
        return ""
    lines, origins = [], {task.name: task.origin for task in tasks if task.mteb is not None}
    for task in report.tasks:
        if task.name in row.scores:
            score, base_score = row.scores[task.name], root.scores.get(task.name)
            before, change = ("", "") if base_score is None else (f"{base_score:.1f}", f"{score - base_score:+.1f}")
            domain = _code(task.domain) if task.domain is not None else "none"
            if (row.id, task.name) in report.flags:
                domain += ", but trained on its texts"
            name = _code(task.name) + (f", {_code(origins[task.name])}" if task.name in origins else "")
            metric = metric_title(task.metric)
            lines.append((name, domain, metric, f"{task.queries:,}", before, f"{score:.1f}", change))
    metrics = {name: values[position] for name, values in report.metrics.items()}
    titles = {"bwt": "backward transfer", "forgetting": "forgetting", "ood_mean": "OOD mean"}
    shown = [f"{title} {value:.1f}" for name, title in titles.items() if (value := metrics.get(name)) is not None]
    along = f"\nOver the lineage, in points: {', '.join(shown)}.\n" if shown else ""
    return (
        "## Scores\n\nIn points: the main score times 100. Tasks of MTEB have MTEB's name after theirs; the others are "
        "the workspace's own.\n\n"
        + _table(("task", "domain", "main score", "queries", "base", "this version", "change"), lines)
        + along
    )


def _lineage(lineage: Sequence[Version], domain_of: dict[str, str]) -> str:
    rows = []
    for version in lineage:
        domains = ", ".join(_code(name) for name in dict.fromkeys(domain_of[batch] for batch in version.batches))
        merged = bool(version.provenance.members)
        start, merge = "" if merged else version.provenance.start or "", _merged_by(version)
        rows.append((version.id, version.parent or "", domains, start, merge, f"`{version.sha256[:12]}`"))
    header = ("version", "parent", "learned", "trained from", "merged by", "weights sha256")
    return (
        "## Lineage\n\nEach version is its parent merged with an update that was trained on the learned domains. A "
        "weight is the update's.\n\n" + _table(header, rows)
    )


def _merged_by(version: Version) -> str:
    from continual.merge.methods import find_method
    from continual.merge.rules import find_rule

    provenance = version.provenance
    if provenance.merge is None:
        return "the root base"
    numbers = provenance.parameters
    if provenance.members:
        listed = [f"{name} x {weight:.3g}" for name, weight in zip(provenance.members, provenance.weights, strict=True)]
        return ", ".join([f"{provenance.merge} of {' + '.join(listed)}", *(f"{k} {v:.3g}" for k, v in numbers.items())])
    if provenance.weight is not None and find_method(find_rule(provenance.merge).method).weighted:
        numbers = {"weight": provenance.weight, **numbers}
    return ", ".join([provenance.merge, *(f"{name} {value:.3g}" for name, value in numbers.items())])


def _data(batches: Sequence[Batch], base: str, inherited: dict[str, Any]) -> str:
    rows = [
        (_code(batch.domain), f"{batch.kept:,}", _code(_source(batch.source)), _code(batch.license or _NOT_STATED))
        for batch in batches
    ]
    licence = _code(str(inherited["license"])) if "license" in inherited else _NOT_STATED
    name = hub_id(base) or Path(base).name
    table = f"{_table(('domain', 'pairs', 'source', 'licence'), rows)}\n" if rows else ""
    return f"## Data and licences\n\n{table}The licence of the base model, {_code(name)}: {licence}.\n"


def _training(version: Version) -> str:
    if version.parent is None:
        return ""
    provenance = version.provenance
    settings = provenance.config["train"]
    replayed = sum(window.rows for window in provenance.replay)
    libraries = ", ".join(f"{name} {number}" for name, number in sorted(provenance.libraries.items()))
    return (
        f"## Last step\n\nLoRA of rank {settings['lora_rank']}, epochs {settings['epochs']}, {version.pairs_trained:,} "
        f"pairs trained, {replayed:,} rows replayed, seed {provenance.seed}. Trained with {libraries}.\n"
    )


def _metadata(card: Path) -> dict[str, Any]:
    """Return the metadata of a card; empty if there is no card or it can't be read."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        return metadata_load(card) or {}
    except (OSError, ValueError, YAMLError):
        return {}  # the base model's card is not ours, and nothing depends on it


def _hub_data(source: str) -> str | None:
    """Return the Hub id of a dataset that was ingested from the Hub; None for other sources."""
    name = source.removeprefix("hf:").split(":")[0]
    return name if source.startswith("hf:") and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) else None


def _source(source: str) -> str:
    """Return a source for a card: of a path only the file name, which reveals nothing about the machine."""
    return source if _hub_data(source) else Path(source).name


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", r"\|") for cell in line] for line in (header, ["---"] * len(header), *rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def _code(text: str) -> str:
    """Return text as Markdown code, so that it isn't rendered as markup."""
    plain = " ".join(text.split()).replace("`", "'")
    return f"`{plain}`"


def _prose(text: str) -> str:
    """Return a sentence with Markdown and HTML markup escaped."""
    return re.sub(r"([\\`*\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
