"""Signals: images and other arrays as coordinates and targets."""

from weightspace._evaluate import grid, psnr
from weightspace.signals._cifar import from_cifar10
from weightspace.signals._coordinates import images, series
from weightspace.signals._idx import from_idx
from weightspace.signals._read import from_folder, from_npz
from weightspace.signals._sets import ImageSet, PointSet, SignalSet
from weightspace.signals._store import save

__all__ = [
    "ImageSet",
    "PointSet",
    "SignalSet",
    "from_cifar10",
    "from_folder",
    "from_idx",
    "from_npz",
    "grid",
    "images",
    "psnr",
    "save",
    "series",
]
