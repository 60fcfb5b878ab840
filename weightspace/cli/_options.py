"""Command-line options derived from configuration dataclasses: each is declared once, help text included."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer


def argument_help(cls: type) -> dict[str, str]:
    """What a dataclass' docstring says of each field under ``Args:``.

    Example:
        >>> from weightspace.training import TrainConfig
        >>> argument_help(TrainConfig)["epochs"]
        'passes over the training split.'
    """
    text = inspect.getdoc(cls) or ""
    section = re.search(r"Args:\n(.*?)(?:\n\S|\Z)", text, flags=re.DOTALL)
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section.group(1) if section else "", flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", value).replace("``", "") for name, value in found}


def _plain(hint: Any) -> Any:
    """A type that the command line can read: literals become strings, which the dataclass checks itself."""
    if get_origin(hint) is typing.Literal:
        return str
    if get_origin(hint) in (typing.Union, types.UnionType):
        kept = [_plain(arg) for arg in get_args(hint) if arg is not type(None)]
        return kept[0] | None
    return hint


def _on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def options(
    config: type, *, skip: tuple[str, ...] = (), named: tuple[str, Callable[[str], Any]] | None = None, **defaults: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Give a command one option for each field of ``config``; the command gets a ready ``config=`` argument.

    Args:
        config: a dataclass with defaults and an ``Args:`` section.
        skip: fields without an option.
        named: an option of the command that names a ready config, and what makes it; fields given on the command line
            replace those of it.
        defaults: replace the dataclass' own defaults.
    """
    hints, texts = get_type_hints(config), argument_help(config)
    fields = [field for field in dataclasses.fields(config) if field.name not in skip]

    def decorate(command: Callable[..., Any]) -> Any:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.name != "config"]
        if named is not None:
            own.append(inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
        extra = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(field.name, field.default),
                annotation=Annotated[_plain(hints[field.name]), typer.Option(help=texts.get(field.name))],
            )
            for field in fields
        ]

        @functools.wraps(command)
        def run(**values: Any) -> Any:
            given = {field.name: values.pop(field.name) for field in fields}
            try:
                base = None if named is None or values.get(named[0]) is None else named[1](values[named[0]])
                if base is not None:
                    given = {n: value for n, value in given.items() if _on_command_line(values["context"], n)}
                made = config(**given) if base is None else dataclasses.replace(base, **given)
                values.pop("context", None)
            except (ValueError, TypeError) as error:  # an option out of range is wrong usage, not a failure
                raise typer.BadParameter(str(error)) from error
            return command(config=made, **values)

        run.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
            parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
        )
        run.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}
        return run

    return decorate
