"""Commands on named data sets, and the list of everything that other commands find by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Column, Table
from typer.core import TyperCommand, TyperGroup

import weightspace as ws
from weightspace.cli._commands import PROGRAM, Commands, built, group
from weightspace.cli._options import KINDS, argument_help, options, usage
from weightspace.cli._progress import build_progress, console, say
from weightspace.datasets._catalogue import find as find_dataset

DATA = Commands()


@DATA.command("list")
def list_data(
    name: Annotated[str | None, typer.Argument(help="the data set to describe, or its import path")] = None,
) -> None:
    """List the data sets: classes, how to split them, licence, whether they are here."""
    if name is None:
        ends = (Column("name", no_wrap=True), Column("state", no_wrap=True))
        table = Table(ends[0], "signals", "classes", "split", "licence", ends[1])
        for entry in ws.datasets.DATASETS.values():
            short = (text.split(":")[0] for text in (entry.split, entry.licence))
            table.add_row(entry.name, entry.description, str(entry.classes), *short, entry.state)
        console.print(table)
        console.print("weightspace data list NAME prints all facts about one: how to get it, whom to cite, its options")
        return
    entry = usage(find_dataset, name)
    for field in ("name", "description", "classes", "split", "licence", "citation", "obtain", "state"):
        say(f"{field:11s} {getattr(entry, field)}")
    defaults = entry.configured()
    texts = {} if defaults is None else argument_help(type(defaults))
    for option, text in texts.items():
        say(f"option      {option} ({getattr(defaults, option)}): {text}")


@dataclass(frozen=True)
class _NoOptions:
    """The options of a data set without any."""


class _PrepareCommand(TyperCommand):
    """A command whose error for an unknown option names the data set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter:
            raise
        except Exception as error:
            if option := getattr(error, "option_name", None):
                known = f"see weightspace data list {self.name}"
                raise typer.BadParameter(f"{self.name}: expected no {option}: {known}") from error
            raise


class _PrepareGroup(TyperGroup):
    """A group with a command per data set; the options of the data set are the options of its command."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, entry in ws.datasets.DATASETS.items() if entry.build or entry.fetch]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = usage(find_dataset, cmd_name)

        def prepare(
            *,
            config: Any,
            out: Annotated[Path | None, typer.Option(help="the .npz file to write; in the cache if not given")] = None,
            source: Annotated[
                Path | None, typer.Option(help="folder of packages or data, searched before anything is fetched")
            ] = None,
        ) -> None:
            with build_progress(cmd_name) as step:
                chosen = dataclasses.asdict(config)
                path = ws.datasets.prepare(cmd_name, out=out, source=source, on_progress=step, **chosen)
            data = ws.datasets.load(path if out is not None else cmd_name)
            say(f"wrote {path}", data)

        prepare.__doc__ = f"Prepare {entry.name}: {entry.description}."
        defaults: Any = entry.configured() or _NoOptions()
        own = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(defaults)}
        return built(cmd_name, options(type(defaults), **own)(prepare), _PrepareCommand)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Data sets"):
            formatter.write_dl([(name, ws.datasets.DATASETS[name].description) for name in self.list_commands(ctx)])


def _prepare() -> None:
    """Fetch a data set by its package client and build it into one compressed file."""


def _data() -> None:
    """Named data sets: what there is, and how to get it."""


def _prepare_group() -> Any:
    app = typer.Typer(cls=_PrepareGroup, subcommand_metavar="NAME [OPTIONS]", rich_markup_mode=None)
    app.callback()(_prepare)
    return typer.main.get_command(app)


DATA.add("prepare", _prepare.__doc__, _prepare_group)


def _data_group() -> Any:
    app = group(DATA)
    app.callback()(_data)
    return typer.main.get_command(app)


PROGRAM.add("data", _data.__doc__, _data_group)


@PROGRAM.command("list")
def list_names(
    kind: Annotated[
        Literal["models", "augmentations", "objectives", "suites", "recipes", "datasets"],
        typer.Argument(help="the kind of names"),
    ],
) -> None:
    """List the names that other commands take, those of installed packages included."""
    say(*sorted({*KINDS[kind](), *entry_points(group=f"weightspace.{kind}").names}))
