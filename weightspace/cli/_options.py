"""Options of the commands: those that several commands share, and those derived from configuration dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

import weightspace as ws
from weightspace._extras import optional
from weightspace._plugins import find, subclass_of


def usage(check: Callable[..., Any], *args: Any) -> Any:
    """Call a function; a ``ValueError`` or ``TypeError`` that it raises becomes an error of usage, exit code 2."""
    try:
        return check(*args)
    except (ValueError, TypeError) as error:
        raise typer.BadParameter(str(error)) from error


KINDS: dict[str, Callable[[], Mapping[str, Any]]] = {
    "models": lambda: ws.models.MODELS,
    "augmentations": lambda: ws.transforms.AUGMENTATIONS,
    "objectives": lambda: ws.training.OBJECTIVES,
    "suites": lambda: ws.bench.SUITES,
    "recipes": lambda: ws.fitting.RECIPES,
    "datasets": lambda: ws.datasets.DATASETS,
}
"""The kinds of things that commands find by name, and the tables of the library's own."""


def find_model(name: str) -> Any:
    """Find the class of a model by its name, an import path or an entry point; failure is an error of usage."""
    return usage(find, "models", name, ws.models.MODELS, subclass_of(ws.models.Model))


def find_objective(name: str) -> Any:
    """Find the class of an objective by its name, an import path or an entry point; failure is an error of usage."""
    return usage(find, "objectives", name, ws.training.OBJECTIVES, subclass_of(ws.training.Objective))


def _device(text: str) -> str:
    import torch

    if text == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if text == "cpu" and torch.cuda.is_available():
        typer.echo("a CUDA device is there and is not used: --device auto takes it", err=True)
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise typer.BadParameter(f"expected 'auto', 'cpu' or a CUDA device that is there, got {text!r}") from None
    return text


def numbers(text: str) -> list[int]:
    """Parse whole numbers separated by commas."""
    return [int(part) for part in text.split(",")]


def _positive(text: str) -> bool:
    return all(part.strip().isdecimal() and int(part) > 0 for part in text.split(","))


def check_widths(text: str | None) -> str | None:
    """Check that an option holds positive widths; it remains text, the type of the option."""
    if text is not None and not _positive(text):
        raise typer.BadParameter(f"expected positive widths such as 32,32, got {text!r}")
    return text


def check_input_shape(text: str | None) -> str | None:
    """Check that an option holds a shape without the batch; it remains text, the type of the option."""
    if text is not None and not _positive(text):
        raise typer.BadParameter(f"expected a shape without the batch such as 3,32,32, got {text!r}")
    return text


def settings(texts: list[str] | None) -> dict[str, Any]:
    """Parse options written as ``name=value``; values are JSON, or else text."""
    from weightspace._files import parse_json

    found = dict[str, Any]()
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"expected NAME=VALUE such as channels=64, got {text!r}")
        if name in found:
            raise typer.BadParameter(f"expected each name once, got {name!r} twice")
        try:
            found[name] = parse_json(value)
        except ValueError:
            found[name] = value
    return found


def use_threads(workers: int | None, device: str) -> str | None:
    """Choose the threads of a training on a CPU, and say so where they are fewer than the cores.

    Threads of a busy machine wait for one another: many of them are slower than one.
    """
    import torch

    if workers is not None:
        torch.set_num_threads(workers)
    if workers is not None or device != "cpu" or not hasattr(os, "getloadavg"):
        return None
    most, load = torch.get_num_threads(), os.getloadavg()[0]
    threads = max(1, min(most, math.floor(most - load + 0.5)))
    torch.set_num_threads(threads)
    if threads == most:
        return None
    return f"{threads} of {most} threads, as the machine is busy (load {load:.1f}); --workers N takes N"


Workers = Annotated[int | None, typer.Option(min=1, help="cores to use; all if not given")]
Device = Annotated[
    str, typer.Option(callback=_device, help="'cpu', 'cuda', or 'auto' for a CUDA device if there is one")
]
ExecutorName = Annotated[Literal["local", "ray"], typer.Option("--executor", help="run on this machine or on Ray")]
Address = Annotated[str | None, typer.Option(help="address of a Ray cluster; RAY_ADDRESS or a new one if not given")]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs of a Ray task; one with --device cuda if not given")]
Seed = Annotated[int, typer.Option(min=0, help="seed of the random choice")]
Size = Annotated[int | None, typer.Option(min=1, help="side in pixels to which images of class folders are resized")]


def executor_of(name: str, workers: int | None, device: str, address: str | None, gpus: float | None) -> Any:
    """Return the executor that :func:`weightspace.fit_zoo` takes: "local", or Ray with its settings."""
    if name == "ray":
        optional("ray", "Ray", "ray", "the Ray executor")  # before a folder is made for the zoo
        gpus = float(device != "cpu") if gpus is None else gpus
        return ws.fitting.RayExecutor(address=address, cpus=workers or 1, gpus=gpus)
    if address is not None or gpus is not None:
        raise typer.BadParameter("expected --executor ray with --address and --gpus, got the local one")
    return name


def argument_help(cls: type) -> dict[str, str]:
    """Read the descriptions of a dataclass' fields from the ``Args:`` of its docstring and its bases' docstrings.

    Example:
        >>> from weightspace.training import TrainConfig
        >>> argument_help(TrainConfig)["epochs"]
        'passes over the training split.'
    """
    found: dict[str, str] = {}
    for parent in cls.__mro__[::-1]:
        text = inspect.cleandoc(vars(parent).get("__doc__") or "")
        section = re.search(r"Args:\n(.*?)(?:\n\S|\Z)", text, flags=re.DOTALL) if parent is not object else None
        found |= re.findall(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section.group(1) if section else "", flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", value).replace("``", "") for name, value in found.items()}


def _plain(hint: Any) -> Any:
    """Return a type that the command line can parse: literals become text, which the dataclass checks itself."""
    if get_origin(hint) is typing.Literal:
        return str
    if get_origin(hint) in (typing.Union, types.UnionType):
        parsed = [_plain(arg) for arg in get_args(hint) if arg is not type(None)]
        return parsed[0] | None
    return hint


def _on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def options(
    config: type, *, skip: tuple[str, ...] = (), named: tuple[str, Callable[[str], Any]] | None = None, **defaults: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Make a decorator that gives a command one option per field of ``config``, and passes it a ready ``config=``.

    Args:
        config: a dataclass with defaults and an ``Args:`` section.
        skip: fields without an option.
        named: an option of the command that names a ready configuration, and the function that returns it by its name.
            Fields that are given on the command line replace those of the named configuration.
        defaults: values that replace the dataclass' own defaults.
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
            context = values.pop("context", None)

            def made() -> Any:
                base = None if named is None or values.get(named[0]) is None else named[1](values[named[0]])
                if base is None:
                    return config(**given)
                return dataclasses.replace(base, **{n: v for n, v in given.items() if _on_command_line(context, n)})

            return command(config=usage(made), **values)  # an option out of range is wrong usage, not a failure

        run.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
            parameters=[p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + extra
        )
        run.__annotations__ = {p.name: p.annotation for p in [*own, *extra]}
        return run

    return decorate
