"""Signals: images and other arrays as coordinates and targets, and the data sets they come from."""

from weightspace.signals._cifar import from_cifar10
from weightspace.signals._coordinates import grid, images, psnr
from weightspace.signals._idx import from_idx
from weightspace.signals._image_set import ImageSet
from weightspace.signals._load import load
from weightspace.signals._named import digits, embedded, fashion_mnist
from weightspace.signals._readers import from_folder, from_npz
from weightspace.signals._split import split_by_source

__all__ = [
    "ImageSet",
    "digits",
    "embedded",
    "fashion_mnist",
    "from_cifar10",
    "from_folder",
    "from_idx",
    "from_npz",
    "grid",
    "images",
    "load",
    "psnr",
    "split_by_source",
]
