"""Plots as inline SVG that takes its colours and its font from the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from weightspace.report._tables import ModelTable, Row, accuracy, leaders, points

# Placeholder colours: each becomes a variable of the page's style, so that one plot suits light and dark.
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


def difference_bars(table: ModelTable, ident: str) -> str | None:
    """Bars of each row's test accuracy against the row without augmentation, in points, with the seeds' spread.

    Without a baseline the bars are the accuracies themselves. ``None`` if no row was tested.
    """
    rows = [row for row in table.rows if row.test is not None]
    if not rows:
        return None
    relative = any(row.difference is not None for row in rows)
    rows = [row for row in rows if not (relative and row.baseline)] if relative else rows
    values = [100 * ((row.difference if relative else row.test) or 0.0) for row in rows]
    spreads = [100 * row.std if row.std is not None else 0.0 for row in rows]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.55 + 0.24 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        colour = {row.augmentation: SERIES[i] for i, row in enumerate(leaders(table, len(SERIES)))}
        axes.barh(range(len(rows)), values, height=0.62, color=[colour.get(r.augmentation, FAINT) for r in rows])
        for place, (value, spread) in enumerate(zip(values, spreads, strict=True)):
            if spread:
                axes.errorbar(value, place, xerr=spread, color=INK, linewidth=1, capsize=2.5, capthick=1)
        _labels(axes, rows, values, spreads, relative)
        axes.set_xlabel("points against no augmentation" if relative else "test accuracy, %")
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        bare(axes, "x")
        axes.tick_params(axis="y", length=0)
        return inline_svg(figure, ident, f"{table.model}: {axes.get_xlabel()}")


def _labels(axes, rows: Sequence[Row], values: list[float], spreads: list[float], relative: bool) -> None:
    """Names on the left, figures at the right edge."""
    axes.set_yticks(range(len(rows)), [row.augmentation for row in rows])
    low = min(0.0, *(v - s for v, s in zip(values, spreads, strict=True)))
    high = max(0.0, *(v + s for v, s in zip(values, spreads, strict=True)))
    margin = 0.04 * (high - low or 1.0)
    axes.set_xlim(low - margin if low < 0 else 0.0, high + margin)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    for place, row in enumerate(rows):
        text = points(row.difference) if relative else accuracy(row.test)
        axes.text(1.02, place, text, va="center", ha="left", fontsize=8.5, transform=beside)


def validation_curves(table: ModelTable, ident: str) -> str | None:
    """Validation accuracy by epoch, the mean over seeds; the baseline and the rows that validate best stand out."""
    drawn = {row.augmentation: _mean_curve(row) for row in table.rows}
    if not any(len(curve) > 1 for curve in drawn.values()):
        return None
    top = leaders(table, len(SERIES))
    names = {row.augmentation for row in top}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.add_subplot()
        others = [row for row in table.rows if row.augmentation not in names and not row.baseline]
        for number, row in enumerate(others):
            label = f"{len(others)} others" if number == 0 else None
            _line(axes, drawn[row.augmentation], FAINT, "-", 0.9, label)
        for row, colour, dash in zip(top, SERIES, _DASHES, strict=False):
            _line(axes, drawn[row.augmentation], colour, dash, 1.5, row.augmentation)
        for row in table.rows:
            if row.baseline:
                _line(axes, drawn[row.augmentation], INK, "-", 1.9, "no augmentation")
        axes.set_xlabel("epoch")
        axes.set_ylabel("validation accuracy, %")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.01)
        axes.set_ylim(bottom=_floor(list(drawn.values())))
        bare(axes, "both")
        handles, labels = axes.get_legend_handles_labels()
        order = sorted(
            range(len(labels)), key=lambda i: (labels[i] != "no augmentation", labels[i].endswith(" others"))
        )
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


def _mean_curve(row: Row) -> list[float]:
    """Mean over the seeds, for as many epochs as all have; gaps are NaN."""
    curves = [curve for curve in row.curves if curve]
    out = []
    for values in zip(*curves, strict=False):
        known = [value for value in values if value is not None]
        out.append(100 * sum(known) / len(known) if known else float("nan"))
    return out


def _floor(curves: list[list[float]]) -> float | None:
    """Where the axis begins: at the lowest value after the first tenth of the epochs, so that the ends can be told."""
    later = [value for curve in curves for value in curve[len(curve) // 10 :] if value == value]
    return min(later) - 1 if later else None


def _line(axes, curve: list[float], colour: str, dash, width: float, label: str | None) -> None:
    axes.plot(range(1, len(curve) + 1), curve, color=colour, linestyle=dash, linewidth=width, label=label)


def bare(axes, grid: str) -> None:
    """No frame, a faint grid behind."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis=grid, color=RULE, linewidth=0.6)
    axes.set_axisbelow(True)


def inline_svg(figure: Figure, ident: str, title: str) -> str:
    """The figure as SVG for a page: the page's colours and font, names of its own, nothing that points elsewhere."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;?\s*", "", text)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{ident}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    assert size is not None
    text = text.replace(size.group(0), f'role="img" aria-label="{_escape(title)}"', 1)
    return text


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
