"""Commands that inspect, check, combine and convert zoos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

import weightspace as ws
from weightspace.cli._commands import PROGRAM
from weightspace.cli._options import Seed, Size, check_widths, numbers, usage
from weightspace.cli._progress import console, print_zoo, say
from weightspace.cli.fit import load_data

Share = Annotated[float | None, typer.Option(min=0, max=1, help="share of the sources")]
Sources = Annotated[int | None, typer.Option(min=1, help="sources to draw from the split; none if not given")]


@PROGRAM.command()
def inspect(
    zoo: Annotated[Path, typer.Argument(help="a zoo, finished or not")],
    picture: Annotated[Path | None, typer.Option(help="PNG file to draw the first networks into")] = None,
) -> None:
    """Print the spec, counts, recipe and PSNR of a zoo, and draw its first networks."""
    opened = ws.Zoo.open(zoo, verify=False, allow_incomplete=True)
    print_zoo(opened)
    if picture is not None:
        from weightspace.report._sheet import write_picture

        say(f"wrote {write_picture(opened, picture)}")


@PROGRAM.command()
def verify(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    data: Annotated[
        str | None, typer.Option(help="the data it was fitted to: a sample must have the PSNR that is recorded")
    ] = None,
    size: Size = None,
    sample: Annotated[int, typer.Option(min=1, help="networks to evaluate, with --data")] = 256,
    seed: Seed = 0,
) -> None:
    """Check every shard's hash, every number, and that no source lies in two splits; with --data the PSNR too."""
    signals = None if data is None else load_data(data, size)
    problems = ws.zoo.verify(ws.Zoo.open(zoo, verify=False), signals, sample=sample, seed=seed)
    say(*problems)
    if problems:
        raise ValueError(f"{zoo}: expected a good zoo, got {len(problems)} problem(s), listed above")
    say(f"{zoo}: good")


@PROGRAM.command()
def stats(zoo: Annotated[Path, typer.Argument(help="a zoo")]) -> None:
    """Print mean, spread and range of every parameter, and of the networks' norms."""
    for split, found in ws.zoo.stats(ws.Zoo.open(zoo)).items():
        table = Table("parameter", "mean", "std", "min", "max", title=f"{split}: {found['count']} networks")
        for name, own in {**found["params"], "(norm of a network)": found["norm"]}.items():
            table.add_row(name, *(f"{own[key]:.4g}" for key in ("mean", "std", "min", "max")))
        console.print(table)


@PROGRAM.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="ZOOS...", help="zoos of one spec")],
    out: Annotated[Path, typer.Option(help="folder of the zoo to write")],
) -> None:
    """Write all networks of several zoos into one."""
    print_zoo(ws.zoo.merge([ws.Zoo.open(zoo) for zoo in parts], out))


@PROGRAM.command()
def copy(
    source: Annotated[str, typer.Argument(help="folder of a zoo, or a URL such as s3://bucket/zoo")],
    target: Annotated[str, typer.Argument(help="the same; one of the two must be a folder")],
) -> None:
    """Copy a finished zoo to an object store, or back."""
    ws.zoo.copy(source, target)
    say(f"wrote {target}")


@PROGRAM.command()
def sample(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo to write")],
    train: Sources = None,
    val: Sources = None,
    test: Sources = None,
    seed: Seed = 0,
) -> None:
    """Write a zoo of a few sources of another, drawn at random, with all their views."""
    import torch

    counts = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count is not None}
    if not counts:
        raise typer.BadParameter("expected at least one of --train, --val and --test, got none")
    generator = torch.Generator().manual_seed(seed)
    print_zoo(ws.zoo.sample(ws.Zoo.open(zoo), out, counts, generator=generator))


@PROGRAM.command()
def split(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo to write")],
    train: Share = None,
    val: Share = None,
    test: Share = None,
    seed: Seed = 0,
) -> None:
    """Write the networks of a zoo in new splits of whole sources."""
    shares = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise typer.BadParameter(f"expected --train, --val and --test that sum to 1, got {sum(shares.values()):g}")
    print_zoo(ws.zoo.split(ws.Zoo.open(zoo), out, shares, seed=seed))


@PROGRAM.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="a folder of files of weights, with a splits.json or without")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo to write")],
    splits: Annotated[str, typer.Option(help="the split file, relative to the folder")] = "splits.json",
    widths: Annotated[
        str | None,
        typer.Option(callback=check_widths, help="all widths, such as 2,32,32,1; those of the files if not given"),
    ] = None,
    activation: Annotated[str | None, typer.Option(help="activation of the hidden layers, such as relu")] = None,
    omega: Annotated[str | None, typer.Option(help="frequency of sines, or one a hidden layer, such as 30,1")] = None,
    output_shift: Annotated[float | None, typer.Option(help="constant that their class adds to the output")] = None,
    source_pattern: Annotated[
        str | None,
        typer.Option(
            help="regular expression whose groups (or match) in a path say which signal a network was fitted to"
        ),
    ] = None,
    label_from: Annotated[
        Literal["auto", "splits", "file"],
        typer.Option(help="labels of the split file, or those beside parameters"),
    ] = "auto",
    labels: Annotated[
        str | None,
        typer.Option(
            help="of a folder without a split file: 'folder' for class folders, a .csv of file and label, 'none'"
        ),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="pattern of keys to pass over, again for more")] = None,
    module: Annotated[
        str | None,
        typer.Option(help="function that makes the network, as package.module:function: its spec is read off"),
    ] = None,
    init_regime: Annotated[
        Literal["independent", "shared", "meta", "unknown"] | None,
        typer.Option(help="whether the networks started from initialisations of their own; unknown if not given"),
    ] = None,
) -> None:
    """Read files of weights, one a network, or the zoo of small CNNs with its layout.csv, into a zoo.

    What is not said of the networks is assumed.
    """
    if (folder / "layout.csv").is_file():
        print_zoo(ws.zoo.import_cnn_zoo(folder, out))
        return
    said = {"activation": activation, "omega": _frequencies(omega), "output_shift": output_shift}
    given: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    count = len(given["omega"]) if isinstance(given.get("omega"), list) else 1
    spec = usage(_spec, [1] * (count + 2) if widths is None else numbers(widths), given)  # refuses no activation
    if module is not None:
        if given or widths is not None:
            raise typer.BadParameter(
                "expected --module, or --widths, --activation, --omega and --output-shift, got both"
            )
        from weightspace.checkpoints._files import load_module

        spec = ws.spec_of(usage(load_module, module))
    given = given if widths is None and module is None else {"spec": spec}
    if init_regime is not None:
        given["init_regime"] = init_regime
    print_zoo(
        ws.zoo.import_state_dicts(
            folder,
            out,
            splits=splits,
            label_from=label_from,
            labels=labels,
            source_of=source_pattern,
            ignore=ignore or (),
            **given,
        )
    )


def _frequencies(text: str | None) -> float | list[float] | None:
    """Parse the frequency of sines: a number, or one a hidden layer."""
    if text is None:
        return None
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"expected --omega as a number, or one a hidden layer such as 30,1, got {text!r}"
        ) from None
    return found[0] if len(found) == 1 else found


def _spec(widths: list[int], given: dict[str, Any]) -> ws.NetSpec:
    """Return the spec of a chain of these widths, with the settings that are given."""
    if given.get("activation", "sine") == "sine":
        return ws.siren(*widths, **{name: value for name, value in given.items() if name != "activation"})
    if "omega" in given:
        raise ValueError(f"expected no --omega with --activation {given['activation']}, got {given['omega']}")
    return ws.mlp(*widths, **given)


@PROGRAM.command()
def export(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    folder: Annotated[Path, typer.Argument(help="new folder of .pth state dicts and a splits.json")],
    layout: Annotated[
        Literal["own", "dwsnets", "scalegmn", "nfn"], typer.Option(help="the library whose loader shall read it")
    ] = "own",
    absolute: Annotated[
        bool | None,
        typer.Option("--absolute/--relative", help="paths in splits.json; as the layout needs if not given"),
    ] = None,
) -> None:
    """Write a zoo in the field's own format, or as another library reads it."""
    ws.zoo.export_state_dicts(ws.Zoo.open(zoo), folder, layout=layout, absolute=absolute)
    say(f"wrote {folder}")
