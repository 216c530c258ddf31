"""A workspace's stream as an Avalanche benchmark, and the replay draw as an Avalanche buffer.

Avalanche (https://avalanche.continualai.org) is a library of continual-learning strategies. Here it trains on the same
rows as `continual update`, in the same order, so that the results can be compared. This module needs the extra
`avalanche`; see docs/avalanche.md. Import it before transformers; see `_declare_operators`.
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
from continual.registry import CURRENT, Registry
from continual.registry.provenance import Window
from continual.registry.records import Batch, Task
from continual.replay.draw import RowReader
from continual.replay.policies import allot, get_policy

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_library: torch.library.Library | None = None


def _declare_operators() -> None:
    """Make `import torchvision` work if its compiled part does not fit torch, for example with a CPU build of torch.

    Avalanche imports torchvision, and so does transformers if it is installed. Without its compiled part, the import of
    torchvision fails at the first operator it describes. Declaring the operators is enough, because they are only
    called for images.
    """
    global _library
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for file in Path(spec.origin).parent.glob("_C*"):
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
        warnings.filterwarnings("ignore", message="no QP solver found")  # only some strategies need one
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
        f"The Avalanche bridge needs the package {error.name}, which is not installed. Install "
        "`continual-embeddings[avalanche]`, preferably in a separate environment."
    ) from None

from continual.train.pairs import Documents, PairDataset  # noqa: E402 - imports transformers


class StepExperience(DatasetExperience):  # type: ignore[misc]
    """The rows that one step learns.

    Attributes:
        version: Id of the version that learned them; None if no step has learned them yet.
        batches: The batches that the rows come from.
    """

    def __init__(self, dataset: AvalancheDataset, place: int, version: str | None, batches: list[Batch]) -> None:
        super().__init__(dataset=dataset, current_experience=place)
        self.version = version
        self.batches = batches

    @property
    def domains(self) -> list[str]:
        """Return the domains of the batches, in their order."""
        return list(dict.fromkeys(batch.domain for batch in self.batches))


class TaskExperience(DatasetExperience):  # type: ignore[misc]
    """The evaluation tasks of the domains that one step is the first to learn, or a single OOD task.

    Attributes:
        tasks: Records of the tasks; the data set pairs their queries with all relevant documents.
    """

    def __init__(self, dataset: AvalancheDataset, place: int, tasks: list[Task]) -> None:
        super().__init__(dataset=dataset, current_experience=place)
        self.tasks = tasks


class WorkspaceBenchmark(CLScenario):  # type: ignore[misc]
    """The stream of a workspace, and its evaluation tasks.

    `train_stream` has one experience for each step in the lineage of a version: all rows of the batches that the step
    learned, except rows that an evaluation task holds. Batches that are not learned yet follow, one experience per
    domain. `test_stream` holds the tasks of a domain under the number of the experience that first learns the domain,
    so that Avalanche's forgetting and backward transfer compare the right pairs. Tasks without a domain in the stream
    come last, each under its own number.

    A sample is (tokens of query and positive, of shape [2, features, width]; code of the document; label of the
    domain), see `continual.train.pairs`. All samples are kept in memory, as tokens.

    Args:
        registry: Registry of a workspace: `workspace.registry`.
        model: Its tokenizer and prompts are used for the samples; the model is not changed.
        version: Id or alias of the version.
        waiting: Whether to add the batches that the version has not learned.
        max_length: Largest number of tokens per text.

    Attributes:
        labels: Label of each domain, or of each task without a domain, by name.
        left_out: Reasons why versions, domains or tasks have no experience, by name.

    Raises:
        NotFoundError: There is no such version.
        NothingToDoError: There are no rows to learn.
        DataError: A file of rows or of a task is missing or damaged.
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
                "The workspace has no row to train on, so there is no stream. Add rows with `continual ingest FILE`."
            )
        test = list(self._tasks(train))
        super().__init__([_stream("train", train), _stream("test", test)])

    def dataset(self, table: pa.Table) -> TaskAwareSupervisedClassificationDataset:
        """Return rows as the data set of an experience.

        Args:
            table: Columns query, positive and domain (string), negatives (list of string), doc_id (string or null).
        """
        pairs = PairDataset(table, self._model, self._max_length, self._documents)
        labels = [self.labels.setdefault(domain, len(self.labels)) for domain in table["domain"].to_pylist()]
        attributes = [DataAttribute(pairs.targets, "targets"), TaskLabels(labels)]
        return TaskAwareSupervisedClassificationDataset([pairs], data_attributes=attributes)

    def _steps(self, version: str, waiting: bool) -> Iterator[StepExperience]:
        lineage = self.registry.lineage(self.registry.version(version))
        graded = {domain.name for domain in self.registry.domains() if domain.graded}
        self.left_out |= dict.fromkeys(graded, "its graded pairs are no positives")
        batches = [batch for batch in self.registry.batches() if batch.kept and batch.domain not in graded]
        steps: list[tuple[str | None, list[Batch]]] = [
            (step.id, [batch for batch in batches if batch.id in step.batches]) for step in lineage
        ]
        learned = {batch for step in lineage for batch in step.batches}
        rest: dict[str, list[Batch]] = {}
        for batch in batches:
            if waiting and batch.id not in learned:
                rest.setdefault(batch.domain, []).append(batch)
        steps += [(None, of_domain) for of_domain in rest.values()]
        place = 0
        with RowReader(self.registry) as rows:
            for name, new in steps:
                if not new:
                    continue
                table = rows.draw(new, [], {}, {}).table
                if table.num_rows:
                    yield StepExperience(self.dataset(table), place, name, new)
                    place += 1
                else:
                    self.left_out[name or new[0].domain] = "an evaluation task holds all its rows"

    def _tasks(self, train: Sequence[StepExperience]) -> Iterator[TaskExperience]:
        first: dict[str, int] = {}
        for step in train:
            for domain in step.domains:
                first.setdefault(domain, step.current_experience)
        places: dict[int, list[Task]] = {}
        alone = len(train)
        for task in self.registry.tasks():
            if task.mteb is not None:
                self.left_out[task.name] = "mteb loads the task, and it is not a list of pairs"
            elif task.domain in first:
                places.setdefault(first[task.domain], []).append(task)
            else:
                places[alone] = [task]
                alone += 1
        for place, tasks in sorted(places.items()):
            tables = [_judged(self.registry.task_folder(task), task) for task in tasks]
            yield TaskExperience(self.dataset(pa.concat_tables(tables)), place, tasks)


class ReplayBuffer(ExemplarsBuffer):  # type: ignore[misc]
    """The replay draw of `continual update --replay 1 --set replay.rows=N`, as a buffer for Avalanche's `ReplayPlugin`.

    After an experience the buffer holds what the next step would replay: the policy's quota of every domain seen so
    far, each a window of hash space that starts where the last one stopped. The buffer is therefore drawn from all
    rows seen and not from its earlier content. Its rows are those of an update at the same point of the stream.

    Args:
        benchmark: The benchmark whose experiences are trained on.
        max_size: Largest number of rows; the plugin's `mem_size` must be the same.
        policy: Name of a replay policy that uses neither scores nor the losses or embeddings of rows.
        temperature: Parameter of the policy "temperature".

    Attributes:
        windows: The windows of `buffer`: the manifest that draws the same rows again.

    Raises:
        NotFoundError: There is no such policy.
        InputError: The policy needs scores, losses or embeddings of the current version.
    """

    def __init__(
        self, benchmark: WorkspaceBenchmark, max_size: int, policy: str = "uniform", temperature: float = 2.0
    ) -> None:
        replay_policy = get_policy(policy)
        if replay_policy.choose is not None or replay_policy.scored:
            raise InputError(
                f"The replay policy {policy} uses scores, losses or embeddings of the current version, but a model "
                "trained by Avalanche is not a version of the workspace. Choose uniform, balanced, temperature or "
                "reservoir."
            )
        super().__init__(max_size)
        self.windows: list[Window] = []
        self._benchmark, self._policy, self._temperature = benchmark, replay_policy, temperature
        self._seen: set[str] = set()
        self._cursors: dict[str, str] = {}

    def update(self, strategy: Any, **_: Any) -> None:
        """Draw the buffer for the next experience; `ReplayPlugin` calls this after training on one."""
        self.post_adapt(strategy, strategy.experience)

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Draw the buffer for the experience after `exp`.

        Raises:
            InputError: `exp` is not an experience of a `WorkspaceBenchmark`.
        """
        del agent_state
        if not isinstance(exp, StepExperience):
            raise InputError(
                f"A ReplayBuffer draws from batches of the workspace, and a {type(exp).__name__} has none. Train on "
                "experiences from the train_stream of a WorkspaceBenchmark."
            )
        self._seen |= {batch.id for batch in exp.batches}
        if not self._policy.fixed:
            self._cursors |= {window.domain: window.stop for window in self.windows}
        self._draw()

    def resize(self, strategy: Any, new_size: int) -> None:
        """Draw the buffer with another size."""
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
    # The stream would number the experiences from 0, but a test experience has the number of the step it tests.
    stream = EagerCLStream(name, experiences, set_stream_info=False)
    for experience in experiences:
        experience.origin_stream = stream
    return stream


def _judged(folder: Path, task: Task) -> pa.Table:
    """Return the queries of a stored task with their relevant documents, in the columns of training rows."""
    try:
        corpus, queries, qrels = (pq.read_table(folder / f"{name}.parquet") for name in ("corpus", "queries", "qrels"))
        documents, asked = (
            dict(zip(table[key].to_pylist(), table["text"].to_pylist(), strict=True))
            for table, key in ((corpus, "doc_id"), (queries, "query_id"))
        )
        judgements = zip(*(qrels[name].to_pylist() for name in ("query_id", "doc_id", "score")), strict=True)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"The task {task.name!r} cannot be read from {folder}: {error}. Restore it from a backup."
        ) from None
    rows = [
        {"query": asked[query], "positive": documents[document], "negatives": [], "doc_id": document}
        for query, document, score in judgements
        if score > 0 and query in asked and document in documents
    ]
    columns = [("query", pa.string()), ("positive", pa.string()), ("negatives", pa.list_(pa.string()))]
    table = pa.Table.from_pylist(rows, pa.schema([*columns, ("doc_id", pa.string())]))
    return table.append_column("domain", pa.repeat(task.domain or task.name, table.num_rows))
