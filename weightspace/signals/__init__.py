"""Signals: images and other arrays as coordinates and targets."""

from weightspace._evaluate import grid, psnr
from weightspace.signals._coordinates import images, series
from weightspace.signals._point_set import PointSet
from weightspace.signals._sets import ImageSet, SignalSet
from weightspace.signals._store import save

__all__ = [
    "ImageSet",
    "PointSet",
    "SignalSet",
    "grid",
    "images",
    "psnr",
    "save",
    "series",
]
