"""Signals: images and other arrays as coordinates and targets, and the data sets they come from."""

from weightspace.signals._cache import cache_dir
from weightspace.signals._catalogue import DATASETS, prepare
from weightspace.signals._cifar import from_cifar10
from weightspace.signals._coordinates import grid, images, psnr, series
from weightspace.signals._data_set import DataSet
from weightspace.signals._idx import from_idx
from weightspace.signals._image_set import ImageSet
from weightspace.signals._load import load
from weightspace.signals._mesh import Mesh, meshes
from weightspace.signals._mesh_files import read_mesh
from weightspace.signals._mesh_sets import from_meshes
from weightspace.signals._named import digits, embedded, fashion_mnist
from weightspace.signals._point_set import PointSet
from weightspace.signals._readers import from_folder, from_npz
from weightspace.signals._signal_set import SignalSet
from weightspace.signals._split import split_by_source
from weightspace.signals._store import save

__all__ = [
    "DATASETS",
    "DataSet",
    "ImageSet",
    "Mesh",
    "PointSet",
    "SignalSet",
    "cache_dir",
    "digits",
    "embedded",
    "fashion_mnist",
    "from_cifar10",
    "from_folder",
    "from_idx",
    "from_meshes",
    "from_npz",
    "grid",
    "images",
    "load",
    "meshes",
    "prepare",
    "psnr",
    "read_mesh",
    "save",
    "series",
    "split_by_source",
]
