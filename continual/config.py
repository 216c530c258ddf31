"""The settings of a workspace: validated once, frozen, and stored with every version made with them.

`continual.toml` needs only the settings that differ from the defaults below. An unknown key is an error: a misspelt
limit must not be ignored silently.
"""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from continual.errors import ConfigError, InputError, did_you_mean

Share = Annotated[float, Field(ge=0.0, le=1.0)]
LARGEST = 2**31 - 1
"""Largest whole number of a setting. Larger ones overflow in the libraries."""

Whole = BeforeValidator(lambda value: int(value) if isinstance(value, float) and value.is_integer() else value)
"""Accepts 1e4 as a whole number. Texts and booleans are never converted: `guide_margin = false` is not 0."""

Seed = Annotated[int, Whole, Field(ge=0, lt=2**63)]
Count = Annotated[int, Whole, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Whole, Field(ge=1, le=LARGEST)]
Pairs = Annotated[int, Whole, Field(ge=2, le=LARGEST)]
Parameter = Annotated[float, BeforeValidator(lambda value: float(value) if isinstance(value, bool) else value)]
"""A number, or a switch of a merge method, such as `normalize = true`."""

Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""A list of names. A single name may be given without brackets, as in `--set track.trackers=tensorboard`."""


class ConfigSection(BaseModel):
    """A frozen group of settings that rejects unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    @field_validator("*", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        return list(value) if isinstance(value, tuple) else value


class IngestConfig(ConfigSection):
    """Checks of a new file, and the rows held out of it."""

    holdout: Share = Field(0.1, description="Share of a new domain's documents held out as its evaluation task.")
    max_holdout_queries: Positive = Field(1000, description="Most queries in a held-out task.")
    max_chars: Positive = Field(
        20_000, description="Longest text of a row, in characters; rows with a longer one are rejected."
    )
    max_reject_share: Share = Field(
        0.1, description="Largest share of bad rows, 0 to 1; a file with more is rejected as a whole."
    )
    batch_rows: Positive = Field(10_000, description="Rows read at a time; fewer need less memory.")


class ReplayConfig(ConfigSection):
    """The old rows that an update trains on again."""

    share: Share = Field(0.3, description="Share of the rows of every domain learned before to replay, 0 to 1.")
    rows: Count | None = Field(
        None, description="Most rows to replay in total, which bounds the cost of an update; unset: no limit."
    )
    policy: str = Field(
        "uniform", description="Replay policy, such as uniform, forgetting or hardest; docs/replay.md lists them."
    )
    temperature: float = Field(
        2.0,
        ge=1,
        description="For the policy temperature: 1 draws in proportion to a domain's rows, higher values more equally.",
    )
    candidates: Positive = Field(
        4, description="For policies that choose rows: rows they choose from, per replayed row."
    )


class BatchBand(ConfigSection):
    """Batch size of the rows whose longest text has a certain length."""

    tokens: Positive = Field(description="Most tokens of a row's longest text.")
    pairs: Pairs = Field(description="Pairs per batch.")


RUNTIME_ONLY = frozenset({"checkpoint_seconds"})
"""Settings of [train] that do not affect the trained weights."""


class TrainConfig(ConfigSection):
    """Training of the update model: LoRA on all linear layers, with the InfoNCE loss."""

    epochs: Positive = Field(1, description="Passes over the training rows.")
    batch_size: Pairs = Field(32, description="Pairs per batch; they share in-batch negatives.")
    batch_sizes: list[BatchBand] = Field(
        [],
        description=(
            "Batch size by text length, such as [{tokens = 500, pairs = 512}, {tokens = 1000, pairs = 64}]: a row "
            "belongs to the first band that fits its longest text, cut at max_length; longer rows use batch_size."
        ),
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    warmup: Share = Field(0.1, description="Share of the optimizer steps in which the learning rate rises to its peak.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay of AdamW.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm to which larger gradients are scaled down.")
    temperature: float = Field(0.05, gt=0, description="Divisor of the cosine similarities in the loss.")
    dot_temperature: float = Field(
        1.0,
        gt=0,
        description=(
            "Divisor in the loss of the dot products of a model that compares by dot product and doesn't normalise "
            "its embeddings; see docs/losses.md."
        ),
    )
    bidirectional: bool = Field(
        False,
        description=("Average the query-to-document loss with the document-to-query loss; see docs/losses.md."),
    )
    matryoshka: list[Positive] = Field(
        [],
        description=(
            "Matryoshka dimensions, such as [64, 128]: the contrastive loss is averaged over whole embeddings and "
            "embeddings cut to each of these."
        ),
    )
    max_negatives: Count = Field(1, description="Most negatives used of those given with a row.")
    guide_margin: Annotated[float, Field(ge=-2, le=2)] | Literal["off"] = Field(
        "off",
        description=(
            "Mask an in-batch negative if, before training, its cosine to the query is above the positive's minus this "
            "margin; for dot products, the margin times the norms of query and positive; 'off': mask none this way."
        ),
    )
    distillation: float = Field(
        8.0,
        ge=0,
        description=(
            "Weight of the distillation loss: the mean distance of a text's embedding from that of a reference model, "
            "which is the anchor for new rows and the model training starts from for replayed rows; 0: no distillation."
        ),
    )
    distillation_scale: Annotated[float, Field(gt=0)] | Literal["off"] = Field(
        0.01,
        description=(
            "Scale of the robust distillation loss: a distance x (1 - cosine) costs scale * log(1 + x / scale), so a "
            "text that has to move far costs little more than one that moves a little; 'off': x itself."
        ),
    )
    distillation_loss: Literal["cosine", "kl"] = Field(
        "cosine",
        description=(
            "Distillation loss of replayed rows: cosine compares embeddings, with their norms if the model compares by "
            "dot product; kl compares, for each query, the softmax over the replayed documents of its batch. New rows "
            "use cosine in both cases."
        ),
    )
    anchor: Literal["base", "current"] = Field(
        "base",
        description=(
            "Reference model of distillation for new rows: base, the root base; current, the current version, which "
            "applies to replayed rows too and keeps its index usable for longer (`update --compatible`)."
        ),
    )
    compatibility: float = Field(
        1.0,
        ge=0,
        description=(
            "With anchor = current: weight of a second contrastive loss between the queries and the documents as the "
            "current version embeds them; 0: no second loss."
        ),
    )
    max_length: Positive = Field(128, description="Most tokens per text, capped by the model's own maximum.")
    lora_rank: Positive = Field(16, description="Rank of the LoRA factors.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA alpha: the update is alpha / rank * B A.")
    mix_domains: bool = Field(False, description="Mix domains within a batch, instead of one domain per batch.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of the encoder; auto is bf16 on hardware that supports it."
    )
    micro_batch_tokens: Positive = Field(
        16_384,
        description=(
            "Padded tokens whose activations are in memory at once. A larger batch is encoded twice (gradient "
            "caching), with the same result."
        ),
    )
    checkpoint_seconds: float = Field(60.0, ge=0, description="Seconds between checkpoints.")

    @field_validator("batch_sizes")
    @classmethod
    def _check_order(cls, bands: list[BatchBand]) -> list[BatchBand]:
        tokens = [band.tokens for band in bands]
        if tokens != sorted(set(tokens)):
            raise ValueError("the tokens of each band must be more than those of the band before")
        return bands

    @field_validator("matryoshka")
    @classmethod
    def _check_unique(cls, dimensions: list[int]) -> list[int]:
        if len(set(dimensions)) < len(dimensions):
            raise ValueError("a number of dimensions is given twice")
        return dimensions

    def deciding(self) -> dict[str, Any]:
        """Return the settings that affect the trained weights, as plain JSON data."""
        return deciding_settings(self.model_dump(mode="json"))

    @property
    def asks_old_index(self) -> bool:
        """Whether queries are also trained against documents as the current version embeds them."""
        return self.anchor == "current" and self.compatibility > 0


def deciding_settings(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that affect the trained weights, of a section [train] as a provenance stores it.

    `dot_temperature` is left out at its default, so that what older releases trained is still known by its settings.
    """
    decided = {name: value for name, value in train.items() if name not in RUNTIME_ONLY}
    if decided.get("dot_temperature") == TrainConfig.model_fields["dot_temperature"].default:
        del decided["dot_temperature"]
    return decided


class MergeConfig(ConfigSection):
    """Merge of the update model with the current version."""

    start: Literal["current", "base"] = Field(
        "current", description="Model that training starts from: the current version, or the root base."
    )
    method: str = Field("interpolate", description="Merge rule or merge method; see docs/merging.md.")
    weight: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Weight w of the update, above 0 to 1; interpolate makes current + w (update - current).",
    )
    search_rows: Positive = Field(
        64,
        description="For rules that search: rows of each domain held out of training, at most a tenth of a new domain.",
    )
    floor: float = Field(
        0.02,
        ge=0,
        description="For rules that search: largest allowed rise of a domain's loss, as a share of its loss now.",
    )
    parameters: dict[str, Parameter] = Field({}, description="Parameters of the merge method, such as {density = 0.5}.")
    keep: float = Field(
        0.0,
        ge=0,
        le=100,
        description="Weight of the texts to keep: the update is shrunk where it would change their embeddings; 0: not "
        "at all. See docs/merging.md.",
    )
    keep_texts: Names = Field(
        ["packaged"],
        min_length=1,
        description="Files with texts to keep, relative to the workspace, such as a sample of the index or of the "
        "queries; packaged: some hundred general texts that come with continual.",
    )


class MineConfig(ConfigSection):
    """Mining of hard negatives."""

    negatives: Annotated[int, Whole, Field(ge=1, le=100)] = Field(7, description="Most negatives per row.")
    range_min: Count = Field(0, description="Passages to skip: the nearest ones that pass the other rules.")
    range_max: Annotated[int, Whole, Field(ge=1, le=1000)] = Field(
        100, description="Nearest passages of a query that negatives are taken from."
    )
    relative_margin: Annotated[float, Field(ge=0, le=1)] | Literal["off"] = Field(
        0.05,
        description="A negative's score is at least this share of the positive's below it: 0.05 allows 95 % of it; "
        "'off': no such rule.",
    )
    absolute_margin: Annotated[float, Field(ge=0)] | None = Field(
        None, description="A negative's score is at least this far below the positive's; unset: no such rule."
    )
    max_score: float | None = Field(None, description="Largest score of a negative; unset: any.")
    min_score: float | None = Field(None, description="Smallest score of a negative; unset: any.")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.range_min + self.negatives > self.range_max:
            raise ValueError(
                f"range_max = {self.range_max} has no room for {self.negatives} negatives after range_min = "
                f"{self.range_min}; raise range_max"
            )
        return self


class EvalConfig(ConfigSection):
    """Evaluation of versions."""

    batch_size: Positive = Field(64, description="Texts of 256 tokens encoded at a time; on a CPU fewer.")
    max_length: Positive | None = Field(None, description="Most tokens per text; unset: the model's own maximum.")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32",
        description="Precision of encoding; `continual init` chooses bf16 where the hardware computes in it. Scores in "
        "one precision are not compared with those in the other.",
    )
    step_texts: Positive | Literal["auto", "all"] = Field(
        "auto",
        description="Texts that an update encodes to score tasks; auto: four per trained pair, at least 2,000; all: "
        "no limit.",
    )
    step_every: Positive = Field(
        20, description="An update scores each task in full at least every n-th time, even above eval.step_texts."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of the intervals, between 0.5 and 1.")
    joint: str | None = Field(
        None,
        min_length=1,
        description="Model trained on all domains, to compare with in the report: a version, or a workspace folder.",
    )


class TrackConfig(ConfigSection):
    """Experiment trackers that log the figures of an update."""

    trackers: Names = Field(
        [],
        description="Trackers that accelerate supports, such as tensorboard, wandb or mlflow; see docs/neighbours.md.",
    )
    project: str | None = Field(
        None, min_length=1, description="Project or experiment of the runs; unset: the name of the workspace folder."
    )


class SuiteConfig(ConfigSection):
    """A selection of tasks, and the size of the sample scored of each."""

    tasks: Names = Field(["*"], min_length=1, description="Task names, or patterns such as 'NanoBEIR*'.")
    queries: Positive | None = Field(None, description="Most queries per task; unset: all.")
    documents: Positive | None = Field(
        None, description="Most documents per corpus, in addition to those with judgements; unset: all."
    )


class StepSuiteConfig(SuiteConfig):
    """What an update scores of its tasks."""

    pool: Annotated[int, Field(ge=10, le=100)] | Literal["off"] = Field(
        100,
        description="Documents per query that make the corpus of a large task, beside those with judgements: the first "
        "that the root base finds. A task is large if they are at most half of its documents; 'off': all documents.",
    )


class ProbeConfig(ConfigSection):
    """The size of a probe."""

    queries: Positive = Field(64, description="Queries per task.")
    documents: Annotated[int, Whole, Field(ge=1, le=10)] = Field(
        1, description="Documents per query: the first that the root base finds, beside those with judgements."
    )


class SuitesConfig(ConfigSection):
    """Suites of tasks. A suite is {tasks = [...], queries = N, documents = N}; see docs/evaluation.md."""

    step: StepSuiteConfig = Field(StepSuiteConfig(), description="Scored by `continual update`.")
    probe: ProbeConfig = Field(
        ProbeConfig(),
        description="Sample of each task of the suite step that an update scores where eval.step_texts leaves no room "
        "for the task in full.",
    )
    release: SuiteConfig = Field(SuiteConfig(), description="Scored by `continual eval`.")


class GateConfig(ConfigSection):
    """Limits of an update against its parent, in points (0-100). A change that may be due to chance breaks none."""

    max_forgetting: float = Field(2.0, ge=0, description="Largest allowed drop on the task of a domain learned before.")
    max_ood_loss: float = Field(1.0, ge=0, description="Largest allowed drop of the mean over the OOD tasks.")
    min_gain: float = Field(0.0, description="Smallest allowed mean gain on the tasks of the new domains.")
    false_alarms: float = Field(
        0.05, gt=0, lt=0.5, description="Largest share of harmless updates that the gate may refuse by chance."
    )


class IndexConfig(ConfigSection):
    """What an update does to the index that its parent filled; see docs/compatibility.md."""

    step: bool = Field(
        True, description="Compare the index with the parent's in every update; `continual compare --index` always can."
    )
    keep: Share = Field(
        0.99,
        description="Re-index: no, if new queries on the old index keep this share of full re-embedding's score on "
        "every task.",
    )
    keep_mapped: Share = Field(
        0.95,
        description="Re-indexing can wait if new queries keep this share, through a query map or as they are.",
    )
    rows: Count = Field(
        250, description="Learned rows on which an update fits a linear query map, to see if it helps; 0: no map."
    )
    fit_rows: Positive = Field(5000, description="Learned rows that `continual index fit` fits a map on, at most.")


class StoreConfig(ConfigSection):
    """Snapshots that `continual gc` keeps."""

    keep_every: Count = Field(
        0,
        description="Keep every n-th snapshot; 0: only those of the root base, the current and pinned versions.",
    )


class CatalogConfig(ConfigSection):
    """Access to the catalog file, which one process at a time can open."""

    busy_seconds: float = Field(
        60.0,
        ge=0,
        description="Seconds that a command which changes the workspace waits for another one; a command that only "
        "reads waits a second at most.",
    )


class Config(ConfigSection):
    """All settings of a workspace."""

    trust_remote_code: bool = Field(False, description="Run Python code that comes with the base model.")
    ingest: IngestConfig = IngestConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()
    mine: MineConfig = MineConfig()
    merge: MergeConfig = MergeConfig()
    eval: EvalConfig = EvalConfig()
    suites: SuitesConfig = SuitesConfig()
    gate: GateConfig = GateConfig()
    track: TrackConfig = TrackConfig()
    index: IndexConfig = IndexConfig()
    store: StoreConfig = StoreConfig()
    catalog: CatalogConfig = CatalogConfig()

    def replace(self, section: str, **changes: object) -> Config:
        """Return a copy with other settings in one section, validated like a file.

        Args:
            section: Name of a section, such as "train".
            **changes: Settings by name; None keeps a setting as it is.

        Raises:
            ConfigError: A value is out of its range.
        """
        data = self.model_dump()
        data[section].update({name: value for name, value in changes.items() if value is not None})
        return validate(data, "the call")

    def change(self, sections: Mapping[str, Mapping[str, object]], *, only: str | None = None) -> Config:
        """Return a copy with other settings, validated like a file.

        Args:
            sections: Settings by section and name. A table such as `suites.step` or `merge.parameters` keeps the keys
                that are not given; an empty table clears it. Another `merge.method` drops the parameters of the one
                before.
            only: Name of the one section that takes effect in this call; settings of others are rejected.

        Raises:
            ConfigError: A section or setting does not exist or has no effect, or a value is out of its range.
        """
        if not sections:
            return self
        data = self.model_dump()
        for given, values in sections.items():
            section = RENAMED.get(given, given)
            if not isinstance(data.get(section), dict):
                raise ConfigError(f"There is no section [{section}] in continual.toml.{did_you_mean(section, data)}")
            if only is not None and section != only:
                names = ", ".join(f"{section}.{name}" for name in values)
                raise ConfigError(f"{names} would have no effect: this command reads only the settings of [{only}].")
            if section == "merge" and values.get("method", self.merge.method) != self.merge.method:
                data[section]["parameters"] = {}
            data[section] = _merged(data[section], values)
        return validate(data, "the call")


class Options(BaseModel):
    """The options of one call, stated once and checked once. Subclasses name them; None keeps an option's default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    call: ClassVar[str]
    """The call, for messages: "update"."""

    takes: ClassVar[Mapping[str, str]] = {}
    """What an option takes, for messages: "--seed must be an integer of 0 or more"."""

    @classmethod
    def of(cls, **options: Any) -> Self:
        """Return the options of a call.

        Raises:
            InputError: An option does not exist, or a value has the wrong type or is out of its range; all are named.
        """
        fields, faults = cls.model_fields, dict[str, str]()
        for name, value in options.items():
            if name not in fields:
                near = did_you_mean(name, fields)
                faults[name] = f"{cls.call} has no option {name!r}.{near} Pass other settings through `settings`."
            elif _is_no_number(value, fields[name].annotation):
                faults[name] = f"{cls.takes.get(name, f'{name} takes another type')}, not {reprlib.repr(value)}."
        found: Self | None = None
        try:
            found = cls(**{name: value for name, value in options.items() if value is not None and name not in faults})
        except ValidationError as error:
            for fault in error.errors():
                name, value = str(fault["loc"][0]), fault["input"]
                takes = cls.takes.get(name) or f"{name}: {fault['msg']}"
                faults.setdefault(name, f"{takes}, not {reprlib.repr(value)}.")
        if faults or found is None:
            raise InputError(" ".join(faults.values()))
        return found


def _is_no_number(value: object, annotation: Any) -> bool:
    """Return whether a value is text or a bool where an option takes a number: pydantic would convert it."""
    kinds = {*get_args(annotation)} or {annotation}
    if isinstance(value, bool):
        return annotation is not bool
    return isinstance(value, str) and all(_kind(kind) in (int, float, bool, type(None)) for kind in kinds)


def _kind(annotation: Any) -> Any:
    """Return the type behind `Annotated`."""
    return _kind(annotation.__origin__) if hasattr(annotation, "__metadata__") else annotation


RETIRED = {"eval": {"bootstrap"}}
"""Settings that no longer have an effect. Old files and provenances still contain them."""

RENAMED = {"compat": "index"}
"""Sections by their old name, which old files and provenances still contain."""


def load_config(path: Path) -> Config:
    """Read and validate `continual.toml`.

    Raises:
        ConfigError: The file is not valid TOML, or settings are unknown or out of range; the message names all.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows write a byte order mark
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number with thousands of digits, or nested
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path} is not valid TOML: {reason}. Correct the file in a text editor.") from None
    return validate(data, str(path))


def validate(data: dict[str, object], source: str) -> Config:
    """Return the settings of nested data.

    Args:
        data: Settings by section and name, as TOML or `model_dump` returns them.
        source: Origin of the data, for the message.

    Raises:
        ConfigError: Settings are unknown or out of range; the message names all.
    """
    for old, new in RENAMED.items():
        if old in data:
            if new in data:
                raise ConfigError(
                    f"{source} has both [{old}] and [{new}]. [{old}] is the old name. Move all settings to [{new}]."
                )
            data = {(new if section == old else section): values for section, values in data.items()}
    for section, names in RETIRED.items():
        given = data.get(section)
        if isinstance(given, dict) and names & given.keys():
            data = data | {section: {name: value for name, value in given.items() if name not in names}}
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        faults = dict[str, str]()
        rules = dict[tuple[str, str], list[str]]()  # a union has one rule for each of its types
        for fault in error.errors():
            path = [str(part) for part in fault["loc"]]
            if fault["type"] == "extra_forbidden":
                name = ".".join(path)
                faults[name] = f"{name}: unknown setting.{did_you_mean(path[-1], _setting_names(path[:-1]))}"
            else:
                where = ".".join(part for part in path if part.isidentifier())  # without the branch of a union
                got = reprlib.repr(fault["input"])
                found = rules.setdefault((where, got), [])
                found.append(_plain(fault["msg"]).removeprefix("must be " if found else ""))
                faults[f"{where} {got}"] = f"{where}: {' or '.join(found)} (got {got})"
        raise ConfigError(f"{source} has invalid settings: " + "; ".join(faults.values())) from None


_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "a text",
    "a valid list": "a list",
    "a valid dictionary": "a table",
}


def _plain(message: str) -> str:
    """Return pydantic's message in our words."""
    rule, _, _ = message.partition(", unable to parse")
    rule, _, _ = rule.partition(" or instance of")
    rule = rule.removeprefix("Value error, ").replace("Input should be", "must be")
    for theirs, ours in _WORDS.items():
        rule = rule.replace(theirs, ours)
    return rule


def _merged(settings: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return settings with changes. Tables are merged key by key; an empty table replaces the previous one."""
    merged = dict(settings)
    for name, value in changes.items():
        before = merged.get(name)
        if value and isinstance(before, dict) and isinstance(value, dict):
            merged[name] = _merged(before, value)
        else:
            merged[name] = value
    return merged


def _setting_names(path: list[str]) -> list[str]:
    """Return the names of the settings in a section, or of the sections if the path is empty."""
    section: object = Config
    for name in path:
        field = getattr(section, "model_fields", {}).get(name)
        section = field.annotation if field else None
    return list(getattr(section, "model_fields", {}))
