"""Settings of a workspace: validated once, frozen, and stored with every version they made.

`continual.toml` holds only what differs from the defaults below; an unknown key is an error, because a
misspelt limit that is silently ignored is worse than a refusal.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from continual.errors import ConfigError, did_you_mean

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Names = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""A list of names; a single name may go without brackets, as in `--set track.trackers=tensorboard`."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class IngestConfig(Section):
    """How new files are checked and split."""

    holdout: Share = Field(0.1, description="Share of a new domain's documents held out as its evaluation task.")
    max_holdout_queries: Positive = Field(1000, description="Queries kept in a held-out task, at most.")
    max_chars: Positive = Field(20_000, description="Characters in one text; a longer one rejects its row.")
    max_reject_share: Share = Field(
        0.1, description="Share of bad rows above which the whole file is refused and nothing changes."
    )
    batch_rows: Positive = Field(10_000, description="Rows read at a time; bounds the memory of an ingest.")


class ReplayConfig(Section):
    """Which historical rows a step trains on again."""

    share: Share = Field(0.3, description="Share of the training rows of every domain in the lineage, 0 to 1.")
    rows: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Rows of the lineage in all, at most, so that a step's cost stops growing; unset: no limit."
    )
    policy: str = Field("uniform", description="Name of a replay policy; see docs/replay.md.")
    temperature: float = Field(2.0, ge=1, description="Of the policy temperature: 1 is uniform, more is more equal.")
    candidates: Positive = Field(
        4, description="Rows that the policies hardest and diverse look at, for each row that they replay."
    )


class BatchBand(Section):
    """How many pairs share a batch, if their longest text is in a band of lengths."""

    tokens: Positive = Field(description="Tokens of a row's longest text, at most.")
    pairs: Annotated[int, Field(ge=2)] = Field(description="Pairs in a batch of such rows.")


IDLE = frozenset({"checkpoint_seconds"})
"""Settings of [train] that do not decide what a training comes to."""


class TrainConfig(Section):
    """The update model: LoRA on all linear layers, trained with InfoNCE."""

    epochs: Positive = Field(1, description="Passes over the drawn rows.")
    batch_size: Annotated[int, Field(ge=2)] = Field(32, description="Pairs that share in-batch negatives.")
    batch_sizes: list[BatchBand] = Field(
        [],
        description=(
            "Batch size by length, such as [{tokens = 500, pairs = 512}, {tokens = 1000, pairs = 64}]: rows whose "
            "longest text, as max_length cuts it, is in one band share batches; those beyond the last have batch_size."
        ),
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, description="Peak learning rate of AdamW.")
    warmup: Share = Field(0.1, description="Share of the optimizer steps with a rising learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm above which gradients are scaled down.")
    temperature: float = Field(0.05, gt=0, description="Divisor of the cosine similarities in the loss.")
    bidirectional: bool = Field(
        False,
        description=(
            "Mean of the loss of finding each query's document and that of finding each document's query; see "
            "docs/losses.md."
        ),
    )
    matryoshka: list[Positive] = Field(
        [],
        description=(
            "Leading dimensions, such as [64, 128], that are to serve as embeddings too: the contrastive loss is its "
            "mean over them and the whole."
        ),
    )
    max_negatives: Annotated[int, Field(ge=0)] = Field(1, description="Given negatives used per row, at most.")
    guide_margin: Annotated[float, Field(ge=-2, le=2)] | Literal["off"] = Field(
        "off",
        description=(
            "An in-batch negative is masked when its cosine to the query before training is above the positive's minus "
            "this margin; 'off': no guide."
        ),
    )
    distillation: float = Field(
        8.0,
        ge=0,
        description=(
            "Weight of keeping embeddings where they were: the loss gains this times the mean over texts of how far "
            "each is from its embedding before training (of new rows under the anchor, of replayed ones under the "
            "model that training starts from), as distillation_scale measures it; 0: none."
        ),
    )
    distillation_scale: Annotated[float, Field(gt=0)] | Literal["off"] = Field(
        0.01,
        description=(
            "Distance, as 1 - cosine, beyond which moving on costs a text ever less: of a distance x it is charged "
            "scale * log(1 + x / scale), so that what need not move stays, and what must may; 'off': x itself."
        ),
    )
    distillation_loss: Literal["cosine", "kl"] = Field(
        "cosine",
        description=(
            "What distillation compares on replayed rows: cosine, their embeddings; kl, how each query shares its "
            "probability among the replayed documents of its batch. New rows are held near the anchor with either."
        ),
    )
    anchor: Literal["base", "current"] = Field(
        "base",
        description=(
            "The model near whose embeddings distillation holds new rows: the root base; or what is in service, and "
            "replayed rows too (`update --compatible`), so that its index stays of use longer."
        ),
    )
    compatibility: float = Field(
        1.0,
        ge=0,
        description=(
            "With anchor = current: weight of a second contrastive loss, of the queries against the documents as the "
            "index has them; 0: none."
        ),
    )
    max_length: Positive = Field(128, description="Tokens per text; capped by the model's own maximum.")
    lora_rank: Positive = Field(16, description="Rank of the LoRA factors.")
    lora_alpha: float = Field(32.0, gt=0, description="LoRA scale numerator: the update is alpha / rank * B A.")
    mix_domains: bool = Field(False, description="Mix domains within a batch instead of one domain per batch.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Arithmetic of the encoder; auto is bf16 where the hardware computes in it."
    )
    micro_batch_tokens: Positive = Field(
        16_384,
        description=(
            "Padded tokens whose activations are kept at once; bounds memory. What a batch has beyond it is encoded "
            "twice (gradient caching), with the same result."
        ),
    )
    checkpoint_seconds: float = Field(60.0, ge=0, description="Seconds between checkpoints of a running step.")

    @field_validator("batch_sizes")
    @classmethod
    def _ascend(cls, bands: list[BatchBand]) -> list[BatchBand]:
        tokens = [band.tokens for band in bands]
        if tokens != sorted(set(tokens)):
            raise ValueError("the tokens of the bands must rise from each to the next")
        return bands

    @field_validator("matryoshka")
    @classmethod
    def _differ(cls, dimensions: list[int]) -> list[int]:
        if len(set(dimensions)) < len(dimensions):
            raise ValueError("each number of dimensions is given once")
        return dimensions

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide what a training comes to, as JSON has them."""
        return self.model_dump(mode="json", exclude=set(IDLE))

    @property
    def asks_old_index(self) -> bool:
        """Whether queries are also trained against documents as the version in service embeds them."""
        return self.anchor == "current" and self.compatibility > 0


class MergeConfig(Section):
    """How an update joins what is in service."""

    start: Literal["current", "base"] = Field("current", description="The model that training starts from.")
    method: str = Field("interpolate", description="The merge rule, or a merge method; see docs/merging.md.")
    weight: float = Field(
        0.8, gt=0, le=1, description="Weight w of the update: interpolate moves current + w (update - current)."
    )
    search_rows: Positive = Field(
        64,
        description="Rows of each domain that the searching rules hold out of training; a tenth of a new one at most.",
    )
    floor: float = Field(
        0.02, ge=0, description="How much worse than now a search may leave the loss of a domain, as a share of it."
    )
    parameters: dict[str, float] = Field({}, description="Parameters of the merge method, such as {density = 0.5}.")


class EvalConfig(Section):
    """How versions are scored."""

    batch_size: Positive = Field(64, description="Texts encoded at a time.")
    max_length: Positive | None = Field(None, description="Tokens per text; unset: the model's own maximum.")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the intervals.")
    joint: str | None = Field(
        None,
        min_length=1,
        description="What was trained on all domains at once, for the report: a version, or a workspace's folder.",
    )


class TrackConfig(Section):
    """Where the figures of an update are logged."""

    trackers: Names = Field(
        [], description="Trackers that accelerate knows: tensorboard, wandb, mlflow ...; see docs/neighbours.md."
    )
    project: str | None = Field(
        None, min_length=1, description="Project, or experiment, that runs belong to; unset: the workspace's folder."
    )


class SuiteConfig(Section):
    """A choice of tasks, and how much of each is scored."""

    tasks: Names = Field(["*"], min_length=1, description="Names of tasks, or patterns such as 'NanoBEIR*'.")
    queries: Positive | None = Field(None, description="Queries of each task, at most; unset: all.")
    documents: Positive | None = Field(
        None, description="Documents in each corpus, at most, beside those that the queries are judged on; unset: all."
    )


class SuitesConfig(Section):
    """Which tasks are scored when; a suite is {tasks = [...], queries = N, documents = N}, see docs/evaluation.md."""

    step: SuiteConfig = Field(SuiteConfig(), description="After each update.")
    release: SuiteConfig = Field(SuiteConfig(), description="By `continual eval`.")


class GateConfig(Section):
    """Limits, in points (0-100) against the parent; what may be the luck of the queries breaks none."""

    max_forgetting: float = Field(
        2.0, ge=0, description="Largest fall allowed on the task of any domain learned before."
    )
    max_ood_loss: float = Field(1.0, ge=0, description="Largest fall allowed of the mean over the OOD tasks.")
    min_gain: float = Field(0.0, description="Smallest mean gain on the tasks of the domains just learned.")
    false_alarms: float = Field(
        0.05, gt=0, lt=0.5, description="Share of updates that changed nothing which may be refused by luck, at most."
    )


class IndexConfig(Section):
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
        description="Re-index: with an adapter, if new queries keep this share, through a query map or as they are.",
    )
    rows: Annotated[int, Field(ge=0)] = Field(
        250, description="Learned rows on which an update fits a linear query map, to see if it helps; 0: no map."
    )
    fit_rows: Positive = Field(5000, description="Learned rows that `continual index fit` fits a map on, at most.")


class StoreConfig(Section):
    """What `continual gc` keeps."""

    keep_every: Annotated[int, Field(ge=0)] = Field(
        0, description="Every n-th version keeps its snapshot; 0: only the root base, current and pinned ones do."
    )


class CatalogConfig(Section):
    """Access to the catalog file."""

    busy_seconds: float = Field(10.0, ge=0, description="Seconds to wait for another process before giving up.")


class Config(Section):
    """All settings of a workspace."""

    trust_remote_code: bool = Field(False, description="Run code that a model brings with it.")
    ingest: IngestConfig = IngestConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()
    merge: MergeConfig = MergeConfig()
    eval: EvalConfig = EvalConfig()
    suites: SuitesConfig = SuitesConfig()
    gate: GateConfig = GateConfig()
    track: TrackConfig = TrackConfig()
    index: IndexConfig = IndexConfig()
    store: StoreConfig = StoreConfig()
    catalog: CatalogConfig = CatalogConfig()

    def replace(self, section: str, **changes: object) -> Config:
        """Return a copy with settings of one section changed, validated like a file.

        Args:
            section: Name of a section, such as "train".
            **changes: Settings of it; None leaves a setting as it is.

        Raises:
            ConfigError: A value is out of its range.
        """
        data = self.model_dump()
        data[section].update({name: value for name, value in changes.items() if value is not None})
        return validate(data, "the call")

    def change(self, sections: Mapping[str, Mapping[str, object]], *, only: str | None = None) -> Config:
        """Return a copy with settings of some sections changed, validated like a file.

        Args:
            sections: By section: settings by name. A table, such as `suites.step` or `merge.parameters`, keeps the
                keys that it is not given; an empty one clears it.
            only: The one section whose settings take effect in this call; others are refused.

        Raises:
            ConfigError: There is no such section or setting, it has no effect, or a value is out of its range.
        """
        if not sections:
            return self
        data = self.model_dump()
        for section, values in sections.items():
            if not isinstance(data.get(section), dict):
                raise ConfigError(f"There is no section {section!r} of settings.{did_you_mean(section, data)}")
            if only is not None and section != only:
                names = ", ".join(f"{section}.{name}" for name in values)
                raise ConfigError(f"{names} has no effect here: this command reads only the settings of [{only}].")
            data[section] = _merged(data[section], values)
        return validate(data, "the call")


RETIRED = {"eval": {"bootstrap"}}
"""Settings that decide nothing any more: old files and recorded configs still have them."""

RENAMED = {"compat": "index"}
"""Sections by their old name: old files and recorded configs still have them."""


def load(path: Path) -> Config:
    """Read and validate `continual.toml`.

    Raises:
        ConfigError: The file is no TOML, or settings are unknown or out of range; all of them are named.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Mend it by hand.") from None
    return validate(data, str(path))


def validate(data: dict[str, object], source: str) -> Config:
    """Build a `Config`, or raise one `ConfigError` that names every fault.

    Args:
        data: Nested settings, as TOML or `model_dump` gives them.
        source: Where they come from, for the message.
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
        faults = []
        for fault in error.errors():
            path = [str(part) for part in fault["loc"]]
            if fault["type"] == "extra_forbidden":
                faults.append(f"{'.'.join(path)}: unknown setting.{did_you_mean(path[-1], _known(path[:-1]))}")
            else:
                where = ".".join(part for part in path if part.isidentifier())  # without the branch of a union
                faults.append(f"{where}: {fault['msg']} (got {fault['input']!r})")
        raise ConfigError(f"{source} has settings that cannot be used: " + "; ".join(faults)) from None


def _merged(settings: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Return settings with some changed. Tables are merged key by key; an empty one replaces what was there."""
    merged = dict(settings)
    for name, value in changes.items():
        known = merged.get(name)
        merged[name] = _merged(known, value) if value and isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _known(path: list[str]) -> list[str]:
    """Return the names that a section takes, or the file."""
    section: object = Config
    for name in path:
        field = getattr(section, "model_fields", {}).get(name)
        section = field.annotation if field else None
    return list(getattr(section, "model_fields", {}))


def render(config: Config) -> str:
    """Return a `continual.toml` with every setting and its meaning; those that have their default as comments."""
    lines = ["# Settings of this continual workspace. Commented lines show the defaults."]
    mark = "" if config.trust_remote_code else "# "
    lines.append(
        f"{mark}trust_remote_code = {_toml(config.trust_remote_code)}  # Run code that a model brings with it."
    )
    for name in Config.model_fields:
        section = getattr(config, name)
        if not isinstance(section, Section):
            continue
        lines += ["", f"[{name}]  # {type(section).__doc__}"]
        defaults = type(section)()
        for key, setting in type(section).model_fields.items():
            value = getattr(section, key)
            mark = "# " if value == getattr(defaults, key) else ""
            if value is None:
                lines.append(f"# {key} = ...  # {setting.description}")
            else:
                lines.append(f"{mark}{key} = {_toml(value)}  # {setting.description}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Section):
        return _toml(value.model_dump(exclude_none=True))
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)
