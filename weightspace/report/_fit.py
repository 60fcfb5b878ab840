"""A record of ``benchmarks.fit`` as plain rows and sentences: what the page and its plots show of fitting speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weightspace.report._tables import DASH, number

COMMAND = "python -m benchmarks.fit"
KERNEL = "weightspace, compiled kernel"
RATES = "networks_per_second_at_1000_steps"


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some repeats."""

    median: float
    low: float
    high: float
    repeats: int


@dataclass(frozen=True)
class FitRow:
    """One method: networks fitted a second, and how many times as fast the compiled kernel is; unknown: ``None``."""

    method: str
    rate: Spread | None
    ratio: Spread | None = None

    @property
    def kernel(self) -> bool:
        return self.method == KERNEL


@dataclass(frozen=True)
class Curves:
    """Mean PSNR, dB, of the same networks after some numbers of steps, by method."""

    steps: tuple[int, ...]
    psnr: dict[str, tuple[float | None, ...]]
    networks: int | None


@dataclass(frozen=True)
class FitTable:
    """Everything that the page shows of one record, fastest method first.

    Args:
        what: the work that every method did.
        rows: the methods.
        bound: networks a second that the measured roofline allows.
        share: of that bound, what the compiled kernel reached.
        grid_share: the same of the higher bound, where a grid of points spares the first layer most of its sines.
        apart: largest difference of a fitted weight from the compiled kernel's.
        seconds: of the compiled kernel, by number of networks.
        steps: of those fits.
        curves: PSNR along the fit.
    """

    what: str
    rows: tuple[FitRow, ...]
    bound: float | None
    share: Spread | None
    grid_share: Spread | None
    apart: float | None
    seconds: dict[int, Spread]
    steps: int | None
    curves: Curves

    @property
    def fastest(self) -> FitRow:
        return self.rows[0]

    @property
    def rival(self) -> FitRow | None:
        """The fastest of the methods beside the compiled kernel."""
        return next((row for row in self.rows if not row.kernel and row.rate), None)


def fit_table(record: Mapping[str, Any]) -> FitTable:
    """Read a record; what it does not tell is left out or shown as a dash."""
    ratios, roofline = _mapping(record.get("compiled_kernel_faster_by")), _mapping(record.get("roofline"))
    rows = [FitRow(str(name), _spread(rate), _spread(ratios.get(name))) for name, rate in record[RATES].items()]
    rows.sort(key=lambda row: -(row.rate.median if row.rate else 0.0))
    bound = _spread(roofline.get(RATES))
    linear = _mapping(record.get("linear_in_networks"))
    seconds = {int(count): _spread(value) for count, value in _mapping(linear.get("seconds_by_networks")).items()}
    apart = _mapping(record.get("largest_difference_of_a_weight"))
    differences = [value for value in map(number, apart.values()) if value is not None]
    return FitTable(
        what=str(record.get("what") or "work that is not recorded"),
        rows=tuple(rows),
        bound=bound.median if bound else None,
        share=_spread(roofline.get("share_reached")),
        grid_share=_spread(roofline.get("share_reached_if_the_grid_spares_the_first_sines")),
        apart=max(differences, default=None) if KERNEL in apart else None,
        seconds={count: value for count, value in sorted(seconds.items()) if value},
        steps=linear.get("steps"),
        curves=_curves(_mapping(record.get("psnr_curves"))),
    )


def check_fit(record: Mapping[str, Any]) -> None:
    """Refuse a record without a single rate.

    Raises:
        ValueError: with expected, got and the remedy.
    """
    rates = record.get(RATES)
    if not any(map(_spread, _mapping(rates).values())):
        raise ValueError(f"expected {RATES!r} with the median of at least one method, got {rates!r}; run `{COMMAND}`")


def speed_sentence(table: FitTable) -> str:
    """The fastest method and its rate."""
    rate = table.fastest.rate
    assert rate is not None
    return f"Fastest: “{table.fastest.method}”, {amount(rate)} networks a second, counted as fits of 1,000 steps."


def ratio_sentence(table: FitTable) -> str:
    """The compiled kernel against the best of the others, claiming no more than the repeats allow."""
    rival = table.rival
    if rival is None or rival.ratio is None:
        return "The compiled kernel and another method were not both timed: there is nothing to compare."
    ratio = rival.ratio
    if ratio.repeats > 1 and ratio.low <= 1 <= ratio.high:
        verdict = "cannot be told from the best of the others"
    else:
        verdict = f"is {'faster' if ratio.median > 1 else 'slower'} than the best of the others"
    return f"The compiled kernel {verdict}, “{rival.method}”: {amount(ratio)} times its speed."


def roofline_sentence(table: FitTable) -> str:
    """The share of what the machine allows."""
    if table.share is None:
        return "The rates of the machine's own products and sines were not recorded."
    grid = table.grid_share
    spared = "" if grid is None else f" Where a grid spares the first layer most sines it allows more: {percent(grid)}."
    return (
        f"The compiled kernel reaches {percent(table.share)} of the roofline: of what this machine's rates of products "
        f"and of sines, measured in the same run, allow.{spared}"
    )


def curves_sentence(curves: Curves) -> str:
    """How far the methods lie apart at most, and where."""
    gaps = []
    for place, step in enumerate(curves.steps):
        known = [(value, name) for name, own in curves.psnr.items() if (value := own[place]) is not None]
        if len(known) > 1:
            (low, below), (high, above) = min(known), max(known)
            gaps.append((high - low, step, above, below))
    if not gaps:
        return "Fewer than two methods were recorded: there is nothing to compare."
    gap, step, above, below = max(gaps)
    methods = f"the {len(curves.psnr)} methods"
    if gap == 0:
        return f"The mean PSNR of {methods} is the same at every step."
    where = f"after {step:,} step{'s' if step > 1 else ''}, “{above}” above “{below}”"
    return f"Largest difference between {methods} in mean PSNR: {gap:.2g} dB ({where})."


def linear_sentence(seconds: Mapping[int, Spread]) -> str:
    """Time of the most networks against that of the fewest."""
    first, last = min(seconds), max(seconds)
    times = seconds[last].median / seconds[first].median
    return f"{last / first:.3g} times the networks took {times:.3g} times the seconds."


def figure(value: float | None) -> str:
    """A rate or a ratio in about three digits.

    Example:
        >>> figure(25.613), figure(1.2345), figure(3141.6), figure(0.0123), figure(None)
        ('25.6', '1.23', '3,142', '0.012', '–')
    """
    if value is None:
        return DASH
    return (
        f"{value:,.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2{'f' if value >= 0.1 else 'g'}}"
    )


def amount(value: Spread | None) -> str:
    """A median with its spread in words.

    Example:
        >>> amount(Spread(25.6, 24.0, 26.2, 5)), amount(Spread(25.6, 25.6, 25.6, 1)), amount(None)
        ('25.6 (24.0 to 26.2 in 5 repeats)', '25.6 (one repeat, its spread unknown)', '–')
    """
    return DASH if value is None else f"{figure(value.median)} ({_range(value, figure)})"


def percent(value: Spread) -> str:
    """A share in per cent, with its spread in words."""
    return f"{_whole(value.median)} % ({_range(value, _whole)})"


def _whole(value: float) -> str:
    return f"{100 * value:.0f}"


def _range(value: Spread, shown: Any) -> str:
    if value.repeats < 2:
        return "one repeat, its spread unknown"
    return f"{shown(value.low)} to {shown(value.high)} in {value.repeats} repeats"


def _curves(recorded: Mapping[str, Any]) -> Curves:
    steps = tuple(recorded.get("steps") or ())
    psnr = {str(k): tuple(map(number, v)) for k, v in _mapping(recorded.get("mean_psnr_db")).items()}
    return Curves(steps, {name: own for name, own in psnr.items() if len(own) == len(steps)}, recorded.get("networks"))


def _spread(value: Any) -> Spread | None:
    """``None`` for anything but a positive median; a missing smallest or largest is the median."""
    value = _mapping(value)
    median = number(value.get("median"))
    if median is None or median <= 0:
        return None
    low, high = number(value.get("min")), number(value.get("max"))
    return Spread(median, median if low is None else low, median if high is None else high, value.get("repeats") or 1)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
