"""Draw plots as inline SVG that takes its colors and its font from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from weightspace._extras import optional
from weightspace.bench._record import Result, Row
from weightspace.report._tables import ModelTable, accuracy, leaders, points

# Each placeholder color becomes a variable of the page's style, so that one plot suits light and dark screens.
INK, FAINT, RULE = "#010101", "#020202", "#030303"
SERIES = ("#040404", "#050505", "#060606", "#070707")
_VARIABLES = {INK: "--ink", FAINT: "--faint", RULE: "--rule"} | {c: f"--c{i}" for i, c in enumerate(SERIES, 1)}
_DASHES = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)), (0, (1.5, 1)))
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "weightspace",
    "text.parse_math": False,
    "font.size": 9.0,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.unicode_minus": True,
}
WIDTH = 5.4
BASE = "no augmentation"
AMOUNTS = {"share": "share of the training signals", "views": "views of each signal"}


def difference_bars(table: ModelTable, ident: str) -> str | None:
    """Draw each row's test accuracy minus that of the row without augmentation, in points, with the seeds' spread.

    Without a row to compare with, the bars are the accuracies themselves. Nothing is drawn if no row was tested.
    """
    rows = [row for row in table.rows if row.test_mean is not None]
    if not rows:
        return None
    differences = {row.augmentation: table.difference(row) for row in rows}
    relative = any(value is not None for value in differences.values())
    rows = [row for row in rows if not row.baseline] if relative else rows
    values = [100 * ((differences[row.augmentation] if relative else row.test_mean) or 0.0) for row in rows]
    spreads = [100 * row.test_std if row.test_std is not None else 0.0 for row in rows]
    with _style():
        figure = _figure(0.55 + 0.24 * len(rows))
        axes = figure.add_subplot()
        color = {row.augmentation: SERIES[i] for i, row in enumerate(leaders(table, len(SERIES)))}
        axes.barh(range(len(rows)), values, height=0.62, color=[color.get(r.augmentation, FAINT) for r in rows])
        for place, (value, spread) in enumerate(zip(values, spreads, strict=True)):
            if spread:
                axes.errorbar(value, place, xerr=spread, color=INK, linewidth=1, capsize=2.5, capthick=1)
        figures = [points(differences[r.augmentation]) if relative else accuracy(r.test_mean) for r in rows]
        _labels(axes, rows, values, spreads, figures)
        axes.set_xlabel("points against no augmentation" if relative else "test accuracy, %")
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        bare(axes, "x")
        axes.tick_params(axis="y", length=0)
        return inline_svg(figure, ident, f"{table.model}: {axes.get_xlabel()}")


def _style() -> Any:
    """Return the context in which plots are drawn."""
    return optional("matplotlib", "matplotlib", "report", "a report").rc_context(STYLE)


def _figure(height: float) -> Any:
    """Return an empty figure of the page's width, in inches."""
    module = optional("matplotlib.figure", "matplotlib", "report", "a report")
    return module.Figure(figsize=(WIDTH, height), layout="constrained")


def _labels(axes: Any, rows: Sequence[Row], values: list[float], spreads: list[float], figures: list[str]) -> None:
    """Write names on the left and figures at the right edge."""
    transforms = optional("matplotlib.transforms", "matplotlib", "report", "a report")
    axes.set_yticks(range(len(rows)), [row.augmentation for row in rows])
    low = min(0.0, *(v - s for v, s in zip(values, spreads, strict=True)))
    high = max(0.0, *(v + s for v, s in zip(values, spreads, strict=True)))
    margin = 0.04 * (high - low or 1.0)
    axes.set_xlim(low - margin if low < 0 else 0.0, high + margin)
    beside = transforms.blended_transform_factory(axes.transAxes, axes.transData)
    for place, text in enumerate(figures):
        axes.text(1.02, place, text, va="center", ha="left", fontsize=8.5, transform=beside)


def validation_curves(table: ModelTable, ident: str) -> str | None:
    """Draw validation accuracy by epoch, the mean over seeds.

    The row without augmentation and those that validate best stand out. Nothing is drawn without histories.
    """
    curves = {row.augmentation: _mean_curve(row) for row in table.rows}
    if not any(len(curve) > 1 for curve in curves.values()):
        return None
    ticker = optional("matplotlib.ticker", "matplotlib", "report", "a report")
    with _style():
        figure = _figure(4.2)
        axes = figure.add_subplot()
        for label, curve, style in _lines(table, curves):
            axes.plot(range(1, len(curve) + 1), curve, label=label, **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy, %")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.margins(x=0.01)
        axes.set_ylim(bottom=_floor(list(curves.values())))
        bare(axes, "both")
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: (labels[i] != BASE, labels[i].endswith(" others")))
        figure.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="outside upper left",
            ncols=2,
            frameon=False,
            fontsize=8.5,
            handlelength=2.6,
        )
        return inline_svg(figure, ident, f"{table.model}: validation accuracy by epoch")


def _lines(
    table: ModelTable, curves: dict[str, list[float]]
) -> Iterator[tuple[str | None, list[float], dict[str, Any]]]:
    """Yield label, values and style of every line, the most important last so that it is drawn on top."""
    top = leaders(table, len(SERIES))
    names = {row.augmentation for row in top}
    others = [row for row in table.rows if row.augmentation not in names and not row.baseline]
    for number, row in enumerate(others):
        label = f"{len(others)} others" if number == 0 else None
        yield label, curves[row.augmentation], {"color": FAINT, "linestyle": "-", "linewidth": 0.9}
    for row, color, dash in zip(top, SERIES, _DASHES, strict=False):
        yield row.augmentation, curves[row.augmentation], {"color": color, "linestyle": dash, "linewidth": 1.5}
    if table.baseline is not None:
        yield BASE, curves[table.baseline.augmentation], {"color": INK, "linestyle": "-", "linewidth": 1.9}


def amount_curves(result: Result, ident: str) -> str | None:
    """Draw test accuracy over the amount of data, a line for each augmentation, with the seeds' spread.

    Rows that differ in ``share`` or ``views`` count. Nothing is drawn with fewer than two amounts.
    """
    tested = [row for row in result.rows if row.test_mean is not None]
    found = [kind for kind in AMOUNTS if len({row.train_options.get(kind) for row in tested} - {None}) > 1]
    if not found:
        return None
    kind, label = found[0], AMOUNTS[found[0]]
    rows = [row for row in tested if row.train_options.get(kind) is not None]
    if len({(row.augmentation, row.train_options[kind]) for row in rows}) < len(rows):
        return None  # of several models, whose points one line cannot join
    names = sorted({row.augmentation for row in rows}, key=lambda name: (name != "none", name))
    with _style():
        figure = _figure(3.6)
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            own = sorted((row for row in rows if row.augmentation == name), key=lambda row: row.train_options[kind])
            color, dash = (INK, "-") if number == 0 else (SERIES[(number - 1) % len(SERIES)], _DASHES[number % 4])
            axes.errorbar(
                [row.train_options[kind] for row in own],
                [100 * (row.test_mean or 0.0) for row in own],
                yerr=[100 * (row.test_std or 0.0) for row in own],
                color=color,
                linestyle=dash,
                marker="o",
                markersize=3.5,
                linewidth=1.5,
                capsize=2,
                label=BASE if name == "none" else name,
            )
        axes.set_xscale("log")
        ticks = sorted({row.train_options[kind] for row in rows})
        axes.set_xticks(ticks, [f"{100 * tick:g} %" if kind == "share" else f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel(label)
        axes.set_ylabel("test accuracy, %")
        bare(axes, "both")
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8.5, handlelength=2.6)
        return inline_svg(figure, ident, f"test accuracy by {label}")


def _mean_curve(row: Row) -> list[float]:
    """Return the mean over the seeds, in per cent, for as many epochs as all seeds have; gaps are NaN."""
    curves = [[line.get("val") for line in run.history] for run in row.runs if run.history]
    out = []
    for values in zip(*curves, strict=False):
        known = [value for value in values if value is not None]
        out.append(100 * sum(known) / len(known) if known else float("nan"))
    return out


def _floor(curves: list[list[float]]) -> float | None:
    """Return where the axis begins: at the lowest value after the first tenth of the epochs.

    The ends of the curves, which the reader compares, would otherwise lie too close together.
    """
    later = [value for curve in curves for value in curve[len(curve) // 10 :] if value == value]
    return min(later) - 1 if later else None


def bare(axes: Any, grid: str) -> None:
    """Remove the frame, and draw a faint grid behind."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis=grid, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def inline_svg(figure: Any, ident: str, title: str) -> str:
    """Return a figure as SVG for a page.

    The colors and the font are the page's, identifiers begin with ``ident``, and nothing refers outside.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: _of_page(tag[0], ident), text)  # in tags alone: texts are names from files
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    assert size is not None
    text = text.replace(size.group(0), f'role="img" aria-label="{_escape(title)}"', 1)
    return text


def _of_page(tag: str, ident: str) -> str:
    """Return a tag of an SVG with the page's colors and font, and with names of its own."""
    tag = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", tag)
    tag = re.sub(r"font-family: [^;\"]*;?\s*", "", tag)
    tag = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{ident}-", tag)
    for color, variable in _VARIABLES.items():
        tag = tag.replace(color, f"var({variable})")
    return tag


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
