"""A workspace's stream as an Avalanche benchmark, and our replay draw as an Avalanche buffer.

Avalanche (https://avalanche.continualai.org) is a library of continual-learning strategies. What it trains here
are the rows that our own steps train, in the same order, so that its strategies and ours can be compared. Needs the
extra `avalanche`; see docs/avalanche.md. Import this module before transformers: see `_declare_operators`.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from continual.errors import DataError, InputError, NothingToDoError
from continual.registry.provenance import Window
from continual.registry.records import Batch, Task
from continual.registry.registry import CURRENT, Registry
from continual.replay.draw import RowReader
from continual.replay.policies import allot, get_policy

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_library: torch.library.Library | None = None


def _declare_operators() -> None:
    """Let `import torchvision` pass where its compiled half does not fit torch, as with a CPU build of torch alone.

    Avalanche imports torchvision, and transformers does where it is installed. Without its compiled half torchvision
    stops at the first operator that it wants to describe; declared, they are never called: we have no images.
    """
    global _library
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    for file in Path(found.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
        except OSError:
            continue
    if not hasattr(torch.ops.torchvision, "nms"):
        _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            _library.define(schema)  # type: ignore[no-untyped-call]


_declare_operators()

try:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no QP solver found")  # of strategies that need one
        from avalanche.benchmarks import CLScenario, DatasetExperience, EagerCLStream
        from avalanche.benchmarks.utils import (
            AvalancheDataset,
            DataAttribute,
            TaskAwareSupervisedClassificationDataset,
            TaskLabels,
        )
        from avalanche.training.storage_policy import ExemplarsBuffer
except ModuleNotFoundError as error:
    raise InputError(
        f"The Avalanche bridge needs the package {error.name}: install `continual[avalanche]`, best in an environment "
        "of its own."
    ) from None

from continual.train.pairs import Documents, PairDataset  # noqa: E402 - imports transformers


class StepExperience(DatasetExperience):  # type: ignore[misc]
    """What one step learns.

    Attributes:
        version: Id of the version that learned it; None while it waits to be learned.
        batches: The batches whose rows these are.
    """

    def __init__(self, dataset: AvalancheDataset, place: int, version: str | None, batches: list[Batch]) -> None:
        super().__init__(dataset=dataset, current_experience=place)
        self.version = version
        self.batches = batches

    @property
    def domains(self) -> list[str]:
        """The domains of the batches, in their order."""
        return list(dict.fromkeys(batch.domain for batch in self.batches))


class TaskExperience(DatasetExperience):  # type: ignore[misc]
    """The evaluation tasks of the domains that one step is the first to learn, or one task out of domain.

    Attributes:
        tasks: Records of the tasks; the data set holds their queries, each with every document relevant to it.
    """

    def __init__(self, dataset: AvalancheDataset, place: int, tasks: list[Task]) -> None:
        super().__init__(dataset=dataset, current_experience=place)
        self.tasks = tasks


class WorkspaceBenchmark(CLScenario):  # type: ignore[misc]
    """A workspace's stream, and its evaluation tasks.

    `train_stream` has an experience for each step of a version's lineage: all rows of the batches that the step
    learned, without what an evaluation task holds. What waits to be learned follows, an experience a domain.
    `test_stream` has, under the number of the experience that first learns a domain, the domain's tasks; so
    Avalanche's forgetting and backward transfer compare what belongs together. Tasks of no domain in the stream come
    last, each under a number of its own.

    A sample is (tokens [2, features, width] of query and positive, code of the document, label of the domain), see
    `continual.train.pairs`; all of it is kept in memory, as tokens.

    Args:
        registry: Of a workspace: `workspace.registry`.
        model: Its tokenizer and prompts make the samples; left as it is.
        version: An id or alias.
        waiting: Whether to add what the version has not learned.
        max_length: Tokens per text, at most.

    Attributes:
        labels: Label of each domain, or of each task of none, by name.
        left_out: What has no experience, and why.

    Raises:
        NotFoundError: There is no such version.
        NothingToDoError: There is nothing to learn.
        DataError: A file of rows or of a task is gone or damaged.
    """

    def __init__(
        self,
        registry: Registry,
        model: SentenceTransformer,
        *,
        version: str = CURRENT,
        waiting: bool = True,
        max_length: int = 128,
    ) -> None:
        self.registry = registry
        self.labels: dict[str, int] = {}
        self.left_out: dict[str, str] = {}
        self._model, self._max_length = model, max_length
        self._documents: Documents = {}
        train = list(self._steps(version, waiting))
        if not train:
            raise NothingToDoError(
                "There is no row to train on, so there is no stream. Register rows with `continual ingest FILE`."
            )
        test = list(self._tasks(train))
        super().__init__([_stream("train", train), _stream("test", test)])

    def dataset(self, table: pa.Table) -> TaskAwareSupervisedClassificationDataset:
        """Return rows as the data set of an experience.

        Args:
            table: Columns query, positive: string; negatives: list of string; doc_id: string or null; domain: string.
        """
        pairs = PairDataset(table, self._model, self._max_length, self._documents)
        labels = [self.labels.setdefault(domain, len(self.labels)) for domain in table["domain"].to_pylist()]
        attributes = [DataAttribute(pairs.targets, "targets"), TaskLabels(labels)]
        return TaskAwareSupervisedClassificationDataset([pairs], data_attributes=attributes)

    def _steps(self, version: str, waiting: bool) -> Iterator[StepExperience]:
        lineage = self.registry.lineage(self.registry.version(version))
        batches = [batch for batch in self.registry.batches() if batch.kept]
        steps: list[tuple[str | None, list[Batch]]] = [
            (each.id, [batch for batch in batches if batch.id in each.batches]) for each in lineage
        ]
        learned = {batch for each in lineage for batch in each.batches}
        rest: dict[str, list[Batch]] = {}
        for batch in batches:
            if waiting and batch.id not in learned:
                rest.setdefault(batch.domain, []).append(batch)
        steps += [(None, some) for some in rest.values()]
        place = 0
        with RowReader(self.registry) as rows:
            for name, some in steps:
                if not some:
                    continue
                table = rows.draw(some, [], {}, {}).table
                if table.num_rows:
                    yield StepExperience(self.dataset(table), place, name, some)
                    place += 1
                else:
                    self.left_out[name or some[0].domain] = "every row of it is in an evaluation task"

    def _tasks(self, train: Sequence[StepExperience]) -> Iterator[TaskExperience]:
        first: dict[str, int] = {}
        for step in train:
            for domain in step.domains:
                first.setdefault(domain, step.current_experience)
        places: dict[int, list[Task]] = {}
        alone = len(train)
        for task in self.registry.tasks():
            if task.mteb is not None:
                self.left_out[task.name] = "mteb loads it, and it is no list of pairs"
            elif task.domain in first:
                places.setdefault(first[task.domain], []).append(task)
            else:
                places[alone] = [task]
                alone += 1
        for place, tasks in sorted(places.items()):
            tables = [_judged(self.registry.task_folder(task), task) for task in tasks]
            yield TaskExperience(self.dataset(pa.concat_tables(tables)), place, tasks)


class ReplayBuffer(ExemplarsBuffer):  # type: ignore[misc]
    """The replay draw of `continual update --replay 1 --replay-rows N`, as a buffer for Avalanche's `ReplayPlugin`.

    After an experience it holds what the next step would replay: the policy's quota of every domain seen so far, each
    a window of hash space that goes on where the last one stopped. So it is drawn anew from all rows seen, not
    kept from what was there before; the rows are those of a step of ours at the same place of the stream.

    Args:
        benchmark: Whose experiences are trained.
        max_size: Rows, at most; the plugin's `mem_size` must be the same.
        policy: Name of a replay policy; not one that goes by scores, or by what the model in service makes of rows.
        temperature: Of the policy temperature.

    Attributes:
        windows: The windows of `buffer`: the manifest by which it can be drawn again.

    Raises:
        NotFoundError: There is no such policy.
        InputError: It asks for what a strategy does not have.
    """

    def __init__(
        self, benchmark: WorkspaceBenchmark, max_size: int, policy: str = "uniform", temperature: float = 2.0
    ) -> None:
        found = get_policy(policy)
        if found.choose is not None or found.scored:
            raise InputError(
                f"The replay policy {policy} goes by scores or losses of the version in service, and a strategy of "
                "Avalanche trains a model that is no version. Choose uniform, balanced, temperature or reservoir."
            )
        super().__init__(max_size)
        self.windows: list[Window] = []
        self._benchmark, self._policy, self._temperature = benchmark, found, temperature
        self._seen: set[str] = set()
        self._cursors: dict[str, str] = {}

    def update(self, strategy: Any, **_: Any) -> None:
        """Go on after the experience that a strategy has just trained; `ReplayPlugin` calls it."""
        self.post_adapt(strategy, strategy.experience)

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Go on after an experience.

        Raises:
            InputError: It is none of a `WorkspaceBenchmark`.
        """
        del agent_state
        if not isinstance(exp, StepExperience):
            raise InputError(
                f"A ReplayBuffer draws from the workspace, and a {type(exp).__name__} does not say which batches it "
                "has. Train on experiences of a WorkspaceBenchmark's train_stream."
            )
        self._seen |= {batch.id for batch in exp.batches}
        if not self._policy.fixed:
            self._cursors |= {window.domain: window.stop for window in self.windows}
        self._draw()

    def resize(self, strategy: Any, new_size: int) -> None:
        """Draw again, with another size."""
        del strategy
        self.max_size = new_size
        self._draw()

    def _draw(self) -> None:
        registry = self._benchmark.registry
        history = [batch for batch in registry.batches() if batch.id in self._seen]
        with RowReader(registry) as rows:
            available = rows.count(history)
            quotas = allot(self._policy.name, available, 1.0, self.max_size, temperature=self._temperature)
            if not sum(quotas.values()):
                self.windows, self.buffer = [], AvalancheDataset([])
                return
            drawn = rows.draw([], history, quotas, self._cursors)
        self.windows, self.buffer = drawn.replay, self._benchmark.dataset(drawn.table)


def _stream(name: str, experiences: Sequence[DatasetExperience]) -> EagerCLStream:
    # The stream would number the experiences itself, from 0 up; a task has the number of what it tests.
    stream = EagerCLStream(name, experiences, set_stream_info=False)
    for experience in experiences:
        experience.origin_stream = stream
    return stream


def _judged(folder: Path, task: Task) -> pa.Table:
    """Return the queries of a stored task with their relevant documents, as training rows have it."""
    try:
        corpus, queries, qrels = (pq.read_table(folder / f"{name}.parquet") for name in ("corpus", "queries", "qrels"))
        documents, asked = (
            dict(zip(table[key].to_pylist(), table["text"].to_pylist(), strict=True))
            for table, key in ((corpus, "doc_id"), (queries, "query_id"))
        )
        judgements = zip(*(qrels[name].to_pylist() for name in ("query_id", "doc_id", "score")), strict=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The task {task.name!r} cannot be read from {folder}: {error}. Put it back from a backup."
        ) from (None)
    rows = [
        {"query": asked[query], "positive": documents[document], "negatives": [], "doc_id": document}
        for query, document, score in judgements
        if score > 0 and query in asked and document in documents
    ]
    columns = [("query", pa.string()), ("positive", pa.string()), ("negatives", pa.list_(pa.string()))]
    table = pa.Table.from_pylist(rows, pa.schema([*columns, ("doc_id", pa.string())]))
    return table.append_column("domain", pa.repeat(task.domain or task.name, table.num_rows))
