"""Commands that train models, measure them, and report the measurements."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import Device, Workers, find_model, find_suite, usage
from weightspace.cli._progress import console, print_cell, say, training_progress


@PROGRAM.command(config="weightspace.training:TrainConfig")
def train(
    *,
    config: ws.TrainConfig,
    zoo: Annotated[Path, typer.Argument(help="a zoo with labels")],
    model: Annotated[str, typer.Option(help="a name of 'weightspace list models', or an import path")] = "dwsnet",
    augment: Annotated[
        str | None, typer.Option(help="names of 'weightspace list augmentations' or import paths, joined by +")
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="width of the model")] = None,
    layers: Annotated[int | None, typer.Option(help="depth of the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of checkpoints and logs; a run there continues")] = None,
    device: Device = "cpu",
) -> None:
    """Train a model on the networks of a zoo."""
    opened = ws.Zoo.open(zoo)
    find_model(model)
    transform = usage(ws.transforms.augmentation, augment) if augment else None
    sizes = {name: value for name, value in (("hidden", hidden), ("layers", layers)) if value is not None}
    net = ws.models.build(model, opened.spec, opened.num_classes, seed=config.seed, **sizes)
    with training_progress(config.epochs) as step:
        result = ws.train(net, opened, transform=transform, config=config, device=device, run_dir=out, on_epoch=step)
    test = "" if result.test is None else f", test {100 * result.test:.2f} %"
    console.print(f"best epoch {result.best_epoch}: validation {100 * result.val:.2f} %{test}")


@PROGRAM.command()
def bench(
    suite: Annotated[str, typer.Argument(help="a name of 'weightspace list suites', or an import path")],
    zoo: Annotated[Path, typer.Option(help="the zoo to train on")],
    out: Annotated[Path, typer.Option(help="folder of the results; an interrupted run continues there")],
    epochs: Annotated[int | None, typer.Option(help="epochs per run; the suite's if not given")] = None,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Run a grid of models, augmentations and seeds, and write result.json."""
    chosen = find_suite(suite)
    if epochs is not None:
        chosen = replace(chosen, train=replace(chosen.train, epochs=epochs))
    result = ws.bench.run_suite(chosen, zoo, out, workers=workers, device=device, on_cell=print_cell)
    say(f"wrote {result}")


@PROGRAM.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="result.json files")],
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    zoo: Annotated[Path | None, typer.Option(help="zoo whose networks are drawn")] = None,
) -> None:
    """Turn result.json files into one self-contained HTML page."""
    from weightspace.report import write_report

    say(f"open {write_report(results, out, zoo=zoo)}")
