"""Arrange the rows of a result by model, and write them as Markdown tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from weightspace.bench._record import Result, Row
from weightspace.report._load import load_result

Form = Literal["markdown", "csv", "latex"]
DASH = "–"
MINUS = "−"


@dataclass(frozen=True)
class Verdict:
    """The worth of augmentation to one model.

    Args:
        kind: ``"helped"`` (the gain exceeds the spread), ``"unclear"`` (it is positive and within the spread),
            ``"not"`` (there is no gain), or ``"unknown"`` (there is nothing to compare).
        baseline: the row without augmentation.
        best: the augmented row with the best validation accuracy.
        gain: difference of their test accuracies.
        spread: the size of a difference that is due to chance: half of the 95 % interval where rows were paired, else
            one standard deviation of the difference between two runs.
        source: where the spread comes from, ``"paired"``, ``"seeds"`` or ``"test split"``.
    """

    kind: Literal["helped", "unclear", "not", "unknown"]
    baseline: Row | None = None
    best: Row | None = None
    gain: float | None = None
    spread: float | None = None
    source: Literal["paired", "seeds", "test split"] | None = None


@dataclass(frozen=True)
class ModelTable:
    """All rows of one model, best test accuracy first."""

    model: str
    parameters: int | None
    options: dict[str, Any]
    rows: tuple[Row, ...]
    verdict: Verdict
    track: str | None = None
    equivariance: str | None = None
    forward_flop: int | None = None

    def difference(self, row: Row) -> float | None:
        """Return a row's test accuracy minus that of the row without augmentation; None for that row itself."""
        base = self.baseline
        if base is None or base is row or base.test_mean is None or row.test_mean is None:
            return None
        return row.test_mean - base.test_mean

    @property
    def multiplied(self) -> bool:
        """Whether rows say how many times more data they are worth."""
        return any(row.data_multiplier for row in self.rows)

    @property
    def baseline(self) -> Row | None:
        """The row without augmentation."""
        return next((row for row in self.rows if row.baseline), None)


def check_classification(result: Result) -> None:
    """Raise ``ValueError`` for rows that were trained for something else, whose scores are not accuracies."""
    for row in result.rows:
        if row.objective is not None:
            raise ValueError(
                f"expected rows of classification, got {row.model!r} trained for {row.objective}; "
                "read its scores from result.json"
            )


def model_tables(result: Result) -> list[ModelTable]:
    """Return the rows of a result by model, in the order in which the models first appear."""
    check_classification(result)
    groups: dict[str, list[Row]] = {}
    for row in result.rows:
        groups.setdefault(row.model, []).append(row)
    test = result.zoo.get("splits", {})
    test = test.get("test", {}) if isinstance(test, dict) else {}
    networks = number(test.get("count")) if isinstance(test, dict) else None
    return [_table(model, rows, networks) for model, rows in groups.items()]


def _table(model: str, rows: Sequence[Row], networks: float | None) -> ModelTable:
    rows = sorted(rows, key=lambda row: (row.test_mean is None, -(row.test_mean or 0.0)))
    first = rows[0]
    return ModelTable(
        model,
        first.parameters,
        {**first.options, **first.train_options},
        tuple(rows),
        verdict(rows, networks),
        next((row.track for row in rows if row.track), None),
        next((row.equivariance for row in rows if row.equivariance), None),
        next((row.forward_flop for row in rows if row.forward_flop is not None), None),
    )


def verdict(rows: Sequence[Row], networks: float | None) -> Verdict:
    r"""Return the worth of augmentation: the row that validates best, tested against the row without augmentation.

    Where the result compares the two by test network and seed, the gain is that difference, and it has helped if the
    95 % interval lies above zero. Earlier results do not. There the spread of the difference is that of the seeds,
    :math:`\sqrt{s_1^2 + s_2^2}`, if a row of the two has more than one; the spread of one row then stands for the
    other's too if that has a single seed. Otherwise it is the sampling error of the test split,
    :math:`\sqrt{(p_1 (1 - p_1) + p_2 (1 - p_2)) / n}`.

    Args:
        rows: of one model.
        networks: size of the test split, if known.
    """
    base = next((row for row in rows if row.baseline and row.test_mean is not None), None)
    augmented = [row for row in rows if not row.baseline and row.test_mean is not None and row.val_mean is not None]
    if base is None or base.test_mean is None or not augmented:
        return Verdict("unknown", base)
    best = max(augmented, key=lambda row: row.val_mean or 0.0)
    assert best.test_mean is not None
    if (paired := best.against_none) is not None:
        kind = "not" if paired.difference <= 0 else "helped" if paired.low > 0 else "unclear"
        return Verdict(kind, base, best, paired.difference, (paired.high - paired.low) / 2, "paired")
    gain, source = best.test_mean - base.test_mean, None
    stds = [row.test_std for row in (base, best) if row.test_std is not None]
    spread = None
    if stds:
        spread, source = math.sqrt(2 * sum(std**2 for std in stds) / len(stds)), "seeds"
    elif networks:
        variance = sum(p * (1 - p) for p in (base.test_mean, best.test_mean)) / networks
        spread, source = math.sqrt(max(variance, 0.0)), "test split"
    kind = "not" if gain <= 0 else "helped" if spread is not None and gain > spread else "unclear"
    return Verdict(kind, base, best, gain, spread, source)


def leaders(table: ModelTable, count: int = 4) -> list[Row]:
    """Return the augmented rows that validate best, which the plots draw in color."""
    known = [row for row in table.rows if not row.baseline and row.val_mean is not None]
    return sorted(known, key=lambda row: -(row.val_mean or 0.0))[:count]


def format_table(result: Result | str | Path, form: Form = "markdown") -> str:
    """Write the tables of a result as text, one for each model.

    Args:
        result: the ``result.json`` that ``run_suite`` returned, its folder, or what it holds.
        form: ``"markdown"``; ``"latex"``, for the package booktabs; or ``"csv"``, one table of plain numbers for all
            models, shares where the others have per cent.

    Returns:
        The tables, with a blank line between them; each has a row for every augmentation.

    Raises:
        ValueError: for another form, rows that were not trained to classify, and a file that cannot be read.

    Example:
        >>> from weightspace.bench._record import Result, Row
        >>> row = Row(model="mlp", augmentation="none", seeds=(0,), test_mean=0.5, val_mean=0.48)
        >>> print(format_table(Result(rows=(row,))))
        | mlp | test accuracy, % | points | validation, % | train, % | seconds | seeds |
        |:--|--:|--:|--:|--:|--:|--:|
        | none | 50.0 | – | 48.0 | – | – | 1 |
        >>> print(format_table(Result(rows=(row,)), "csv").splitlines()[1][:18])
        mlp,none,0.5,,0.48
    """
    if form not in get_args(Form):
        raise ValueError(f"form: expected one of {list(get_args(Form))}, got {form!r}")
    tables = model_tables(load_result(result))
    if form == "csv":
        return _csv(tables)
    return "\n\n".join((_markdown if form == "markdown" else _latex)(each) for each in tables)


def _columns(table: ModelTable) -> tuple[list[str], list[list[str]]]:
    """Return the heads and the cells of a table, as text that a person reads."""
    name = table.model if table.parameters is None else f"{table.model} ({table.parameters:,} parameters)"
    heads = [name, "test accuracy, %", "points", "validation, %", "train, %", "seconds", "seeds"]
    heads += ["times the data"] if table.multiplied else []
    rows = []
    for row in table.rows:
        own = [row.augmentation + (" †" if row.under_trained else ""), accuracy(row.test_mean, row.test_std)]
        own += [paired_points(row, table), accuracy(row.val_mean), accuracy(row.train_last)]
        own += [seconds(row.seconds_mean), str(len(row.seeds))]
        rows.append(own + ([times(row)] if table.multiplied else []))
    return heads, rows


UNDER_TRAINED = "† under-trained: training accuracy no higher than validation accuracy at the end."


def _markdown(table: ModelTable) -> str:
    heads, rows = _columns(table)
    lines = [[cell(heads[0]), *heads[1:]], *([cell(row[0]), *row[1:]] for row in rows)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    text.insert(1, "|:--|" + "--:|" * (len(heads) - 1))
    return "\n".join(text + (["", UNDER_TRAINED] if any(row.under_trained for row in table.rows) else []))


def _latex(table: ModelTable) -> str:
    heads, rows = _columns(table)
    body = [" & ".join(map(tex, line)) + r" \\" for line in (heads, *rows)]
    lines = [r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}", r"\toprule", body[0], r"\midrule", *body[1:]]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(lines + ([tex(UNDER_TRAINED)] if any(row.under_trained for row in table.rows) else []))


_TEX = {
    **{character: "\\" + character for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"$\dagger$"},
    **{"±": r"$\pm$", MINUS: "$-$", DASH: "--", "≥": r"$\geq$", "≤": r"$\leq$", "\n": " "},
}


def tex(text: str) -> str:
    """Return text for a cell of a LaTeX table.

    Example:
        >>> print(tex("50 % ± 1_a"))
        50 \\% $\\pm$ 1\\_a
    """
    return "".join(_TEX.get(character, character) for character in text)


def _csv(tables: Sequence[ModelTable]) -> str:
    names = ["model", "augmentation", "test", "test_std", "validation", "train", "seconds", "seeds"]
    paired, worth = ["difference", "low", "high", "p", "p_corrected"], ["times", "low", "high"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*names, *paired, worth[0], *(f"times_{end}" for end in worth[1:])])
    for each in tables:
        for row in each.rows:
            own = [each.model, row.augmentation, row.test_mean, row.test_std, row.val_mean, row.train_last]
            own += [row.seconds_mean, len(row.seeds)]
            own += [getattr(row.against_none, name, None) for name in paired]
            writer.writerow(own + [getattr(row.data_multiplier, name, None) for name in worth])
    return out.getvalue()


def cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return value


def accuracy(value: float | None, std: float | None = None) -> str:
    """Write an accuracy in per cent, with its spread if there is one.

    Example:
        >>> accuracy(0.6512, 0.004), accuracy(0.6512), accuracy(None)
        ('65.1 ± 0.4', '65.1', '–')
    """
    if value is None:
        return DASH
    return f"{100 * value:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def points(value: float | None) -> str:
    """Write a difference of accuracies in percentage points, with its sign.

    Example:
        >>> points(0.0312), points(-0.0005), points(0.0), points(None)
        ('+3.1', '−0.1', '0.0', '–')
    """
    if value is None:
        return DASH
    text = f"{abs(100 * value):.1f}"
    return text if text == "0.0" else ("+" if value > 0 else MINUS) + text


def paired_points(row: Row, table: ModelTable) -> str:
    """Write a row's difference from no augmentation, with its 95 % interval and a star where it is beyond chance.

    A star stands for p < 0.05 after the correction for the number of rows.

    Example:
        >>> from weightspace.bench._paired import Comparison
        >>> from weightspace.bench._record import Result
        >>> paired = Comparison(difference=0.031, low=0.012, high=0.05, p=0.001, p_corrected=0.02, seeds=3)
        >>> rows = Row(model="m", augmentation="none", test_mean=0.5), Row(
        ...     model="m", augmentation="noise", test_mean=0.531, against_none=paired
        ... )
        >>> paired_points(rows[1], model_tables(Result(rows=rows))[0])
        '+3.1 [+1.2, +5.0] *'
    """
    own = row.against_none
    if own is None:
        return points(table.difference(row))
    star = " *" if own.p_corrected < 0.05 else ""
    return f"{points(own.difference)} [{points(own.low)}, {points(own.high)}]{star}"


def times(row: Row) -> str:
    """Write how many times the data a row is worth, with its 95 % interval; ends of the measured curve are bounds.

    Example:
        >>> from weightspace.bench._multiplier import Multiplier
        >>> worth = Multiplier(times=2.34, low=1.2, high=10.0, least=0.1, most=10.0)
        >>> times(Row(model="m", augmentation="noise", data_multiplier=worth)), times(Row(model="m", augmentation="x"))
        ('2.3 [1.2, ≥ 10]', '–')
    """
    own = row.data_multiplier
    if own is None:
        return DASH
    found = (own.times, own.low, own.high)
    texts = [f"{'≥ ' if value >= own.most else '≤ ' if value <= own.least else ''}{value:.2g}" for value in found]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def seconds(value: float | None) -> str:
    """Write seconds, without decimals from ten upwards."""
    return DASH if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
