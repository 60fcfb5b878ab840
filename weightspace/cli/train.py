"""Commands that train models, measure them, and report the measurements."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import (
    Address,
    Device,
    ExecutorName,
    Gpus,
    Workers,
    executor_of,
    find_model,
    find_objective,
    settings,
    usage,
    use_threads,
)
from weightspace.cli._progress import console, print_cell, print_result, say, score_text, training_progress


def _real_valued(zoo: ws.Zoo) -> bool:
    return any(zoo.labels(split).is_floating_point() for split in zoo.splits)


def _entry(like: str) -> Any:
    """Return the entry of a suite that ``SUITE/ROW`` names, and the suite."""
    name, _, row = like.partition("/")
    suite = _suite(name)
    if row not in suite.entries:
        raise typer.BadParameter(f"expected SUITE/ROW with one of {list(suite.entries)}, got {like!r}")
    return suite, suite.entries[row]


def _budget(like: str) -> ws.TrainConfig:
    """Return the training that a row of a suite has."""
    suite, entry = _entry(like)
    return dataclasses.replace(suite.train, **entry.train)


def _suite(text: str) -> Any:
    """Find a suite by its name or import path, or the one that a Python file defines."""
    from weightspace.bench._suite import suite_named

    if not text.endswith(".py"):
        return usage(suite_named, text, ws.bench.SUITES)
    file = Path(text)
    if not file.is_file():
        raise typer.BadParameter(f"expected a file that defines a suite, got none at {text}")
    folder, before = str(file.resolve().parent), list(sys.path)
    sys.path.append(folder)  # last, and for good: what the suite names is imported from there
    try:
        module = importlib.import_module(file.stem)
    except Exception as error:
        sys.path[:] = before
        raise typer.BadParameter(f"{text}: expected Python, got {type(error).__name__}: {error}") from error
    found = [name for name, value in vars(module).items() if isinstance(value, ws.bench.Suite)]
    if Path(str(module.__file__)).resolve() != file.resolve() or len(found) != 1:
        raise typer.BadParameter(
            f"{text}: expected one weightspace.bench.Suite in it, got {found}; name {file.stem}:NAME"
        )
    return getattr(module, found[0])


@PROGRAM.command(config="weightspace.training:TrainConfig", named=("like", _budget))
def train(
    *,
    config: ws.TrainConfig,
    zoo: Annotated[Path, typer.Argument(help="a zoo with labels")],
    model: Annotated[
        str | None, typer.Option(help="a name of 'weightspace list models', or an import path; dwsnet if not given")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="SUITE/ROW, such as ours/forward-messages: its model, sizes and budget; options replace them"
        ),
    ] = None,
    given: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of the model, again for more")
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="names of 'weightspace list augmentations', such as rotate=30+noise=0.2, or import paths"),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="a name of 'weightspace list objectives', or an import path; regression with --target"),
    ] = None,
    target: Annotated[str | None, typer.Option(help="column of numbers to learn, instead of the labels")] = None,
    outputs: Annotated[
        int | None,
        typer.Option(
            min=1, help="outputs of the model; if not given the number of classes, or 1 for real-valued labels"
        ),
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="width of the model")] = None,
    layers: Annotated[int | None, typer.Option(help="depth of the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of checkpoints and logs; a run there continues")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="threads; by the load of the machine if not given")] = None,
    device: Device = "cpu",
) -> None:
    """Train a model on the networks of a zoo."""
    opened = ws.Zoo.open(zoo)
    row = None if like is None else _entry(like)[1]
    name = model or (row.model if row is not None else "dwsnet")
    find_model(name)
    scored = find_objective(objective or ("classification" if target is None else "regression"))
    if target is not None and not issubclass(scored, ws.training.Regression):
        raise typer.BadParameter(f"expected --objective regression with --target, got {objective}")
    if augment:
        usage(ws.transforms.augmentation, augment)
    sizes = dict(row.options) if row is not None and model is None else {}
    sizes |= {key: value for key, value in (("hidden", hidden), ("layers", layers)) if value is not None}
    sizes |= settings(given)
    if outputs is None:
        outputs = 1 if target is not None or _real_valued(opened) else opened.num_classes
    percent = scored.score_name.endswith("accuracy")
    learned = objective if target is None else ws.training.Regression.for_zoo(opened, column=target)
    build = functools.partial(ws.models.build, seed=config.seed, **sizes)
    net = usage(build, name, opened.spec, outputs)
    say(f"{name} with {net.num_parameters:,} parameters")
    if (chosen := use_threads(workers, device)) is not None:
        say(chosen)
    if out is None:
        say("no --out: the model will be gone at the end; give a folder to keep it, and to predict with it")
    with training_progress(config.epochs, percent) as step:
        result = ws.train(
            net,
            opened,
            transform=augment or None,
            objective=learned,
            config=config,
            device=device,
            run_dir=out,
            on_epoch=step,
        )
    test = "" if result.test is None else f", test {score_text(result.test, percent)}"
    if out is not None:
        say(f"kept in {out}: weightspace predict {out} DATA, weightspace evaluate {out} ZOO")
    console.print(f"best epoch {result.best_epoch}: validation {score_text(result.val, percent)}{test}")


@PROGRAM.command()
def bench(
    suite: Annotated[
        str, typer.Argument(help="a name of 'weightspace list suites', an import path, or a .py file with a suite")
    ],
    zoo: Annotated[Path, typer.Option(help="the zoo to train on")],
    out: Annotated[Path, typer.Option(help="folder of the results; an interrupted run continues there")],
    only: Annotated[
        list[str] | None, typer.Option(help="an entry to run; all if not given, several if repeated")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="a seed to run for every row; the suite's if not given")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs per run; the suite's if not given")] = None,
    workers: Workers = None,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = None,
    gpus: Gpus = None,
) -> None:
    """Run a grid of models, augmentations and seeds, and write result.json."""
    from weightspace.bench._record import read_result

    chosen = _suite(suite)
    runner = executor_of(executor, None, device, address, gpus)  # a cell takes one core
    options = {
        "only": only or None,
        "seeds": seed or None,
        "epochs": epochs,
        "workers": workers,
        "device": device,
        "executor": runner,
    }
    path = ws.bench.run_suite(chosen, zoo, out, **options, on_cell=print_cell)
    print_result(read_result(path))
    say(f"wrote {path}")


@PROGRAM.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="result.json files")],
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    zoo: Annotated[Path | None, typer.Option(help="zoo whose networks are drawn")] = None,
    csv: Annotated[Path | None, typer.Option(help="file for the tables as plain numbers")] = None,
    latex: Annotated[Path | None, typer.Option(help="file for the tables in LaTeX")] = None,
) -> None:
    """Turn result.json files into one self-contained HTML page."""
    from weightspace._files import write_atomic
    from weightspace.report import format_table, write_report

    forms: tuple[tuple[Literal["csv", "latex"], Path | None], ...] = (("csv", csv), ("latex", latex))
    for form, path in forms:
        if path is not None:
            write_atomic(path, "\n".join(format_table(result, form) for result in results).encode())
            say(f"wrote {path}")
    say(f"open {write_report(results, out, zoo=zoo)}")
