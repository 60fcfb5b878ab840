"""Add further fits per signal to an existing zoo, identical to fitting them in the first run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from weightspace._checks import whole_number
from weightspace._weights import Weights
from weightspace.fitting._config import FitConfig
from weightspace.fitting._executors import Executor, ShardTask, executor_named
from weightspace.fitting._fit import OnProgress
from weightspace.fitting._fit_zoo import run_tasks, shard_task, start_digest
from weightspace.signals import SignalSet
from weightspace.zoo import Zoo, ZooWriter
from weightspace.zoo._format import Manifest, Shard
from weightspace.zoo._resume import tidy
from weightspace.zoo._shards import map_shard, shard_problem


def add_views(
    path: str | Path,
    data: SignalSet,
    views: int,
    *,
    splits: Sequence[str] | None = None,
    start: Weights | None = None,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    executor: str | Executor = "local",
    on_progress: OnProgress | None = None,
) -> Zoo:
    """Fit more views of every signal of a finished zoo; called again, it goes on where it stopped.

    The new networks are those that ``fit_zoo`` would have made, had it been asked for as many views, and lie in
    shards of their own behind the old ones, which are left as they are.

    Args:
        path: folder of a zoo that ``fit_zoo`` made.
        data: the data that it was fitted to.
        views: the number of fits per signal that the zoo is to have.
        splits: the splits that get them, such as ``["train"]`` where one view each is to be tested; all if None.
        start: the network that all started from, where the zoo was made from one.
        device: see :func:`fit_zoo`; likewise ``workers``, ``executor`` and ``on_progress``.

    Raises:
        ValueError: for a split that the zoo does not have, other splits than those that got views before, a zoo that is
            not finished, that has more views already, or that was fitted to other data or not by ``fit_zoo``; nothing
            is written then.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> data, spec, folder = ws.datasets.embedded(), ws.siren(2, 8, 1), tempfile.mkdtemp()
        >>> zoo = ws.fit_zoo(folder, data, spec, config=ws.FitConfig(steps=2), counts={"train": 4})
        >>> zoo = ws.fitting.add_views(folder, data, 3)
        >>> zoo.views("train").tolist()
        [0, 0, 0, 0, 1, 2, 1, 2, 1, 2, 1, 2]
    """
    path = Path(path)
    whole_number("views", views)
    manifest = Manifest.read(path)
    base, first = _base(path, manifest, views)
    config = replace(_config(path, manifest), views=views)
    if manifest.settings.recipe.get("start") != start_digest(start):
        raise ValueError(f"{path}: expected start= to be what its networks started from, got another, or none")
    rows = _rows(path, manifest, base, data)
    _check_data(path, manifest, base, rows, data)
    base, rows = _chosen(path, manifest, base, rows, splits)
    chosen = executor_named(executor, device=torch.device(device), workers=workers)
    plan = [
        (shard.split, len(index) * (views - first), {"of": shard.file, "views": [first, views]})
        for shard, index in zip(base, rows, strict=True)
    ]
    if first == views:
        tidy(path)
        return Zoo.open(path)
    with ZooWriter.extend(path, plan=plan, views=views, recipe={**manifest.settings.recipe, "views": views}) as writer:
        before = len(writer.shards) - len(plan)

        def task(number: int) -> ShardTask:
            if number < before:
                raise ValueError(f"{path}: {writer.shards[number].file} is damaged; run the first fit again to mend it")
            return shard_task(writer, number, data, rows[number - before], config, str(device), workers, first, start)

        run_tasks(writer, task, chosen, on_progress)
    return Zoo.open(path, verify=False)


def _base(path: Path, manifest: Manifest, views: int) -> tuple[list[Shard], int]:
    """Return the shards of the first fit, which hold every signal, and the first view to add (``views`` if none is)."""
    base = [shard for shard in manifest.shards if not added_views(shard)]
    if manifest.settings.views > views:
        raise ValueError(f"views: expected at least the {manifest.settings.views} that {path} has, got {views}")
    added = [shard.key["views"] for shard in manifest.shards if added_views(shard)]
    going_on = manifest.settings.views == views and bool(added) and added[-1][1] == views
    planned = [shard for shard in manifest.shards if not shard.done]
    if planned and not (going_on and all(added_views(shard) for shard in planned)):
        done = len(manifest.shards) - len(planned)
        raise ValueError(
            f"{path}: expected a finished zoo, got {done} of {len(manifest.shards)} shards; finish what was begun first"
        )
    return base, added[-1][0] if going_on and planned else manifest.settings.views


def _chosen(
    path: Path, manifest: Manifest, base: list[Shard], rows: list[np.ndarray], splits: Sequence[str] | None
) -> tuple[list[Shard], list[np.ndarray]]:
    """Return the shards of some splits, and the rows of the data that they hold.

    Views are numbered alike in all splits that have several, so that those which got views once get all later ones.
    """
    known = list(dict.fromkeys(shard.split for shard in base))
    wanted = known if splits is None else splits
    if isinstance(wanted, str) or not wanted or not set(wanted) <= set(known):
        raise ValueError(f"splits: expected some of {known}, got {wanted!r}")
    before = list(dict.fromkeys(shard.split for shard in manifest.shards if added_views(shard)))
    if before and set(before) != set(wanted):
        raise ValueError(f"splits: expected {before}, which have the earlier views of {path}, got {list(wanted)}")
    kept = [i for i, shard in enumerate(base) if shard.split in wanted]
    return [base[i] for i in kept], [rows[i] for i in kept]


def added_views(shard: Shard) -> bool:
    """Return whether a shard holds views that were added to those of another."""
    views = shard.key.get("views") if isinstance(shard.key, dict) and "of" in shard.key else None
    return isinstance(views, list) and len(views) == 2 and all(isinstance(view, int) for view in views)


def _config(path: Path, manifest: Manifest) -> FitConfig:
    """Return the configuration that the recipe records."""
    if manifest.settings.data_digest is None:
        raise ValueError(f"{path}: expected a zoo that fit_zoo made, got one without a digest of its signals")
    try:
        return FitConfig.from_recipe(manifest.settings.recipe)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a zoo that fit_zoo made, got {error}") from error


def _rows(path: Path, manifest: Manifest, base: list[Shard], data: SignalSet) -> list[np.ndarray]:
    """Return the rows of the data that hold the signals of each shard."""
    place = {int(source): row for row, source in enumerate(data.sources)}
    out, num_params = [], manifest.spec.num_params
    for shard in base:
        if problem := shard_problem(path, shard, num_params, digest=False):
            raise ValueError(f"{path}: {problem}; run the first fit again to mend it")
        sources = map_shard(path / shard.file)["source"].unique_consecutive().tolist()
        if unknown := [source for source in sources if source not in place]:
            raise ValueError(f"{path}: expected the data of the zoo, got {data.name} without source {unknown[0]}")
        out.append(np.array([place[source] for source in sources]))
    return out


def _check_data(path: Path, manifest: Manifest, base: list[Shard], rows: list[np.ndarray], data: SignalSet) -> None:
    """Raise ``ValueError`` unless the zoo was fitted to these signals."""
    splits = dict[str, list[np.ndarray]]()
    for shard, index in zip(base, rows, strict=True):
        splits.setdefault(shard.split, []).append(index)
    if data.digest({split: np.concatenate(parts) for split, parts in splits.items()}) != manifest.settings.data_digest:
        raise ValueError(f"{path}: expected the data that the zoo was fitted to, got others with the same sources")
