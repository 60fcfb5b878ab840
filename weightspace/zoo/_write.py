"""Write a zoo of networks that are in memory already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from weightspace._checks import whole_number
from weightspace._files import check_empty, staged, write_atomic
from weightspace._networks import Networks, check_networks
from weightspace._table import joined, kinds_of
from weightspace._table import kind as kind_of
from weightspace._weights import check_finite
from weightspace.zoo._format import MANIFEST
from weightspace.zoo._shards import doubled
from weightspace.zoo._writer import ZooWriter
from weightspace.zoo._zoo import Zoo


def write_zoo(
    path: str | Path,
    splits: Mapping[str, Networks] | None = None,
    *,
    train: Networks | None = None,
    val: Networks | None = None,
    test: Networks | None = None,
    shard_size: int = 4096,
    views: int | None = None,
    extra: Mapping[str, bytes] | None = None,
    **settings: Any,
) -> Zoo:
    """Write a zoo of networks that are in memory. The whole folder appears at once, or not at all.

    Args:
        path: the folder, new or empty.
        splits: the networks of each split. Networks without sources count as fits of different signals: their sources
            are 0, 1, 2, ..., counted over all splits.
        train: networks of the split "train", for splits of the usual names; likewise ``val`` and ``test``.
        shard_size: networks in a file.
        views: fits per signal; by default one more than the largest view.
        extra: content of further files beside the manifest, by name.
        settings: recipe, init_regime, seed, classes, data_digest, provenance, see :class:`ZooSettings`.

    Raises:
        TypeError: for splits that are not ``Networks``.
        ValueError: for no networks, a view of a source that is there twice, whole and real-valued labels in one zoo,
            further columns that are not in all splits, a further file with the name of one of the zoo's, and as
            :meth:`ZooWriter.create` and :meth:`ZooWriter.write`.
        OSError: if the disk is full; nothing is left behind.

    Example:
        >>> import tempfile
        >>> import weightspace as ws
        >>> networks = ws.Networks(ws.Weights(torch.zeros(3, 17), ws.siren(2, 4, 1)), label=[0, 1, 0])
        >>> write_zoo(tempfile.mkdtemp(), train=networks).labels("train")
        tensor([0, 1, 0])
    """
    path, whole = Path(path), _splits(splits, {"train": train, "val": val, "test": test})
    whole_number("shard_size", shard_size)
    for name in extra or {}:
        if not name or Path(name).name != name or name.startswith(".") or name in (MANIFEST, "shards"):
            raise ValueError(f"extra: expected names of files beside {MANIFEST}, got {name!r}")
    check_empty(path, MANIFEST)
    if views is None:
        views = 1 + max(0 if own.view is None else int(own.view.max()) for own in whole.values())
    chunks = [
        (split, own[start : start + shard_size])
        for split, own in whole.items()
        for start in range(0, len(own), shard_size)
    ]
    plan, first = [], dict[str, int]()
    for split, chunk in chunks:
        start = first.get(split, 0)
        first[split] = start + len(chunk)
        plan.append((split, len(chunk), [start, start + len(chunk)]))
    spec, settings = chunks[0][1].spec, {**settings, "columns": kinds_of(chunks[0][1].columns)}
    with staged(path) as stage, ZooWriter.create(stage, spec, plan=plan, views=views, **settings) as writer:
        for index, (_, chunk) in enumerate(chunks):
            writer.write(index, chunk, commit=False)
        for name, content in (extra or {}).items():
            write_atomic(stage / name, content)
        writer.commit()
    return Zoo.open(path, verify=False)


def _splits(splits: Mapping[str, Networks] | None, usual: Mapping[str, Networks | None]) -> dict[str, Networks]:
    """Return the splits by name, checked, each with its sources."""
    if splits is not None and not isinstance(splits, Mapping):
        raise TypeError(f"splits: expected a mapping from names to Networks, got {type(splits).__name__}")
    given = {**(splits or {}), **{name: own for name, own in usual.items() if own is not None}}
    if not given:
        raise ValueError("splits: expected at least one split, got none")
    out, first = dict[str, Networks](), 0
    for split, own in given.items():
        check_networks(f"split {split!r}", own)
        if not len(own) or own.weights.flat.ndim != 2:
            raise ValueError(f"split {split!r}: expected a batch of at least one network, got {own!r}")
        check_finite(f"split {split!r}", own.weights)
        source = torch.arange(first, first + len(own)) if own.source is None else own.source.cpu()
        first += len(own)
        view = torch.zeros_like(source) if own.view is None else own.view.cpu()
        if problem := doubled(split, [(source, view)]):
            raise ValueError(f"split {split!r}: {problem}")
        out[split] = own.replace(source=source)
    real = {split: own.label is not None and own.label.is_floating_point() for split, own in out.items()}
    if any(real.values()) and not all(real.values()):
        other = next(split for split in out if not real[split])
        raise ValueError(
            f"label: expected real numbers in every split or in none, got others, or no labels, in {other!r}; "
            "make all labels of one kind"
        )
    return _with_columns_alike(out)


def _with_columns_alike(splits: dict[str, Networks]) -> dict[str, Networks]:
    """Return the splits with further columns of one kind; whole numbers become real where another split has real ones.

    Raises:
        ValueError: for columns that some splits have and others do not, and texts here where there are numbers there.
    """
    first = next(iter(splits.values()))
    for split, own in splits.items():
        if set(own.columns) != set(first.columns):
            raise ValueError(
                f"columns: expected {list(first.columns)} in every split, got {list(own.columns)} in {split!r}; "
                "add them, or drop some with replace(columns=...)"
            )
    out = {split: dict[str, Any]() for split in splits}
    for name in first.columns:
        parts = [own.columns[name] for own in splits.values()]
        kind = kind_of(joined(name, parts))
        for split, values in zip(splits, parts, strict=True):
            out[split][name] = values.double() if kind == "real" else values
    return {split: own.replace(columns=out[split]) for split, own in splits.items()}
