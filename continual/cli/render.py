"""What the commands print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from continual.cli.bars import per_second
from continual.report.figures.numbers import duration
from continual.report.report import measured

if TYPE_CHECKING:
    from continual.registry import Provenance, Window
    from continual.report.report import Report
    from continual.report.status import Status
    from continual.step.plan import Plan
    from continual.step.update import StepResult
    from continual.stream import IngestReport

console = Console(highlight=False, soft_wrap=True)


def merge_option(text: str | None) -> str | float | None:
    """Return `--merge` as a weight if it is a number, or as the name of a rule."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


def print_init(status: Status, base: str) -> None:
    """Say what was made and what comes next."""
    say(f"Made a workspace in {status.directory}; {base} is v0, in service. Its settings are in continual.toml.")
    here = "" if Path(status.directory) == Path.cwd() else f"`cd {status.directory}`, and "
    say(f"Next: {here}register a domain with `continual ingest FILE`.")


def print_ingest(report: IngestReport, store: Path) -> None:
    """Say what became of the rows of a file."""
    if report.unchanged:
        say(f"{report.source} was ingested before (domain {report.domain}, batch {report.batch}); nothing changed.")
        if report.license:
            say(f"Its licence is {report.license}.")
        return
    kept = f"batch {report.batch}" if report.batch else "no batch: it has no new row to train on"
    say(f"{report.source} -> domain {report.domain}, {kept}")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    task = f"the task {report.task}" if report.task and report.held_out else ""
    rejects = ", ".join(f"{count:,} {reason}" for reason, count in report.reject_reasons.items())
    for label, count, note in (
        ("rows in", report.rows_in, ""),
        ("kept", report.kept, "to train on"),
        ("duplicates", report.duplicates, ""),
        ("leaked", report.leaked, _leaks(report)),
        ("rejected", report.rejected, rejects),
        ("held out", report.held_out, task),
    ):
        table.add_row(f"  {label}", f"{count:,}", escape(note))
    console.print(table)
    say(f"  read: {', '.join(f'{role} from {column}' for role, column in report.columns.items())}")
    if report.instruction:
        say(f"  before its queries: {report.instruction}")
    if report.without_negatives:
        say(
            f"{report.without_negatives:,} of the kept rows have no negatives: no update trains on them, since a "
            f"{report.kind} domain's rows are told only from those given with them."
        )
    if report.rejects_path:
        say(f"The rejected rows, with reasons: {store / report.rejects_path}")


def _leaks(report: IngestReport) -> str:
    """Return how rows leak, with the numbers where it is in more than one way."""
    ways = {
        "in an evaluation task": report.leaked - report.near - report.of_held,
        "nearly in one": report.near,
        "of a held-out document": report.of_held,
    }
    found = {way: count for way, count in ways.items() if count}
    return ", ".join(f"{count:,} {way}" if len(found) > 1 else way for way, count in found.items())


def print_plan(plan: Plan) -> None:
    """Print what an update would do, beside a full retraining."""
    spec, made = plan.spec, plan.spec.provenance
    say(f"{spec.version} would start from {made.start} and be merged into {spec.parent} ({describe_merge(made)}).")
    rows = Table("rows", "domain", "what", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    rows.columns[0].justify = "right"
    for label, windows in (("new", made.new), ("replay", made.replay)):
        for window in windows:
            rows.add_row(f"{window.rows:,}", escape(window.domain), label)
    console.print(rows)
    say(f"replay: {describe_replay(made.config['replay'])}")
    if made.skipped:
        say(_skipped(made.skipped, "would be"))
    cost = Table("", "this update", "full retraining", "ratio", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in cost.columns[1:]:
        column.justify = "right"
    ratios = [
        f"{ours / joint:.0%}" for ours, joint in ((plan.pairs, plan.joint_pairs), (plan.tokens, plan.joint_tokens))
    ]
    cost.add_row("pairs trained", f"{plan.pairs:,}", f"{plan.joint_pairs:,}", ratios[0])
    cost.add_row("tokens (estimate)", f"{plan.tokens:,}", f"{plan.joint_tokens:,}", ratios[1])
    cost.add_row("training (estimate)", duration(plan.seconds), duration(plan.joint_seconds), ratios[1])
    console.print(cost)
    if plan.candidates:
        say(
            f"Before that, {spec.parent} would embed {plan.candidates:,} rows to choose the replay from "
            f"(about {duration(plan.choice_seconds)})."
        )
    texts = sum(plan.tasks.values())
    say(f"It would be evaluated on {len(plan.tasks)} tasks ({texts:,} texts): {', '.join(plan.tasks) or 'none'}.")
    say("Nothing was changed. Run it without --plan.")


def _skipped(rows: dict[str, int], were: str) -> str:
    listed = ", ".join(f"{count:,} of {domain}" for domain, count in rows.items())
    return (
        f"New rows that {were} skipped, because they have no negatives in a domain where only given ones are: {listed}."
    )


def print_step(step: StepResult) -> None:
    """Print the scores of a step beside its parent's, and the verdict."""
    version, made = step.version, step.version.provenance
    table = Table("task", "", step.parent.id, version.id, "change", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in table.columns[2:]:
        column.justify = "right"
    for task, role in step.roles.items():
        old, new = step.previous.get(task), step.scores.get(task)
        change = f"{new.score - old.score:+.1f}" if old and new else ""
        cells = [f"{score.score:.1f}" if score else "" for score in (old, new)]
        table.add_row(escape(task), role, *cells, change)
    if step.scores:
        say(f"{measured(score.metric for score in step.scores.values())}, points")
        console.print(table)
    else:
        say("There is no evaluation task, so the gate had nothing to judge by. Add one with `continual task add`.")
    speed = version.pairs_trained / version.seconds if version.seconds else 0.0
    say(
        f"Trained {version.pairs_trained:,} pairs from {made.start} in {duration(version.seconds)} "
        f"({per_second(speed)} pairs/s, loading included); a full retraining would have trained "
        f"{version.joint_pairs:,} pairs."
    )
    if made.replay:
        replayed, chosen = describe_rows(made.replay), describe_replay(made.config["replay"])
        say(f"Replayed {replayed} rows: {chosen}.")
    if made.skipped:
        say(_skipped(made.skipped, "were"))
    if step.current == version.id:
        say(f"{version.id} passed the gate and is in service; it was {step.parent.id}.")
    elif step.passed:
        say(
            f"{version.id} passed the gate, but {step.current} was put into service meanwhile and stays there. "
            f"`continual promote {version.id}` puts {version.id} into service."
        )
    for reason in version.verdict.reasons if version.verdict is not None else []:
        say(f"  {reason}")
    if step.compatibility is not None:
        index = step.compatibility
        say(f"Re-index what {index.old} filled: {index.needs_reindex}. {' '.join(index.reasons)}")
    if made.search is not None:
        found = made.search
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in found.best.coefficients.items())
        kept = "" if found.floor_kept else "; none kept every domain within the floor, this one breaks it least"
        say(f"The search chose {chosen} among {len(found.candidates)} that it evaluated in full{kept}.")


def print_report(report: Report, *, html: Path | None, as_csv: bool, as_json: bool) -> None:
    """Print or write a report in the form that was asked for."""
    from continual.cli.options import print_json

    if html is not None:
        from continual.report.html import write_html

        write_html(report, html)
    if as_json:
        print_json(report.to_json())
    elif as_csv:
        print(report.to_csv(), end="")
    else:
        from continual.report.terminal import print_tables

        print_tables(report)
        if html is not None:
            say(f"The report is in {html.resolve()}")


def print_figures(files: list[Path], quiet: bool) -> None:
    """Say where the charts are, unless what is printed is read by a program."""
    if not quiet:
        say(f"{len(files)} files are in {files[0].parent}; {files[0].name} shows them.")


def print_mteb(folder: Path, quiet: bool) -> None:
    """Say where mteb's result files are, unless what is printed is read by a program."""
    if not quiet:
        say(f"mteb's result files are in {folder}: mteb.ResultCache({str(folder)!r}).load_results() reads them.")


def print_status(status: Status) -> None:
    """Print the state of a workspace, and the next command to run."""
    say(f"{status.current} is in service since {status.since.replace('T', ' ')[:16]} UTC ({status.directory})")
    if status.domains:
        table = Table("domain", "rows", "learned", "kind", "tasks", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.columns[1].justify = table.columns[2].justify = "right"
        for domain in status.domains:
            numbers = f"{domain.rows:,}", f"{domain.learned:,}"
            table.add_row(escape(domain.name), *numbers, domain.kind, escape(", ".join(domain.tasks)))
        console.print(table)
    say(f"OOD tasks: {', '.join(status.ood_tasks) or 'none'}")
    say(f"{status.versions} version{'s' * (status.versions > 1)}, {status.bytes / 1e6:,.0f} MB on disk")
    waiting = [domain.name for domain in status.domains if domain.learned < domain.rows]
    if status.running:
        say(f"An update to {status.running} is running.")
    elif status.interrupted:
        say(f"The update to {status.interrupted} was interrupted: `continual update --resume` continues it.")
    elif waiting:
        say(f"New rows wait in {', '.join(waiting)}: `continual update` learns them.")
    else:
        say("Nothing waits to be learned: `continual ingest FILE` registers more.")


def describe_merge(made: Provenance) -> str:
    """Return how an update is merged into the current version."""
    return f"{made.merge}, weight {made.weight:.3g}"


def describe_rows(windows: Iterable[Window]) -> str:
    """Return the domains of some windows with their numbers of rows."""
    return ", ".join(f"{window.domain} {window.rows:,}" for window in windows)


def describe_replay(replay: Mapping[str, Any]) -> str:
    """Return which learned rows an update trains on again, from the section [replay] of its settings."""
    limit = "" if replay.get("rows") is None else f", {replay['rows']:,} rows in all at most"
    return f"{replay['policy']}, {replay['share']:.3g} of every learned domain{limit}"


def say(text: str) -> None:
    """Print plain text: what looks like markup in a name stays as it is."""
    console.print(text, markup=False)
