"""Commands that are built when they are asked for, so that the program's help imports no library but Typer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from weightspace._plugins import find
from weightspace.cli._options import options


class Commands(Mapping[str, Any]):
    """A table of commands by name; each is built when it is looked up for the first time."""

    def __init__(self) -> None:
        self._makers: dict[str, Callable[[], Any]] = {}
        self._built: dict[str, Any] = {}
        self.summaries: dict[str, str] = {}

    def add(self, name: str, summary: str | None, make: Callable[[], Any]) -> None:
        """Add a command.

        Args:
            name: the word that calls it.
            summary: its docstring, of which the program's help shows the first line.
            make: a function that builds the command.
        """
        self._makers[name] = make
        self.summaries[name] = inspect.cleandoc(summary or "").partition("\n")[0]

    def command(
        self,
        name: str | None = None,
        *,
        config: str | None = None,
        named: tuple[str, Callable[[str], Any]] | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make a decorator that adds a function as a command.

        Args:
            name: the command's name. Default: the function's.
            config: import path of a configuration dataclass, whose fields become options; see
                :func:`weightspace.cli._options.options`.
            named: see there.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            called = name or function.__name__

            def make() -> Any:
                if config is None:
                    return built(called, function)
                return built(called, options(find("configurations", config, {}), named=named)(function))

            self.add(called, function.__doc__, make)
            return function

        return register

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            self._built[name] = self._makers[name]()
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def built(name: str, function: Callable[..., Any], cls: Any = None) -> Any:
    """Build the command of a function from its signature, of Typer's class for commands or the given one."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name, cls=cls)(function)
    return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """A group of the commands in :class:`Commands`, listed without building them."""

    table: Commands

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands: Any = self.table

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.table.summaries.items()))


def group(table: Commands, help: str | None = None) -> typer.Typer:
    """Make a Typer application whose commands are those of a table."""
    kind = type("Group", (LazyGroup,), {"table": table})
    return typer.Typer(
        cls=kind, help=help, add_completion=table is PROGRAM, rich_markup_mode=None, pretty_exceptions_enable=False
    )


PROGRAM = Commands()
"""The commands of the program; each module of this package adds its own."""
