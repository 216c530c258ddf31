"""The rows of the catalog as frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from continual.registry.provenance import Provenance
from continual.registry.spec import Spec
from continual.registry.verdict import Verdict

RETRIEVAL = "retrieval"

KINDS = (RETRIEVAL, "reranking", "sts", "pair-classification", "classification", "clustering")
"""The types of task that a domain's rows may be of."""

GIVEN_ONLY = ("classification", "clustering")
"""Those in which other rows hold no negatives: many are of the same class."""


INSTRUCTED = "Instruct: {}\nQuery: "
"""What is put before a query of a domain with an instruction, in place of the model's own prompt."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A named data set; its position is its place in the stream, from 1. Its kind is one of `KINDS`.

    `instruction` says what a query of it is for; None where the model's own prompt is put before its queries.
    """

    name: str
    position: int
    created_at: datetime
    kind: str = RETRIEVAL
    instruction: str | None = None

    @property
    def in_batch(self) -> bool:
        """Whether a row's negatives are also the documents of the rows that share its batch, not only its own."""
        return self.kind not in GIVEN_ONLY


@dataclass(frozen=True, slots=True)
class Batch:
    """One ingested file of a domain, and what became of its rows.

    `rows_in = kept + duplicates + leaked + rejected + held_out`. Paths are relative to `.continual/`.
    `columns` says which columns of the file were read: by the roles query, positive, negatives, doc_id. `license` is
    the data's, such as "cc-by-4.0"; None where nobody stated it.
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
    """An evaluation task; its folder is relative to `.continual/`.

    A local task is a folder with corpus, queries and qrels in Parquet. One of mteb is loaded by mteb: `mteb` says which
    data at which revision, and the folder holds only the hashes that leakage is checked with. `task_type` is mteb's
    name of the type, such as "STS", and `metric` its main score. A task that is not retrieval has `queries` items and
    no documents. `instruction` is that of its domain.
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
    """Rows of a batch that leak into a task that was registered after they were stored.

    `near` of the `rows` are near duplicates of its texts, the others equal one.
    """

    task: str
    batch: str
    rows: int
    near: int
    found_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A model and how it was made. Its status is root, accepted, refused, or trained (no gate judged it).

    A version that `continual train` made has learned all of its `batches`, its parent's among them.

    Its snapshot, at `path`, may have been dropped to save space: `continual.versions` rebuilds it. That of a pinned
    version stays.
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


@dataclass(frozen=True, slots=True)
class Score:
    """A version's main score on a task, in points (0-100), with the path of its per-query values, if it has any.

    `settings` names what it depends on besides model and task, such as the maximum length or a sample: scores of
    other settings cannot be compared.
    """

    version: str
    task: str
    metric: str
    score: float
    queries: int
    path: str | None
    details: dict[str, float] = field(default_factory=dict)
    settings: str = ""


@dataclass(frozen=True, slots=True)
class Alias:
    """One event in the life of an alias: from `at` on, it named `version`."""

    position: int
    alias: str
    version: str
    previous: str | None
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """An update that has begun; state is running, done or discarded."""

    id: str
    state: str
    spec: Spec
    started_at: datetime
    ended_at: datetime | None
