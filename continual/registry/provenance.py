"""How a version was made: everything that decided its weights, and what making it cost.

A version's provenance is enough to build its weights again from the root base and the adapters of its lineage
(`continual.versions.build`). It is stored as JSON beside the version, with a schema number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import TypeAdapter, ValidationError

from continual import __version__
from continual.errors import SchemaError

SCHEMA = 1
"""Schema of the stored provenance. Records from before there was a number have none, and are read as well."""


@dataclass(frozen=True, slots=True)
class Window:
    """Rows of one domain, named by the range of row hashes that they fill.

    Attributes:
        domain: The domain.
        start: First row hash of the window, inclusive, 32 hex digits.
        stop: Last row hash of the window, inclusive; below `start` when the window wraps around.
        rows: Number of rows.
        digest: sha256 over the row hashes in hash order; a later draw must have the same.
        candidates: Rows from `start` to `stop`, of which `rows` were chosen; 0 if all of them are taken.
        picked: Which of the candidates were chosen: a bit for each in hex digits, the highest bit first; "" for all.
    """

    domain: str
    start: str
    stop: str
    rows: int
    digest: str
    candidates: int = 0
    picked: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the window as plain data; `candidates` and `picked` only where they are set."""
        return {name: value for name, value in asdict(self).items() if name not in ("candidates", "picked") or value}


@dataclass(frozen=True)
class SearchPoint:
    """Merge coefficients, and the held-out loss with them.

    Attributes:
        coefficients: By name: "weight" of a line search; "t1", "t2", ..., and "lambda" of a gradient search.
        loss: Mean of `losses`.
        losses: Mean loss by domain.
    """

    coefficients: dict[str, float]
    loss: float
    losses: dict[str, float]


@dataclass(frozen=True)
class SearchResult:
    """What a search of merge coefficients found.

    Attributes:
        best: The chosen point, one of `candidates`.
        curve: Line search: every point evaluated, by rising weight. Gradient search: a point per step, in order,
            with each domain's loss on the last minibatch that held it.
        reference: The current version, on all held-out rows.
        candidates: The points that could be chosen, all evaluated on all held-out rows.
        floor: How much worse than `reference` a domain may be, as a share of its loss there.
        floor_kept: Whether `best` keeps the floor; if not, no candidate did.
    """

    best: SearchPoint
    curve: list[SearchPoint]
    reference: SearchPoint
    candidates: list[SearchPoint]
    floor: float
    floor_kept: bool


@dataclass(frozen=True)
class TrainResult:
    """The outcome of one LoRA training.

    Attributes:
        pairs: Rows trained, each as often as it was.
        tokens: Tokens encoded with a gradient, padding not counted.
        seconds: Training time, over all resumptions.
        steps: Optimizer steps.
        loss: Mean loss of the last tenth of the steps.
        curve: (step, mean loss since the point before), at most 200 points.
        precision: "fp32" or "bf16".
        device: Such as "cpu" or "cuda:0".
    """

    pairs: int
    tokens: int
    seconds: float
    steps: int
    loss: float
    curve: tuple[tuple[int, float], ...]
    precision: str
    device: str


@dataclass(frozen=True)
class Cost:
    """The cost of trainings and of searches of merge coefficients.

    Attributes:
        pairs: Pairs encoded with a gradient, each as often as it was.
        tokens: Tokens of these, each distinct text of a batch once, padding not counted.
        seconds: Time of trainings and searches, loading their models included; merges, folds and scores are not.
        forward_pairs: Pairs that searches also encoded without a gradient; their time is in `seconds`.
        forward_tokens: Tokens of these.
    """

    pairs: int
    tokens: int
    seconds: float
    forward_pairs: int = 0
    forward_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a version was made.

    The root base has a `base` and nothing else. A version that `continual update` made has no `phase`. A version that
    `continual train` made has one, and if it merges other phases it also has `members`.

    Attributes:
        base: The root base, as it was named at `continual init`; None for all other versions.
        start: The version that training started from, or that the task vectors of `members` are measured from.
        merge: Name of the merge rule; of a merge of `members`, the merge method.
        weight: Weight of the update, 0 to 1; None for a merge of `members`.
        parameters: Parameters of the merge method.
        members: Ids of the versions that a phase merges.
        weights: Their weights, one each.
        state: What the merge rule was given from the step before.
        state_next: What it left for the next step.
        seed: Seed of the LoRA factors, of the order of the batches, and of a search.
        new: Windows of the rows that were learned.
        replay: Windows of the rows that were replayed.
        held: Windows of the rows that were held out of training for a search of coefficients.
        cursors: By domain, the row hash after which the next step's replay window starts.
        guarded: Names of the tasks known when the rows were drawn: no row that leaks into one is trained on. None
            for versions from before this was recorded.
        skipped: New rows that were not trained on, by domain: a row of a classification or clustering domain needs
            negatives of its own.
        instructions: By domain, the instruction put before the queries of every domain that the version has learned.
        config: The resolved settings.
        libraries: Versions of the libraries that computed it, by name.
        recipe: Name of the recipe: for an update, the one that set replay, merge and training.
        options: Options of the recipe.
        phase: Name of the recipe's phase; None for an update.
        key: sha256 of everything that decides a phase's weights.
        keeps: Key by which a phase that keeps its rows is found although there are more rows now.
        clusters: Domains by cluster, for a phase that keeps its rows.
        training: Outcome of the training; None for a merge of `members`.
        fold_error: Largest difference of two embeddings between the folded model and the base with its adapter.
        search: Outcome of a search of coefficients.
        search_cost: Its cost.
        cost: Cost of a phase and of all phases behind it.
    """

    base: str | None = None
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
    fold_error: float | None = None
    search: SearchResult | None = None
    search_cost: Cost | None = None
    cost: Cost | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the provenance as plain data with its schema number, without what has its default."""
        found: dict[str, Any] = {"schema": SCHEMA}
        for each in fields(self):
            value = getattr(self, each.name)
            if value != _DEFAULTS[each.name]:
                found[each.name] = value
        for name in ("new", "replay", "held"):
            if name in found:
                found[name] = [window.to_json() for window in found[name]]
        for name in ("training", "search", "search_cost", "cost"):
            if name in found:
                found[name] = asdict(found[name])
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Provenance:
        """Return the provenance that `to_json`, or a version of `continual` before there was a schema number, wrote.

        Raises:
            SchemaError: A newer `continual` wrote it, or it is not a provenance.
        """
        schema = data.get("schema", 0)
        if not isinstance(schema, int) or schema > SCHEMA:
            raise SchemaError(
                f"The provenance of a version has schema {schema}, and this continual reads up to {SCHEMA}. Install "
                "the newer continual that wrote it."
            )
        try:
            return _adapter().validate_python({name: data[name] for name in _DEFAULTS.keys() & data.keys()})
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(str(part) for part in fault["loc"])
            raise SchemaError(
                f"The provenance of a version is damaged: {place}: {fault['msg']}. Restore the catalog from a backup."
            ) from None


_DEFAULTS: dict[str, Any] = {each.name: getattr(Provenance(), each.name) for each in fields(Provenance)}


@cache
def _adapter() -> TypeAdapter[Provenance]:
    return TypeAdapter(Provenance)


def libraries() -> dict[str, str]:
    """Return the installed versions of the libraries that decide weights and scores, by name."""
    found = {"continual": __version__}
    for name in ("torch", "transformers", "peft", "sentence-transformers", "mteb"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
