"""Commands that train models, measure them, and report the measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import Device, Workers, find_model, find_objective, usage
from weightspace.cli._progress import console, print_cell, say, score_text, training_progress


def _real_valued(zoo: ws.Zoo) -> bool:
    return any(zoo.labels(split).is_floating_point() for split in zoo.splits)


@PROGRAM.command(config="weightspace.training:TrainConfig")
def train(
    *,
    config: ws.TrainConfig,
    zoo: Annotated[Path, typer.Argument(help="a zoo with labels")],
    model: Annotated[str, typer.Option(help="a name of 'weightspace list models', or an import path")] = "dwsnet",
    augment: Annotated[
        str | None, typer.Option(help="names of 'weightspace list augmentations' or import paths, joined by +")
    ] = None,
    objective: Annotated[
        str, typer.Option(help="a name of 'weightspace list objectives', or an import path")
    ] = "classification",
    outputs: Annotated[
        int | None,
        typer.Option(
            min=1, help="outputs of the model; if not given the number of classes, or 1 for real-valued labels"
        ),
    ] = None,
    hidden: Annotated[int | None, typer.Option(help="width of the model")] = None,
    layers: Annotated[int | None, typer.Option(help="depth of the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of checkpoints and logs; a run there continues")] = None,
    device: Device = "cpu",
) -> None:
    """Train a model on the networks of a zoo."""
    opened = ws.Zoo.open(zoo)
    find_model(model)
    scored = find_objective(objective)
    if augment:
        usage(ws.transforms.augmentation, augment)
    sizes: dict[str, Any] = {
        name: value for name, value in (("hidden", hidden), ("layers", layers)) if value is not None
    }
    if outputs is None:
        outputs = 1 if _real_valued(opened) else opened.num_classes
    percent = scored.score_name.endswith("accuracy")
    net = ws.models.build(model, opened.spec, outputs, seed=config.seed, **sizes)
    if out is None:
        say("no --out: the model will be gone at the end; give a folder to keep it, and to predict with it")
    with training_progress(config.epochs, percent) as step:
        result = ws.train(
            net,
            opened,
            transform=augment or None,
            objective=objective,
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
    suite: Annotated[str, typer.Argument(help="a name of 'weightspace list suites', or an import path")],
    zoo: Annotated[Path, typer.Option(help="the zoo to train on")],
    out: Annotated[Path, typer.Option(help="folder of the results; an interrupted run continues there")],
    only: Annotated[
        list[str] | None, typer.Option(help="an entry to run; all if not given, several if repeated")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="epochs per run; the suite's if not given")] = None,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Run a grid of models, augmentations and seeds, and write result.json."""
    from weightspace.bench._suite import suite_named

    chosen = usage(suite_named, suite, ws.bench.SUITES)
    options = {"only": only or None, "epochs": epochs, "workers": workers, "device": device}
    say(f"wrote {ws.bench.run_suite(chosen, zoo, out, **options, on_cell=print_cell)}")


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

    for form, path in (("csv", csv), ("latex", latex)):
        if path is not None:
            write_atomic(path, "\n".join(format_table(result, form) for result in results).encode())
            say(f"wrote {path}")
    say(f"open {write_report(results, out, zoo=zoo)}")
