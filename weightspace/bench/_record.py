"""The record of a grid: rows with mean and spread over seeds, and where they were measured."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from weightspace.bench._cell import Cell, fits
from weightspace.bench._environment import environment
from weightspace.bench._suite import Suite
from weightspace.transforms import augmentation
from weightspace.zoo import Zoo

RESULT_SCHEMA = 1


def collect(suite: Suite, done: Mapping[Cell, dict[str, Any]], zoo: Zoo, workers: int) -> dict[str, Any]:
    """One record of a grid: rows with mean and spread over seeds, and where they were measured."""
    groups: dict[tuple[str, str], list[tuple[Cell, dict[str, Any]]]] = {}
    for cell, result in sorted(done.items(), key=lambda item: item[0].key):
        groups.setdefault((cell.entry, cell.augmentation), []).append((cell, result))
    rows = [_row(suite, *name, runs) for name, runs in groups.items()]
    rows.sort(key=lambda row: (row["model"], -row["val_mean"] if row["test_mean"] is None else -row["test_mean"]))
    return {
        "schema": RESULT_SCHEMA,
        "kind": "bench",
        "suite": suite.name,
        **environment(threads=1),
        "commits": sorted({str(result["environment"]["commit"]) for result in done.values()}),
        "devices": sorted({result["environment"]["device"] for result in done.values()}),
        "workers": workers,
        "zoo": {name: value for name, value in zoo.summary().items() if name != "path"},
        "train": asdict(suite.train),
        "left_out": [name for name in suite.all_augmentations if not fits(name, zoo.spec)],
        "rows": rows,
    }


def _row(suite: Suite, entry: str, name: str, runs: Sequence[tuple[Cell, dict[str, Any]]]) -> dict[str, Any]:
    results = [result for _, result in runs]
    tests = [result["test"] for result in results if result["test"] is not None]
    last = [result["history"][-1]["train"] for result in results]
    vals = [result["val"] for result in results]
    epochs = [statistics.median(line["seconds"] for line in result["history"]) for result in results]
    return {
        "model": entry,
        "augmentation": name,
        "transform": results[0]["transform"],
        "track": _known("track", results),
        "respects": _known("respects", results),
        "options": dict(suite.entries[entry].options),
        "train_options": dict(suite.entries[entry].train),
        "parameters": results[0]["parameters"],
        "forward_flop": _known("forward_flop", results),
        "seeds": [cell.seed for cell, _ in runs],
        "test_mean": statistics.mean(tests) if tests else None,
        "test_std": statistics.stdev(tests) if len(tests) > 1 else None,
        "val_mean": statistics.mean(vals),
        "train_last": statistics.mean(last),
        # a row whose training accuracy is no higher than its validation accuracy has not used up its data; where
        # networks are mixed the training accuracy says nothing: it is of mixtures, against one of two labels
        "under_trained": None if _mixes(name) else statistics.mean(last) <= statistics.mean(vals),
        "seconds_mean": statistics.mean(result["seconds"] for result in results),
        "seconds_epoch": statistics.mean(epochs),
        "runs": [
            {
                "seed": cell.seed,
                "test": result["test"],
                "val": result["val"],
                "best_epoch": result["best_epoch"],
                "seconds": result["seconds"],
                "history": result["history"],
            }
            for cell, result in runs
        ],
    }


def _known(name: str, results: Sequence[Mapping[str, Any]]) -> Any:
    """What the runs of a row say; those of earlier versions may say nothing."""
    return next((result[name] for result in results if result.get(name) is not None), None)


def _mixes(name: str) -> bool:
    return name != "none" and augmentation(name).mixes_networks
