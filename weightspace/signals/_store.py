"""A signal set in one compressed file, and back."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.signals._coordinates import series
from weightspace.signals._image_set import ImageSet
from weightspace.signals._point_set import PointSet
from weightspace.signals._signal_set import SignalSet

FORMAT = "weightspace-signals-1"
_KINDS: dict[str, type[ImageSet] | type[PointSet]] = {"images": ImageSet, "points": PointSet}


def save(path: str | PathLike[str], data: SignalSet) -> None:
    """Write a signal set into one ``.npz`` file, which ``load`` reads: values, labels, sources, groups, splits and all.

    The file is complete or not there: it is written under another name first.

    Args:
        path: the file; its suffix must be ``.npz``.
        data: images or points.

    Raises:
        TypeError: for something other than an ``ImageSet`` or a ``PointSet``.
        ValueError: for another suffix.

    Example:
        >>> import pathlib, tempfile
        >>> import torch
        >>> import weightspace as ws
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "waves.npz"
        >>> coords, targets = ws.signals.series(torch.rand(10, 64))
        >>> ws.signals.save(path, ws.signals.PointSet(coords, targets, name="waves").with_split(0.5))
        >>> ws.datasets.load(path).name
        'waves'
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise ValueError(f"{path}: expected a name that ends in .npz, got {path.suffix or 'none'}")
    kind = next((name for name, of in _KINDS.items() if isinstance(data, of)), None)
    if kind is None:
        raise TypeError(f"data: expected an ImageSet or a PointSet, got {type(data).__name__}")
    about = {
        "format": FORMAT,
        "kind": kind,
        "classes": data.classes,
        "name": data.name,
        "licence": data.licence,
        "citation": data.citation,
    }
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about)), "sources": data.sources, **data.arrays()}
    if isinstance(data, PointSet):
        arrays["coords"] = data.coords
    if data.labels is not None:
        arrays["labels"] = data.labels
    if data.groups is not data.sources:
        arrays["groups"] = data.groups
    arrays |= {f"split_{name}": index for name, index in data.splits.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
    try:
        np.savez_compressed(partial, **arrays)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def names_in(path: Path) -> set[str]:
    """The names of the arrays in an ``.npz`` file; none where it is no such file."""
    try:
        with zipfile.ZipFile(path) as file:
            return {name.removesuffix(".npy") for name in file.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def points_from_npz(path: Path) -> PointSet:
    """The arrays ``coords`` and ``targets``, or ``series``, with ``labels``, ``sources`` and ``groups`` if there are.

    Raises:
        ValueError: if the file is damaged, holds objects, or its arrays do not go together.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: expected an .npz file of plain arrays (no objects), got {error}") from error
    if "series" in arrays:
        arrays["coords"], arrays["targets"] = series(arrays["series"])
    given = {name: arrays[name] for name in ("labels", "sources", "groups") if name in arrays}
    labels = given.get("labels")
    top = int(labels.max()) + 1 if labels is not None and labels.dtype.kind in "iu" and labels.size else 0
    try:
        return PointSet(
            arrays["coords"], arrays["targets"], classes=tuple(map(str, range(top))), name=path.stem, **given
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_saved(path: Path) -> ImageSet | PointSet:
    """The signal set in a file of :func:`save`.

    Raises:
        ValueError: if the file is damaged or of another format.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {name: file[name] for name in file.files if name != "about"}
    except (ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path}: expected a file of signals.save, got: {error}; make it again") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT or about.get("kind") not in _KINDS:
        got = about.get("format") if isinstance(about, dict) else about
        raise ValueError(f"{path}: expected the format {FORMAT}, got {got!r}; make it again with this version")
    splits = {name.removeprefix("split_"): arrays.pop(name) for name in [*arrays] if name.startswith("split_")}
    facts = {name: about[name] for name in ("name", "licence", "citation")}
    return _KINDS[about["kind"]](**arrays, splits=splits, classes=tuple(about["classes"]), **facts)
