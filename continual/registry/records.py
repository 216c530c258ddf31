"""The rows of the catalog as frozen records."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from continual.registry.provenance import Provenance
from continual.registry.spec import Spec
from continual.registry.verdict import Verdict

ROOT = "v0"
"""Id of the version that `continual init` makes from the base."""

CURRENT = "current"
"""Alias of the version that serves."""

MTEB = "mteb:"
"""Prefix of mteb's tasks and benchmarks, on the command line and in a task's origin."""

FORGOTTEN = "forgotten"
"""Status of a version whose model was removed because it was trained on rows that were forgotten."""

RETRIEVAL = "retrieval"

GRADED = "graded"
"""Kind of a domain whose rows are pairs of texts with a score, which are no positives and have a loss of their own."""

KINDS = (RETRIEVAL, "reranking", "sts", "pair-classification", "classification", "clustering", GRADED)
"""Kinds of a domain: the type of task that its rows serve."""

GIVEN_ONLY = ("classification", "clustering")
"""Kinds whose rows use only their own negatives: the documents of other rows are often of the same class."""

PROBE = ", probe"
"""Part of the settings of a score that says that it is a probe's."""

INSTRUCTED = "Instruct: {}\nQuery: "
"""Prompt of a query in a domain with an instruction. It replaces the model's own prompt."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A named data set.

    Attributes:
        position: Position in the stream, from 1.
        kind: One of `KINDS`.
        instruction: What its queries ask for; None if they take the model's own prompt.
    """

    name: str
    position: int
    created_at: datetime
    kind: str = RETRIEVAL
    instruction: str | None = None

    @property
    def graded(self) -> bool:
        """Whether its rows are pairs with a score, which have no negatives and a loss of their own."""
        return self.kind == GRADED

    @property
    def in_batch(self) -> bool:
        """Whether the other documents in a batch are negatives of a row, in addition to the row's own negatives."""
        return self.kind not in GIVEN_ONLY


@dataclass(frozen=True, slots=True)
class Batch:
    """An ingested file of a domain, with the counts of its rows.

    `rows_in = kept + duplicates + leaked + rejected + held_out`, plus the rows whose score is not that of a positive.
    Paths are relative to `.continual/`.

    Attributes:
        source: The file or data set, as it was named at ingest.
        source_sha256: Of its content; "" after `continual forget` if the batch lacks rows of it, so that it can be
            ingested again.
        columns: Names of the columns that were read, by role: query, positive, negatives, doc_id.
        license: Licence of the data, such as "cc-by-4.0"; None if it is unknown.
    """

    id: str
    domain: str
    source: str
    source_sha256: str
    path: str
    rows_in: int
    kept: int
    duplicates: int
    leaked: int
    rejected: int
    held_out: int
    rejects_path: str | None
    columns: dict[str, Any]
    created_at: datetime
    license: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """An evaluation task.

    A local task is a folder with corpus, queries and qrels in Parquet. The data of an mteb task is loaded by mteb, and
    its folder holds only the hashes that leakage is checked with.

    Attributes:
        domain: Domain that the task tests; None if it tests no domain of the workspace.
        path: Folder of the task, relative to `.continual/`.
        queries: Number of queries, or of items of a task that is not retrieval.
        documents: Number of documents; 0 for a task that is not retrieval.
        origin: Folder or mteb name that it was registered from, or "holdout".
        sha256: Hash of its texts and judgements.
        task_type: mteb's name of its type, such as "STS".
        metric: mteb's name of its main score.
        mteb: Name, data sets and revisions of an mteb task; None for a local task.
        instruction: Instruction of its domain.
    """

    name: str
    domain: str | None
    path: str
    queries: int
    documents: int
    judgements: int
    origin: str
    sha256: str
    created_at: datetime
    task_type: str = "Retrieval"
    metric: str = "ndcg_at_10"
    mteb: dict[str, Any] | None = None
    instruction: str | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """Leak of a batch into a task that was registered later.

    Attributes:
        rows: Number of rows that equal a text of the task, or nearly do.
        near: Number of these rows that are only near duplicates.
    """

    task: str
    batch: str
    rows: int
    near: int
    found_at: datetime


@dataclass(frozen=True, slots=True)
class VersionEntry:
    """A version without its provenance and verdict, which grow with the number of domains and tasks.

    Lists and lookups read entries, so their cost is independent of what the steps drew. The fields are those of
    `Version`.
    """

    id: str
    parent: str | None
    status: str
    path: str
    adapter: str | None
    sha256: str
    batches: list[str]
    pairs_trained: int
    tokens_trained: int
    seconds: float
    joint_pairs: int
    created_at: datetime
    pinned: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the entry as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Version:
    """A model, with the record of how it was made.

    Attributes:
        status: "root", "accepted" or "refused" by the gate, "trained" by a recipe, without a gate, or "forgotten": its
            model was trained on rows that `continual forget` removed, and was removed too.
        path: Folder of its snapshot, relative to `.continual/`. The folder may be missing: `continual gc` drops
            snapshots that `continual.versions` can rebuild.
        adapter: Folder of its adapter, relative to `.continual/`.
        sha256: Hash of its weights.
        batches: Ids of the batches that it learned; for a version from `continual train`, including its parent's.
        joint_pairs: Training pairs of one training on all batches of the lineage.
        verdict: The gate's decision; None without a gate.
        pinned: Whether `continual gc` keeps its snapshot.
    """

    id: str
    parent: str | None
    status: str
    path: str
    adapter: str | None
    sha256: str
    batches: list[str]
    pairs_trained: int
    tokens_trained: int
    seconds: float
    joint_pairs: int
    provenance: Provenance
    verdict: Verdict | None
    created_at: datetime
    pinned: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the version as plain data, with its provenance and verdict as they are stored."""
        return {
            **{each.name: getattr(self, each.name) for each in fields(self)},
            "provenance": self.provenance.to_json(),
            "verdict": None if self.verdict is None else self.verdict.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Score:
    """Score of a version on a task.

    Attributes:
        metric: mteb's name of the main score.
        score: Main score, in points (0-100).
        queries: Number of queries or items.
        path: File of the scores per query, relative to `.continual/`; None if the task has none.
        details: The other metrics, in points.
        settings: Settings that the score depends on, such as the maximum length and the sample. Only scores with the
            same settings can be compared.
    """

    version: str
    task: str
    metric: str
    score: float
    queries: int
    path: str | None
    details: dict[str, float] = field(default_factory=dict)
    settings: str = ""

    @property
    def probe(self) -> bool:
        """Whether it is the score of a probe: a small sample that an update looks for falls in."""
        return PROBE in self.settings


@dataclass(frozen=True, slots=True)
class Alias:
    """An event that set an alias to a version, at a time, for a reason. `previous` is the version it named before."""

    position: int
    alias: str
    version: str
    previous: str | None
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """An update that has begun. Its state is "running", "done" or "discarded"."""

    id: str
    state: str
    spec: Spec
    started_at: datetime
    ended_at: datetime | None
