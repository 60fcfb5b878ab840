"""Named data sets of signals: how to get each, its licence and its splits."""

from weightspace.datasets._catalogue import DATASETS, prepare
from weightspace.datasets._data_set import DataSet
from weightspace.datasets._load import load
from weightspace.datasets._mesh import Mesh, meshes
from weightspace.datasets._mesh_files import read_mesh
from weightspace.datasets._mesh_sets import from_meshes
from weightspace.datasets._named import digits, embedded, fashion_mnist
from weightspace.datasets._packages import cache_dir

__all__ = [
    "DATASETS",
    "DataSet",
    "Mesh",
    "cache_dir",
    "digits",
    "embedded",
    "fashion_mnist",
    "from_meshes",
    "load",
    "meshes",
    "prepare",
    "read_mesh",
]
