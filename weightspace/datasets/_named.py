"""Readers of the named data sets in their original files: Fashion-MNIST, its embedded subset, digits and CIFAR-10."""

from __future__ import annotations

import io
import lzma
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace._extras import optional
from weightspace._files import write_atomic
from weightspace.datasets._catalogue import DATASETS
from weightspace.datasets._packages import debian_files, debian_package
from weightspace.datasets._places import cache_dir, fashion_places, place_of
from weightspace.signals import ImageSet
from weightspace.signals._cifar import from_cifar10
from weightspace.signals._idx import from_idx, has_idx

EMBEDDED = "fashion-mnist-4000.npz.xz"
"""The file of the embedded subset, made by ``benchmarks/make_embedded.py``."""

_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def _facts(name: str) -> dict[str, Any]:
    return {"licence": DATASETS[name].licence, "citation": DATASETS[name].citation}


def embedded() -> ImageSet:
    """Read the subset of Fashion-MNIST that comes with the package: 3,000 training and 1,000 test images.

    It consists of the first 300 training and the first 100 test images of each class, in the order of the full data
    set. Their sources are the same as in :func:`fashion_mnist`.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.embedded()
        ImageSet('fashion-mnist-4000', 4000 images 28x28 uint8, train 3000, test 1000)
    """
    packed = files("weightspace.datasets").joinpath("data", EMBEDDED).read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        images, labels, sources, train = (arrays[key] for key in ("images", "labels", "sources", "train"))
    splits = {"train": np.flatnonzero(train), "test": np.flatnonzero(~train)}
    return ImageSet(images, labels, sources, splits, _CLOTHES, name="fashion-mnist-4000", **_facts("embedded"))


def fashion_mnist(folder: str | PathLike[str] | None = None) -> ImageSet:
    """Read the whole of Fashion-MNIST: 60,000 training and 10,000 test images, 28x28, grey.

    Args:
        folder: the folder of its four IDX files. Default: the first that holds them of
            ``$WEIGHTSPACE_DATA/fashion-mnist``, the cache (``weightspace data prepare fashion-mnist``) and the folder
            of Debian's package.

    Raises:
        FileNotFoundError: if none of these folders holds the files.
        ValueError: if a file is truncated or altered.

    Example:
        >>> import weightspace as ws
        >>> fashion_mnist()  # doctest: +SKIP
        ImageSet('fashion-mnist', 70000 images 28x28 uint8, train 60000, test 10000)
    """
    places = fashion_places() if folder is None else [Path(folder)]
    for place in places:
        if has_idx(place):
            return from_idx(place, classes=_CLOTHES, name="fashion-mnist", **_facts("fashion-mnist"))
    raise FileNotFoundError(
        f"expected Fashion-MNIST's IDX files in {' or '.join(map(str, places))}, got none; install Debian's package "
        "dataset-fashion-mnist, or run: weightspace data prepare fashion-mnist, or put "
        "train-images-idx3-ubyte.gz and the other three from "
        "https://github.com/zalandoresearch/fashion-mnist into a folder and name it or $WEIGHTSPACE_DATA"
    )


def mnist() -> ImageSet:
    """Read MNIST from the IDX files in ``$WEIGHTSPACE_DATA/mnist``, else from the cache.

    Raises:
        FileNotFoundError: if they are not there.
        ValueError: if a file is truncated or altered.
    """
    place = place_of("mnist")
    if not has_idx(place):
        raise FileNotFoundError(
            f"{place}: expected MNIST's IDX files, got none; fetch its four IDX files and put them there"
        )
    return from_idx(place, classes=tuple(map(str, range(10))), name="mnist", **_facts("mnist"))


def fetch_fashion(folder: Path) -> Path:
    """Fetch Debian's package of Fashion-MNIST into ``folder`` and put the files in it into the cache."""
    package = debian_package("dataset-fashion-mnist", folder)
    place = cache_dir() / "fashion-mnist"
    with debian_files(package, "-ubyte.gz") as members:
        for name, content in members:
            write_atomic(place / Path(name).name, content)
    if not has_idx(place):
        raise ValueError(f"{package}: expected Fashion-MNIST's IDX files in it, got none; delete it to fetch it again")
    return place


def digits() -> ImageSet:
    """Read scikit-learn's handwritten digits: 1,797 grey images of 8x8, ten classes, no split.

    The 17 grey levels 0 to 16 are scaled to 0 to 255.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        >>> import weightspace as ws
        >>> digits()
        ImageSet('digits', 1797 images 8x8 uint8)
    """
    bunch = optional("sklearn.datasets", "scikit-learn", "digits", "the digits data set").load_digits()
    return ImageSet(
        images=np.rint(bunch.images * (255 / 16)).astype(np.uint8),
        labels=np.asarray(bunch.target),
        classes=tuple(map(str, range(10))),
        name="digits",
        **_facts("digits"),
    )


def cifar_10() -> ImageSet:
    """Read CIFAR-10 from ``$WEIGHTSPACE_DATA/cifar-10``, else from the cache."""
    return from_cifar10(place_of("cifar-10"))
