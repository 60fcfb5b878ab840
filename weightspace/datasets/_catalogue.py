"""The named data sets: the facts about each of them, and the search for one by its name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from weightspace import _plugins
from weightspace.datasets._data_set import DataSet
from weightspace.datasets._places import fashion_places, has_files, place_of

_FASHION: dict[str, Any] = {
    "classes": 10,
    "licence": "MIT, Copyright (c) 2017 Zalando SE",
    "citation": "Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning "
    "Algorithms, 2017, arXiv 1708.07747",
}

_BY_FAMILY = (
    "by family: parts whose names differ in digits alone, or whose shapes are equal, lie on one side; "
    "7 : 1 : 2 of each class's families into train, val, test"
)

_ENTRIES = (
    DataSet(
        name="embedded",
        description="3,000 + 1,000 grey images of clothes, 28x28",
        split="the data set's own: train, test",
        **_FASHION,
        obtain="it comes with the package",
        read="weightspace.datasets._named:embedded",
    ),
    DataSet(
        name="fashion-mnist",
        description="60,000 + 10,000 grey images of clothes, 28x28",
        split="its own: train, test",
        **_FASHION,
        obtain="Debian's package dataset-fashion-mnist, installed or prepared; or the four IDX files in "
        "$WEIGHTSPACE_DATA/fashion-mnist",
        read="weightspace.datasets._named:fashion_mnist",
        is_here=lambda: has_files(fashion_places(), "*-images[-.]idx3-ubyte*"),
        fetch="weightspace.datasets._named:fetch_fashion",
    ),
    DataSet(
        name="digits",
        description="1,797 grey images of handwritten digits, 8x8",
        classes=10,
        split="by image: 4 : 1 into train, test (who wrote which is not known)",
        licence="CC BY 4.0 (UCI Machine Learning Repository)",
        citation="Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
        obtain="it comes with scikit-learn: pip install weightspace[digits]",
        read="weightspace.datasets._named:digits",
        is_here=lambda: find_spec("sklearn") is not None,
    ),
    DataSet(
        name="mnist",
        description="60,000 + 10,000 grey images of handwritten digits, 28x28",
        classes=10,
        split="its own: train, test, by writer",
        licence="none stated by its authors; often given as CC BY-SA 3.0",
        citation="LeCun, Bottou, Bengio and Haffner, Gradient-Based Learning Applied to Document Recognition, "
        "Proceedings of the IEEE, 1998",
        obtain="fetch its four IDX files and put them into $WEIGHTSPACE_DATA/mnist",
        read="weightspace.datasets._named:mnist",
        is_here=lambda: has_files([place_of("mnist")], "*-images[-.]idx3-ubyte*"),
    ),
    DataSet(
        name="cifar-10",
        description="50,000 + 10,000 colour images, 32x32",
        classes=10,
        split="its own: train, test",
        licence="none stated by its authors",
        citation="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        obtain="fetch it from its authors and unpack it into $WEIGHTSPACE_DATA/cifar-10",
        read="weightspace.datasets._named:cifar_10",
        is_here=lambda: has_files([place_of("cifar-10")], "**/*_batch*"),
    ),
    DataSet(
        name="emoji",
        description="colour drawings of emoji by eight vendors, on white, 32x32",
        classes=9,
        split="by concept: all drawings, vendors, tones and genders of one code point sequence, and concepts that "
        "a vendor draws alike, lie on one side; 7 : 1 : 2 of each class's concepts into train, val, test",
        licence="by vendor: Twemoji and Emoji One CC BY 4.0, Noto Apache 2.0, OpenMoji and Emoji One v1 CC BY-SA 4.0, "
        "Fluent MIT; labels: Unicode licence",
        citation="Twemoji (Twitter and contributors), Noto Emoji (Google), OpenMoji (HfG Schwäbisch Gmünd), Emoji One, "
        "Fluent Emoji (Microsoft), as packaged by Iconify (@iconify-json); labels: Unicode, UTS 51, emoji-test.txt",
        obtain="eight npm packages and Debian's unicode-data; extra emoji",
        build="weightspace.datasets._emoji:build_emoji",
        options="weightspace.datasets._emoji:OPTIONS",
    ),
    DataSet(
        name="kicad",
        description="signed distances of electronic parts, at most 16 of a family",
        classes=28,
        split=_BY_FAMILY,
        licence="CC BY-SA 4.0 with KiCad's exception; a few parts GPL 2 or 3 or later",
        citation="KiCad Library Team and contributors, KiCad packages3D, version 6.0",
        obtain="Debian's package kicad-packages3d (379 MB, nothing is unpacked); extra mesh",
        build="weightspace.datasets._parts:build_kicad",
        options="weightspace.datasets._parts:KICAD_OPTIONS",
    ),
    DataSet(
        name="furniture",
        description="unsigned distances of furniture, many of the surfaces open",
        classes=11,
        split=_BY_FAMILY.replace("parts", "models of one category"),
        licence="by library: CC0, CC BY 3.0",
        citation="Sweet Home 3D (eTeks) and contributors: Blend Swap, Kator Legaz, Reallusion, Scopia; "
        "Sweet Home 3D furniture libraries 1.8",
        obtain="Debian's package sweethome3d-furniture (120 MB); extra mesh",
        build="weightspace.datasets._parts:build_furniture",
        options="weightspace.datasets._mesh_sets:UNSIGNED",
    ),
    DataSet(
        name="modelnet40",
        description="unsigned distances of household objects, many of the surfaces open",
        classes=40,
        split="its own: train, test",
        licence="for academic use; the models belong to their authors",
        citation="Wu, Song, Khosla, Yu, Zhang, Tang and Xiao, 3D ShapeNets: A Deep Representation for Volumetric "
        "Shapes, CVPR 2015",
        obtain="fetch ModelNet40.zip from its authors, unpack it, and name the folder with --source; extra mesh",
        build="weightspace.datasets._parts:build_modelnet40",
        options="weightspace.datasets._mesh_sets:UNSIGNED",
    ),
    DataSet(
        name="shapenet",
        description="unsigned distances of household objects and vehicles, many of the surfaces open",
        classes=55,
        split="by model: equal shapes lie on one side; 7 : 1 : 2 of each class's models into train, val, test",
        licence="for research by registered users; the models belong to their authors",
        citation="Chang, Funkhouser, Guibas and others, ShapeNet: An Information-Rich 3D Model Repository, 2015, "
        "arXiv 1512.03012",
        obtain="register with its authors, fetch ShapeNetCore, unpack it, name the folder with --source; extra mesh",
        build="weightspace.datasets._parts:build_shapenet",
        options="weightspace.datasets._mesh_sets:UNSIGNED",
    ),
)

DATASETS: dict[str, DataSet] = {entry.name: entry for entry in _ENTRIES}
"""The named data sets."""


def find(name: str) -> DataSet:
    """Find a data set by its name, by an import path, or by an entry point of the group ``weightspace.datasets``.

    Args:
        name: a name in ``DATASETS``, an import path such as ``my_package.data:SHAPES`` of a ``DataSet``, or the name of
            an entry point that an installed package declares.

    Raises:
        ValueError: for an unknown name, an import path that leads nowhere, or an object that is not a ``DataSet`` with
            a name of its own.

    Example:
        >>> find("digits").classes
        10
    """
    return _plugins.find("datasets", name, DATASETS, _problem)


def _problem(found: Any) -> str | None:
    if not isinstance(found, DataSet):
        return f"expected a weightspace.datasets.DataSet, got {type(found).__name__}"
    if DATASETS.get(found.name, found) is not found:  # the two would share one file in the cache
        return f"expected a data set with a name of its own, got {found.name!r}, which is a data set of the library"
    return None
