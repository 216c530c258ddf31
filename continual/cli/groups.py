"""The command line's groups of commands; the modules beside this one add the commands to them."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="continual",
    help="Continual learning for text-embedding models: learn a new domain, measure what was forgotten, refuse a bad "
    "update.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    epilog="The workspace's continual.toml lists all settings with their meaning and default. Exit codes: 0 done, 1 a "
    "bug in continual, 2 wrong input or options, or a finding of doctor, 3 the gate refused the update, 4 the "
    "workspace is busy, 130 interrupted by Ctrl-C or SIGTERM.",
)
task_app = typer.Typer(help="Evaluation tasks, which versions are scored on.", no_args_is_help=True)
versions_app = typer.Typer(help="Versions: how each was made, and which is current.", no_args_is_help=True)
index_app = typer.Typer(help="The index of an earlier version: what updates do to it.", no_args_is_help=True)
analyze_app = typer.Typer(help="How domains affect each other.", no_args_is_help=True)
app.add_typer(task_app, name="task")
app.add_typer(versions_app, name="versions")
app.add_typer(index_app, name="index")
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
