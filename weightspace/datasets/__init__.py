"""Named data sets of signals: how to obtain each, its licence and its splits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from weightspace._extras import lazy
from weightspace.datasets._catalogue import DATASETS
from weightspace.datasets._data_set import DataSet

if TYPE_CHECKING:
    from weightspace.datasets._load import load
    from weightspace.datasets._mesh import Mesh, meshes
    from weightspace.datasets._mesh_sets import from_meshes
    from weightspace.datasets._named import embedded
    from weightspace.datasets._prepare import prepare

__all__ = [
    "DATASETS",
    "DataSet",
    "Mesh",
    "embedded",
    "from_meshes",
    "load",
    "meshes",
    "prepare",
]

__getattr__ = lazy(  # listing the data sets must not import torch, which takes seconds
    __name__,
    {
        "_load": ["load"],
        "_mesh": ["Mesh", "meshes"],
        "_mesh_sets": ["from_meshes"],
        "_named": ["embedded"],
        "_prepare": ["prepare"],
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
