"""Fit a data set into a zoo on disk, shard by shard, by any executor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import combinations
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace._weights import Weights
from weightspace.fitting._checks import check_signals, check_start
from weightspace.fitting._config import FitConfig
from weightspace.fitting._executors import NAME, Executor, ShardTask, executor_named
from weightspace.fitting._fit import OnProgress
from weightspace.signals import SignalSet
from weightspace.zoo import Zoo, ZooWriter

SHARD = 512


def fit_zoo(
    path: str | Path,
    data: SignalSet,
    spec: NetSpec,
    *,
    config: FitConfig | None = None,
    counts: Mapping[str, int] | None = None,
    start: Weights | None = None,
    shard_size: int = SHARD,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    executor: str | Executor = "local",
    on_progress: OnProgress | None = None,
) -> Zoo:
    """Fit every signal of a data set and write the networks as a zoo; called again, it goes on where it stopped.

    Args:
        path: folder of the zoo.
        data: images, or points with values, with "train" and maybe "test" splits; their names become the column "name".
        spec: the network; its inputs and outputs must be those of the signals.
        config: the recipe.
        counts: number of signals of each split: "train" takes the first ones, "val" those that follow them in the
            training split (unless the data has a "val" split), "test" the first ones. All the data where None.
        start: one network that all start from, see :func:`fit`; its digest goes into the recipe.
        shard_size: signals in a shard (each with all its views); what a crash costs at most.
        device: where to compute.
        workers: see :func:`fit`.
        executor: ``"local"``, ``"ray"``, or an :class:`Executor`, which fits the shards; the networks are the same.
        on_progress: called after each chunk with networks done, networks in all, and the chunk's PSNR.

    Raises:
        TypeError: for arguments of another type, or in another order.
        ValueError: for counts that the data does not have, a spec that does not fit the signals, a folder begun with
            another recipe or other data, or one that another process fits into; nothing is written then.
        OSError: if the disk is full; what was complete stays.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> counts = {"train": 4, "test": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data, spec, config = ws.datasets.embedded(), ws.siren(2, 8, 1), ws.FitConfig(steps=2)
        ...     zoo = fit_zoo(folder + "/zoo", data, spec, config=config, counts=counts)
        ...     zoo.splits, zoo.count("train")
        (('train', 'test'), 4)
    """
    _check_types(path, data, config)
    config = config or FitConfig()
    config = replace(config, init=config.init or spec.init)  # the recipe names the convention, and so does the spec
    spec = replace(spec, init=config.init)
    rows = _rows(data, counts)
    _check(data, spec, rows, shard_size, workers)
    if start is not None:
        check_start(start, spec)
    chosen = executor_named(executor, device=torch.device(device), workers=workers)
    shards = [
        (split, index[start : start + shard_size])
        for split, index in rows.items()
        for start in range(0, len(index), shard_size)
    ]
    plan = [(split, len(index) * config.views, data.sources[index[[0, -1]]].tolist()) for split, index in shards]
    with ZooWriter.open_or_create(path, spec, plan=plan, **_settings(data, rows, config, start)) as writer:

        def task(number: int) -> ShardTask:
            return shard_task(writer, number, data, shards[number][1], config, str(device), workers, start=start)

        run_tasks(writer, task, chosen, on_progress)
    return Zoo.open(path, verify=False)


def _check_types(path: Any, data: Any, config: Any) -> None:
    if not isinstance(path, str | PathLike):
        hint = "; the order is ws.fit_zoo(path, data, spec)" if isinstance(path, SignalSet) else ""
        raise TypeError(f"path: expected the folder of the zoo, got {type(path).__name__}{hint}")
    if not isinstance(data, SignalSet):
        raise TypeError(
            f"data: expected a set of signals, got {type(data).__name__}; read one with ws.datasets.load(path), or "
            "make a ws.signals.ImageSet or PointSet of arrays"
        )
    if not isinstance(config, FitConfig | None):
        raise TypeError(
            f"config: expected a FitConfig, got {type(config).__name__}; RECIPES in ws.fitting has them by name"
        )


def start_digest(start: Weights | None) -> str | None:
    """Return the digest by which a recipe records the network that all started from."""
    return None if start is None else hashlib.sha256(start.flat.cpu().contiguous().numpy().tobytes()).hexdigest()


def _settings(
    data: SignalSet, rows: Mapping[str, np.ndarray], config: FitConfig, start: Weights | None
) -> dict[str, Any]:
    """Return the settings of the zoo."""
    return {
        "recipe": {**config.recipe(), "start": start_digest(start)},
        "init_regime": "meta" if start is not None else config.regime,
        "seed": config.seed,
        "views": config.views,
        "classes": data.classes,
        "data_digest": data.digest(rows),
        "provenance": data.provenance(),
        "columns": {} if data.names is None else {NAME: "text"},
    }


def shard_task(
    writer: ZooWriter,
    number: int,
    data: SignalSet,
    index: np.ndarray,
    config: FitConfig,
    device: str,
    workers: int | None,
    first_view: int = 0,
    start: Weights | None = None,
) -> ShardTask:
    """Make the task of a pending shard that holds the signals at ``index``."""
    part = replace(data, splits={}).subset(index)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return ShardTask(number, writer.target(number), part, config, device, workers, first_view, start)


def run_tasks(
    writer: ZooWriter, task: Callable[[int], ShardTask], executor: Executor, on_progress: OnProgress | None
) -> None:
    """Have every pending shard made, and commit the manifest once: at the end, or when something goes wrong."""
    pending, sources = writer.pending(), dict[int, Tensor]()
    total = sum(shard.count for shard in writer.shards)
    done = total - sum(writer.shards[number].count for number in pending)

    def tasks() -> Iterator[ShardTask]:
        for number in pending:
            made = task(number)
            sources[number] = torch.as_tensor(made.data.sources)
            yield made

    def progress(_done: int, _total: int, psnr: Tensor) -> None:
        nonlocal done
        done += len(psnr)
        if on_progress is not None:
            on_progress(done, total, psnr)

    results = executor.run(tasks(), progress)
    try:
        for number, shard in results:
            writer.accept(number, shard, sources.pop(number))
    except BaseException:
        if isinstance(results, Generator):
            results.close()
        with suppress(OSError):  # on a full disk the shards' own records stand for the manifest
            writer.commit()
        raise
    writer.commit()


def _check(
    data: SignalSet, spec: NetSpec, rows: Mapping[str, np.ndarray], shard_size: int, workers: int | None
) -> None:
    """Refuse everything that ``fit`` would refuse, before anything is written."""
    check_signals(*data.signals([0]), spec)
    chosen = data.sources[np.concatenate(list(rows.values()))]
    if repeated := len(chosen) - len(np.unique(chosen)):
        raise ValueError(f"sources: expected one signal of each, got {repeated} repeated; use views= to fit one again")
    for (one, mine), (other, theirs) in combinations(rows.items(), 2):
        if len(shared := np.intersect1d(data.groups[mine], data.groups[theirs])):
            raise ValueError(
                f"counts: expected every group of signals in one split, got group {shared[0]} in both {one!r} and "
                f"{other!r} ({len(shared)} in all); make the splits by group, with data.with_split()"
            )
    whole_number("shard_size", shard_size)
    if workers is not None:
        whole_number("workers", workers)


def _rows(data: SignalSet, counts: Mapping[str, int] | None) -> dict[str, np.ndarray]:
    """Return which signals go into which split."""
    splits = {name: np.asarray(index) for name, index in data.splits.items()} or {"train": np.arange(len(data))}
    if counts is None:
        return splits
    if "train" not in counts:
        raise ValueError(f"counts: expected a 'train' entry, got {dict(counts)}")
    for name, count in counts.items():
        whole_number(f"counts[{name!r}]", count, 0)
    out = {}
    for name, count in counts.items():
        held_out = name == "val" and name not in splits
        pool = splits.get("train" if held_out else name)
        if pool is None:
            raise ValueError(f"counts: expected splits among {sorted({*splits, 'val'})}, got {name!r}")
        start = counts["train"] if held_out else 0
        if count < 1 or start + count > len(pool):
            raise ValueError(f"counts: {name!r} expected 1 to {len(pool) - start} images of {data.name}, got {count}")
        out[name] = pool[start : start + count]
    return out
