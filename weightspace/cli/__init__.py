"""The command line: parse, build a configuration, make one call."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

import weightspace as ws
from weightspace import zoo as zoos
from weightspace._activation import ACTIVATIONS
from weightspace.bench import SUITES, Cell, run_suite
from weightspace.cli._options import options
from weightspace.fitting import RECIPES, Executor, FitConfig, RayExecutor, add_views, meta_start
from weightspace.fitting import recipe as recipe_named
from weightspace.fitting._recipes import META_SIGNALS
from weightspace.signals import SignalSet
from weightspace.training import TrainConfig, num_classes, seeded
from weightspace.transforms import augmentation
from weightspace.zoo import export_state_dicts, import_state_dicts

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, help=ws.__doc__)
console = Console(markup=False, highlight=False)
InitRegime = Literal["independent", "shared", "meta", "unknown"]
UsageError: Any = typer.BadParameter.__base__  # click's own, or the copy of click that newer versions of Typer hold
DEMO_RECIPE = RECIPES["dws"]


def _device(text: str) -> str:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise typer.BadParameter(f"expected 'cpu' or a CUDA device that is there, got {text!r}") from None
    return text


Workers = Annotated[int | None, typer.Option(min=1, help="cores to use; all where not given")]
Device = Annotated[str, typer.Option(callback=_device, help="'cpu' or 'cuda'")]
ExecutorName = Annotated[Literal["local", "ray"], typer.Option("--executor", help="who fits: this process, or Ray")]
Address = Annotated[str | None, typer.Option(help="of the Ray cluster; if not given, RAY_ADDRESS's or one of its own")]
Gpus = Annotated[float | None, typer.Option(min=0, help="GPUs of a Ray task; one with --device cuda if not given")]
Share = Annotated[float | None, typer.Option(min=0, max=1, help="share of the sources")]
Sources = Annotated[int | None, typer.Option(min=1, help="sources to keep of the split; none where not given")]
Seed = Annotated[int, typer.Option(min=0, help="of the random choice")]


def _executor(name: str, workers: int | None, device: str, address: str | None, gpus: float | None) -> str | Executor:
    """What ``fit_zoo`` takes as executor."""
    if name == "ray":
        gpus = float(device != "cpu") if gpus is None else gpus
        return RayExecutor(address=address, cpus=workers or 1, gpus=gpus)
    if address is not None or gpus is not None:
        raise typer.BadParameter("expected --executor ray with --address and --gpus, got the local one")
    return name


def _version(show: bool) -> None:
    if show:
        typer.echo(ws.__version__)
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option(help="show the traceback of an error")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    pass


@contextmanager
def _fit_progress(what: str) -> Any:
    """A bar with rate, PSNR and time left; yields the callback of ``fit_zoo``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} networks/s  PSNR {task.fields[psnr]} dB"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, speed_estimate_period=120) as bar:
        task = bar.add_task(what, total=None, rate="-", psnr="-")
        state = {"count": 0, "sum": 0.0, "first": True}
        started = time.perf_counter()

        def step(done: int, total: int, psnr: Any) -> None:
            state["count"] += len(psnr)
            state["sum"] += float(psnr.sum())
            if state["first"]:  # what an earlier run finished is not this run's rate
                bar.reset(task, total=total, completed=done - len(psnr), rate="-", psnr="-")
                state["first"] = False
            rate = f"{state['count'] / (time.perf_counter() - started):.1f}"
            bar.update(task, completed=done, rate=rate, psnr=f"{state['sum'] / state['count']:.2f}")

        yield step


def _widths(text: str | None) -> str | None:
    """Check widths; they stay text, which is what the option holds."""
    parts = [] if text is None else text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"expected positive widths such as 32,32, got {text!r}")
    return text


def _numbers(widths: str) -> list[int]:
    return [int(part) for part in widths.split(",")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder of the zoo, the results and the page")] = Path("demo-run"),
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Fit the 4,000 embedded images, train with and without augmentation, and write a page that compares them."""
    data, spec = ws.datasets.embedded(), ws.siren(2, 32, 32, 1)
    console.print(f"1/3  fitting {len(data)} networks to Fashion-MNIST images, {DEMO_RECIPE.steps} steps each")
    with _fit_progress("fit") as step:
        zoo = ws.fit_zoo(out / "zoo", data, spec, config=DEMO_RECIPE, device=device, workers=workers, on_progress=step)
    console.print(f"2/3  training {', '.join(SUITES['demo'].entries)} with and without augmentation")
    result = _bench("demo", zoo.path, out / "bench", workers, device)
    console.print("3/3  writing the page")
    from weightspace.report import write_report  # matplotlib: too slow to import for every command and worker

    page = write_report([result], out / "report.html", zoo=zoo.path)
    console.print(f"open {page}", soft_wrap=True)


def _recipe(name: str | None) -> str | None:
    if name is not None and name not in RECIPES:
        raise typer.BadParameter(f"unknown recipe: expected one of {list(RECIPES)}, got {name!r}")
    return name


def _learned_start(data: SignalSet, spec: ws.NetSpec, config: FitConfig, train: int | None) -> ws.Weights:
    """The start of recipe "meta", from the first signals of the training split."""
    count = len(data.split("train")) if "train" in data.splits else len(data)
    rows = np.asarray(data.splits.get("train", np.arange(len(data))))[: min(train or count, META_SIGNALS)]
    generator = torch.Generator().manual_seed(config.seed)
    with console.status("learning a start"):
        return meta_start(*data.signals(rows), spec, generator=generator, config=config)


@app.command()
@options(FitConfig, named=("recipe", recipe_named))
def fit(
    *,
    config: FitConfig,
    data: Annotated[str, typer.Argument(help="a name of 'weightspace data list', or a file or folder of signals")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo; run again, it goes on where it stopped")],
    recipe: Annotated[
        str | None,
        typer.Option(callback=_recipe, help=f"one of {', '.join(RECIPES)}; the options given replace its fields"),
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="pixels to bring class folders' images to, each way")] = None,
    widths: Annotated[str, typer.Option(callback=_widths, help="hidden widths")] = "32,32",
    activation: Annotated[str, typer.Option(help="'sine', 'relu', 'tanh', 'gaussian', ...")] = "sine",
    omega: Annotated[float | None, typer.Option(help="frequency of the sines; 30 if not given")] = None,
    train: Annotated[int | None, typer.Option(help="first images of the training split; all where not given")] = None,
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
    if train is None and val is not None:
        raise typer.BadParameter("expected --train with --val: validation images follow the training images")
    if activation not in ACTIVATIONS:
        raise typer.BadParameter(f"unknown activation: expected one of {sorted(ACTIVATIONS)}, got {activation!r}")
    if omega is not None and (activation != "sine" or omega <= 0):
        raise typer.BadParameter(f"expected a positive --omega, with sines alone, got {omega:g} with {activation}")
    ran_by = _executor(executor, workers, device, address, gpus)
    signals = ws.datasets.load(data, size=size)
    ends = (signals.in_features, signals.out_features)
    hidden = _numbers(widths)
    if activation == "sine":
        init: dict[str, Any] = {"init": config.init} if config.init else {}
        spec = ws.siren(ends[0], *hidden, ends[1], omega=omega or 30.0, **init)
    else:
        spec = ws.mlp(ends[0], *hidden, ends[1], activation=activation)
    counts = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count is not None}
    start = _learned_start(signals, spec, config, train) if recipe == "meta" else None
    with _fit_progress("fit") as step:
        zoo = ws.fit_zoo(
            out,
            signals,
            spec,
            config=config,
            counts=counts or None,
            start=start,
            device=device,
            workers=workers,
            executor=ran_by,
            on_progress=step,
        )
    _print_zoo(zoo)


@app.command()
@options(TrainConfig)
def train(
    *,
    config: TrainConfig,
    zoo: Annotated[Path, typer.Argument(help="a zoo with labels")],
    model: Annotated[str, typer.Option(help="a name of ws.models.MODELS, such as 'dwsnet'")] = "dwsnet",
    augment: Annotated[str | None, typer.Option(help="names joined by +, such as sign+noise")] = None,
    hidden: Annotated[int | None, typer.Option(help="width of the model")] = None,
    layers: Annotated[int | None, typer.Option(help="depth of the model")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of checkpoints and logs; a run there goes on")] = None,
    device: Device = "cpu",
) -> None:
    """Train a model on the networks of a zoo."""
    opened = ws.Zoo.open(zoo)
    if model not in ws.models.MODELS:
        raise typer.BadParameter(f"unknown model: expected one of {sorted(ws.models.MODELS)}, got {model!r}")
    try:
        transform = augmentation(augment) if augment else None
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    sizes = {name: value for name, value in (("hidden", hidden), ("layers", layers)) if value is not None}
    with seeded(config.seed):
        net = ws.models.build(model, opened.spec, num_classes(opened), **sizes)
    with _training_progress(config.epochs) as step:
        result = ws.train(
            net,
            opened,
            transform=transform,
            config=config,
            device=device,
            run_dir=out,
            on_epoch=step,
        )
    test = "" if result.test is None else f", test {100 * result.test:.2f} %"
    console.print(f"best epoch {result.best_epoch}: validation {100 * result.val:.2f} %{test}")


@contextmanager
def _training_progress(epochs: int) -> Any:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[line]}"),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("epochs", total=epochs, line="")

        def step(line: dict[str, float]) -> None:
            text = f"loss {line['loss']:.3f}  train {100 * line['train']:.1f} %  val {100 * line['val']:.1f} %"
            bar.update(task, completed=line["epoch"], line=text)

        yield step


def _bench(name: str, zoo: Path, out: Path, workers: int | None, device: str, epochs: int | None = None) -> Path:
    if name not in SUITES:
        raise typer.BadParameter(f"unknown suite: expected one of {sorted(SUITES)}, got {name!r}")
    suite = SUITES[name]
    if epochs is not None:
        suite = replace(suite, train=replace(suite.train, epochs=epochs))

    def told(cell: Cell, result: dict[str, Any], done: int, total: int) -> None:
        test = f"test {100 * result['test']:5.2f} %" if result["test"] is not None else ""
        label = f"{cell.entry} {cell.augmentation} seed {cell.seed}"
        line = f"  {done:3d}/{total}  {label:40s} val {100 * result['val']:5.2f} %  {test}  {result['seconds']:.0f} s"
        console.print(line, soft_wrap=True)

    return run_suite(suite, zoo, out, workers=workers, device=device, on_cell=told)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help=f"one of {', '.join(SUITES)}")],
    zoo: Annotated[Path, typer.Option(help="the zoo to train on")],
    out: Annotated[Path, typer.Option(help="folder of the results; run again, it goes on where it stopped")],
    epochs: Annotated[int | None, typer.Option(help="another budget than the suite's")] = None,
    workers: Workers = None,
    device: Device = "cpu",
) -> None:
    """Run a grid of models, augmentations and seeds, and write result.json."""
    console.print(f"wrote {_bench(suite, zoo, out, workers, device, epochs)}", soft_wrap=True)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="result.json files")],
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    zoo: Annotated[Path | None, typer.Option(help="zoo to draw networks of")] = None,
) -> None:
    """Turn result.json files into one self-contained HTML page."""
    from weightspace.report import write_report

    console.print(f"open {write_report(results, out, zoo=zoo)}", soft_wrap=True)


@app.command()
def inspect(
    zoo: Annotated[Path, typer.Argument(help="a zoo, finished or not")],
    picture: Annotated[Path | None, typer.Option(help="PNG of the first networks, to write")] = None,
) -> None:
    """Say what is in a zoo: spec, counts, recipe, PSNR, and a picture."""
    opened = ws.Zoo.open(zoo, verify=False, allow_incomplete=True)
    _print_zoo(opened)
    if picture is not None:
        from weightspace.report import write_picture

        console.print(f"wrote {write_picture(opened, picture)}", soft_wrap=True)


def _print_zoo(zoo: ws.Zoo) -> None:
    about = zoo.summary()
    console.print(str(about["spec"]), soft_wrap=True)
    console.print(
        f"data {about['provenance'].get('data', 'unknown')}, {about['init_regime']} inits, {about['views']} view(s)"
    )
    console.print(f"{about['shards_done']} of {about['shards']} shards, {about['bytes'] / 1e6:.1f} MB")
    recipe = ", ".join(f"{name} {value}" for name, value in about["recipe"].items())
    console.print(f"recipe {recipe or 'unknown'}", soft_wrap=True)
    table = Table("split", "networks", "sources", "PSNR", "5 %", "median", "95 %", Column("histogram", no_wrap=True))
    for split in zoo.splits:
        row, psnr = about["splits"][split], zoo.psnr(split)
        quality = row["psnr"] or {}
        marks = [f"{quality[name]:.2f}" if quality else "-" for name in ("mean", "q05", "median", "q95")]
        table.add_row(split, str(row["count"]), str(row["sources"]), *marks, _histogram(psnr[~psnr.isnan()]))
    console.print(table)


def _histogram(values: Any, bins: int = 12) -> str:
    """A histogram in one line of text, from the smallest value to the largest."""
    if not len(values):
        return "-"
    counts = values.histc(bins=bins)
    blocks = " .:-=+*#@" if console.options.ascii_only else " ▁▂▃▄▅▆▇█"
    return "".join(blocks[round(8 * float(c / counts.max()))] for c in counts)


@app.command()
def verify(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    data: Annotated[
        str | None, typer.Option(help="the data it was fitted to: a sample must have the PSNR that is recorded")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="as for fit")] = None,
    sample: Annotated[int, typer.Option(min=1, help="networks to evaluate, with --data")] = 256,
    seed: Seed = 0,
) -> None:
    """Check every shard's hash, every number, and that no source lies in two splits; with --data the PSNR too."""
    signals = None if data is None else ws.datasets.load(data, size=size)
    problems = ws.Zoo.open(zoo, verify=False).verify(signals, sample=sample, seed=seed)
    for problem in problems:
        console.print(problem, soft_wrap=True)
    if problems:
        raise ValueError(f"{zoo}: expected a good zoo, got {len(problems)} problem(s), listed above")
    console.print(f"{zoo}: good", soft_wrap=True)


@app.command("add-views")
def add_views_(
    zoo: Annotated[Path, typer.Argument(help="a finished zoo that fit made; run again, it goes on where it stopped")],
    data: Annotated[str, typer.Argument(help="the data that it was fitted to, as for fit")],
    views: Annotated[int, typer.Option(min=1, help="how many of each signal there shall be")],
    size: Annotated[int | None, typer.Option(min=1, help="as for fit")] = None,
    workers: Workers = None,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = None,
    gpus: Gpus = None,
) -> None:
    """Fit more views of a zoo: the networks are those that would have been fitted at once."""
    ran_by = _executor(executor, workers, device, address, gpus)
    signals = ws.datasets.load(data, size=size)
    with _fit_progress("fit") as step:
        done = add_views(zoo, signals, views, device=device, workers=workers, executor=ran_by, on_progress=step)
    _print_zoo(done)


@app.command()
def stats(zoo: Annotated[Path, typer.Argument(help="a zoo")]) -> None:
    """Mean, spread and range of every parameter, and of the networks' norms."""
    for split, found in zoos.stats(ws.Zoo.open(zoo)).items():
        table = Table("parameter", "mean", "std", "min", "max", title=f"{split}: {found['count']} networks")
        for name, own in {**found["params"], "(norm of a network)": found["norm"]}.items():
            table.add_row(name, *(f"{own[key]:.4g}" for key in ("mean", "std", "min", "max")))
        console.print(table)


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="ZOOS...", help="zoos of one spec")],
    out: Annotated[Path, typer.Option(help="folder of the zoo to write")],
) -> None:
    """Write all networks of several zoos into one."""
    _print_zoo(zoos.merge([ws.Zoo.open(zoo) for zoo in parts], out))


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="folder of a zoo, or a URL such as s3://bucket/zoo")],
    target: Annotated[str, typer.Argument(help="the same; one of the two must be a folder")],
) -> None:
    """Copy a finished zoo to an object store, or back."""
    zoos.copy(source, target)
    console.print(f"wrote {target}", soft_wrap=True)


@app.command()
def sample(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo to write")],
    train: Sources = None,
    val: Sources = None,
    test: Sources = None,
    seed: Seed = 0,
) -> None:
    """Write a zoo of a few sources of another, drawn at random, with all their views."""
    counts = {name: count for name, count in (("train", train), ("val", val), ("test", test)) if count is not None}
    if not counts:
        raise typer.BadParameter("expected at least one of --train, --val and --test, got none")
    generator = torch.Generator().manual_seed(seed)
    _print_zoo(zoos.sample(ws.Zoo.open(zoo), out, counts, generator=generator))


@app.command()
def split(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo to write")],
    train: Share = None,
    val: Share = None,
    test: Share = None,
    seed: Seed = 0,
) -> None:
    """Write the networks of a zoo in new splits, dealt by source."""
    shares = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise typer.BadParameter(f"expected --train, --val and --test that sum to 1, got {sum(shares.values()):g}")
    _print_zoo(zoos.split(ws.Zoo.open(zoo), out, shares, seed=seed))


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(help="a folder of .pth state dicts with a splits.json")],
    out: Annotated[Path, typer.Argument(help="folder of the zoo to write")],
    splits: Annotated[str, typer.Option(help="the split file, relative to the folder")] = "splits.json",
    widths: Annotated[
        str | None,
        typer.Option(callback=_widths, help="all widths, such as 2,32,32,1; read off the files if not given"),
    ] = None,
    omega: Annotated[float | None, typer.Option(help="of the SIRENs, with --widths; 30 if not given")] = None,
    output_shift: Annotated[
        float | None, typer.Option(help="what their class adds to the output, with --widths; 0.5 if not given")
    ] = None,
    init_regime: Annotated[
        InitRegime | None,
        typer.Option(help="whether each network started from an initialisation of its own; unknown if nothing says"),
    ] = None,
) -> None:
    """Read the field's own format, one .pth state dict a network, into a zoo."""
    given: dict[str, Any] = {
        name: value for name, value in (("omega", omega), ("output_shift", output_shift)) if value is not None
    }
    if given and widths is None:
        raise typer.BadParameter("expected --widths with --omega and --output-shift, got none")
    spec = None if widths is None else ws.siren(*_numbers(widths), **given)
    about: dict[str, Any] = {} if init_regime is None else {"init_regime": init_regime}
    _print_zoo(import_state_dicts(folder, out, splits=splits, spec=spec, **about))


@app.command()
def export(
    zoo: Annotated[Path, typer.Argument(help="a zoo")],
    folder: Annotated[Path, typer.Argument(help="new folder of .pth state dicts and a splits.json")],
) -> None:
    """Write a zoo in the field's own format."""
    export_state_dicts(ws.Zoo.open(zoo), folder)
    console.print(f"wrote {folder}", soft_wrap=True)


data_app = typer.Typer(help="Named data sets: what there is, and how to get it.")
app.add_typer(data_app, name="data")


@data_app.command("list")
def data_list(
    name: Annotated[str | None, typer.Argument(help="all that is known of one of them")] = None,
) -> None:
    """List the data sets: classes, how to split them, licence, whether they are here."""
    from weightspace.datasets import DATASETS

    if name is None:
        ends = (Column("name", no_wrap=True), Column("state", no_wrap=True))
        table = Table(ends[0], "signals", "classes", "split", "licence", ends[1])
        for entry in DATASETS.values():
            short = (text.split(":")[0] for text in (entry.split, entry.licence))
            table.add_row(entry.name, entry.what, str(entry.classes), *short, entry.state)
        console.print(table)
        console.print("weightspace data list NAME tells all that is known of one: how to get it, whom to cite")
        return
    if name not in DATASETS:
        raise typer.BadParameter(f"unknown data set: expected one of {', '.join(DATASETS)}, got {name!r}")
    entry = DATASETS[name]
    for field in ("name", "what", "classes", "split", "licence", "citation", "obtain", "state"):
        console.print(f"{field:9s} {getattr(entry, field)}", soft_wrap=True)
    for option, value in (entry.defaults or {}).items():
        console.print(f"option    {option}, {value} if not given", soft_wrap=True)


@data_app.command("prepare")
def data_prepare(
    name: Annotated[str, typer.Argument(help="a name of 'weightspace data list'")],
    out: Annotated[Path | None, typer.Option(help="the .npz file to write; into the cache if not given")] = None,
    source: Annotated[
        Path | None, typer.Option(help="folder of the packages or the data, looked at before anything is fetched")
    ] = None,
    size: Annotated[int | None, typer.Option(min=1, help="pixels each way (emoji)")] = None,
    tones: Annotated[bool | None, typer.Option("--tones", help="all skin tones, not plain ones alone (emoji)")] = None,
    points: Annotated[int | None, typer.Option(min=1, help="points of each mesh (meshes)")] = None,
    signed: Annotated[bool | None, typer.Option(help="negative distances inside, or none (meshes)")] = None,
    std: Annotated[float | None, typer.Option(help="standard deviation of the near-surface points (meshes)")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of the points (meshes)")] = None,
    per_family: Annotated[int | None, typer.Option(min=1, help="the most parts of one family (kicad)")] = None,
) -> None:
    """Fetch a data set by its package client and build it into one compressed file."""
    from weightspace.datasets import DATASETS, prepare

    if name not in DATASETS:
        raise typer.BadParameter(f"unknown data set: expected one of {', '.join(DATASETS)}, got {name!r}")
    given = {"size": size, "tones": tones, "points": points, "signed": signed, "std": std, "seed": seed}
    given |= {"per_family": per_family}
    given = {option: value for option, value in given.items() if value is not None}
    if unknown := sorted(set(given) - DATASETS[name].options):
        option = unknown[0].replace("_", "-")
        raise typer.BadParameter(f"{name}: expected no --{option}: see weightspace data list {name}")
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} signals"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{name}: fetching and building", total=None)
        path = prepare(name, out=out, source=source, on_progress=lambda n: bar.update(task, completed=n), **given)
    data = ws.datasets.load(path if out is not None else name)
    console.print(f"wrote {path}", soft_wrap=True)
    console.print(str(data), soft_wrap=True)


def _input_shape(text: str | None) -> str | None:
    """Check a shape without its batch; it stays text, which is what the option holds."""
    if text is not None and not all(part.strip().isdecimal() and int(part) > 0 for part in text.split(",")):
        raise typer.BadParameter(f"expected a shape without the batch such as 3,32,32, got {text!r}")
    return text


@app.command()
def align(
    a: Annotated[Path, typer.Argument(help="checkpoint to align to: a state dict, .safetensors, .pth or .pt")],
    b: Annotated[Path, typer.Argument(help="checkpoint to move")],
    module: Annotated[str, typer.Option(help="what makes the network, as package.module:function")],
    group: Annotated[Literal["permutation", "signed", "full"], typer.Option(help="what to search")] = "permutation",
    shape: Annotated[
        str | None,
        typer.Option("--input", callback=_input_shape, help="an input's shape, as 3,32,32; usual sizes if not given"),
    ] = None,
    responses: Annotated[
        Path | None,
        typer.Option(help="inputs, one array in an .npy file: pair neurons by their responses to them, not by weights"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="where to write the second checkpoint, moved")] = None,
    merge: Annotated[Path | None, typer.Option(help="where to write the average of the two, aligned")] = None,
) -> None:
    """Move one checkpoint onto another of the same network; its function stays."""
    states = [ws.checkpoints.read_checkpoint(path) for path in (a, b)]
    net = ws.checkpoints.load_module(module)
    example = None if shape is None else torch.zeros(1, *_numbers(shape))
    batches = None if responses is None else _array(responses).split(256)
    if batches is not None and example is None:
        example = batches[0][:1]
    found = ws.checkpoints.align_state_dicts(net, *states, group=group, example_input=example, batches=batches)
    console.print(f"squared distance {found.before:.6g} before, {found.after:.6g} after", soft_wrap=True)
    if out is not None:
        ws.checkpoints.write_checkpoint(found.state_dict, out)
        console.print(f"wrote {out}", soft_wrap=True)
    if merge is not None:
        ws.checkpoints.write_checkpoint(ws.checkpoints.interpolate_state_dicts(states[0], found.state_dict), merge)
        norms = any(param.statistic for param in found.symmetry.spec.params)
        hint = "; measure its batch norms anew: ws.checkpoints.repair_batch_norm" if norms else ""
        console.print(f"wrote {merge}{hint}", soft_wrap=True)


def _array(path: Path) -> torch.Tensor:
    """Inputs of a network, ``[input, ...]`` in float32."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected an array in an .npy file, got no such file")
    try:
        with path.open("rb") as file:  # NumPy leaves an archive open
            return torch.from_numpy(np.load(file, allow_pickle=False).astype(np.float32))
    except (ValueError, EOFError, AttributeError) as error:  # another or a damaged file; an archive of several arrays
        raise ValueError(f"{path}: expected an array of numbers in an .npy file ({error})") from error


def main(argv: list[str] | None = None) -> None:
    """Run a command. Errors are one line: exit code 2 for usage, 1 for failure; ``--debug`` shows the traceback."""
    given = sys.argv[1:] if argv is None else argv
    debug = "--debug" in given
    arguments = [argument for argument in given if argument != "--debug"] or ["--help"]
    try:
        code = app(args=arguments, prog_name="weightspace", standalone_mode=False)
    except UsageError as error:
        _fail(error.format_message() + "; see --help", 2)
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except Exception as error:
        if debug:
            raise
        _fail(str(error) or type(error).__name__, 1)
    if code == 130:
        _fail("interrupted; the same command goes on from what is on disk", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    line = " ".join(message.split())
    typer.echo(f"weightspace: {line}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
