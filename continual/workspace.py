"""A workspace: one folder with a model's versions, data, tasks and settings. Every CLI command is one call of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual.config import Config, load_config
from continual.models.base import PACKAGED
from continual.progress import SILENT, Progress
from continual.registry import (
    CURRENT,
    Alias,
    Registry,
    Task,
    Version,
)
from continual.registry.erase import FORGETTING
from continual.report.status import Status, read_status
from continual.versions.build import kept
from continual.versions.create import SETTINGS, STORE, create_workspace, find_workspace
from continual.versions.sweep import sweep_killed

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from continual.care.backup import Backup, Removed
    from continual.care.findings import Diagnosis
    from continual.care.restore import Restored
    from continual.conflicts.analysis import Conflicts
    from continual.conflicts.plan import ConflictPlan
    from continual.eval.compare import Comparison
    from continual.eval.regressions import Regressions
    from continual.executors.protocol import Executor
    from continual.export.export import Exported
    from continual.forget.certificate import Certificate
    from continual.index.fill import Checked, Filled
    from continual.index.fit import FittedFolder
    from continual.index.result import IndexComparison
    from continual.pairs.mine import Mined
    from continual.pairs.synthesis.records import Synthesis
    from continual.recipes.cost import RecipePlan
    from continual.recipes.result import RecipeResult
    from continual.report.report import Report
    from continual.step.plan import Plan
    from continual.step.update import StepResult
    from continual.stream import Columns, Dialect, IngestReport, TaskReport
    from continual.versions.collect import Collected
    from continual.versions.diff import Diff
    from continual.versions.manage import VersionList
    from continual.versions.scores import Evaluation


class Workspace:
    """One folder with a model's versions, its stream of domains, its evaluation tasks and its settings.

    Args:
        directory: The folder that holds `continual.toml`; None for `$CONTINUAL_WORKSPACE`, or the nearest
            such folder upwards from the working directory.

    Raises:
        NotFoundError: There is no workspace there.
        ConfigError: Its settings cannot be used.

    Examples:
        >>> workspace = Workspace.init("search", base="packaged")  # doctest: +SKIP
        >>> workspace.ingest("medical.parquet")  # doctest: +SKIP
        >>> workspace.update(replay=0.1).passed  # doctest: +SKIP
        True
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = find_workspace(directory)
        self.config: Config = load_config(self.directory / SETTINGS)
        self.registry = Registry(self.directory / STORE, self.config.catalog.busy_seconds)
        sweep_killed(self.registry)
        self._finish_forgetting()

    def _finish_forgetting(self) -> None:
        """Finish what a killed `forget` began; only then is the module imported."""
        if (self.registry.root / FORGETTING).exists():
            from continual.forget.journal import resume

            resume(self.registry)

    def __repr__(self) -> str:
        return f"Workspace({str(self.directory)!r})"

    @classmethod
    def init(cls, directory: str | Path = ".", base: str = PACKAGED, *, trust_remote_code: bool = False) -> Workspace:
        """Make a workspace whose version v0 is a copy of the base.

        A `continual.toml` that is there already is kept.

        Args:
            directory: The folder; made if it is not there.
            base: "packaged", a sentence-transformers folder, or a Hub id.
            trust_remote_code: Run code that the model brings with it.

        Raises:
            InputError: There is a workspace already, or its settings do not trust the base's code.
            ConfigError: There are settings already, and they are wrong.
            ModelError: The base is no sentence-transformers model.
        """
        return cls(create_workspace(directory, base, trust_remote_code=trust_remote_code))

    def ingest(
        self,
        source: str | Path,
        *,
        domain: str | None = None,
        columns: Columns | None = None,
        holdout: float | None = None,
        task: str | Path | None = None,
        license: str | None = None,
        kind: str | None = None,
        instruction: str | None = None,
        dialect: Dialect | None = None,
        corpus: str | Path | None = None,
        queries: str | Path | None = None,
        progress: Progress = SILENT,
    ) -> IngestReport:
        """Register the rows of a file as a batch of a domain, and hold some out as its evaluation task.

        Args:
            source: A Parquet, JSONL, CSV or TSV file, a folder of them, or `hf:NAME[:CONFIG][:SPLIT]`.
            domain: Its domain; by default the file's name without its ending.
            columns: Names of the columns; by default the common names are recognised. `Columns(score=...,
                positive_at=...)` says what the scores of a file mean.
            holdout: Share of the documents held out, 0 to 1; by default `ingest.holdout`.
            task: A BEIR-like folder to use as the domain's task instead of holding rows out.
            license: Licence of the data, such as "cc-by-4.0"; the model card of an export lists it.
            kind: The type of task that the domain's rows are of: retrieval (what a new domain is by default),
                reranking, sts, pair-classification, classification or clustering. In the last two a row's negatives
                are only those given with it.
            instruction: What a new domain's queries are for, such as "Given a question, retrieve the passage that
                answers it"; put before each of them in training, evaluation and service.
            dialect: How a CSV or TSV file is written: quotes, delimiter, header, encoding; by default as usual.
            corpus: A file with the texts of the passages, if the rows name them by id.
            queries: A file with the texts of the queries, likewise.
            progress: Shows how far it is.

        Raises:
            DataError: The file cannot be read, lacks columns, or has too many bad rows; nothing changed.
        """
        from continual.stream import Columns, Dialect, ingest

        return ingest(
            self.registry,
            self.config.ingest,
            str(source),
            domain=domain,
            columns=columns or Columns(),
            holdout=holdout,
            task=Path(task) if task is not None else None,
            license=license,
            kind=kind,
            instruction=instruction,
            dialect=dialect or Dialect(),
            corpus=Path(corpus) if corpus is not None else None,
            queries=Path(queries) if queries is not None else None,
            max_forgetting=self.config.gate.max_forgetting,
            progress=progress,
        )

    def ingest_files(self, sources: Sequence[str], **options: Any) -> Iterator[IngestReport]:
        """Ingest several files, and yield the report of each as soon as it is done.

        Args:
            sources: Files, checked to exist before the first is ingested.
            **options: Those of `ingest`, for every file. A task is made from the first file with a row to keep.

        Raises:
            InputError: A file is missing, or `task` is given for several domains; nothing was ingested.
        """
        from continual.stream.many import ingest_files

        options["max_forgetting"] = self.config.gate.max_forgetting
        return ingest_files(self.registry, self.config.ingest, sources, **options)

    def add_task(
        self,
        name: str,
        source: str | Path | None = None,
        *,
        domain: str | None = None,
        subsets: Sequence[str] = (),
        skip_missing: bool = False,
        progress: Progress = SILENT,
    ) -> list[TaskReport]:
        """Register an evaluation task: a folder with corpus, queries and qrels, or a task or benchmark of mteb.

        Args:
            name: Its name; or "mteb:NAME" alone, for a task or benchmark that keeps mteb's names.
            source: A folder of Parquet files or BEIR's JSONL and TSV, or the file of its judgements to read; or mteb's
                name with "mteb:" before it, such as "mteb:SciFact" or "mteb:MTEB(eng, v2)".
            domain: The domain that it tests; None makes it an OOD task.
            subsets: Subsets to keep of a single task of mteb, mostly languages; all by default.
            skip_missing: Leave out tasks of a benchmark whose data is neither here nor on the Hub.

        Returns:
            A report per task: several for a benchmark.

        Raises:
            NotFoundError: mteb has no such task, benchmark or subset.
            DataError: The data can't be read or downloaded; nothing was registered.
        """
        from continual.eval.add_task import add_task

        options: dict[str, Any] = {"domain": domain, "subsets": subsets, "skip_missing": skip_missing}
        return add_task(self.registry, name, source, **options, progress=progress)

    def tasks(self) -> list[Task]:
        """Return the evaluation tasks in the order they were registered."""
        return self.registry.tasks()

    def evaluate(
        self,
        name: str = CURRENT,
        *,
        suite: str = "release",
        tasks: Sequence[str] | None = None,
        progress: Progress = SILENT,
    ) -> Evaluation:
        """Score a version on a suite; scores that exist for the same settings are not computed again.

        Args:
            name: An id or alias.
            suite: "step", which every update is scored on, or "release"; see [suites] in `continual.toml`.
            tasks: Names of tasks to score instead of the suite's; they are sampled as the suite says.

        Raises:
            NotFoundError: There is no such version or task.
            NothingToDoError: There is no task.
            WorkspaceBusy: A score is missing, and an update is running.
        """
        from continual.versions.scores import evaluate_version

        return evaluate_version(self.registry, self.config, name, suite, tasks, progress)

    def mine(self, *, progress: Progress = SILENT, **options: Any) -> Iterator[Mined]:
        """Mine hard negatives for the rows of domains, and yield the result of each domain as soon as it is written.

        Updates add what was mined last to the negatives that are given with the rows.

        Args:
            progress: A bar per domain.
            **options: domains, version, corpora, negatives, show, settings; `continual.pairs.request.MineRequest`
                describes them.

        Raises:
            NotFoundError: A domain or version does not exist.
            InputError: An option is wrong, or a domain takes no mined negatives.
            NothingToDoError: There are no rows to mine for.
            WorkspaceBusy: An update is running.

        Examples:
            >>> list(workspace.mine(domains=["medical"], negatives=7))  # doctest: +SKIP
        """
        from continual.pairs.request import MineRequest, mine

        return mine(self.registry, self.config, MineRequest.of(**options), progress)

    def synthesize(self, passages: str | Path, *, progress: Progress = SILENT, **options: Any) -> Synthesis:
        """Write queries for passages that have none, filter them, and write a file of pairs that `ingest` takes.

        Args:
            passages: A file with a column of documents, or a .txt file with one per line.
            progress: A bar per part.
            **options: out, method, per_passage, consistency, version, model, endpoint, language, prompts, at_once,
                max_tokens, max_cost, prices; `continual.pairs.synthesis.request.SynthesizeRequest` describes them.

        Raises:
            DataError: The file can't be read, or holds no passage.
            InputError: An option is wrong, or the endpoint refuses the call.
            ModelError: The endpoint can't be reached.
            NothingToDoError: No query passes the filters.

        Examples:
            >>> workspace.synthesize("passages.parquet", out="pairs.parquet")  # doctest: +SKIP
        """
        from continual.pairs.synthesis.request import SynthesizeRequest, run

        request = SynthesizeRequest.of(passages=str(passages), **options)
        return run(self.registry, self.config, request, progress)

    def plan(self, *, progress: Progress = SILENT, **options: Any) -> Plan:
        """Return what `update` would train and evaluate, with its cost beside a full retraining. Changes nothing.

        Args:
            progress: A bar over what is measured.
            **options: Those of `update`: the fields of `continual.step.request.Request`.
        """
        from continual.step.plan import plan_update
        from continual.step.request import Request

        return plan_update(self.registry, self.config, Request.of(**options), progress)

    def update(
        self, *, resume: bool = False, restart: bool = False, progress: Progress = SILENT, **options: Any
    ) -> StepResult:
        """Learn what is new: draw, train, fold, merge, evaluate, gate.

        Args:
            resume: Continue the step that was interrupted, with the options it was started with.
            restart: Discard the step that was interrupted and begin a new one.
            progress: A bar per part of the step.
            **options: What the step is to do; `continual.step.request.Request` describes them: replay, merge, start,
                recipe, domains, seed, compatible, mine, settings.

        Returns:
            The step; `passed` says whether its version is the current one now.

        Raises:
            NothingToDoError: Nothing is new, or nothing was interrupted.
            InputError: An option is wrong; or a step was interrupted, and neither `resume` nor `restart` is given.

        Examples:
            >>> workspace.update(replay=0.1, settings={"train": {"epochs": 2}})  # doctest: +SKIP
        """
        from continual.step.request import Request
        from continual.step.runs import run_update

        request = Request.of(**options)
        return run_update(self.registry, self.config, request, resume=resume, restart=restart, progress=progress)

    def plan_training(self, recipe: str, *, progress: Progress = SILENT, **options: Any) -> RecipePlan:
        """Return the phases of a recipe with their rows and their cost beside a joint training. Changes nothing.

        Args:
            recipe: Name of the recipe.
            **options: Those of `train`: the fields of `continual.recipes.request.TrainRequest`.
        """
        from continual.recipes.request import TrainRequest, plan_training

        request = TrainRequest.of(recipe=recipe, **options)
        return plan_training(self.registry, self.config, self.directory, request, progress)

    def train(
        self, recipe: str, *, executor: Executor | None = None, progress: Progress = SILENT, **options: Any
    ) -> RecipeResult:
        """Train a model on all domains, from the root base, by a recipe. The current version stays.

        Every phase becomes a version, and a phase that exists is not trained again. So after a kill, the same call
        continues where it stopped.

        Args:
            recipe: Name of the recipe, such as "joint" or "phased".
            executor: Where trainings run that are independent of each other: `processes:N`, `ray`, `ray://HOST:PORT`,
                or a function like `map` that maps a function over jobs. By default they run one after another here.
            **options: options, domains, clusters, settings, seed; `continual.recipes.request.TrainRequest` describes
                them.

        Raises:
            NotFoundError: There is no such recipe or domain.
            InputError: An option or setting is wrong, or the recipe works only with `update`.
            NothingToDoError: There are no rows.
            WorkspaceBusy: An update or another training is running.
        """
        from continual.recipes.request import TrainRequest, train_recipe

        request = TrainRequest.of(recipe=recipe, **options)
        return train_recipe(self.registry, self.config, self.directory, request, executor=executor, progress=progress)

    def report(self, joint: str | Path | None = None, *, full: bool = True) -> Report:
        """Return the R matrix, its metrics with their intervals, and the cost of every step.

        Args:
            joint: The model trained on all domains at once, for intransigence: a version's id or alias, or the
                folder of another workspace with the same root base, whose current version it is. By default
                `eval.joint`.
            full: Also read what only the page and the figures show; with many domains this is most of the catalog.

        Raises:
            NothingToDoError: No version was made yet.
            NotFoundError: There is no such joint version.
        """
        from continual.report.build import build_report
        from continual.report.joint import joint_name

        named = joint_name(self.directory, self.config, joint)
        return build_report(self.registry, named, self.config.eval.confidence, full=full)

    def write_figures(self, directory: str | Path, report: Report | None = None) -> list[Path]:
        """Write every chart of the report as SVG, PNG and CSV, and a summary in Markdown, as for a pull request.

        Args:
            directory: Made if needed; files of the same names are replaced.
            report: The report, if it was built already.

        Returns:
            The files, `report.md` first.

        Raises:
            InputError: The folder can't be written.
        """
        from continual.report.files import write_figures

        return write_figures(report or self.report(), Path(directory).expanduser().resolve())

    def dashboard(self, port: int | None = None, *, open_browser: bool = False, say: Callable[[str], None]) -> None:
        """Serve the report as a page on 127.0.0.1 that follows a running update, until Ctrl-C.

        Args:
            port: 8765 by default; 0 for any free one.
            open_browser: Open it in the browser of this machine.
            say: Called with the address once the page can be opened.

        Raises:
            InputError: The port is taken.
        """
        from continual.report.board import Board
        from continual.report.dashboard import PORT, serve
        from continual.report.joint import joint_name

        joint = joint_name(self.directory, self.config)
        board = Board(self.registry.root, joint=joint, confidence=self.config.eval.confidence)
        serve(board, PORT if port is None else port, open_browser=open_browser, say=say)

    def status(self) -> Status:
        """Return the current version, the rows that are not learned yet, and the interrupted update."""
        return read_status(self.directory, self.registry)

    def versions(self) -> list[Version]:
        """Return all versions, the root base first."""
        return self.registry.versions()

    def list_versions(self, *, full: bool = True) -> VersionList:
        """Return all versions, which one is current, and which have no snapshot.

        Args:
            full: Read the provenance and verdict of every version too; with many domains they take seconds.
        """
        from continual.versions.manage import list_versions

        return list_versions(self.registry, full=full)

    def version(self, name: str = CURRENT) -> Version:
        """Return a version by id or alias."""
        return self.registry.version(name)

    def lineage(self, name: str = CURRENT) -> list[Version]:
        """Return the versions from the root base to this one, both included."""
        return self.registry.lineage(self.registry.version(name))

    def history(self) -> list[Alias]:
        """Return when and why each version became the current one, the oldest event first."""
        return [event for event in self.registry.alias_events() if event.alias == CURRENT]

    def load(self, name: str = CURRENT, progress: Progress = SILENT) -> SentenceTransformer:
        """Return a version as a SentenceTransformer; a dropped snapshot is rebuilt.

        Args:
            name: An id such as "v3", or an alias such as "current".
        """
        from continual.models.encoder import load_encoder

        with kept(self.registry, name, progress=progress) as (folder,):
            return load_encoder(folder, trust_remote_code=self.config.trust_remote_code)

    def promote(self, name: str, reason: str = "promoted by hand", progress: Progress = SILENT) -> Alias:
        """Make a version the current one, even if the gate refused it.

        Raises:
            InputError: It is already the current version.
        """
        from continual.versions.manage import promote

        return promote(self.registry, name, reason, progress)

    def rollback(self, reason: str = "rolled back by hand", progress: Progress = SILENT) -> Alias:
        """Make the previous version the current one again; a second call goes back one more.

        Raises:
            InputError: There was no previous version.
        """
        from continual.versions.manage import rollback

        return rollback(self.registry, reason, progress)

    def pin(self, name: str, pinned: bool = True, progress: Progress = SILENT) -> Version:
        """Keep the snapshot of a version, so that `gc` never drops it; a dropped one is rebuilt.

        Args:
            pinned: False lets `gc` drop it again.
        """
        from continual.versions.manage import pin

        return pin(self.registry, name, pinned, progress)

    def rebuild(self, name: str, progress: Progress = SILENT) -> Version:
        """Rebuild a version from the root base and the adapters of its lineage, and check its sha256.

        Raises:
            RebuildError: The weights differ from the recorded ones.
            InputError: It is the root base.
            WorkspaceBusy: An update is running.
        """
        from continual.versions.manage import rebuild_version

        return rebuild_version(self.registry, name, progress)

    def gc(
        self,
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        dry_run: bool = False,
        progress: Progress = SILENT,
    ) -> Collected:
        """Drop the snapshots that can be rebuilt, and the checkpoints of recipes that were never finished.

        Each snapshot is rebuilt and compared before it is dropped. The root base, the current version and pinned
        versions keep theirs.

        Args:
            settings: Settings of [store] over those of `continual.toml`, such as `{"store": {"keep_every": 10}}`.
            dry_run: Only report what would be dropped.

        Raises:
            WorkspaceBusy: An update is running.
        """
        from continual.versions.manage import collect_garbage

        return collect_garbage(self.registry, self.config, settings, dry_run=dry_run, progress=progress)

    def backup(self, target: str | Path, *, verify: bool = False, progress: Progress = SILENT) -> Backup:
        """Copy the workspace to a folder of backups, while others may work in it; only what it lacks is copied.

        Args:
            target: A folder, which is made, or a URL of fsspec.
            verify: Read every file back, check its digest, and replace what is damaged.

        Raises:
            InputError: The target holds something else, or is inside the workspace.
            DataError: A file is damaged or missing.
        """
        from continual.care.backup import backup

        return backup(self.directory, self.registry, str(target), verify=verify, progress=progress)

    @staticmethod
    def remove_backup(target: str | Path, name: str) -> Removed:
        """Remove a backup, and the files that no other backup in the same folder consists of.

        Args:
            target: The folder or URL that `backup` wrote to.
            name: The backup, such as "20261130T021500123456Z".

        Raises:
            NotFoundError: There is no such backup.
            DataError: Another backup cannot be read, so nobody knows which files it consists of.
            WorkspaceBusy: A backup is being made there.
        """
        from continual.care.backup import remove_backup

        return remove_backup(str(target), name)

    @staticmethod
    def restore(
        source: str | Path, directory: str | Path, *, at: str | None = None, progress: Progress = SILENT
    ) -> Restored:
        """Write the workspace of a backup to a new folder. The setting `trust_remote_code` becomes false.

        Args:
            source: The folder or URL that `backup` wrote to.
            directory: A new or empty folder.
            at: Name of the backup; None: the newest.

        Raises:
            NotFoundError: There is no such backup.
            InputError: The folder is not empty.
            DataError: The backup is damaged.
        """
        from continual.care.restore import restore

        return restore(str(source), directory, at=at, progress=progress)

    def forget(self, *, progress: Progress = SILENT, **options: Any) -> Certificate:
        """Remove rows from everything that the workspace stores, and search every byte for their texts.

        A domain goes away with its tasks. Models that were trained on the rows are listed; `rebuild` replaces the
        current one by one that was made without the rows, and removes them.

        Args:
            **options: The fields of `continual.forget.request.Request`, by keyword.

        Returns:
            The certificate, which is also stored in `.continual/certificates/`.

        Raises:
            NothingToDoError: The workspace does not hold the rows, or no version depends on forgotten rows.
            NotFoundError: There is no such domain.
            InputError: The options contradict each other, or a recipe made a version of the lineage.
            DataError: The file of rows can't be read, or a removed text was found afterwards.
            WorkspaceBusy: Another command is changing the workspace.
        """
        from continual.forget.request import Request
        from continual.forget.run import forget

        return forget(self.registry, self.config, Request.of(**options), progress)

    def doctor(self, *, full: bool = False, fix: bool = False, progress: Progress = SILENT) -> Diagnosis:
        """Check the files against the catalog and the records against each other.

        Args:
            full: Read every file and compare it with its digest; otherwise only those that seem changed.
            fix: Mend what is safe to mend: remove what killed processes left, rebuild damaged snapshots, drop damaged
                scores, and move files that the catalog does not know to `.continual/lost`.

        Raises:
            WorkspaceBusy: `fix` is given, and a command is changing the workspace.
        """
        from continual.care.mend import doctor

        return doctor(self.registry, full=full, fix=fix, progress=progress)

    def export(self, name: str, directory: str | Path, progress: Progress = SILENT, *, dtype: str = "auto") -> Exported:
        """Copy a version to a folder that `SentenceTransformer` loads, with its model card and its scores.

        `README.md` is the model card, in the Hub's form. `mteb/` holds the scores as mteb's result files:
        `mteb.ResultCache(directory / "mteb").load_results()`.

        Args:
            name: An id or alias.
            directory: A new or empty folder.
            dtype: Type of the weights: "fp32", "bf16", "fp16", or "auto" for that of the root base. What rounding to
                half precision changes is measured on a few texts.

        Raises:
            InputError: The folder is not empty, or can't be written; or there is no such type.
            ModelError: A weight is too large for fp16.
        """
        from continual.export.export import export_version

        trust = self.config.trust_remote_code
        return export_version(self.registry, name, directory, dtype, trust_remote_code=trust, progress=progress)

    def export_scores(self, directory: str | Path) -> Path:
        """Write the scores of every version as mteb's result files, beside those of other models.

        Args:
            directory: Made if needed. `mteb.ResultCache(directory).load_results()` reads it.

        Raises:
            InputError: It can't be written.
        """
        from continual.export.export import export_scores

        return export_scores(self.registry, directory)

    def compare(
        self,
        a: str | None = None,
        b: str = CURRENT,
        *,
        tasks: Sequence[str] | None = None,
        progress: Progress = SILENT,
    ) -> Comparison:
        """Compare the scores of two versions task by task, with intervals; missing scores are computed first.

        Args:
            a: An id or alias; by default the parent of B.
            b: An id or alias. Differences are B minus A.
            tasks: Names of tasks; by default those of the suite `step`.

        Raises:
            InputError: A is missing, and B is the root base.
            NotFoundError: There is no such version or task.
            NothingToDoError: There is no task.
            WorkspaceBusy: A score is missing, and an update is running.
        """
        from continual.versions.compare import compare_scores

        return compare_scores(self.registry, self.config, a, b, tasks, progress)

    def compare_queries(
        self,
        a: str | None = None,
        b: str = CURRENT,
        *,
        tasks: Sequence[str] | None = None,
        count: int = 5,
        progress: Progress = SILENT,
    ) -> Regressions:
        """Find the queries, and the clusters of queries, that B answers better or worse than A.

        Tasks are scored first if a version has no scores on them, or has scores from before rankings were kept.

        Args:
            a: An id or alias; by default the parent of B.
            b: An id or alias.
            tasks: Names of tasks; by default those of the suite `step`.
            count: Queries to return of those that fell, and of those that rose.

        Raises:
            InputError: A is missing and B is the root base, or the count is below 1.
            NotFoundError: There is no such version or task.
            NothingToDoError: No task has a score per query.
            WorkspaceBusy: A score is missing, and an update is running.
        """
        from continual.versions.compare import compare_queries

        return compare_queries(self.registry, self.config, a, b, tasks, count, progress)

    def compare_weights(self, a: str | None = None, b: str = CURRENT, *, progress: Progress = SILENT) -> Diff:
        """Compare what two versions changed since the root base, by group of layers, and how embeddings moved.

        Args:
            a: An id or alias; by default the parent of B.
            b: An id or alias.
        """
        from continual.versions.compare import compare_weights

        return compare_weights(self.registry, self.config, a, b, progress)

    def compare_index(self, a: str | None = None, b: str = CURRENT, *, progress: Progress = SILENT) -> IndexComparison:
        """Measure what B's queries find in the index that A filled, on the suite `step`, and keep the result.

        Args:
            a: An id or alias; by default the parent of B.
            b: An id or alias.

        Raises:
            InputError: Both are the same, or A is missing and B is the root base.
            NothingToDoError: No task ranks documents.
        """
        from continual.index.check import compare_index

        return compare_index(self.registry, self.config, a, b, progress)

    def index_comparisons(self) -> list[IndexComparison]:
        """Return every index comparison so far, by updates, `compare_index` and `fit_index`."""
        from continual.index.check import index_comparisons

        return index_comparisons(self.registry)

    def fill_index(
        self, source: str | Path, target: str | Path, version: str = CURRENT, progress: Progress = SILENT
    ) -> Filled:
        """Embed the texts of a file into a folder of Parquet files with a manifest. Only what changed is embedded.

        Args:
            source: A file with a column of documents, and one of ids if it has them; else the hash of a text is its id.
            target: The folder. A killed call goes on where it stopped.
            version: Id or alias of the version that embeds them.

        Raises:
            DataError: The file can't be read, or has an id twice.
            InputError: Another model filled the folder.
        """
        from continual.index.fill import fill

        return fill(self.registry, self.config, str(source), Path(target), version, progress)

    def check_index(self, target: str | Path, version: str = CURRENT, progress: Progress = SILENT) -> Checked:
        """Say whether queries of a version may ask an index, from its manifest and from texts that are embedded again.

        Args:
            target: A folder that `fill_index` made.
            version: Id or alias.

        Raises:
            DataError: There is no index, or it is damaged.
        """
        from continual.index.fill import check

        return check(self.registry, self.config, Path(target), version, progress)

    def fit_index(
        self,
        old: str,
        new: str,
        directory: str | Path,
        *,
        method: str = "auto",
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> FittedFolder:
        """Make a query encoder of a new version for the index that an old one filled, to use until it is rebuilt.

        Args:
            old: The version that filled the index: an id or alias.
            new: The version whose queries should search it.
            directory: A new or empty folder. `SentenceTransformer` loads it.
            method: identity, procrustes, affine, mlp, or auto, which chooses on held-out rows.
            seed: Seed of the hidden layer of `mlp`.

        Raises:
            InputError: The versions are the same, there is no such method, or the folder is not empty.
            NothingToDoError: Too few rows were learned, or no task ranks documents.
        """
        from continual.index.fit import fit_index

        return fit_index(self.registry, self.config, old, new, directory, method=method, seed=seed, progress=progress)

    def conflicts(self, *, executor: Executor | None = None, progress: Progress = SILENT, **options: Any) -> Conflicts:
        """Train each domain alone and with each other one, compare their losses, and cluster the domains.

        Losses of the same model, rows, settings and seed are reused. The clusters go to a small TOML file for
        `continual train --clusters`.

        Args:
            executor: Where the trainings run, as in `train`.
            **options: The fields of `continual.conflicts.request.ConflictRequest`, by keyword.

        Raises:
            NotFoundError: There is no such domain.
            NothingToDoError: There are fewer than two domains.
            InputError: A domain has too few rows, a number is out of range, or the file was edited.
            WorkspaceBusy: An update or another analysis is running.
        """
        from continual.conflicts.request import ConflictRequest, find_conflicts

        request = ConflictRequest.of(**options)
        return find_conflicts(self.registry, self.config, self.directory, request, executor=executor, progress=progress)

    def plan_conflicts(self, *, progress: Progress = SILENT, **options: Any) -> ConflictPlan:
        """Return what `conflicts` would train with these options, and its cost. Changes nothing."""
        from continual.conflicts.request import ConflictRequest, plan_conflicts

        return plan_conflicts(self.registry, self.config, self.directory, ConflictRequest.of(**options), progress)
