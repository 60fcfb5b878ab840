"""Commands that fit networks to signals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import weightspace as ws
from weightspace._extras import optional
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import (
    Address,
    Device,
    ExecutorName,
    Gpus,
    Size,
    Workers,
    check_widths,
    executor_of,
    numbers,
    usage,
)
from weightspace.cli._progress import console, fit_progress, print_cell, print_zoo, say
from weightspace.datasets._catalogue import find as find_dataset

if TYPE_CHECKING:
    from weightspace.signals import SignalSet


def load_data(name_or_path: str, size: int | None) -> Any:
    """Load the signals that an argument names; a wrong import path is an error of usage."""
    if ":" in name_or_path and not Path(name_or_path).exists():
        usage(find_dataset, name_or_path)
    return ws.datasets.load(name_or_path, size=size)


@PROGRAM.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder of the zoo, the results and the page")] = Path("demo-run"),
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Fit the 4,000 embedded images, train with and without augmentation, and write a page that compares them."""
    for package in ("matplotlib", "jinja2"):  # a missing extra should be reported before the work, not after it
        optional(package, package, "report", "the page of the demo")
    from weightspace.report import write_report

    data, spec, config = ws.datasets.embedded(), ws.siren(2, 32, 32, 1), ws.fitting.RECIPES["dws"]
    suite = ws.bench.SUITES["demo"]
    console.print(f"1/3  fitting {len(data)} networks to Fashion-MNIST images, {config.steps} steps each")
    with fit_progress() as step:
        zoo = ws.fit_zoo(out / "zoo", data, spec, config=config, device=device, workers=workers, on_progress=step)
    console.print(f"2/3  training {', '.join(suite.entries)} with and without augmentation")
    result = ws.bench.run_suite(suite, zoo.path, out / "bench", workers=workers, device=device, on_cell=print_cell)
    console.print("3/3  writing the page")
    say(f"open {write_report([result], out / 'report.html', zoo=zoo.path)}")


def _recipe(name: str | None) -> str | None:
    if name is not None and name not in ws.fitting.RECIPES:
        raise typer.BadParameter(f"unknown recipe: expected one of {list(ws.fitting.RECIPES)}, got {name!r}")
    return name


def _spec(signals: SignalSet, widths: str, activation: str, omega: float | None, config: ws.FitConfig) -> ws.NetSpec:
    """Return the spec of the networks: the options' widths between the inputs and outputs of the signals."""
    sizes = (signals.in_features, *numbers(widths), signals.out_features)
    if activation != "sine":
        return ws.mlp(*sizes, activation=activation)
    init: dict[str, Any] = {"init": config.init} if config.init else {}
    return ws.siren(*sizes, omega=omega or 30.0, **init)


def _learned_start(data: SignalSet, spec: ws.NetSpec, config: ws.FitConfig, train: int | None) -> ws.Weights:
    """Learn the start of the recipe "meta" from the first signals of the training split."""
    import numpy as np
    import torch

    from weightspace.fitting._meta import META_SIGNALS

    count = len(data.split("train")) if "train" in data.splits else len(data)
    rows = np.asarray(data.splits.get("train", np.arange(len(data))))[: min(train or count, META_SIGNALS)]
    generator = torch.Generator().manual_seed(config.seed)
    with console.status("learning a start"):
        return ws.fitting.meta_start(*data.signals(rows), spec, generator=generator, config=config)


@PROGRAM.command(config="weightspace.fitting:FitConfig", named=("recipe", lambda name: ws.fitting.RECIPES[name]))
def fit(
    *,
    config: ws.FitConfig,
    data: Annotated[
        str,
        typer.Argument(help="a name of 'weightspace data list', an import path, or a file or folder of signals"),
    ],
    out: Annotated[Path, typer.Argument(help="folder of the zoo; an interrupted run continues there")],
    recipe: Annotated[
        str | None,
        typer.Option(
            callback=_recipe, help=f"one of {', '.join(ws.fitting.RECIPES)}; the options given replace its fields"
        ),
    ] = None,
    size: Size = None,
    widths: Annotated[str, typer.Option(callback=check_widths, help="hidden widths")] = "32,32",
    activation: Annotated[str, typer.Option(help="'sine', 'relu', 'tanh', 'gaussian', ...")] = "sine",
    omega: Annotated[float | None, typer.Option(help="frequency of the sines; 30 if not given")] = None,
    train: Annotated[int | None, typer.Option(help="first images of the training split; all if not given")] = None,
    val: Annotated[int | None, typer.Option(help="images after those, as validation split")] = None,
    test: Annotated[
        int | None, typer.Option(help="first images of the test split; all without --train, none with it")
    ] = None,
    workers: Workers = None,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = None,
    gpus: Gpus = None,
) -> None:
    """Fit one network (or several views) to every image of a data set."""
    from weightspace._activation import ACTIVATIONS

    if train is None and val is not None:
        raise typer.BadParameter("expected --train with --val: validation images follow the training images")
    if activation not in ACTIVATIONS:
        raise typer.BadParameter(f"unknown activation: expected one of {sorted(ACTIVATIONS)}, got {activation!r}")
    if omega is not None and (activation != "sine" or omega <= 0):
        raise typer.BadParameter(f"expected a positive --omega, with sines alone, got {omega:g} with {activation}")
    runner = executor_of(executor, workers, device, address, gpus)
    signals = load_data(data, size)
    spec = _spec(signals, widths, activation, omega, config)
    counts = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count is not None}
    start = _learned_start(signals, spec, config, train) if recipe == "meta" else None
    with fit_progress() as step:
        zoo = ws.fit_zoo(
            out,
            signals,
            spec,
            config=config,
            counts=counts or None,
            start=start,
            device=device,
            workers=workers,
            executor=runner,
            on_progress=step,
        )
    print_zoo(zoo)


@PROGRAM.command()
def benchmark(
    name: Annotated[str, typer.Argument(help="digits, fashion, fashion-12000, emoji, parts3d, furniture, ...")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo; an interrupted run continues there")],
    views: Annotated[int, typer.Option(min=1, help="networks of each training signal")] = 1,
    workers: Workers = None,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = None,
    gpus: Gpus = None,
) -> None:
    """Make the zoo of a benchmark, with a card that says what it is made of and its hash."""
    runner = executor_of(executor, workers, device, address, gpus)
    with fit_progress() as step:
        made = ws.bench.benchmark(
            name, out, views=views, device=device, workers=workers, executor=runner, on_progress=step
        )
    print_zoo(made)


@PROGRAM.command("add-views")
def add_views(
    zoo: Annotated[Path, typer.Argument(help="a finished zoo that fit made; an interrupted run continues there")],
    data: Annotated[str, typer.Argument(help="the data that it was fitted to, as for fit")],
    views: Annotated[int, typer.Option(min=1, help="number of networks per signal afterwards")],
    split: Annotated[list[str] | None, typer.Option(help="split that gets them, again for more; all if none")] = None,
    size: Size = None,
    workers: Workers = None,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = None,
    gpus: Gpus = None,
) -> None:
    """Fit more views of a zoo: the networks are those that would have been fitted at once."""
    runner = executor_of(executor, workers, device, address, gpus)
    signals = load_data(data, size)
    with fit_progress() as step:
        done = ws.fitting.add_views(
            zoo, signals, views, splits=split, device=device, workers=workers, executor=runner, on_progress=step
        )
    print_zoo(done)
