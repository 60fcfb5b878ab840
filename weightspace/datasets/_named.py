"""Data sets known by name: the embedded subset, Fashion-MNIST, scikit-learn's digits."""

from __future__ import annotations

import io
import lzma
import os
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from weightspace.datasets._packages import cache_dir, debian_files, debian_package
from weightspace.signals._idx import from_idx, has_idx
from weightspace.signals._sets import ImageSet

EMBEDDED = "fashion-mnist-4000.npz.xz"
"""The shipped file, made by ``benchmarks/make_embedded.py``."""

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files."""

FASHION: dict[str, Any] = {
    "classes": (
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
    ),
    "licence": "MIT, Copyright (c) 2017 Zalando SE",
    "citation": "Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning "
    "Algorithms, 2017, arXiv 1708.07747",
}


CIFAR_CITATION = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


def place_of(name: str) -> Path:
    """Where a data set that is used as it comes is looked for: ``$WEIGHTSPACE_DATA``, else the cache."""
    home = os.environ.get("WEIGHTSPACE_DATA")
    return (Path(home) if home else cache_dir()) / name


def embedded() -> ImageSet:
    """The subset of Fashion-MNIST that comes with the package: 3,000 training and 1,000 test images.

    The first 300 training and the first 100 test images of each class, in the order of the full data set, with the
    sources that ``fashion_mnist()`` gives them.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.embedded()
        ImageSet('fashion-mnist-4000', 4000 images 28x28 uint8, train 3000, test 1000)
    """
    packed = files("weightspace.datasets").joinpath("data", EMBEDDED).read_bytes()
    with np.load(io.BytesIO(lzma.decompress(packed)), allow_pickle=False) as arrays:
        images, labels, sources, train = (arrays[key] for key in ("images", "labels", "sources", "train"))
    splits = {"train": np.flatnonzero(train), "test": np.flatnonzero(~train)}
    return ImageSet(images, labels, sources, splits, name="fashion-mnist-4000", **FASHION)


def fashion_mnist(folder: str | PathLike[str] | None = None) -> ImageSet:
    """The whole of Fashion-MNIST: 60,000 training and 10,000 test images, 28x28, grey.

    Args:
        folder: where its four IDX files are. Without it, ``$WEIGHTSPACE_DATA/fashion-mnist``, the cache
            (``weightspace data prepare fashion-mnist``) and the place of Debian's package are tried.

    Raises:
        FileNotFoundError: if the files are in none of these places.
        ValueError: if a file is truncated or altered.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.fashion_mnist()  # doctest: +SKIP
        ImageSet('fashion-mnist', 70000 images 28x28 uint8, train 60000, test 10000)
    """
    places = _fashion_places() if folder is None else [Path(folder)]
    for place in places:
        if has_idx(place):
            return from_idx(place, name="fashion-mnist", **FASHION)
    raise FileNotFoundError(
        f"expected Fashion-MNIST's IDX files in {' or '.join(map(str, places))}, got none; install Debian's package "
        "dataset-fashion-mnist, or run: weightspace data prepare fashion-mnist, or put "
        "train-images-idx3-ubyte.gz and the other three from "
        "https://github.com/zalandoresearch/fashion-mnist into a folder and name it or $WEIGHTSPACE_DATA"
    )


def _fashion_places() -> list[Path]:
    return [*dict.fromkeys([place_of("fashion-mnist"), cache_dir() / "fashion-mnist", DEBIAN])]


def has_fashion() -> bool:
    """Whether Fashion-MNIST is on this machine."""
    return any(has_idx(place) for place in _fashion_places())


def prepare_fashion(folder: Path) -> Path:
    """Fashion-MNIST's files from Debian's package, fetched into ``folder``, put into the cache."""
    package = debian_package("dataset-fashion-mnist", folder)
    place = cache_dir() / "fashion-mnist"
    place.mkdir(parents=True, exist_ok=True)
    with debian_files(package, "-ubyte.gz") as members:
        for name, content in members:
            partial = place / f".{os.getpid()}.partial"
            partial.write_bytes(content)
            partial.replace(place / Path(name).name)
    if not has_idx(place):
        raise ValueError(f"{package}: expected Fashion-MNIST's IDX files in it, got none; delete it to fetch it again")
    return place


def digits() -> ImageSet:
    """scikit-learn's handwritten digits: 1,797 grey images of 8x8, ten classes, no split.

    Its 17 grey levels 0..16 are spread over 0..255.

    Raises:
        ImportError: if scikit-learn is not installed.

    Example:
        >>> import weightspace as ws
        >>> ws.datasets.digits()
        ImageSet('digits', 1797 images 8x8 uint8)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "the digits data set comes with scikit-learn, which is not installed; pip install weightspace[digits]"
        ) from error
    bunch: Any = load_digits()
    return ImageSet(
        images=np.rint(bunch.images * (255 / 16)).astype(np.uint8),
        labels=np.asarray(bunch.target),
        classes=tuple(map(str, range(10))),
        name="digits",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    )
