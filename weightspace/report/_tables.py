"""A result as plain rows: what the page, the plots and the Markdown tables show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from weightspace.bench._record import RESULT_SCHEMA

BASELINE = "none"
DASH = "–"
MINUS = "−"


@dataclass(frozen=True)
class Row:
    """One augmentation of one model; accuracies lie in [0, 1], and what is not known is ``None``."""

    augmentation: str
    transform: str
    seeds: tuple[int, ...]
    test: float | None
    std: float | None
    val: float | None
    train: float | None
    seconds: float | None
    under_trained: bool
    curves: tuple[tuple[float | None, ...], ...]
    best_epochs: tuple[int | None, ...]
    difference: float | None = None
    seconds_epoch: float | None = None

    @property
    def baseline(self) -> bool:
        return self.augmentation == BASELINE


@dataclass(frozen=True)
class Verdict:
    """What augmentation was worth to one model.

    Args:
        kind: ``"helped"`` (gain above the spread), ``"unclear"`` (above zero, within it), ``"not"`` (no gain), or
            ``"unknown"`` (nothing to compare).
        baseline: the row without augmentation.
        best: the augmented row with the best validation accuracy.
        gain: difference of their test accuracies.
        spread: what the difference of two runs owes to chance, one standard deviation.
        source: what the spread comes from, ``"seeds"`` or ``"test split"``.
    """

    kind: Literal["helped", "unclear", "not", "unknown"]
    baseline: Row | None = None
    best: Row | None = None
    gain: float | None = None
    spread: float | None = None
    source: Literal["seeds", "test split"] | None = None


@dataclass(frozen=True)
class ModelTable:
    """All rows of one model, best test accuracy first."""

    model: str
    parameters: int | None
    options: dict[str, Any]
    rows: tuple[Row, ...]
    verdict: Verdict
    track: str | None = None
    respects: str | None = None
    forward_flop: float | None = None


def check_result(data: Any) -> None:
    """Refuse what is not a result of ``weightspace bench``.

    Raises:
        ValueError: with expected, got and the remedy.
    """
    if not isinstance(data, Mapping) or data.get("kind") != "bench":
        got = data.get("kind") if isinstance(data, Mapping) else type(data).__name__
        raise ValueError(f"expected a result of kind 'bench', got {got!r}; `weightspace bench` writes one")
    if data.get("schema") != RESULT_SCHEMA:
        raise ValueError(
            f"expected result schema {RESULT_SCHEMA}, got {data.get('schema')!r}; "
            "report it with the version of weightspace that wrote it, or a newer one"
        )
    rows = data.get("rows")
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"expected a result with at least one row, got {rows!r}; run the suite to its end")
    for number, row in enumerate(rows):
        missing = [key for key in ("model", "augmentation") if not isinstance(row, Mapping) or key not in row]
        if missing:
            raise ValueError(f"row {number}: expected the keys 'model' and 'augmentation', missing {missing}")


def model_tables(result: Mapping[str, Any]) -> list[ModelTable]:
    """The rows of a result by model, in the order in which the models first appear."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault(str(row["model"]), []).append(row)
    networks = number(_dig(result, "zoo", "splits", "test", "count"))
    return [_table(model, rows, networks) for model, rows in groups.items()]


def _table(model: str, raw: Sequence[Mapping[str, Any]], networks: float | None) -> ModelTable:
    rows = [_row(row) for row in raw]
    base = next((row for row in rows if row.baseline), None)
    if base is not None and base.test is not None:
        zero = base.test
        rows = [r if r.test is None or r.baseline else replace(r, difference=r.test - zero) for r in rows]
    rows.sort(key=lambda row: (row.test is None, -(row.test or 0.0)))
    options = {**(raw[0].get("options") or {}), **(raw[0].get("train_options") or {})}
    parameters = number(raw[0].get("parameters"))
    parameters = None if parameters is None else int(parameters)
    cost = number(_first(raw, "forward_flop"))
    about = (_text(_first(raw, "track")), _text(_first(raw, "respects")))
    return ModelTable(model, parameters, options, tuple(rows), verdict(rows, networks), *about, cost)


def _row(row: Mapping[str, Any]) -> Row:
    runs = row.get("runs") or []
    seeds = tuple(row.get("seeds") or (run.get("seed") for run in runs))
    return Row(
        augmentation=str(row["augmentation"]),
        transform=str(row.get("transform") or ""),
        seeds=seeds,
        test=number(row.get("test_mean")),
        std=number(row.get("test_std")) if len(seeds) > 1 else None,
        val=number(row.get("val_mean")),
        train=number(row.get("train_last")),
        seconds=number(row.get("seconds_mean")),
        seconds_epoch=number(row.get("seconds_epoch")),
        under_trained=row.get("under_trained") is True,
        curves=tuple(tuple(number(line.get("val")) for line in run.get("history") or []) for run in runs),
        best_epochs=tuple(run.get("best_epoch") for run in runs),
    )


def verdict(rows: Sequence[Row], networks: float | None) -> Verdict:
    r"""What augmentation was worth: the row that validates best, tested against the row without augmentation.

    The spread of the difference is that of the seeds, :math:`\sqrt{s_1^2 + s_2^2}`, where a row of the two has more
    than one (it stands for the other one's too if that has not); otherwise the sampling error of the test split,
    :math:`\sqrt{(p_1 (1 - p_1) + p_2 (1 - p_2)) / n}`.

    Args:
        rows: of one model.
        networks: size of the test split, if known.
    """
    base = next((row for row in rows if row.baseline and row.test is not None), None)
    candidates = [row for row in rows if not row.baseline and row.test is not None and row.val is not None]
    if base is None or base.test is None or not candidates:
        return Verdict("unknown", base)
    best = max(candidates, key=lambda row: row.val or 0.0)
    assert best.test is not None
    gain, source = best.test - base.test, None
    stds = [std for std in (base.std, best.std) if std is not None]
    spread = None
    if stds:
        spread, source = math.sqrt(2 * sum(std**2 for std in stds) / len(stds)), "seeds"
    elif networks:
        variance = sum(p * (1 - p) for p in (base.test, best.test)) / networks
        spread, source = math.sqrt(variance), "test split"
    kind = "not" if gain <= 0 else "helped" if spread is not None and gain > spread else "unclear"
    return Verdict(kind, base, best, gain, spread, source)


def leaders(table: ModelTable, count: int = 4) -> list[Row]:
    """The augmented rows that validate best: those that the plots colour."""
    known = [row for row in table.rows if not row.baseline and row.val is not None]
    return sorted(known, key=lambda row: -(row.val or 0.0))[:count]


def markdown_table(result: Mapping[str, Any]) -> str:
    """The tables of a result in Markdown, one a model, for a README.

    Args:
        result: what :func:`load_result` reads.

    Raises:
        ValueError: if it is not a benchmark result of the known schema.

    Example:
        >>> row = {"model": "mlp", "augmentation": "none", "seeds": [0], "test_mean": 0.5, "val_mean": 0.48}
        >>> print(markdown_table({"schema": 1, "kind": "bench", "rows": [row]}))
        | mlp | test accuracy, % | points | validation, % | train, % | seconds | seeds |
        |:--|--:|--:|--:|--:|--:|--:|
        | none | 50.0 | – | 48.0 | – | – | 1 |
    """
    check_result(result)
    blocks = []
    for table in model_tables(result):
        name = table.model if table.parameters is None else f"{table.model} ({table.parameters:,} parameters)"
        head = f"| {cell(name)} | test accuracy, % | points | validation, % | train, % | seconds | seeds |"
        lines = [head, "|:--|--:|--:|--:|--:|--:|--:|", *(_markdown_row(row) for row in table.rows)]
        if any(row.under_trained for row in table.rows):
            lines += ["", "† under-trained: training accuracy no higher than validation accuracy at the end."]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _markdown_row(row: Row) -> str:
    name = cell(row.augmentation) + (" †" if row.under_trained else "")
    cells = (accuracy(row.test, row.std), points(row.difference), accuracy(row.val), accuracy(row.train))
    return f"| {name} | {' | '.join(cells)} | {seconds(row.seconds)} | {len(row.seeds)} |"


def cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")


def number(value: Any) -> float | None:
    """A finite number, or ``None`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def accuracy(value: float | None, std: float | None = None) -> str:
    """An accuracy in per cent, with its spread if there is one.

    Example:
        >>> accuracy(0.6512, 0.004), accuracy(0.6512), accuracy(None)
        ('65.1 ± 0.4', '65.1', '–')
    """
    if value is None:
        return DASH
    return f"{100 * value:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def points(value: float | None) -> str:
    """A difference of accuracies in percentage points, with its sign.

    Example:
        >>> points(0.0312), points(-0.0005), points(0.0), points(None)
        ('+3.1', '−0.1', '0.0', '–')
    """
    if value is None:
        return DASH
    text = f"{abs(100 * value):.1f}"
    return text if text == "0.0" else ("+" if value > 0 else MINUS) + text


def seconds(value: float | None) -> str:
    """Seconds, whole from ten upwards."""
    return DASH if value is None else f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _dig(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _first(rows: Sequence[Mapping[str, Any]], key: str) -> Any:
    """What the first row says that says anything; rows of earlier versions may not."""
    return next((row[key] for row in rows if row.get(key) is not None), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
