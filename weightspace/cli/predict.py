"""Commands that use a trained model: predictions, and scores on the labels of a zoo."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import Device, Workers
from weightspace.cli._progress import console, fit_progress, say

MOST_ROWS = 40
"""Predictions that the terminal shows; a file has them all."""
MOST_CLASSES = 25
"""Classes up to which a confusion matrix is shown."""

Run = Annotated[Path, typer.Argument(help="the folder of a trained model: train's --out, or of ws.models.save_model")]
Imports = Annotated[
    bool, typer.Option("--imports", help="import the class that the run names, which runs its code: trust the run")
]


@dataclass(frozen=True)
class Named:
    """Networks or signals to read, and the columns by which a table names them: rows as texts or numbers."""

    data: Any
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


@PROGRAM.command()
def predict(
    run: Run,
    data: Annotated[
        Path, typer.Argument(help="a zoo, files of weights or signals, or a folder of them; signals are fitted first")
    ],
    split: Annotated[str | None, typer.Option(help="split of a zoo; all if not given")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="file to write all predictions to")] = None,
    imports: Imports = False,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Predict the classes or numbers of networks, or of signals by networks that are fitted to them."""
    from weightspace._files import write_atomic

    model = ws.models.load_model(run, imports=imports)
    if model.output != "tensor":
        raise ValueError(f"{run}: expected a model of classes or numbers, got one that returns {model.output}")
    found = read_networks(model, data, split, device, workers)
    output = ws.training.predict(model, found.data, device=device)
    header, rows = _predictions(model, output)
    header, rows = [*found.columns, *header], [[*a, *b] for a, b in zip(found.rows, rows, strict=True)]
    if csv_file is not None:
        write_atomic(csv_file, as_csv(header, rows).encode())
        say(f"wrote {csv_file}")
        return
    shown = len(found.columns) + 2
    table = Table(*header[:shown])
    for row in rows[:MOST_ROWS]:
        table.add_row(*(f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row[:shown]))
    console.print(table)
    if len(rows) > MOST_ROWS:
        say(f"and {len(rows) - MOST_ROWS} more; --csv FILE writes all")


@PROGRAM.command()
def evaluate(
    run: Run,
    zoo: Annotated[Path, typer.Argument(help="a zoo with labels")],
    split: Annotated[str, typer.Option(help="split to measure on")] = "test",
    out: Annotated[Path | None, typer.Option("--json", help="file to write the scores to")] = None,
    imports: Imports = False,
    device: Device = "cpu",
) -> None:
    """Measure a trained model: accuracy, each class and the confusion matrix, or R2 and Kendall's tau of numbers."""
    from weightspace._files import write_atomic

    model = ws.models.load_model(run, imports=imports)
    found = ws.training.evaluate_model(model, ws.Zoo.open(zoo), split, device=device)
    without = f", and {found['unlabelled']} without a label" if found["unlabelled"] else ""
    say(f"{found['networks']} networks of the split {split}{without}")
    if "accuracy" in found:
        _print_classes(found)
    else:
        for name, text in (("r2", "R2"), ("kendall", "Kendall's tau"), ("mae", "mean absolute error")):
            say(f"{text} {_number(found[name])}")
    if out is not None:
        write_atomic(out, json.dumps(found, indent=1).encode())
        say(f"wrote {out}")


def _print_classes(found: dict[str, Any]) -> None:
    say(f"accuracy {100 * found['accuracy']:.2f} %")
    table = Table("class", "networks", "precision", "recall", "F1")
    for row in found["classes"]:
        table.add_row(row["name"], str(row["networks"]), *(_number(row[key]) for key in ("precision", "recall", "f1")))
    console.print(table)
    names, counts = [row["name"] for row in found["classes"]], found["confusion"]
    if len(names) > MOST_CLASSES:
        say(f"{len(names)} classes: --json FILE writes the confusion matrix")
        return
    matrix = Table("class \\ predicted", *map(str, range(len(names))), title="confusion, in networks")
    for number, (name, row) in enumerate(zip(names, counts, strict=True)):
        matrix.add_row(f"{number} {name}" if name != str(number) else name, *map(str, row))
    console.print(matrix)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def read_networks(model: Any, path: Path, split: str | None, device: str, workers: int | None) -> Named:
    """Read networks from a zoo or files of weights, or fit them to signals."""
    from weightspace.training._predict import fitted

    found = _read(model, path, split)
    if not isinstance(found.data, ws.signals.SignalSet):
        return found
    with fit_progress() as step:
        networks = fitted(model, found.data, device=device, workers=workers, on_progress=step)
    return Named(networks, found.columns, found.rows)


def _read(model: Any, path: Path, split: str | None) -> Named:
    """Find out what a path holds: a zoo, files of weights, or signals."""
    if (path / "manifest.json").is_file():
        return _of_zoo(ws.Zoo.open(path), split)
    if split is not None:
        raise typer.BadParameter(f"expected --split with a zoo, got {path}, which is none")
    if files := _weight_files(path):
        return _of_files(model, path, files)
    return _of_signals(model, path)


def _of_zoo(zoo: ws.Zoo, split: str | None) -> Named:
    names = names_of_zoo(zoo, split)
    parts = [zoo.weights(name) for name in ([split] if split is not None else zoo.splits)]
    return Named(ws.Weights.cat(parts), names.columns, names.rows)


def names_of_zoo(zoo: ws.Zoo, split: str | None = None) -> Named:
    """Return the columns by which a table names the networks of a split, or of all."""
    columns = ["source", "view", *(["name"] if "name" in zoo.settings.columns else [])]
    tables = {name: zoo.table(name) for name in ([split] if split is not None else zoo.splits)}
    rows = [
        (name, *row)
        for name, table in tables.items()
        for row in zip(*(table[column].tolist() for column in columns), strict=True)
    ]
    return Named(None, ("split", *columns), rows)


def _weight_files(path: Path) -> list[Path]:
    """Return the files of weights at a path or below it, sorted."""
    from weightspace.checkpoints._files import READ

    found = [path] if path.is_file() else sorted(path.rglob("*")) if path.is_dir() else []
    return [file for file in found if file.suffix.lower() in READ and file.is_file()]


def _of_files(model: Any, root: Path, files: Sequence[Path]) -> Named:
    from weightspace.zoo._layer_order import in_layer_order, keys_of

    names, states = list(keys_of(model.spec)), []
    for file in files:
        state = {key: value.float() for key, value in ws.checkpoints.read_checkpoint(file).items()}
        if set(state) != set(names) and len(state) == len(names):
            state = dict(zip(names, (state[key] for key in in_layer_order(state, file)[0]), strict=True))
        try:
            states.append(ws.Weights.from_state_dicts([state], model.spec))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{file}: expected weights of {model.spec}, as the model reads: {error}") from error
    base = root if root.is_dir() else root.parent
    return Named(ws.Weights.cat(states), ("file",), [(file.relative_to(base).as_posix(),) for file in files])


def _of_signals(model: Any, path: Path) -> Named:
    from weightspace.datasets._load import is_pictures, read
    from weightspace.training._predict import picture_size

    data = read(path, picture_size(model) if is_pictures(path) else None)  # without splits
    names = data.sources.tolist() if data.names is None else data.names.tolist()
    return Named(data, ("source" if data.names is None else "file",), [(name,) for name in names])


def _predictions(model: Any, output: Any) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the columns of the predictions, and the rows: of a classifier the likeliest class first."""
    if not (model.classes or model.about.get("objective") == "Classification"):
        names = ["prediction"] if output.shape[1] == 1 else [f"prediction {k}" for k in range(output.shape[1])]
        return names, (row for row in output.tolist())
    names = [model.classes[k] if k < len(model.classes) else str(k) for k in range(output.shape[1])]
    shares = output.float().softmax(1)
    best = zip(shares.argmax(1).tolist(), shares.amax(1).tolist(), shares.tolist(), strict=True)
    return ["class", "probability", *(f"p({name})" for name in names)], ([names[k], p, *row] for k, p, row in best)


def as_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
