"""A zoo of networks that are in memory already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weightspace._files import check_empty, staged
from weightspace._weights import Weights
from weightspace.zoo._checks import check_finite, column
from weightspace.zoo._format import MANIFEST
from weightspace.zoo._writer import ZooWriter
from weightspace.zoo._zoo import Zoo

FORM = "(weights, labels, sources, views, psnr)"


def write_zoo(
    path: str | Path,
    splits: Mapping[str, tuple[Weights, Any, Any, Any, Any]],
    *,
    shard_size: int = 4096,
    views: int | None = None,
    **about: Any,
) -> Zoo:
    """Write a zoo of networks that are in memory: the whole folder appears at once, or not at all.

    Args:
        path: the folder, new or empty.
        splits: for each split ``(weights, labels, sources, views, psnr)``, the columns as for
            :meth:`ZooWriter.write`; ``None`` stands for a column's default, and for sources for 0, 1, 2, ...
            counted over all splits.
        shard_size: networks in a file.
        views: fits per signal; by default one more than the largest view.
        about: recipe, init_regime, seed, classes, data_digest, provenance as for :meth:`ZooWriter.create`.

    Raises:
        TypeError: for ``splits`` of another form.
        ValueError: as :meth:`ZooWriter.create` and :meth:`ZooWriter.write`.
        OSError: if the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1))
        >>> write_zoo(tempfile.mkdtemp(), {"train": (w, [0, 1, 0], None, None, None)}).labels("train")
        tensor([0, 1, 0])
    """
    path = Path(path)
    if not isinstance(splits, Mapping):
        raise TypeError(f"splits: expected a mapping from names to {FORM}, got {type(splits).__name__}")
    if not splits:
        raise ValueError("splits: expected at least one split, got none")
    if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
        raise ValueError(f"shard_size: expected at least 1, got {shard_size!r}")
    check_empty(path, MANIFEST)
    columns = _in_memory(splits)
    if views is None:
        views = 1 + max(int(own["views"].max()) for own in columns.values())
    chunks = [
        (split, start, min(shard_size, len(weights) - start))
        for split, (weights, *_) in splits.items()
        for start in range(0, len(weights), shard_size)
    ]
    spec = next(iter(splits.values()))[0].spec
    plan = [(split, count, [start, start + count]) for split, start, count in chunks]
    with staged(path) as stage, ZooWriter.create(stage, spec, plan=plan, views=views, **about) as writer:
        for index, (split, start, count) in enumerate(chunks):
            part = slice(start, start + count)
            own = {name: values[part] for name, values in columns[split].items()}
            writer.write(index, splits[split][0][part], **own, commit=False)
        writer.commit()
    return Zoo.open(path, verify=False)


def _in_memory(splits: Mapping[str, tuple[Weights, Any, Any, Any, Any]]) -> dict[str, dict[str, Tensor]]:
    """Every split's columns as tensors of the right length."""
    columns, first = dict[str, dict[str, Tensor]](), 0
    for split, entry in splits.items():
        if not isinstance(entry, tuple | list) or len(entry) != len(FORM.split(",")):
            got = f"{len(entry)} values" if isinstance(entry, tuple | list) else type(entry).__name__
            raise TypeError(f"split {split!r}: expected {FORM}, got {got}; None stands for a default")
        weights, labels, sources, views, psnr = entry
        if not isinstance(weights, Weights) or not len(weights):
            raise ValueError(f"split {split!r}: expected a batch of at least one network, got {weights!r}")
        check_finite(weights.flat.detach().flatten(1), f"split {split!r}")
        count = len(weights)
        sources = torch.arange(first, first + count) if sources is None else sources
        first += count
        columns[split] = {
            "labels": column("label", labels, -1, count),
            "sources": column("source", sources, 0, count),
            "views": column("view", views, 0, count),
            "psnr": column("psnr", psnr, float("nan"), count),
        }
    return columns
