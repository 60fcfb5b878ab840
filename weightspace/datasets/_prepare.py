"""Building a named data set into one file, with a record of its making beside it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._files import sha256, write_atomic
from weightspace._version import __version__
from weightspace.datasets._catalogue import find
from weightspace.datasets._data_set import imported
from weightspace.datasets._places import cache_dir
from weightspace.signals import ImageSet, PointSet, save


def prepare(
    name: str,
    *,
    out: str | PathLike[str] | None = None,
    source: str | PathLike[str] | None = None,
    on_progress: Callable[[int], None] | None = None,
    **options: Any,
) -> Path:
    """Fetch a named data set by its package client and build it into one compressed file with a record beside it.

    The record (``.json``) holds the checksums of the file and of everything it was made of, the options, the counts and
    the seconds it took.

    Args:
        name: a name in ``DATASETS``, an import path such as ``my_package.data:SHAPES`` of a :class:`DataSet`, or the
            name of an entry point of the group ``weightspace.datasets``.
        out: the file to write, ``.npz``. Default: a file in the cache, from which ``load(name)`` reads it.
        source: a folder that is searched for the packages (or the unpacked data) before anything is fetched, and into
            which packages are fetched. Default: ``downloads`` in the cache.
        on_progress: a function that is called with the number of finished signals.
        options: the data set's own options, see ``DATASETS[name].configured()``.

    Returns:
        The file, or the folder of the original files of a data set that is not built.

    Raises:
        FileNotFoundError: if a package client, or the data set's folder, is missing.
        ImportError: if an extra is missing.
        OSError: if fetching fails.
        TypeError: for an option that the data set does not have.
        ValueError: for an unknown name, a data set that needs no preparation, or an option out of range.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.prepare("emoji", size=64)  # doctest: +SKIP
        PosixPath('/home/me/.cache/weightspace/emoji.npz')
    """
    entry = find(name)
    chosen = entry.configured(**options)
    folder = cache_dir() / "downloads" if source is None else Path(source)
    if source is not None and not folder.is_dir():
        raise FileNotFoundError(f"source: expected a folder, got {folder}")
    if entry.fetch is not None:
        if out is not None:
            raise ValueError(f"{name}: expected no out: it is used as it comes, from the cache; leave it out")
        return imported(entry.fetch)(folder)
    if entry.build is None:
        raise ValueError(f"{name}: nothing to prepare: {entry.obtain}")
    path = entry.path if out is None else Path(out)
    if path.suffix != ".npz":
        raise ValueError(f"out: expected a name that ends in .npz, got {path}")
    facts = {"name": entry.name, "licence": entry.licence, "citation": entry.citation}
    began = time.perf_counter()
    data, files = imported(entry.build)(folder, chosen, on_progress=on_progress, **facts)
    path.with_suffix(".json").unlink(missing_ok=True)  # a file without its record does not count as complete
    save(path, data)
    _write_record(path, data, files, chosen, time.perf_counter() - began)
    return path


def _write_record(path: Path, data: ImageSet | PointSet, files: list[Path], options: Any, seconds: float) -> None:
    labels = np.full(len(data), -1) if data.labels is None else data.labels
    classes = {
        kind: {part: int((labels[index] == i).sum()) for part, index in data.splits.items()}
        for i, kind in enumerate(data.classes)
    }
    record = {
        "name": data.name,
        "weightspace": __version__,
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "options": {} if options is None else dataclasses.asdict(options),
        "made_of": {file.name: sha256(file) for file in files},
        "signals": len(data),
        "groups": len(set(data.groups.tolist())),
        "splits": {part: len(index) for part, index in data.splits.items()},
        "classes": classes,
        "licence": data.licence,
        "citation": data.citation,
        "seconds": round(seconds, 1),
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_atomic(path.with_suffix(".json"), text.encode())
