"""Output on the terminal: the console, progress bars, and the tables of a zoo."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from weightspace._text import printable

if TYPE_CHECKING:
    from weightspace import Zoo


class _Console(Console):
    """A console that shows text from files as text: what a terminal might obey is escaped."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str("\n".join(printable(line) for line in text.split("\n")), **options)


LINES_EVERY = 10.0
"""Seconds between lines of progress where the output is no terminal."""
console = _Console(markup=False, highlight=False)


def say(*lines: object) -> None:
    """Print lines without breaking them, so that paths can be copied."""
    for line in lines:
        console.print(line, soft_wrap=True)


@contextmanager
def fit_progress() -> Iterator[Callable[[int, int, Any], None]]:
    """Show a bar with rate, PSNR and time left; yield the function to call after each shard of networks."""
    if not console.is_terminal:
        yield _lines_of_fit()
        return
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
        task = bar.add_task("fit: preparing; the first time on a machine compiles", total=None, rate="-", psnr="-")
        started, count, total_psnr = time.perf_counter(), 0, 0.0

        def step(done: int, total: int, psnr: Any) -> None:
            nonlocal count, total_psnr
            if not count:  # the networks of an earlier run do not count for this run's rate
                bar.reset(task, total=total, completed=done - len(psnr), description="fit", rate="-", psnr="-")
            count += len(psnr)
            total_psnr += float(psnr.sum())
            rate = f"{count / (time.perf_counter() - started):.1f}"
            bar.update(task, completed=done, rate=rate, psnr=f"{total_psnr / count:.2f}")

        yield step


def _lines_of_fit() -> Callable[[int, int, Any], None]:
    """Return a function that writes a line of progress every few seconds, where the output is no terminal."""
    say("fit: preparing; the first time on a machine compiles")
    started, last, count = time.perf_counter(), 0.0, 0

    def step(done: int, total: int, psnr: Any) -> None:
        nonlocal last, count
        count += len(psnr)
        now = time.perf_counter() - started
        if now - last >= LINES_EVERY or done == total:
            last = now
            say(f"fit {done}/{total}  {count / now:.1f} networks/s  PSNR {float(psnr.mean()):.2f} dB  {now:.0f} s")

    return step


def score_text(score: float, percent: bool, digits: int = 2) -> str:
    """Format a score: an accuracy in percent, any other score as a number."""
    return f"{100 * score:.{digits}f} %" if percent else f"{score:.4g}"


@contextmanager
def training_progress(epochs: int, percent: bool) -> Iterator[Callable[[dict[str, float]], None]]:
    """Show a bar with loss, scores and time left; yield the function to call after each epoch.

    Args:
        epochs: the number of epochs in all.
        percent: whether scores are accuracies.
    """
    if not console.is_terminal:
        yield _lines_of_training(epochs, percent)
        return
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
            train, val = (score_text(line[name], percent, digits=1) for name in ("train", "val"))
            bar.update(task, completed=line["epoch"], line=f"loss {line['loss']:.3f}  train {train}  val {val}")

        yield step


def _lines_of_training(epochs: int, percent: bool) -> Callable[[dict[str, float]], None]:
    """Return a function that writes a line for an epoch, every few seconds, where the output is no terminal."""
    last = time.perf_counter() - LINES_EVERY

    def step(line: dict[str, float]) -> None:
        nonlocal last
        if time.perf_counter() - last >= LINES_EVERY or line["epoch"] == epochs:
            last = time.perf_counter()
            train, val = (score_text(line[name], percent, digits=1) for name in ("train", "val"))
            say(f"epoch {line['epoch']}/{epochs}  loss {line['loss']:.3f}  train {train}  val {val}")

    return step


@contextmanager
def build_progress(name: str) -> Iterator[Callable[[int], None]]:
    """Show the number of finished signals; yield the function to call with it."""
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} signals"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(f"{name}: fetching and building", total=None)
        yield lambda count: bar.update(task, completed=count)


def print_cell(cell: Any, result: Any, done: int, total: int) -> None:
    """Print a line about a finished cell of a suite."""
    percent = result.objective is None  # classification; the scores of other objectives are not accuracies
    test = "" if result.test is None else f"test {score_text(result.test, percent):>7s}"
    label = f"{cell.entry} {cell.augmentation} seed {cell.seed}"
    val = score_text(result.val, percent)
    say(f"  {done:3d}/{total}  {label:40s} val {val:>7s}  {test}  {result.seconds:.0f} s")


def print_result(result: Any) -> None:
    """Print one table of all rows of a suite."""
    table = Table("model", "augmentation", "parameters", "test", "validation", "seeds")
    for row in result.rows:
        percent = row.objective is None
        test = "-" if row.test_mean is None else score_text(row.test_mean, percent)
        if row.test_std is not None:
            test += f" ± {score_text(row.test_std, percent)}"
        val = "-" if row.val_mean is None else score_text(row.val_mean, percent)
        count = "-" if row.parameters is None else f"{row.parameters:,}"
        table.add_row(row.model, row.augmentation, count, test, val, str(len(row.seeds)))
    console.print(table)


def print_zoo(zoo: Zoo) -> None:
    """Print spec, recipe, counts and PSNR of a zoo."""
    found = zoo.summary()
    say(str(found["spec"]))
    data, views = found["provenance"].get("data", "unknown"), found["views"]
    console.print(f"data {data}, {found['init_regime']} inits, {views} view(s)")
    console.print(f"{found['shards_done']} of {found['shards']} shards, {found['bytes'] / 1e6:.1f} MB")
    recipe = ", ".join(f"{name} {value}" for name, value in found["recipe"].items())
    say(f"recipe {recipe or 'unknown'}")
    if zoo.settings.columns:
        say("columns " + ", ".join(f"{name} ({kind})" for name, kind in zoo.settings.columns.items()))
    if "imported" in found:
        _print_imported(**found["imported"])
    table = Table("split", "networks", "sources", "PSNR", "5 %", "median", "95 %", Column("histogram", no_wrap=True))
    for split in zoo.splits:
        row, psnr = found["splits"][split], zoo.psnr(split)
        quality = row["psnr"] or {}
        marks = [f"{quality[name]:.2f}" if quality else "-" for name in ("mean", "q05", "median", "q95")]
        table.add_row(split, str(row["count"]), str(row["sources"]), *marks, _histogram(psnr[~psnr.isnan()]))
    console.print(table)


def _print_imported(matched: Any, keys: Mapping[str, Any], assumed: Mapping[str, Any], sources: Any) -> None:
    """Print how the files of an imported zoo were read, and what nobody said about them."""
    pairs = [f"{name} from {key}" for name, key in keys.items() if name != key]
    shown = ", ".join(pairs[:4]) + (", ..." if len(pairs) > 4 else "")
    say(f"imported, keys matched {matched}{f': {shown}' if shown else ''}")
    if assumed:
        say("assumed " + ", ".join(f"{name} {value}" for name, value in assumed.items() if name != "by"))
    if sources is not None:
        say(f"sources {sources}: splits may share signals unless an import says which (--source-pattern)")


def _histogram(values: Any, bins: int = 12) -> str:
    """Draw a histogram as one line of text, from the smallest value to the largest."""
    if not len(values):
        return "-"
    counts = values.histc(bins=bins)
    blocks = " .:-=+*#@" if console.options.ascii_only else " ▁▂▃▄▅▆▇█"
    return "".join(blocks[round(8 * float(c / counts.max()))] for c in counts)
