"""Provenance of a version: everything that decided its weights, and the cost of making it.

The provenance is enough to rebuild the weights from the root base and the adapters of the lineage
(`continual.versions.build`). It is stored in the version's catalog row, as JSON with a schema number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import TypeAdapter

from continual import __version__
from continual.registry.schema import read_record

SCHEMA = 1
"""Schema number of the stored JSON. Older records without a number are read too."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of one domain, identified by a range of row hashes.

    Attributes:
        start: First row hash of the window, inclusive, 32 hex digits.
        stop: Last row hash of the window, inclusive; below `start` if the window wraps around.
        rows: Number of rows.
        digest: sha256 of the row hashes in hash order, which a later draw of the same window must reproduce.
        candidates: Number of rows from `start` to `stop`, from which a policy chose `rows`; 0 if it took all of them.
        picked: The chosen candidates: one bit per candidate, highest bit first, in hex digits; "" if all were taken.
    """

    domain: str
    start: str
    stop: str
    rows: int
    digest: str
    candidates: int = 0
    picked: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the window as plain data, without `candidates` and `picked` if they are not set."""
        data: dict[str, Any] = {
            "domain": self.domain, "start": self.start, "stop": self.stop, "rows": self.rows, "digest": self.digest
        }  # fmt: skip
        if self.candidates:
            data["candidates"] = self.candidates
        if self.picked:
            data["picked"] = self.picked
        return data


@dataclass(frozen=True)
class SearchPoint:
    """Merge coefficients with their held-out loss.

    Attributes:
        coefficients: By name: "weight" in a line search; "t1", "t2", ... and "lambda" in a gradient search.
        loss: Mean of `losses`.
        losses: Mean loss by domain.
    """

    coefficients: dict[str, float]
    loss: float
    losses: dict[str, float]


@dataclass(frozen=True)
class SearchResult:
    """Outcome of a search for merge coefficients.

    Attributes:
        best: The chosen point, one of `candidates`.
        curve: Line search: every evaluated point, by rising weight. Gradient search: one point per step, with each
            domain's loss on its last minibatch.
        reference: Loss of the current version on all held-out rows.
        candidates: The points that `best` was chosen from, evaluated on all held-out rows.
        floor: Largest allowed rise of a domain's loss over `reference`, as a share of it.
        floor_kept: Whether `best` stays within the floor; if not, no candidate does.
    """

    best: SearchPoint
    curve: list[SearchPoint]
    reference: SearchPoint
    candidates: list[SearchPoint]
    floor: float
    floor_kept: bool


@dataclass(frozen=True)
class Cuts:
    """What a training does not use of the texts and negatives of its rows. A text counts once for every use in a row.

    Attributes:
        limit: Tokens at which texts are cut: `train.max_length`, or the model's own limit if it is lower.
        own: Whether it is the model's own limit.
        queries: Queries, one per row.
        cut_queries: Those that are longer than the limit.
        passages: Positives, and given negatives that are used.
        cut_passages: Those that are longer than the limit.
        negatives: Negatives given with the rows.
        used_negatives: Those that are used.
        max_negatives: Most that are used per row, `train.max_negatives`.
    """

    limit: int
    own: bool
    queries: int
    cut_queries: int
    passages: int
    cut_passages: int
    negatives: int
    used_negatives: int
    max_negatives: int


@dataclass(frozen=True)
class TrainResult:
    """Outcome of a LoRA training.

    Attributes:
        pairs: Rows trained, counted once per epoch.
        tokens: Tokens encoded with a gradient, without padding.
        seconds: Training time, with that of interrupted runs.
        steps: Number of optimizer steps.
        loss: Mean loss of the last tenth of the steps.
        curve: Points (step, mean loss since the previous point), at most 200.
        precision: "fp32" or "bf16".
        device: Device, such as "cpu" or "cuda:0".
        cuts: What was not used of the rows; None in versions made before this was recorded.
        similarity: Similarity in the loss, "cosine" or "dot"; before dot products were trained, always cosine.
        dimensions: Leading dimensions in the loss, if the model serves only these; None: all.
        threads: CPU threads of the process; None in versions made before this was recorded.
    """

    pairs: int
    tokens: int
    seconds: float
    steps: int
    loss: float
    curve: tuple[tuple[int, float], ...]
    precision: str
    device: str
    cuts: Cuts | None = None
    similarity: str = "cosine"
    dimensions: int | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Kept:
    """How an update was projected for texts to keep.

    Attributes:
        weight: Weight of the texts to keep, `merge.keep`.
        texts: Number of texts to keep.
        sha256: Digest of these texts.
        norm: Norm of the update, divided by its norm after training; None before that.
        seconds: Time to read what the layers get, in seconds.
    """

    weight: float
    texts: int
    sha256: str
    norm: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Cost:
    """Cost of trainings and of searches for merge coefficients.

    Attributes:
        pairs: Pairs encoded with a gradient, counted each time.
        tokens: Tokens of `pairs`, without padding; a text that occurs twice in a batch counts once.
        seconds: Time of trainings and searches, including model loading; without merges, folds and evaluation.
        forward_pairs: Pairs that searches encoded without a gradient; `seconds` includes their time.
        forward_tokens: Tokens of `forward_pairs`.
    """

    pairs: int
    tokens: int
    seconds: float
    forward_pairs: int = 0
    forward_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Record of how a version was made.

    The root base has only a `base`. A version from `continual update` has no `phase`. A version from `continual train`
    has a `phase`; if that merges other phases, the version also has `members`.

    Attributes:
        base: Name of the root base, as given to `continual init`; None for all other versions.
        dtype: Type in which the root base stores its weights: "fp32", "bf16" or "fp16"; None if older releases made the
            workspace, and for all other versions.
        start: Id of the version that training started from, or that the task vectors of `members` are measured from.
        merge: Name of the merge rule; for a merge of `members`, of the merge method.
        weight: Weight of the update, 0 to 1; None for a merge of `members`.
        parameters: Parameters of the merge method.
        members: Ids of the versions that a phase merges.
        weights: Weights of the members.
        state: State of the merge rule before the step.
        state_next: State of the merge rule after the step.
        seed: Seed of the LoRA factors, the batch order and the search.
        new: Windows of the new rows.
        replay: Windows of the replayed rows.
        held: Windows of the rows held out of training for a search of merge coefficients.
        cursors: By domain, the row hash after which the next step's replay window starts.
        guarded: Names of the tasks registered when the rows were drawn; rows that leak into them were left out. None
            for versions made before this was recorded.
        skipped: Number of new rows left out, by domain, because rows of classification and clustering domains need
            negatives of their own.
        mined: Mined negatives that the draw added to the rows: the SHA-256 of their file, by id of the batch.
        mined_from: Domains that these negatives may come from.
        instructions: Instructions for queries, by domain, of all domains in the lineage that have one.
        config: The settings in `continual.toml` and in the call, complete with defaults.
        libraries: Versions of the libraries that decide the weights, by name.
        recipe: Name of the recipe. For an update, it set the replay, merge and training settings.
        options: Options of the recipe.
        phase: Name of the recipe's phase; None for an update.
        key: sha256 of everything that decides a phase's weights.
        keeps: sha256 that identifies a phase whose rows stay the same when the domains get more rows.
        clusters: Domains by cluster; only for a phase with `keeps`.
        training: Outcome of the training; None for a merge of `members`.
        kept: How the update was projected for texts to keep; None if it was not.
        fold_error: Largest difference between embeddings of the folded model and of its base with the adapter.
        search: Outcome of a search for merge coefficients.
        search_cost: Cost of that search.
        cost: Total cost of a phase and of the phases it depends on.
        forgotten: Number of rows that the training drew, and that `continual forget` removed since; an upper bound.
        replaces: Id of the version whose step this one repeats without rows that were forgotten; None otherwise.
    """

    base: str | None = None
    dtype: str | None = None
    start: str | None = None
    merge: str | None = None
    weight: float | None = None
    parameters: dict[str, float] = field(default_factory=dict)
    members: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    state_next: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    new: list[Window] = field(default_factory=list)
    replay: list[Window] = field(default_factory=list)
    held: list[Window] = field(default_factory=list)
    cursors: dict[str, str] = field(default_factory=dict)
    guarded: list[str] | None = None
    skipped: dict[str, int] = field(default_factory=dict)
    mined: dict[str, str] = field(default_factory=dict)
    mined_from: list[str] = field(default_factory=list)
    instructions: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)
    recipe: str = "continual"
    options: dict[str, Any] = field(default_factory=dict)
    phase: str | None = None
    key: str | None = None
    keeps: str | None = None
    clusters: dict[str, list[str]] = field(default_factory=dict)
    training: TrainResult | None = None
    kept: Kept | None = None
    fold_error: float | None = None
    search: SearchResult | None = None
    search_cost: Cost | None = None
    cost: Cost | None = None
    forgotten: int = 0
    replaces: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the provenance as plain data with its schema number."""
        return {
            "schema": SCHEMA,
            **asdict(replace(self, new=[], replay=[], held=[])),  # there can be thousands of windows
            "new": [window.to_json() for window in self.new],
            "replay": [window.to_json() for window in self.replay],
            "held": [window.to_json() for window in self.held],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | str) -> Provenance:
        """Return the provenance that `to_json` wrote, or that 0.1.0 wrote without a schema number.

        Raises:
            SchemaError: A newer `continual` wrote it, or it is damaged.
        """
        return read_record(_adapter(), data, "provenance", SCHEMA, dict)


@cache
def _adapter() -> TypeAdapter[Provenance]:
    return TypeAdapter(Provenance)


def libraries() -> dict[str, str]:
    """Return the installed versions of the libraries that decide weights and scores, by name."""
    installed = {"continual": __version__}
    for name in ("torch", "transformers", "peft", "sentence-transformers", "mteb"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "unknown"
    return installed
