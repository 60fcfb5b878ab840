"""Named sets of meshes: KiCad's electronic parts and Sweet Home 3D's furniture, from their Debian packages."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from weightspace._checks import whole_number
from weightspace._extras import optional
from weightspace.datasets._mesh_files import parse_mesh
from weightspace.datasets._mesh_sets import Model, Sampling, build, from_meshes, without_digits
from weightspace.datasets._packages import debian_files, debian_names, debian_package
from weightspace.signals._groups import at_most
from weightspace.signals._sets import PointSet

_ENTRY = re.compile(r"^(name|category|model)#(\d+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_CATALOGUE = "PluginFurnitureCatalog.properties"


def kicad_model(name: str, content: bytes) -> Model:
    """One part: its kind is its folder's name up to the first underscore, its family its name without digits."""
    folder, file = name.split("/")[-2:]
    stem = file.rsplit(".", 1)[0]
    kind = folder.removesuffix(".3dshapes").split("_")[0]
    return Model(parse_mesh(content, ".wrl", file, name), f"{folder}/{file}", kind, without_digits(stem))


def furniture_models(content: bytes, name: str) -> Iterator[Model]:
    """The models of a Sweet Home 3D library, a zip file of OBJ with a catalogue of names and categories.

    A model's family is its category with its name and with its file's name, each without digits.

    Raises:
        ValueError: if it is no such library, or a model is missing or malformed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as library:
            entries: dict[int, dict[str, str]] = {}
            for key, number, value in _ENTRY.findall(library.read(_CATALOGUE).decode("latin-1")):
                entries.setdefault(int(number), {})[key] = value
            for entry in entries.values():
                if "model" not in entry or "category" not in entry:
                    raise ValueError(f"an entry without model or category: {entry}")
                path = entry["model"].lstrip("/")
                mesh = parse_mesh(library.read(path), Path(path).suffix.lower(), path, f"{name}: {path}")
                family = f"{entry['category']}/{without_digits(entry.get('name', path)).strip().lower()}"
                yield Model(mesh, path, entry["category"], family)
    except (zipfile.BadZipFile, KeyError) as error:
        detail = str(error).strip("'\"")
        raise ValueError(
            f"{name}: expected a Sweet Home 3D library (.sh3f) with {_CATALOGUE}, got: {detail}"
        ) from error


def _packaged(package: Path, suffix: str, models: Callable[[str, bytes], Iterator[Model]]) -> Iterator[Model]:
    with debian_files(package, suffix) as files:
        for name, content in files:
            yield from models(name, content)


def prepare_kicad(
    folder: Path,
    *,
    on_progress: Callable[[int], None] | None = None,
    how: Sampling,
    per_family: int,
    **about: Any,
) -> tuple[PointSet, list[Path]]:
    """Fetch the parts and sample them; the data set and the files it was made of."""
    whole_number("per_family", per_family)
    optional("igl", "libigl", "mesh", "the distance of a mesh")
    package = debian_package("kicad-packages3d", folder)
    names = debian_names(package, ".wrl")
    wanted = at_most(names, [without_digits(Path(name).stem) for name in names], per_family, how.seed)

    def model(name: str, content: bytes) -> Iterator[Model]:
        if name in wanted:
            yield kicad_model(name, content)

    models = _packaged(package, ".wrl", model)
    return build(models, how, least_families=2, on_progress=on_progress, **about), [package]


def prepare_furniture(
    folder: Path, *, on_progress: Callable[[int], None] | None = None, how: Sampling, **about: Any
) -> tuple[PointSet, list[Path]]:
    """Fetch the furniture and sample it; the data set and the files it was made of."""
    optional("igl", "libigl", "mesh", "the distance of a mesh")
    optional("trimesh", "trimesh", "mesh", "reading .obj files")
    package = debian_package("sweethome3d-furniture", folder)
    models = _packaged(package, ".sh3f", lambda name, content: furniture_models(content, name))
    return build(models, how, least_families=3, on_progress=on_progress, **about), [package]


def prepare_modelnet40(
    folder: Path, *, on_progress: Callable[[int], None] | None = None, how: Sampling, **about: Any
) -> tuple[PointSet, list[Path]]:
    """Sample ModelNet40, which its users fetch themselves, from its unpacked folder."""
    inner = folder / "ModelNet40"
    place = inner if inner.is_dir() else folder
    if not any(place.glob("*/train/*.off")):
        raise FileNotFoundError(
            f"{place}: expected ModelNet40's tree (airplane/train/airplane_0001.off, ...), got none; "
            "fetch ModelNet40.zip from its authors, unpack it, and name the folder with --source"
        )
    options = {"points": how.points, "signed": how.signed, "shares": how.shares, "std": how.std}
    return from_meshes(place, **options, to=how.to, seed=how.seed, on_progress=on_progress, **about), []
