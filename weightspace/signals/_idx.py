"""Image sets from the IDX files of the MNIST family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from weightspace._files import unzip
from weightspace.signals._sets import ImageSet

TEST_OFFSET = 60_000
"""The source of the first test image, after the 60,000 training images of the MNIST family."""

_UINT8 = 0x08
_PARTS = {"train": "train", "test": "t10k"}


def _find(folder: Path, prefix: str, kind: str) -> Path | None:
    axes = {"images": 3, "labels": 1}[kind]
    for joint in "-.":
        for suffix in ("", ".gz"):
            path = folder / f"{prefix}-{kind}{joint}idx{axes}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def has_idx(folder: Path) -> bool:
    """Return whether the folder holds IDX images of the MNIST family."""
    return any(_find(folder, prefix, "images") for prefix in _PARTS.values())


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of unsigned bytes, compressed with gzip or not.

    Raises:
        ValueError: if the file has another magic number, another element type, or another length than its header says.
    """
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = unzip(data, path)
    if len(data) < 4 or data[:3] != bytes((0, 0, _UINT8)):
        raise ValueError(f"{path}: expected an IDX file of unsigned bytes (magic 00 00 08), got {data[:4].hex(' ')!r}")
    axes = data[3]
    start = 4 + 4 * axes
    if len(data) < start:
        raise ValueError(f"{path}: expected an IDX header of {start} bytes, got {len(data)}: the file is truncated")
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    if len(data) - start != math.prod(shape):
        raise ValueError(
            f"{path}: expected {math.prod(shape)} bytes for shape {list(shape)}, got {len(data) - start}: "
            "the file is truncated or altered; fetch it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)


def _read_part(folder: Path, prefix: str) -> tuple[np.ndarray, np.ndarray] | None:
    found = _find(folder, prefix, "images")
    if found is None:
        return None
    labels_path = _find(folder, prefix, "labels")
    if labels_path is None:
        raise FileNotFoundError(f"expected labels beside {found}: {prefix}-labels-idx1-ubyte, with or without .gz")
    images, labels = read_idx(found), read_idx(labels_path)
    if images.ndim != 3:
        raise ValueError(f"{found}: expected images [image, height, width], got {images.ndim} axes")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_path}: expected {len(images)} labels, one an image, got shape {list(labels.shape)}")
    return images, labels


def from_idx(
    folder: str | PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    licence: str = "unknown",
    citation: str = "",
) -> ImageSet:
    """Read a data set in the IDX files of the MNIST family: ``train-*`` and ``t10k-*``, with or without ``.gz``.

    The source of a training image is its index in its file. The source of a test image is 60,000 plus its index, or
    the number of training images plus its index where there are more. One of the two parts may be missing.

    Args:
        folder: the folder of ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and the same for ``t10k``.
        classes: the names of the classes. Default: the numbers.
        name: the data set's name. Default: the folder's.
        licence: the terms under which it may be used.
        citation: the work to cite.

    Raises:
        FileNotFoundError: if neither part is there, or images without labels.
        ValueError: if a file is truncated, altered, or no IDX file of bytes, or lengths or sizes differ.

    Example:
        >>> import pathlib, tempfile
        >>> import weightspace as ws
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3] + [0, 0, 0, 2] * 3) + bytes(8))
        >>> _ = (folder / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]))
        >>> from_idx(folder).labels
        array([7, 3])

    Reference:
        LeCun, Cortes and Burges, "The MNIST database of handwritten digits", section "File formats".
    """
    folder = Path(folder)
    parts = {split: part for split, prefix in _PARTS.items() if (part := _read_part(folder, prefix))}
    if not parts:
        raise FileNotFoundError(
            f"{folder}: expected IDX files such as train-images-idx3-ubyte.gz, got none; "
            "name the folder that holds the four files of an MNIST-like data set"
        )
    if len(sizes := {images.shape[1:] for images, _ in parts.values()}) > 1:
        raise ValueError(f"{folder}: expected train and test images of one size, got {sorted(sizes)}")
    counts = [len(images) for images, _ in parts.values()]
    offset = max(TEST_OFFSET, counts[0]) if "train" in parts else TEST_OFFSET
    starts = {"train": 0, "test": offset}
    labels = np.concatenate([labels for _, labels in parts.values()]).astype(np.int64)
    bounds = np.cumsum([0, *counts])
    return ImageSet(
        images=np.concatenate([images for images, _ in parts.values()]),
        labels=labels,
        sources=np.concatenate([starts[s] + np.arange(n) for s, n in zip(parts, counts, strict=True)]),
        splits={s: np.arange(bounds[i], bounds[i + 1]) for i, s in enumerate(parts) if counts[i]},
        classes=tuple(classes or map(str, range(int(labels.max(initial=0)) + 1))),
        name=name or folder.resolve().name,
        licence=licence,
        citation=citation,
    )
