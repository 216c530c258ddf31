"""The commands of the weekly loop: init, ingest, update, report, status."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from continual.cli.options import (
    JsonOption,
    ParameterOption,
    SettingOption,
    WorkspaceOption,
    open_workspace,
    parse_parameters,
    parse_settings,
    print_json,
)

app = typer.Typer(
    name="continual",
    help="Continual learning for text-embedding models: learn a new domain, measure what was forgotten, refuse a bad "
    "update.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    epilog="Settings, with their meaning and defaults, are in the workspace's continual.toml. Exit codes: 0 done, 1 a "
    "bug of ours, 2 the input or the call is wrong, 3 the gate refused the update, 4 the workspace is busy, 130 "
    "interrupted, by Ctrl-C or SIGTERM.",
)
task_app = typer.Typer(help="Evaluation tasks: what versions are scored on.", no_args_is_help=True)
versions_app = typer.Typer(help="Versions: what was made, and from what.", no_args_is_help=True)
compat_app = typer.Typer(help="What a version does to the index that an earlier one filled.", no_args_is_help=True)
analyze_app = typer.Typer(help="What the domains do to each other.", no_args_is_help=True)
app.add_typer(task_app, name="task")
app.add_typer(versions_app, name="versions")
app.add_typer(compat_app, name="compat")
app.add_typer(analyze_app, name="analyze")


def _version(value: bool) -> None:
    if value:
        from continual import __version__

        print(f"continual {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Continual learning for text-embedding models.

    Learn a new domain, measure what was forgotten, refuse a bad update.
    """


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(metavar="[DIR]", help="Folder of the workspace.")] = Path(),
    base: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="The root base: a sentence-transformers folder, a Hub id, or 'packaged' (all-MiniLM-L6-v2).",
        ),
    ] = "packaged",
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that the model brings with it.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a workspace from a base model."""
    from continual.cli import render
    from continual.workspace import Workspace

    made = Workspace.init(workspace or directory, base, trust_remote_code=trust_remote_code)
    print_json(made.status().to_json()) if json else render.print_init(made.status(), base)


@app.command()
def ingest(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="Parquet, JSONL or CSV files, or hf:NAME[:CONFIG][:SPLIT].")
    ],
    domain: Annotated[
        str | None, typer.Option(metavar="NAME", help="Domain of the rows; by default the name of the file.")
    ] = None,
    query_column: Annotated[str | None, typer.Option(metavar="C", help="Column that holds the query.")] = None,
    positive_column: Annotated[
        str | None, typer.Option(metavar="C", help="Column that holds the passage that answers it.")
    ] = None,
    negatives_column: Annotated[
        str | None, typer.Option(metavar="C", help="Column that holds a list of passages that do not.")
    ] = None,
    doc_id_column: Annotated[
        str | None, typer.Option(metavar="C", help="Column that names the passage's document.")
    ] = None,
    holdout: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the documents to hold out as the domain's task, 0 to 1; by default ingest.holdout, 0.1.",
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder with corpus, queries and qrels, used as the domain's task."),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Licence of the data, such as cc-by-4.0; model cards list it."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="What a new domain's rows are of: retrieval, by default; reranking, sts, pair-classification; or "
            "classification, clustering, where a row's negatives are only those given with it.",
        ),
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="What a new domain's queries are for, such as 'Given a question, retrieve the passage that answers "
            "it'; put before each of them.",
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Register new pairs as a domain, and hold some out.

    Rows are checked, stripped of duplicates and of leakage into evaluation tasks, and stored. The same file twice
    changes nothing.
    """
    from continual.cli import render
    from continual.cli.bars import Bars
    from continual.errors import ContinualError, InputError
    from continual.stream import Columns

    opened = open_workspace(workspace)
    columns = Columns(query=query_column, positive=positive_column, negatives=negatives_column, doc_id=doc_id_column)
    if task is not None and domain is None and len(files) > 1:
        raise InputError(f"--task is the task of one domain, and these are {len(files)}. Name it with --domain.")
    missing = [file for file in files if not file.startswith("hf:") and not Path(file).expanduser().exists()]
    if missing and len(files) > 1:
        raise InputError(f"There is no file {missing[0]}. None of the {len(files)} was ingested.")
    reports = []
    split: dict[str, Any] = {"holdout": holdout, "task": task}
    about: dict[str, Any] = {"columns": columns, "license": license, "kind": kind, "instruction": instruction}
    try:
        for file in files:
            with Bars() as bars:
                report = opened.ingest(file, domain=domain, **about, **split, progress=bars)
            reports.append(asdict(report))
            if domain is not None and report.batch is not None:
                split = {}  # a domain has one task: the first of its files that keeps a row makes it
            if not json:
                render.print_ingest(report, opened.registry.root)
    except ContinualError:
        if reports:
            print(
                f"continual: what came before {file} was ingested ({', '.join(files[: len(reports)])}). Mend it and "
                "run the same command again; what was ingested is left as it is.",
                file=sys.stderr,
            )
        raise
    finally:
        if json and reports:
            print_json({"batches": reports})


@app.command()
def update(
    replay: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of every learned domain's rows to train on again, 0 to 1; by default replay.share, 0.3.",
        ),
    ] = None,
    replay_rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Learned rows to train on again, in all, at most; by default replay.rows, no limit."
        ),
    ] = None,
    replay_policy: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How they are chosen: uniform, balanced, temperature, reservoir, forgetting, hardest or diverse.",
        ),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Domain to learn, once per domain; by default all with new rows."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="current|base", help="Model that training starts from.")
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="interpolate, search, self-positioning, running-mean, equal, opcm, a method of `continual merge "
            "--list`, or the weight of the update, above 0 and up to 1; by default merge.method and merge.weight.",
        ),
    ] = None,
    parameter: ParameterOption = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the step, from 0 up; 0 by default.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A recipe that has steps, of `continual train --list`: it sets replay, merge and training, and the "
            "other options override it.",
        ),
    ] = None,
    setting: SettingOption = None,
    compatible: Annotated[
        bool,
        typer.Option(
            "--compatible",
            help="Train for the index of what is in service: hold texts near their embeddings under it, and queries "
            "near its documents (train.anchor = current).",
        ),
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Tracker to log to: tensorboard, wandb, mlflow ...; once for each. By default track.trackers.",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would be done and its cost, and do nothing.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the update that was interrupted.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Discard the update that was interrupted and begin anew.")
    ] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Learn what is new, measure it, refuse it if worse.

    One step: draw replay, train a LoRA update, fold it, merge it with what is in service, evaluate, and move
    current to the result if the gate lets it. A refusal ends with exit code 3.
    """
    from continual.cli import render
    from continual.cli.bars import Bars
    from continual.errors import GateRefused, InputError

    if plan and (resume or restart):
        raise InputError("--plan plans a new update; it goes with neither --resume nor --restart.")
    opened = open_workspace(workspace)
    options: dict[str, Any] = {
        "replay": replay,
        "replay_rows": replay_rows,
        "replay_policy": replay_policy,
        "domains": domain or None,
        "start": start,
        "merge": render.merge_option(merge),
        "parameters": parse_parameters(parameter),
        "seed": seed,
        "compatible": compatible,
        "recipe": recipe,
        "settings": parse_settings(setting),
    }
    try:
        with Bars() as bars:
            if plan:
                planned = opened.plan(**options, progress=bars)
            else:
                step = opened.update(**options, track=track or None, resume=resume, restart=restart, progress=bars)
    except KeyboardInterrupt:
        begun = opened.status().interrupted
        hint = f" `continual update --resume` continues the update to {begun}." if begun else ""
        print(f"continual: interrupted.{hint}", file=sys.stderr)
        raise typer.Exit(130) from None
    if plan:
        print_json(planned.to_json()) if json else render.print_plan(planned)
        return
    print_json(step.to_json()) if json else render.print_step(step)
    if not step.passed:
        raise GateRefused(
            f"the gate refused {step.version.id}, and {step.parent.id} stays in service. See it with "
            f"`continual report`; `continual promote {step.version.id}` overrules the gate."
        )


@app.command()
def report(
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write one self-contained HTML file.")
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option("--figures", metavar="DIR", help="Write every chart as SVG, PNG and CSV, and a report.md."),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print every score as CSV.")] = False,
    joint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR",
            help="What was trained on all domains at once, for the intransigence: a version, or another workspace; by "
            "default eval.joint.",
        ),
    ] = None,
    mteb: Annotated[
        Path | None,
        typer.Option("--mteb", metavar="DIR", help="Write the scores of every version as mteb's result files."),
    ] = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show what was gained, forgotten and paid."""
    from continual.cli import render
    from continual.errors import InputError

    if csv and json:
        raise InputError("--csv and --json print the same report in two forms. Choose one.")

    opened = open_workspace(workspace)
    found = opened.report(joint)
    render.print_report(found, html=html, as_csv=csv, as_json=json)
    if figures is not None:
        render.print_figures(opened.write_figures(figures, found), quiet=csv or json)
    if mteb is not None:
        render.print_mteb(opened.export_scores(mteb), quiet=csv or json)


@app.command()
def dashboard(
    port: Annotated[
        int | None, typer.Option(metavar="N", help="Port on 127.0.0.1; by default 8765, and 0 takes any that is free.")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show the report as a page that follows a running update.

    It is served to this machine alone, only reads, and ends with Ctrl-C.
    """
    opened = open_workspace(workspace)

    def say(address: str) -> None:
        print_json({"address": address}) if json else print(f"The dashboard is at {address} (Ctrl-C ends it)")
        sys.stdout.flush()

    opened.dashboard(port, open_browser=open_browser, say=say)


@app.command()
def status(workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show what is in service and what waits."""
    from continual.cli import render

    found = open_workspace(workspace).status()
    print_json(found.to_json()) if json else render.print_status(found)
