"""The command line's groups of commands; the modules beside this one add the commands to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from continual.storage.terminal import harmless, say

_Function = TypeVar("_Function", bound=Callable[..., Any])
UsageError: Any = typer.BadParameter.__base__
"""click's error about wrong options. Newer versions of typer have a copy of click within them."""


class Commands(TyperGroup):
    """The commands, whose messages about wrong options print harmlessly what was given."""

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Parse the options before the command."""
        with _harmless_errors():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        """Parse the options of the command, and run it."""
        with _harmless_errors():
            return super().invoke(ctx)


class Command(TyperCommand):
    """A command that takes an option with one value only once, where click would silently use the last one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options; raise `UsageError` if one is repeated or contradicted."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        options = [param for param in order if isinstance(param, TyperOption) and not (param.multiple or param.count)]
        for param in options:
            harmless_flag = param.is_flag and not param.secondary_opts  # --json --json says one thing
            if sum(each is param for each in options) > 1 and not harmless_flag:
                raise UsageError(f"{'/'.join([*param.opts, *param.secondary_opts])} is given twice. Give it once.", ctx)
        return super().parse_args(ctx, args)


class App(typer.Typer):
    """A group whose commands are `Command`."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[_Function], _Function]:
        """Return the decorator that adds a command."""
        return super().command(name, **({"cls": Command} | options))


@contextmanager
def _harmless_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        error.message = harmless(error.message)
        raise


app = App(
    name="continual",
    cls=Commands,
    help="Continual learning for text-embedding models: learn a new domain, measure what was forgotten, refuse a bad "
    "update.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    epilog="The workspace's continual.toml lists all settings with their meaning and default. Exit codes: 0 done, 1 a "
    "bug in continual, 2 wrong input or options, or a finding of doctor, 3 the gate refused the update, 4 the "
    "workspace is busy, 130 interrupted by Ctrl-C or SIGTERM.",
)
task_app = App(help="Evaluation tasks, which versions are scored on.", no_args_is_help=True)
versions_app = App(help="Versions: how each was made, and which is current.", no_args_is_help=True)
index_app = App(help="The index of an earlier version: what updates do to it.", no_args_is_help=True)
analyze_app = App(help="How domains affect each other.", no_args_is_help=True)
app.add_typer(task_app, name="task")
app.add_typer(versions_app, name="versions")
app.add_typer(index_app, name="index")
app.add_typer(analyze_app, name="analyze")


def _version(value: bool) -> None:
    if value:
        from continual import __version__

        say(f"continual {__version__}")
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
