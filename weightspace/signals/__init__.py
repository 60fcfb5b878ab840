"""Signals: images and other arrays as coordinates and targets."""

from weightspace.signals._cifar import from_cifar10
from weightspace.signals._coordinates import grid, images, psnr, series
from weightspace.signals._idx import from_idx
from weightspace.signals._image_set import ImageSet
from weightspace.signals._point_set import PointSet
from weightspace.signals._readers import from_folder, from_npz
from weightspace.signals._signal_set import SignalSet
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
