"""Collect the cells of a grid into one result: rows with mean and spread over seeds, and where they were measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from weightspace.bench._cell import Cell, CellResult, fits
from weightspace.bench._environment import environment
from weightspace.bench._multiplier import Multiplier, RowName
from weightspace.bench._paired import Comparison
from weightspace.bench._record import EnsembleScores, Result, Row, Run
from weightspace.bench._suite import Suite
from weightspace.transforms import Transform
from weightspace.zoo import Zoo


def collect(
    suite: Suite,
    transforms: Mapping[RowName, Transform | None],
    done: Mapping[Cell, CellResult],
    ensembles: Mapping[RowName, EnsembleScores],
    compared: Mapping[RowName, Comparison],
    worth: Mapping[RowName, Multiplier],
    zoo: Zoo,
    workers: int,
) -> Result:
    """Return the result of a grid whose cells are done."""
    groups: dict[RowName, list[tuple[int, CellResult]]] = {}
    for cell, result in sorted(done.items(), key=lambda item: (item[0].key, item[0].seed)):
        groups.setdefault((cell.entry, cell.augmentation), []).append((cell.seed, result))
    rows = [
        _row(
            suite,
            name,
            sorted(runs, key=lambda run: run[0]),
            transforms[name],
            ensembles.get(name),
            compared.get(name),
            worth.get(name),
        )
        for name, runs in groups.items()
    ]
    rows.sort(key=lambda row: (row.model, -((row.val_mean if row.test_mean is None else row.test_mean) or 0.0)))
    return Result(
        suite=suite.name,
        suite_version=suite.version,
        **environment(threads=1),
        commits=tuple(sorted({str(result.environment["commit"]) for result in done.values()})),
        devices=tuple(sorted({str(result.environment["device"]) for result in done.values()})),
        workers=workers,
        zoo={name: value for name, value in zoo.summary().items() if name != "path"},
        train=asdict(suite.train),
        left_out=tuple(dict.fromkeys(row[1] for row, own in transforms.items() if not fits(own, zoo.spec))),
        rows=tuple(rows),
    )


def _row(
    suite: Suite,
    name: RowName,
    runs: Sequence[tuple[int, CellResult]],
    transform: Transform | None,
    ensemble: EnsembleScores | None,
    compared: Comparison | None,
    worth: Multiplier | None,
) -> Row:
    entry, results = suite.entries[name[0]], [result for _, result in runs]
    first, last, val = results[0], mean(r.train_last for r in results), mean(r.val for r in results)
    mixes = transform is not None and transform.mixes_networks
    return Row(
        model=name[0],
        augmentation=name[1],
        transform=first.transform,
        track=first.track,
        equivariance=first.equivariance,
        objective=first.objective,
        options=dict(entry.options),
        train_options=dict(entry.train),
        parameters=first.parameters,
        forward_flop=first.forward_flop,
        seeds=tuple(seed for seed, _ in runs),
        test_mean=mean(r.test for r in results),
        test_std=spread(r.test for r in results),
        val_mean=val,
        train_last=last,
        under_trained=None if mixes or last is None or val is None else last <= val,
        seconds_mean=mean(r.seconds for r in results),
        seconds_epoch=mean(r.seconds_epoch for r in results),
        evaluations=_evaluations(results),
        ensemble=ensemble,
        against_none=compared,
        data_multiplier=worth,
        runs=tuple(_run(seed, result) for seed, result in runs),
    )


def _run(seed: int, result: CellResult) -> Run:
    return Run(
        seed=seed,
        val=result.val,
        test=result.test,
        best_epoch=result.best_epoch,
        train_last=result.train_last,
        seconds=result.seconds,
        seconds_epoch=result.seconds_epoch,
        evaluations=result.evaluations,
        history=result.history,
    )


def _evaluations(results: Sequence[CellResult]) -> dict[str, dict[str, float | None]]:
    """Return mean and spread over seeds of every score of the further evaluations."""
    out: dict[str, dict[str, float | None]] = {}
    for name, scores in results[0].evaluations.items():
        values = {score: [result.evaluations.get(name, {}).get(score) for result in results] for score in scores}
        out[name] = {}
        for score, own in values.items():
            out[name] |= {f"{score}_mean": mean(own), f"{score}_std": spread(own)}
    return out


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the values that are known, or None if none is.

    Example:
        >>> mean([0.5, None, 1.0]), mean([None])
        (0.75, None)
    """
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def spread(values: Iterable[float | None]) -> float | None:
    """Return the standard deviation (n - 1) of the values that are known, or None for fewer than two.

    Example:
        >>> spread([0.5, 1.0, None]), spread([0.5])
        (0.3535533905932738, None)
    """
    known = [value for value in values if value is not None]
    return statistics.stdev(known) if len(known) > 1 else None
