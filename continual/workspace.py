"""A workspace: a directory that holds one model's life. Every CLI command is one call of this class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from continual import config as settings
from continual.config import Config
from continual.errors import InputError
from continual.models.base import PACKAGED
from continual.progress import SILENT, Progress
from continual.registry import (
    Alias,
    Registry,
    Task,
    Version,
)
from continual.registry.names import check_name
from continual.registry.registry import CURRENT, ROOT
from continual.report.status import Status, read_status
from continual.storage.files import empty_folder
from continual.storage.locks import UPDATE_LOCK, exclusive
from continual.versions.build import kept
from continual.versions.create import (
    SETTINGS,
    STORE,
    find,
    found,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from continual.conflicts.analysis import Conflicts
    from continual.conflicts.plan import ConflictPlan
    from continual.eval.compare import Comparison
    from continual.eval.regressions import Regressions
    from continual.index.check import FittedFolder
    from continual.index.result import Compatibility
    from continual.recipes.cost import RecipePlan
    from continual.recipes.jobs import Executor
    from continual.recipes.plan import Layout
    from continual.recipes.run import Trained
    from continual.report.report import Report
    from continual.step.plan import Plan
    from continual.step.update import StepResult
    from continual.stream import Columns, IngestReport, TaskReport
    from continual.versions.build import Collected
    from continual.versions.diff import Diff
    from continual.versions.scores import Evaluation


class Workspace:
    """One model's life: its stream of domains, its versions, and which of them is in service.

    Args:
        directory: The folder that holds `continual.toml`; None looks for the nearest one upwards from the
            working directory, after the environment variable `CONTINUAL_WORKSPACE`.

    Raises:
        NotFoundError: There is no workspace there.
        ConfigError: Its settings cannot be used.

    Example:
        >>> workspace = Workspace.init("search", base="packaged")  # doctest: +SKIP
        >>> workspace.ingest("medical.parquet")  # doctest: +SKIP
        >>> workspace.update(replay=0.1).passed  # doctest: +SKIP
        True
    """

    def __init__(self, directory: str | Path | None = None) -> None:
        self.directory = find(directory)
        self.config: Config = settings.load(self.directory / SETTINGS)
        self.registry = Registry(self.directory / STORE, self.config.catalog.busy_seconds)

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
        return cls(found(directory, base, trust_remote_code=trust_remote_code))

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
        progress: Progress = SILENT,
    ) -> IngestReport:
        """Register the rows of a file as a batch of a domain, and hold some out as its evaluation task.

        Args:
            source: A Parquet, JSONL or CSV file, or `hf:NAME[:CONFIG][:SPLIT]`.
            domain: Its domain; by default the file's name without its ending.
            columns: Names of the columns; by default the common names are recognised.
            holdout: Share of the documents held out, 0 to 1; by default `ingest.holdout`.
            task: A BEIR-like folder to use as the domain's task instead of holding rows out.
            license: Licence of the data, such as "cc-by-4.0"; the model card of an export lists it.
            kind: The type of task that the domain's rows are of: retrieval (what a new domain is by default),
                reranking, sts, pair-classification, classification or clustering. In the last two a row's negatives
                are only those given with it.
            instruction: What a new domain's queries are for, such as "Given a question, retrieve the passage that
                answers it"; put before each of them in training, evaluation and service.
            progress: Shows how far it is.

        Raises:
            DataError: The file cannot be read, lacks columns, or has too many bad rows; nothing changed.
        """
        from continual.stream import Columns, ingest

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
            progress=progress,
        )

    def add_task(self, name: str, directory: str | Path, *, domain: str | None = None) -> TaskReport:
        """Register an evaluation task from a folder with corpus, queries and qrels (BEIR's layout).

        Args:
            name: Its name.
            directory: Parquet files, or BEIR's JSONL and TSV.
            domain: The domain that it tests; None makes it an OOD task.
        """
        from continual.stream import import_task

        return import_task(self.registry, check_name(name, "task"), Path(directory), domain)

    def add_mteb(
        self,
        source: str,
        *,
        name: str | None = None,
        domain: str | None = None,
        subsets: Sequence[str] = (),
        skip_missing: bool = False,
        progress: Progress = SILENT,
    ) -> list[TaskReport]:
        """Register a task of mteb, or all tasks of one of its benchmarks.

        Args:
            source: Its name in mteb with "mteb:" before it, such as "mteb:SciFact" or "mteb:MTEB(eng, v2)".
            name: The task's name here; by default mteb's. A benchmark's tasks keep theirs.
            domain: The domain that it tests; None makes it an OOD task.
            subsets: Of a single task, the subsets (languages, mostly) to keep; none keeps all.
            skip_missing: Leave out tasks of a benchmark whose data can be had neither here nor from the Hub.
            progress: Shows how far it is.

        Raises:
            NotFoundError: mteb has no such task, benchmark or subset.
            DataError: The data cannot be had; the message says what to do, and nothing was registered.
        """
        from continual.eval.mteb_register import register

        options: dict[str, Any] = {"name": name, "domain": domain, "subsets": subsets, "skip_missing": skip_missing}
        return register(self.registry, source, **options, progress=progress)

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
        """Score a version on a suite; a score that is there for the same settings is not computed again.

        Args:
            name: An id or alias.
            suite: "step", what every update is scored on, or "release"; see `suites` in continual.toml.
            tasks: Names of tasks to score instead of the suite's; they are sampled as the suite says.
            progress: Shows how far it is.

        Raises:
            NotFoundError: There is no such version or task.
            NothingToDoError: There is no task.
            WorkspaceBusy: A score is missing, and an update is running.
        """
        from continual.versions.scores import evaluate_version

        return evaluate_version(self.registry, self.config, name, suite, tasks, progress)

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
            resume: Continue the step that was interrupted, with the options it was begun with.
            restart: Discard the step that was interrupted and begin a new one.
            progress: A bar per part of the step.
            **options: What the step is to do; `continual.step.request.Request` describes them: replay, merge, start,
                recipe, domains, seed, compatible, settings.

        Returns:
            The step; `passed` says whether its version is the current one now.

        Raises:
            NothingToDoError: Nothing is new, or nothing was interrupted.
            InputError: An option is wrong; or a step was interrupted, and neither `resume` nor `restart` is given.

        Example:
            >>> workspace.update(replay=0.1, settings={"train": {"epochs": 2}})  # doctest: +SKIP
        """
        from continual.step.request import Request
        from continual.step.runs import run_update

        request = Request.of(**options)
        return run_update(self.registry, self.config, request, resume=resume, restart=restart, progress=progress)

    def plan_training(
        self,
        recipe: str,
        *,
        options: Mapping[str, str] | None = None,
        parameters: Mapping[str, float] | None = None,
        domains: Sequence[str] | None = None,
        clusters: str | Path | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        seed: int | None = None,
        progress: Progress = SILENT,
    ) -> RecipePlan:
        """Return the phases of a recipe, with their rows and their cost beside a joint training. Changes nothing.

        Arguments are those of `train`.
        """
        from continual.recipes.cost import cost_of

        layout = self._lay_out(recipe, options, parameters, domains, clusters, settings, seed, progress)
        return cost_of(self.registry, self.config, layout, progress)

    def train(
        self,
        recipe: str,
        *,
        options: Mapping[str, str] | None = None,
        parameters: Mapping[str, float] | None = None,
        domains: Sequence[str] | None = None,
        clusters: str | Path | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        seed: int | None = None,
        executor: Executor | None = None,
        progress: Progress = SILENT,
    ) -> Trained:
        """Train a model on all domains, from the root base, as a recipe says. Puts nothing into service.

        Every phase is a version. One that was made already is not made again: a killed call goes on where it was when
        it is called once more.

        Args:
            recipe: Its name, such as "joint" or "phased".
            options: Of the recipe, as text by name, such as `{"ratios": "0.5,1"}`.
            parameters: Of the method of its merges, such as `{"density": 0.5}`.
            domains: Those to train on; by default all.
            clusters: A file of clusters of domains; by default what `analyze conflicts` wrote, and without that each
                domain is a cluster.
            settings: By section, over those of the recipe: `{"train": {"learning_rate": 3e-4}}`.
            seed: From 0 up; 0 by default.
            executor: Maps a function over trainings that do not depend on each other, as `map` does: a pool's or a
                cluster's. By default they run one after another here.
            progress: Shows how far it is.

        Raises:
            NotFoundError: There is no such recipe or domain.
            InputError: An option, parameter or setting is wrong, or the recipe is one of `update` alone.
            NothingToDoError: There are no rows.
        """
        from continual.recipes.run import run_recipe

        with exclusive(self.registry.root / UPDATE_LOCK, "train"):
            layout = self._lay_out(recipe, options, parameters, domains, clusters, settings, seed, progress)
            return run_recipe(self.registry, self.config, layout, executor=executor, progress=progress)

    def _lay_out(
        self,
        recipe: str,
        options: Mapping[str, str] | None,
        parameters: Mapping[str, float] | None,
        domains: Sequence[str] | None,
        clusters: str | Path | None,
        settings: Mapping[str, Mapping[str, Any]] | None,
        seed: int | None,
        progress: Progress,
    ) -> Layout:
        from continual.conflicts.clusters import FILE, read_clusters
        from continual.recipes import find_recipe
        from continual.recipes.plan import lay_out

        found, known = find_recipe(recipe), self.directory / FILE
        file = Path(clusters).expanduser() if clusters is not None else known if known.is_file() else None
        if not found.by_clusters(options or {}):
            if clusters is not None:
                takes = "by" in found.options and "cluster" in found.options["by"].choices
                hint = "goes by clusters only with -o by=cluster" if takes else "does not go by clusters"
                raise InputError(f"{recipe} {hint}, so that --clusters would do nothing. Leave it out.")
            file = None  # one that is out of date does not matter
        names = [domain.name for domain in self.registry.domains()]
        return lay_out(
            self.registry,
            self.config,
            found,
            options=options or {},
            parameters=parameters,
            domains=domains,
            clusters=None if file is None else read_clusters(file, names),
            settings=settings or {},
            seed=seed or 0,
            progress=progress,
        )

    def report(self, joint: str | Path | None = None) -> Report:
        """Return the R matrix, its metrics with their intervals, and the cost of every step.

        Args:
            joint: What was trained on all domains at once, for the intransigence: a version's id or alias, or the
                folder of another workspace with the same root base, whose version in service it is. By default
                `eval.joint`.

        Raises:
            NothingToDoError: No version was made yet.
            NotFoundError: There is no such joint version.
        """
        from continual.report.build import build_report

        return build_report(self.registry, self._joint(joint), self.config.eval.confidence)

    def write_figures(self, directory: str | Path, report: Report | None = None) -> list[Path]:
        """Write every chart of the report as SVG, PNG and CSV, and a summary in Markdown, as for a pull request.

        Args:
            directory: Made if it is not there; files of the same names are replaced.
            report: The report, if it was read already.

        Returns:
            The files, `report.md` first.

        Raises:
            InputError: It cannot be written.
        """
        from continual.report.files import write_figures

        return write_figures(report or self.report(), Path(directory).expanduser().resolve())

    def dashboard(self, port: int | None = None, *, open_browser: bool = False, say: Callable[[str], None]) -> None:
        """Serve the report as a page on 127.0.0.1 that follows a running update, until it is interrupted.

        Args:
            port: 8765 by default; 0 takes any that is free.
            open_browser: Open it in the browser of this machine.
            say: Is told the address once it can be asked.

        Raises:
            InputError: The port is taken.
        """
        from continual.report.board import Board
        from continual.report.dashboard import PORT, serve

        board = Board(self.registry.root, joint=self._joint(None), confidence=self.config.eval.confidence)
        serve(board, PORT if port is None else port, open_browser=open_browser, say=say)

    def status(self) -> Status:
        """Return what is in service, what waits to be learned, and what was interrupted."""
        return read_status(self.directory, self.registry)

    def versions(self) -> list[Version]:
        """Return all versions, the root base first."""
        return self.registry.versions()

    def version(self, name: str = CURRENT) -> Version:
        """Return a version by id or alias."""
        return self.registry.version(name)

    def lineage(self, name: str = CURRENT) -> list[Version]:
        """Return the versions from the root base to this one, both included."""
        return self.registry.lineage(self.registry.version(name))

    def history(self) -> list[Alias]:
        """Return what was in service and why, the oldest first: every promotion and rollback appended an event."""
        return [event for event in self.registry.alias_events() if event.alias == CURRENT]

    def load(self, name: str = CURRENT, progress: Progress = SILENT) -> SentenceTransformer:
        """Return a version as a SentenceTransformer; one whose snapshot was dropped is built again.

        Args:
            name: An id such as "v3", or an alias such as "current".
            progress: Shows how far it is.
        """
        from continual.models.encoder import load_encoder

        with kept(self.registry, name, progress=progress) as (folder,):
            return load_encoder(folder, trust_remote_code=self.config.trust_remote_code)

    def promote(self, name: str, reason: str = "promoted by hand", progress: Progress = SILENT) -> Alias:
        """Put a version into service, whatever the gate said of it.

        Raises:
            InputError: It is in service already.
        """
        version = self.registry.version(name)
        if version.id == self.registry.version(CURRENT).id:
            raise InputError(f"{version.id} is in service already.")
        with kept(self.registry, version.id, progress=progress):
            return self.registry.set_alias(CURRENT, version.id, reason)

    def rollback(self, reason: str = "rolled back by hand", progress: Progress = SILENT) -> Alias:
        """Put back into service what was there before; once more goes one further back.

        Raises:
            InputError: Nothing was in service before.
        """
        before = self.registry.before(CURRENT)
        if before is None:
            raise InputError(
                f"Nothing was in service before {self.registry.version(CURRENT).id}. `continual promote VERSION` puts "
                "another version into service."
            )
        with kept(self.registry, before, progress=progress):
            return self.registry.set_alias(CURRENT, before, reason)

    def export(self, name: str, directory: str | Path, progress: Progress = SILENT) -> Path:
        """Copy a version to a folder that `SentenceTransformer` loads, with its model card and its scores.

        `README.md` says what it is, from which data, and what it scores, in the Hub's form; `mteb/` holds the scores
        as mteb keeps results: `mteb.ResultCache(directory / "mteb").load_results()`.

        Args:
            name: An id or alias.
            directory: A folder that does not exist yet, or is empty.
            progress: Shows how far it is.

        Raises:
            InputError: The folder holds something.
        """
        from continual.export.export import export

        target, version = empty_folder(directory), self.registry.version(name)
        try:
            with kept(self.registry, version.id, progress=progress) as (folder,):
                export(self.registry, version, folder, target)
        except OSError as error:
            raise InputError(f"{name} cannot be exported to {target}: {error.strerror or error}.") from None
        return target

    def export_scores(self, directory: str | Path) -> Path:
        """Write the scores of every version as mteb keeps results; files of other models there are left alone.

        Args:
            directory: `mteb.ResultCache(directory).load_results()` reads it; made if it is not there.

        Raises:
            InputError: It cannot be written.
        """
        from continual.export.mteb_results import write_results

        target = Path(directory).expanduser().resolve()
        try:
            write_results(self.registry, self.registry.versions(), target)
        except OSError as error:
            raise InputError(f"The scores cannot be written to {target}: {error.strerror or error}.") from None
        return target

    def pin(self, name: str, pinned: bool = True, progress: Progress = SILENT) -> Version:
        """Keep the snapshot of a version whatever `gc` drops, or no longer; one that was dropped is built again."""
        version = self.registry.version(name)
        if pinned:
            with kept(self.registry, version.id, progress=progress):
                self.registry.pin(version.id, True)
        else:
            self.registry.pin(version.id, False)
        return self.registry.version(version.id)

    def rebuild(self, name: str, progress: Progress = SILENT) -> Version:
        """Build a version again from the root base and the adapters of its lineage, and check its sha256.

        Raises:
            RebuildError: The weights are not those recorded.
            InputError: It is the root base.
            WorkspaceBusy: An update is running.
        """
        from continual.versions.build import rebuild

        version = self.registry.version(name)
        with exclusive(self.registry.root / UPDATE_LOCK, "versions rebuild"):
            rebuild(self.registry, version, progress)
        return version

    def gc(self, *, keep_every: int | None = None, dry_run: bool = False, progress: Progress = SILENT) -> Collected:
        """Drop the snapshots that can be built again, each proved before, and checkpoints of recipes that did not end.

        Args:
            keep_every: Every n-th version keeps its snapshot; by default `store.keep_every`.
            dry_run: Only say what would be dropped.
            progress: Shows how far it is.

        Raises:
            WorkspaceBusy: An update is running.
        """
        from continual.versions.build import collect

        keep = self.config.store.keep_every if keep_every is None else keep_every
        if keep < 0:
            raise InputError(f"--keep-every takes a number from 0 up, not {keep}.")
        with exclusive(self.registry.root / UPDATE_LOCK, "gc"):
            return collect(self.registry, keep, dry_run=dry_run, progress=progress)

    def diff(self, first: str, second: str, progress: Progress = SILENT) -> Diff:
        """Compare what two versions changed since the root base, by group of layers, and how embeddings moved."""
        from continual.versions.diff import diff

        versions = [self.registry.version(name) for name in (first, second)]
        with kept(self.registry, ROOT, first, second, progress=progress):
            return diff(self.registry, *versions, progress=progress, trust_remote_code=self.config.trust_remote_code)

    def compare(self, first: str, second: str = CURRENT, progress: Progress = SILENT) -> Comparison:
        """Compare two versions on the suite `step`, with intervals; a task that one was not scored on is scored now.

        Args:
            first: An id or alias.
            second: Another; differences are its scores minus the first's.
            progress: Shows how far it is.

        Raises:
            NothingToDoError: There is no task.
            WorkspaceBusy: A score is missing, and an update is running.
        """
        from continual.eval.compare import compare
        from continual.eval.suites import suite_settings, suite_tasks
        from continual.versions.scores import score_missing, unscored

        one, other = self.registry.version(first), self.registry.version(second)
        tasks = suite_tasks(self.registry.tasks(), self.config, "step")
        if any(unscored(self.registry, version, tasks, self.config) for version in (one, other)):
            with exclusive(self.registry.root / UPDATE_LOCK, "compare"):  # an update scores versions too
                for version in (one, other):
                    score_missing(self.registry, version, tasks, self.config, progress)
        settings = suite_settings(tasks, self.config, "step")
        return compare(self.registry, one, other, tasks, self.config.eval, settings)

    def regressions(
        self,
        first: str | None = None,
        second: str = CURRENT,
        *,
        tasks: Sequence[str] | None = None,
        count: int = 5,
        progress: Progress = SILENT,
    ) -> Regressions:
        """Return which queries got worse and better between two versions, and which clusters of queries.

        What a version was not scored on yet, or was scored on before rankings were kept, is scored first.

        Args:
            first: An id or alias; by default the parent of the second.
            second: Another.
            tasks: Names of tasks; by default those of the suite `step`.
            count: Queries to show of those that fell, and of those that rose.
            progress: Shows how far it is.

        Raises:
            InputError: The second is the root base and no first is given, or the count is below one.
            NotFoundError: There is no such version or task.
            NothingToDoError: There is no task with a score per query.
            WorkspaceBusy: Something has to be scored, and an update is running.
        """
        from continual.eval.regressions import find_regressions
        from continual.eval.suites import suite_settings
        from continual.versions.scores import (
            choose,
            query_embedder,
            rank_missing,
            score_missing,
            unranked,
            unscored,
        )

        other = self.registry.version(second)
        if first is None and other.parent is None:
            raise InputError(f"{other.id} is the root base and has no parent to compare with. Name two versions.")
        if count < 1:
            raise InputError(f"-n takes a number from 1 up, not {count}.")
        one = self.registry.version(first if first is not None else str(other.parent))
        chosen, again = choose(self.registry, self.config, tasks), {}
        lacking = [
            need(self.registry, each, chosen, self.config) for need in (unscored, unranked) for each in (one, other)
        ]
        if any(lacking):
            with exclusive(self.registry.root / UPDATE_LOCK, "regressions"):  # an update scores versions too
                for version in {each.id: each for each in (one, other)}.values():
                    score_missing(self.registry, version, chosen, self.config, progress)
                    again[version.id] = rank_missing(self.registry, version, chosen, self.config, progress)
        scores = self.registry.scores(suite_settings(chosen, self.config, "step"))
        return find_regressions(
            self.registry,
            one,
            other,
            chosen,
            scores,
            query_embedder(self.registry, self.config, progress),
            count=count,
            confidence=self.config.eval.confidence,
            scored_again=again,
        )

    def check_compatibility(self, old: str, new: str = CURRENT, progress: Progress = SILENT) -> Compatibility:
        """Measure what a version does to the index that another one filled, on the suite `step`, and keep the result.

        Args:
            old: The version that filled the index: an id or alias.
            new: The one that would ask it.
            progress: Shows how far it is.

        Raises:
            InputError: They are the same.
            NothingToDoError: No task ranks documents.
        """
        from continual.index.check import check

        versions = self.registry.version(old), self.registry.version(new)
        return check(self.registry, self.config, *versions, progress)

    def fit_map(
        self,
        old: str,
        new: str,
        directory: str | Path,
        *,
        method: str = "auto",
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> FittedFolder:
        """Make an encoder of a version's queries for the index that another one filled, until that is made anew.

        Args:
            old: The version that filled the index: an id or alias.
            new: The one whose queries it is to answer.
            directory: A folder that does not exist yet, or is empty; `SentenceTransformer` loads it.
            method: identity, procrustes, affine, mlp, or auto, which chooses on held-out rows.
            seed: Of what is random in fitting.
            progress: Shows how far it is.

        Raises:
            InputError: The versions are the same, there is no such method, or the folder holds something.
            NothingToDoError: Too few rows were learned, or no task ranks documents.
        """
        from continual.index.check import fit

        versions = self.registry.version(old), self.registry.version(new)
        try:
            return fit(self.registry, self.config, *versions, directory, method=method, seed=seed, progress=progress)
        except OSError as error:
            raise InputError(f"The map cannot be written to {directory}: {error.strerror or error}.") from None

    def compatibility(self) -> list[Compatibility]:
        """Return what was measured of every pair of versions, by the steps and by `check_compatibility`."""
        from continual.index.result import Compatibility

        return [Compatibility.from_json(found) for found in self.registry.compatibility().values()]

    def plan_conflicts(
        self,
        *,
        domains: Sequence[str] | None = None,
        rows: int = 256,
        epochs: int | None = None,
        start: str = "base",
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> ConflictPlan:
        """Return what `conflicts` would train, and its cost. Changes nothing.

        Arguments are those of `conflicts`.
        """
        from continual.conflicts.plan import make_plan, prepare

        options: dict[str, Any] = {"domains": domains, "rows": rows, "epochs": epochs, "start": start, "seed": seed}
        return make_plan(self.registry, prepare(self.registry, self.config, **options), progress)

    def conflicts(
        self,
        *,
        domains: Sequence[str] | None = None,
        rows: int = 256,
        epochs: int | None = None,
        start: str = "base",
        clusters: int | None = None,
        seed: int = 0,
        out: str | Path | None = None,
        progress: Progress = SILENT,
    ) -> Conflicts:
        """Train each domain alone and with each other one, compare their losses, and cluster the domains.

        What was trained before with the same model, rows, settings and seed is not trained again. The clusters are
        written to a small file for `read_clusters` of `continual.conflicts.clusters`.

        Args:
            domains: Domains to compare; by default all.
            rows: Of each domain to train on, at most; 0 takes all but those that its loss is measured on.
            epochs: Passes over them; by default `train.epochs`.
            start: Train from the root "base" or from "current".
            clusters: How many to cut the domains into; by default groups are joined as long as the pairs between them
                do not hurt each other, on average, by more than chance does.
            seed: Of the trainings, from 0 up.
            out: File of the clusters; by default `conflicts.toml` in the workspace. One that was edited is left alone.
            progress: Shows how far it is.

        Raises:
            NotFoundError: A domain is not known.
            NothingToDoError: There are no two domains.
            InputError: A domain has too few rows, a number is out of its range, or the file was edited.
            WorkspaceBusy: An update is running, or another analysis.
        """
        from continual.conflicts.clusters import FILE
        from continual.conflicts.plan import prepare
        from continual.conflicts.run import run

        target = self.directory / FILE if out is None else Path(out).expanduser().resolve()
        options: dict[str, Any] = {"domains": domains, "rows": rows, "epochs": epochs, "start": start, "seed": seed}
        inquiry = prepare(self.registry, self.config, **options)
        return run(self.registry, inquiry, count=clusters, out=target, progress=progress)

    def _joint(self, given: str | Path | None) -> str | None:
        """Return the joint version that a call or the settings name."""
        named = self.config.eval.joint
        if given is not None or named is None:
            return None if given is None else str(given)
        folder = self.directory / named  # a path in the settings is relative to them
        return str(folder) if (folder / STORE).is_dir() else named
