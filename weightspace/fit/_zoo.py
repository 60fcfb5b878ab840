"""Fit a data set into a zoo on disk, shard by shard; the local executor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._spec import NetSpec
from weightspace.fit._fit import FitConfig, check_signals, fit
from weightspace.signals import ImageSet, images
from weightspace.zoo import Zoo, ZooWriter

SHARD = 512


def fit_zoo(
    path: str | Path,
    data: ImageSet,
    spec: NetSpec,
    *,
    config: FitConfig | None = None,
    counts: Mapping[str, int] | None = None,
    shard_size: int = SHARD,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    on_progress: Callable[[int, int, Tensor], None] | None = None,
) -> Zoo:
    """Fit every image of a data set and write the networks as a zoo; called again, it goes on where it stopped.

    Args:
        path: folder of the zoo.
        data: images with "train" and maybe "test" splits.
        spec: the network; its input must have two axes and its output the images' channels.
        config: the recipe.
        counts: how many images of each split: "train" takes the first ones, "val" those that follow them in the
            training split (unless the data has a "val" split), "test" the first ones. All the data where None.
        shard_size: images in a shard (each with all its views); what a crash costs at most.
        device: where to compute.
        workers: see :func:`fit`.
        on_progress: called after each chunk with networks done, networks in all, and the chunk's PSNR.

    Raises:
        ValueError: for counts that the data does not have, a spec that does not fit the images, or a folder begun with
            another recipe or other data; nothing is written then.
        OSError: if the disk is full; what was complete stays.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> from weightspace.fit import FitConfig
        >>> counts = {"train": 4, "test": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     zoo = fit_zoo(
        ...         folder + "/zoo", ws.signals.embedded(), ws.siren(2, 8, 1), config=FitConfig(steps=2), counts=counts
        ...     )
        ...     zoo.splits, zoo.count("train")
        (('train', 'test'), 4)
    """
    config, device = config or FitConfig(), torch.device(device)
    config = replace(config, init=config.init or spec.init)  # the recipe names the convention, and so does the spec
    spec = replace(spec, init=config.init)
    rows = _rows(data, counts)
    _check(data, spec, rows, shard_size, workers)
    shards = [
        (split, index[start : start + shard_size])
        for split, index in rows.items()
        for start in range(0, len(index), shard_size)
    ]
    height, width = data.images.shape[1:3]
    writer = ZooWriter.open_or_create(
        path,
        spec,
        plan=[(split, len(index) * config.views, data.sources[index[[0, -1]]].tolist()) for split, index in shards],
        recipe=config.recipe(),
        init_regime="shared" if config.shared_init else "independent",
        seed=config.seed,
        views=config.views,
        classes=data.classes,
        data_digest=_digest(data, rows),
        provenance={
            "data": data.name,
            "licence": data.licence,
            "citation": data.citation,
            "height": height,
            "width": width,
        },
    )
    total = sum(shard.count for shard in writer.shards)
    done = total - sum(writer.shards[i].count for i in writer.pending())

    def progress(count: int, psnr: Tensor) -> None:
        nonlocal done
        done += count
        if on_progress is not None:
            on_progress(done, total, psnr)

    for number in writer.pending():
        index = shards[number][1]
        coords, targets = images(data.images[index])
        result = fit(
            coords,
            targets,
            spec,
            config=config,
            sources=torch.as_tensor(data.sources[index]),
            device=device,
            workers=workers,
            on_done=progress,
        )
        labels = None if data.labels is None else torch.as_tensor(data.labels[index]).repeat_interleave(config.views)
        writer.write(number, result.weights, labels=labels, sources=result.source, views=result.view, psnr=result.psnr)
    return Zoo.open(path, verify=False)


def _check(data: ImageSet, spec: NetSpec, rows: Mapping[str, np.ndarray], shard_size: int, workers: int | None) -> None:
    """Everything that ``fit`` would refuse, before anything is written."""
    check_signals(*images(data.images[:1]), spec)
    chosen = data.sources[np.concatenate(list(rows.values()))]
    if repeated := len(chosen) - len(np.unique(chosen)):
        raise ValueError(f"sources: expected one image of each, got {repeated} repeated; use views= to fit one again")
    whole_number("shard_size", shard_size)
    if workers is not None:
        whole_number("workers", workers)


def _rows(data: ImageSet, counts: Mapping[str, int] | None) -> dict[str, np.ndarray]:
    """Which images go into which split."""
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


def _digest(data: ImageSet, rows: Mapping[str, np.ndarray]) -> str:
    """Hash of the signals, labels and sources that go in: a fit resumed with others is refused."""
    digest = hashlib.sha256()
    for name, index in rows.items():
        digest.update(name.encode())
        for start in range(0, len(index), 4096):
            part = index[start : start + 4096]
            digest.update(np.ascontiguousarray(data.images[part]).tobytes())
            digest.update(data.sources[part].astype(np.int64).tobytes())
            if data.labels is not None:
                digest.update(data.labels[part].astype(np.int64).tobytes())
    return digest.hexdigest()
