"""Named data sets of signals: how to obtain each, its licence and its splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightspace._extras import lazy
from weightspace.datasets._catalogue import DATASETS
from weightspace.datasets._data_set import DataSet

if TYPE_CHECKING:
    from weightspace.datasets._load import load
    from weightspace.datasets._mesh import Mesh, meshes
    from weightspace.datasets._mesh_files import read_mesh
    from weightspace.datasets._mesh_sets import from_meshes
    from weightspace.datasets._named import digits, embedded, fashion_mnist
    from weightspace.datasets._prepare import prepare

__all__ = [
    "DATASETS",
    "DataSet",
    "Mesh",
    "digits",
    "embedded",
    "fashion_mnist",
    "from_meshes",
    "load",
    "meshes",
    "prepare",
    "read_mesh",
]

__getattr__ = lazy(  # listing the data sets must not import torch, which takes seconds
    __name__,
    {
        "_load": ["load"],
        "_mesh": ["Mesh", "meshes"],
        "_mesh_files": ["read_mesh"],
        "_mesh_sets": ["from_meshes"],
        "_named": ["digits", "embedded", "fashion_mnist"],
        "_prepare": ["prepare"],
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
