"""Plots of fitting speed: rates of the methods, PSNR along the fit, seconds against the number of networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from weightspace.report._fit import Curves, FitTable, Spread, figure
from weightspace.report._plots import FAINT, INK, SERIES, STYLE, bare, inline_svg

WIDTH = 4.4  # inches: narrower than tables of long names need, so that a phone can show the letters
_MARKERS = "osD^vPX*<>ph"
_DASH = 5.0  # points


def rate_bars(table: FitTable, ident: str) -> str:
    """Networks a second by method, from zero, with smallest and largest; a line at the roofline."""
    rows = [row for row in table.rows if row.rate]
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(WIDTH, 0.75 + 0.24 * len(rows)), layout="constrained")
        axes = picture.add_subplot()
        beside = blended_transform_factory(axes.transAxes, axes.transData)
        for place, row in enumerate(rows):
            assert row.rate is not None
            axes.barh(place, row.rate.median, height=0.62, color=SERIES[0] if row.kernel else FAINT)
            _whisker(axes, row.rate, x=row.rate.median, y=place, horizontal=True)
            axes.text(1.02, place, figure(row.rate.median), va="center", fontsize=8.5, transform=beside)
        axes.set_yticks(range(len(rows)), [row.method for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        if table.bound is not None:
            axes.axvline(table.bound, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
            axes.annotate(
                f"roofline {figure(table.bound)}", (table.bound, 1), (-3, 2), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="right", va="bottom", fontsize=8.5,
            )  # fmt: skip
        axes.set_xlim(0, 1.04 * max([table.bound or 0.0, *(row.rate.high for row in rows if row.rate)]))
        axes.set_xlabel("networks a second")
        axes.tick_params(axis="y", length=0)
        bare(axes, "x")
        return inline_svg(picture, ident, "networks a second by method")


def psnr_curves(curves: Curves, ident: str) -> str | None:
    """PSNR along the fit. Where curves coincide their dashes take turns, and so do their marks: one a method."""
    if len(curves.steps) < 2 or not curves.psnr:
        return None
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(WIDTH, 4.8), layout="constrained")
        axes = picture.add_subplot()
        for place, (name, values) in enumerate(curves.psnr.items()):
            shown = [float("nan") if value is None else value for value in values]
            axes.plot(curves.steps, shown, label=name, **_turn(place, len(curves.psnr), len(curves.steps)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("Adam steps")
        axes.set_ylabel("mean PSNR, dB")
        bare(axes, "both")
        for line in axes.legend(loc="best", frameon=False, fontsize=8.5).get_lines():
            line.set_linestyle("-")
        return inline_svg(picture, ident, "mean PSNR along the fit, by method")


def _turn(place: int, methods: int, points: int) -> dict[str, Any]:
    """How to draw method ``place``: its dash falls into the gaps of the others, its mark stands at its own point."""
    around = place // points  # methods that share a point stand inside each other
    colour = (INK, *SERIES)[place % (1 + len(SERIES))]
    return {
        "color": colour,
        "linewidth": 2.0,
        "linestyle": (place * _DASH, (_DASH, (methods - 1) * _DASH)) if methods > 1 else "-",
        "dash_capstyle": "butt",
        "marker": _MARKERS[place % len(_MARKERS)],
        "markevery": (place % points, points),
        "markersize": max(9.0 - 3.5 * around, 2.5),
        "markerfacecolor": colour if around or methods <= points else "none",
        "zorder": 3 + around,
    }


def seconds_line(seconds: Mapping[int, Spread], ident: str) -> str | None:
    """Seconds against the number of networks, and what they would be in proportion to the longest fit."""
    if len(seconds) < 2:
        return None
    last = max(seconds)
    with matplotlib.rc_context(STYLE):
        picture = Figure(figsize=(WIDTH, 2.9), layout="constrained")
        axes = picture.add_subplot()
        axes.plot([0, last], [0, seconds[last].median], color=FAINT, linewidth=1.6, label="in proportion")
        for count, value in seconds.items():
            _whisker(axes, value, x=count, y=value.median, horizontal=False)
        axes.plot(
            list(seconds), [value.median for value in seconds.values()], "o", color=SERIES[0], label="measured, median"
        )
        axes.set_xlim(0, 1.04 * last)
        axes.set_ylim(0, 1.06 * max(value.high for value in seconds.values()))
        axes.set_xticks([0, *seconds])
        axes.set_xlabel("networks")
        axes.set_ylabel("seconds")
        axes.legend(loc="upper left", frameon=False, fontsize=8.5)
        bare(axes, "both")
        return inline_svg(picture, ident, "seconds against the number of networks")


def _whisker(axes: Any, value: Spread, *, x: float, y: float, horizontal: bool) -> None:
    if value.repeats > 1:
        span = [[max(value.median - value.low, 0.0)], [max(value.high - value.median, 0.0)]]
        own = {"xerr": span} if horizontal else {"yerr": span}
        axes.errorbar(x, y, **own, color=INK, linewidth=1, capsize=2.5, capthick=1)
