"""The command line: parse, build a configuration, make one call.

The modules of this package import nothing heavy, so that the help and the version are printed at once: a command
imports what it needs when it runs.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Annotated, Any, NoReturn

import typer

import weightspace
from weightspace._text import printable
from weightspace.cli._commands import PROGRAM, group

for _module in (
    "fit",
    "train",
    "predict",
    "embed",
    "zoo",
    "data",
    "checkpoints",
):  # the order of the commands in the help
    importlib.import_module(f"weightspace.cli.{_module}")

UsageError: Any = typer.BadParameter.__base__  # click's own, or that of the copy of click in newer versions of Typer
app = group(PROGRAM, help=weightspace.__doc__)


def _version(show: bool) -> None:
    if show:
        typer.echo(weightspace.__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


def main(argv: list[str] | None = None) -> None:
    """Run a command. Errors are one line: exit code 2 for usage, 1 for failure; ``--debug`` shows the traceback."""
    given = sys.argv[1:] if argv is None else argv
    debug = "--debug" in given
    arguments = [argument for argument in given if argument != "--debug"] or ["--help"]
    if argv is None:
        warnings.showwarning = _show_warning
    try:
        code = app(args=arguments, prog_name="weightspace", standalone_mode=False)
    except UsageError as error:
        _fail(error.format_message() + "; see --help", 2)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        if debug:
            raise
        _fail(str(error) or type(error).__name__, 1)
    if code == 130:
        _fail("interrupted; the same command goes on from what is on disk", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Print a warning as one line, like an error: it may name what a file holds."""
    line = f"weightspace: {category.__name__}: {printable(' '.join(str(message).split()))}"
    typer.secho(line, fg=typer.colors.YELLOW, err=True)  # without colour where the output is no terminal


def _fail(message: str, code: int) -> NoReturn:
    line = printable(" ".join(message.split()))
    typer.echo(f"weightspace: {line}", err=True)
    sys.exit(code)
