"""The schema of ``result.json``, and the files in which a grid leaves it."""

from __future__ import annotations

import gzip
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from weightspace._files import parse_json, read_json, unzip, write_atomic
from weightspace.bench._json import read_as, write_json
from weightspace.bench._multiplier import Multiplier
from weightspace.bench._paired import Comparison

RESULT_SCHEMA = 2
HISTORY = "history.jsonl.gz"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One seed of a row.

    Args:
        seed: of the model's initial weights and of the training.
        val: best validation score.
        test: test score of the weights of that epoch; None without a test split.
        best_epoch: the epoch (from 1) of that validation score.
        train_last: score on the transformed training batches of the last epoch.
        seconds: training and validation time.
        seconds_epoch: the same of one epoch, the median over epochs.
        evaluations: scores of the entry's further evaluations, by their names.
        history: a line for each epoch; written to ``history.jsonl.gz``, not to ``result.json``.
    """

    seed: int
    val: float | None = None
    test: float | None = None
    best_epoch: int | None = None
    train_last: float | None = None
    seconds: float | None = None
    seconds_epoch: float | None = None
    evaluations: dict[str, dict[str, float | None]] = field(default_factory=dict)
    history: tuple[dict[str, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class EnsembleScores:
    """Scores of the mean of several seeds' outputs."""

    seeds: tuple[int, ...]
    parameters: int
    val: float | None = None
    test: float | None = None
    evaluations: dict[str, dict[str, float | None]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model with one augmentation: mean and spread over its seeds.

    Args:
        model: name of the suite's entry.
        augmentation: name of the augmentation, or ``"none"``.
        transform: the transform with its strengths, as text.
        track: of the model, ``"weights-only"``, ``"probing"`` or ``"function"``.
        equivariance: the group under which the model is invariant or equivariant.
        objective: what the model was trained for, as text; None for classification.
        options: options of the model.
        train_options: what the entry changes in the suite's budget.
        parameters: number of the model's parameters.
        forward_flop: FLOP of one network's forward pass.
        seeds: the seeds that ran.
        test_mean: mean test score over seeds.
        test_std: standard deviation (n - 1) of the test score over seeds; None with one seed.
        val_mean: mean of the best validation scores.
        train_last: mean of the last epoch's training scores.
        under_trained: whether ``train_last`` is no higher than ``val_mean``, so that more epochs may change the row;
            None where networks are mixed, whose training accuracy cannot be compared.
        seconds_mean: mean training and validation time.
        seconds_epoch: the same of one epoch.
        evaluations: mean and standard deviation of every score of the entry's further evaluations.
        ensemble: scores of the mean of the seeds' outputs, if the entry asks for it.
        against_none: the test score less that without augmentation, paired by test network and seed; None for the row
            without augmentation, without a test split, and in earlier results.
        data_multiplier: how many times the row's data the model needs without augmentation to score as well, where it
            was trained on several amounts.
        runs: one record for each seed.
    """

    model: str
    augmentation: str
    transform: str | None = None
    track: str | None = None
    equivariance: str | None = None
    objective: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    train_options: dict[str, Any] = field(default_factory=dict)
    parameters: int | None = None
    forward_flop: int | None = None
    seeds: tuple[int, ...] = ()
    test_mean: float | None = None
    test_std: float | None = None
    val_mean: float | None = None
    train_last: float | None = None
    under_trained: bool | None = None
    seconds_mean: float | None = None
    seconds_epoch: float | None = None
    evaluations: dict[str, dict[str, float | None]] = field(default_factory=dict)
    ensemble: EnsembleScores | None = None
    against_none: Comparison | None = None
    data_multiplier: Multiplier | None = None
    runs: tuple[Run, ...] = ()

    @property
    def baseline(self) -> bool:
        """Whether this is the row without augmentation."""
        return self.augmentation == "none"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Everything that ``result.json`` says of a grid.

    Args:
        rows: by model, best test score first.
        suite: name of the suite.
        suite_version: version of the suite; None in results of weightspace 0.1.0, whose suites had none.
        created: when the file was written (UTC).
        commit: of the package's checkout; None outside a checkout.
        hardware: processor, cores, threads and GPU.
        versions: of the package and of what it computes with.
        commits: of the cells.
        devices: on which the cells ran.
        workers: how many cells ran at a time.
        zoo: the summary of the zoo.
        train: the suite's budget.
        left_out: augmentations that the zoo's networks do not allow.
        schema: version of this format.
        kind: ``"bench"``.
    """

    rows: tuple[Row, ...]
    suite: str | None = None
    suite_version: int | None = None
    created: str | None = None
    commit: str | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    commits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    workers: int | None = None
    zoo: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    schema: int = RESULT_SCHEMA
    kind: str = "bench"

    def to_json(self) -> dict[str, Any]:
        """Return what is written to ``result.json``: everything but the histories."""
        data = {name: value for name, value in asdict(self).items() if name != "rows"}
        rows = asdict(self)["rows"]
        for row in rows:
            row["runs"] = [{name: value for name, value in run.items() if name != "history"} for run in row["runs"]]
        return {"schema": self.schema, "kind": self.kind, **data, "rows": list(rows)}

    @staticmethod
    def from_json(data: Any) -> Result:
        """Read a parsed ``result.json``.

        Raises:
            ValueError: for another kind of file, an unknown schema, or a field of another type, with its place.
        """
        if not isinstance(data, Mapping) or data.get("kind") != "bench":
            raise ValueError(f"expected a result of kind 'bench' (`weightspace bench` writes one), got {_name(data)}")
        schema = data.get("schema")
        if schema == 1:
            data = _upgraded(data)
        elif schema != RESULT_SCHEMA:
            raise ValueError(
                f"expected result schema {RESULT_SCHEMA} (or 1, of weightspace 0.1.0), got {schema!r}; "
                "report it with the version of weightspace that wrote it, or a newer one"
            )
        result = read_as(Result, data)
        if not result.rows:
            raise ValueError("expected a result with at least one row, got none; run the suite to its end")
        return result


def write_result(folder: Path, result: Result) -> Path:
    """Write ``result.json``, and the histories of its runs to a compressed file in the same folder."""
    lines = [
        json.dumps({"model": row.model, "augmentation": row.augmentation, "seed": run.seed, **line})
        for row in result.rows
        for run in row.runs
        for line in run.history
    ]
    text = "".join(line + "\n" for line in lines)
    write_atomic(folder / HISTORY, gzip.compress(text.encode(), mtime=0))
    path = folder / "result.json"
    write_json(path, result.to_json())
    return path


def read_result(path: Path) -> Result:
    """Read a ``result.json``, with the histories if their file is in the same folder.

    Raises:
        ValueError: for a file that is not such a result, with its path.
        OSError: if a file cannot be read.
    """
    data = read_json(path, "a benchmark result", finite=True, remedy="run the suite again, it goes on where it stopped")
    try:
        result = Result.from_json(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    histories = path.with_name(HISTORY)
    return _with_history(result, histories) if histories.exists() else result


def _with_history(result: Result, path: Path) -> Result:
    lines: dict[tuple[str, str, int], list[dict[str, float | None]]] = {}
    try:
        for text in unzip(path.read_bytes(), path).decode().splitlines():
            line = parse_json(text, finite=True)
            key = (line.pop("model"), line.pop("augmentation"), line.pop("seed"))
            lines.setdefault(key, []).append(read_as(Run, {"seed": 0, "history": [line]}).history[0])
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected the histories of a grid, got another file: {error}; remove it") from error
    rows = [
        replace(
            row,
            runs=tuple(
                replace(run, history=tuple(lines.get((row.model, row.augmentation, run.seed), run.history)))
                for run in row.runs
            ),
        )
        for row in result.rows
    ]
    return replace(result, rows=tuple(rows))


def of_history(history: tuple[Mapping[str, Any], ...] | list[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the fields of a run that follow from its history."""
    seconds = [line["seconds"] for line in history if line.get("seconds") is not None]
    return {
        "train_last": history[-1].get("train") if history else None,
        "seconds_epoch": statistics.median(seconds) if seconds else None,
    }


def _upgraded(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result of schema 1 in the terms of schema 2: the same figures under their present names."""
    rows = data.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"rows: expected a list of objects, got {type(rows).__name__}")
    return {**data, "schema": RESULT_SCHEMA, "rows": [_upgraded_row(row) for row in rows]}


def _upgraded_row(row: Mapping[str, Any]) -> dict[str, Any]:
    runs = row.get("runs")
    runs = [_upgraded_run(run) for run in runs] if isinstance(runs, list) else runs
    upgraded = {**row, "runs": [] if runs is None else runs}
    upgraded["track"] = "probing" if row.get("track") == "hybrid" else row.get("track")
    upgraded["equivariance"] = "none" if row.get("respects") == "nothing" else row.get("respects")
    if isinstance(runs, list) and row.get("seconds_epoch") is None:
        seconds = [run["seconds_epoch"] for run in runs if isinstance(run, Mapping) and run.get("seconds_epoch")]
        upgraded["seconds_epoch"] = statistics.mean(seconds) if seconds else None
    return upgraded


def _upgraded_run(run: Any) -> Any:
    history = run.get("history") if isinstance(run, Mapping) else None
    if not isinstance(history, list) or not all(isinstance(line, Mapping) for line in history):
        return run
    return {**of_history(history), **run}


def _name(data: Any) -> str:
    if not isinstance(data, Mapping):
        return f"a {type(data).__name__}"
    return f"benchmark {data['benchmark']!r}" if "benchmark" in data else f"kind {data.get('kind')!r}"
