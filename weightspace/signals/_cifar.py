"""CIFAR-10 from its binary or pickle batches, without running any code that a pickle names."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._text import printable
from weightspace.signals._pickled import array_of, read_plain
from weightspace.signals._sets import ImageSet

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_BATCH = 10_000
_NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
_FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")


def batches(folder: Path) -> dict[str, Path]:
    """Find the batch files, pickled or binary, in the folder or in the one that the archive unpacks to."""
    for inner in _FOLDERS:
        for suffix in ("", ".bin"):
            found = {name: folder / inner / (name + suffix) for name in _NAMES}
            if found := {name: path for name, path in found.items() if path.is_file()}:
                return found
    return {}


def _read_pickle(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        content = read_plain(path.read_bytes())
        content = {k.decode() if isinstance(k, bytes) else k: v for k, v in content.items()}
        pixels, labels = array_of(content["data"]), _labels(content["labels"])
    except OSError:
        raise
    except Exception as error:  # a malformed pickle raises nearly anything
        raise ValueError(
            f"{path}: refused: expected a CIFAR-10 batch (a pickle of bytes, lists and uint8 arrays), "
            f"got {type(error).__name__}: {printable(error)[:200]}; fetch it from its authors"
        ) from error
    if pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise ValueError(f"{path}: expected pixels [image, {_PIXELS}], got {list(pixels.shape)}")
    if labels.shape != (len(pixels),) or labels.dtype.kind not in "iu":
        raise ValueError(f"{path}: expected {len(pixels)} integer labels, got {labels.dtype} {list(labels.shape)}")
    return pixels, labels


def _labels(values: Any) -> np.ndarray:
    if type(values) is not list or len(values) > _BATCH or any(type(value) is not int for value in values):
        raise ValueError(f"expected a list of at most {_BATCH} labels, whole numbers")
    return np.array(values, dtype=np.int64)


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = np.fromfile(path, dtype=np.uint8)
    if data.size == 0 or data.size % (_PIXELS + 1):
        raise ValueError(
            f"{path}: expected records of {_PIXELS + 1} bytes, got a file of {data.size}: "
            "it is truncated or no CIFAR-10 batch; fetch it again"
        )
    records = data.reshape(-1, _PIXELS + 1)
    return records[:, 1:], records[:, 0]


def from_cifar10(folder: str | PathLike[str]) -> ImageSet:
    """Read CIFAR-10 from its binary (``data_batch_1.bin``...) or its pickle batches (``data_batch_1``...).

    A restricted reader admits containers, bytes, numbers and arrays of bytes; it imports and calls nothing that a
    pickle names. The source of an image is its index in its batch plus 10,000 times the number of the batch, counted
    from 0 (the test batch is number 5). Batches may be missing.

    Args:
        folder: the folder of the batches, or of the folder ``cifar-10-batches-py`` or ``cifar-10-batches-bin``.

    Raises:
        FileNotFoundError: if there is no batch.
        ValueError: if a batch is truncated, malformed, or asks for anything but data.

    Example:
        >>> import pathlib, tempfile
        >>> import weightspace as ws
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> _ = (folder / "test_batch.bin").write_bytes(bytes([6]) + bytes(3072))
        >>> data = from_cifar10(folder)
        >>> data.images.shape, data.classes[data.labels[0]], data.sources
        ((1, 32, 32, 3), 'frog', array([50000]))

    Reference:
        Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
    """
    folder = Path(folder)
    found = batches(folder)
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected CIFAR-10 batches (data_batch_1 or data_batch_1.bin, ..., test_batch), got none; "
            "unpack the archive and name its folder"
        )
    pixels, labels, sources = [], [], []
    for name, path in found.items():
        x, y = _read_binary(path) if path.suffix == ".bin" else _read_pickle(path)
        if not 0 < len(x) <= _BATCH:
            raise ValueError(f"{path}: expected 1 to {_BATCH} images, got {len(x)}")
        pixels.append(x.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
        labels.append(y.astype(np.int64))
        sources.append(_BATCH * _NAMES.index(name) + np.arange(len(x)))
    all_sources = np.concatenate(sources)
    test = all_sources >= _BATCH * _NAMES.index("test_batch")
    splits = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    return ImageSet(
        images=np.ascontiguousarray(np.concatenate(pixels)),
        labels=np.concatenate(labels),
        sources=all_sources,
        splits={name: index for name, index in splits.items() if len(index)},
        classes=CLASSES,
        name="cifar-10",
        licence="none stated by its authors",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    )
