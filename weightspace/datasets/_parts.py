"""Named sets of meshes: KiCad's electronic parts, Sweet Home 3D's furniture, ModelNet40 and ShapeNetCore."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weightspace._checks import whole_number
from weightspace._extras import optional
from weightspace._files import most_unpacked, read_json
from weightspace.datasets._mesh_files import parse_mesh
from weightspace.datasets._mesh_sets import Model, Sampling, build, from_meshes, without_digits
from weightspace.datasets._packages import debian_files, debian_names, debian_package
from weightspace.signals._groups import at_most
from weightspace.signals._point_set import PointSet

_ENTRY = re.compile(r"^(name|category|model)#(\d+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_CATALOGUE = "PluginFurnitureCatalog.properties"


def kicad_model(name: str, content: bytes) -> Model:
    """Read one part; its class is its folder's name up to the first underscore, its family its name without digits."""
    folder, file = name.split("/")[-2:]
    stem = file.rsplit(".", 1)[0]
    kind = folder.removesuffix(".3dshapes").split("_")[0]
    return Model(parse_mesh(content, ".wrl", file, name), f"{folder}/{file}", kind, without_digits(stem))


def furniture_models(content: bytes, name: str) -> Iterator[Model]:
    """Iterate over the models of a Sweet Home 3D library, a zip file of OBJ files with a catalogue of names.

    The family of a model is its category with its name, or with its file's name if it has none, without digits.

    Raises:
        ValueError: if it is not such a library, or a model is missing or malformed.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as library:
            if sum(entry.file_size for entry in library.infolist()) > most_unpacked(len(content)):
                raise zipfile.BadZipFile("entries that are far larger than the file")
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


@dataclass(frozen=True)
class KicadOptions(Sampling):
    """Options of the data set of electronic parts.

    Args:
        per_family: the largest number of parts of one family.
    """

    per_family: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number("per_family", self.per_family)


KICAD_OPTIONS = KicadOptions()
"""The default options of the electronic parts."""


def build_kicad(
    folder: Path, options: KicadOptions, *, on_progress: Callable[[int], None] | None = None, **facts: Any
) -> tuple[PointSet, list[Path]]:
    """Fetch the electronic parts and sample them; return the point set and the files it was made of."""
    optional("igl", "libigl", "mesh", "the distance of a mesh")
    package = debian_package("kicad-packages3d", folder)
    names = debian_names(package, ".wrl")
    families = [without_digits(Path(name).stem) for name in names]
    wanted = at_most(names, families, options.per_family, options.seed)

    def model(name: str, content: bytes) -> Iterator[Model]:
        if name in wanted:
            yield kicad_model(name, content)

    models = _packaged(package, ".wrl", model)
    return build(models, options, least_families=2, on_progress=on_progress, **facts), [package]


def build_furniture(
    folder: Path, options: Sampling, *, on_progress: Callable[[int], None] | None = None, **facts: Any
) -> tuple[PointSet, list[Path]]:
    """Fetch the furniture and sample it; return the point set and the files it was made of."""
    optional("igl", "libigl", "mesh", "the distance of a mesh")
    optional("trimesh", "trimesh", "mesh", "reading .obj files")
    package = debian_package("sweethome3d-furniture", folder)
    models = _packaged(package, ".sh3f", lambda name, content: furniture_models(content, name))
    return build(models, options, least_families=3, on_progress=on_progress, **facts), [package]


def build_shapenet(
    folder: Path, options: Sampling, *, on_progress: Callable[[int], None] | None = None, **facts: Any
) -> tuple[PointSet, list[Path]]:
    """Sample ShapeNetCore from its unpacked folder, which users fetch themselves; return the point set and no files.

    Version 2 has ``SYNSET/MODEL/models/model_normalized.obj``, version 1 ``SYNSET/MODEL/model.obj``. ``taxonomy.json``
    names the classes; without it they have the synsets' numbers.
    """
    optional("trimesh", "trimesh", "mesh", "reading .obj files")
    found = sorted([*folder.glob("*/*/models/model_normalized.obj"), *folder.glob("*/*/model.obj")])
    if not found:
        raise FileNotFoundError(
            f"{folder}: expected ShapeNetCore's tree (02691156/MODEL/models/model_normalized.obj, ...), got none; "
            f"{_UNPACKED}"
        )
    names = _synsets(folder / "taxonomy.json")

    def models() -> Iterator[Model]:
        for path in found:
            synset, model = path.relative_to(folder).parts[:2]
            mesh = parse_mesh(path.read_bytes(), ".obj", path.name, str(path))
            yield Model(mesh, f"{synset}/{model}", names.get(synset, synset), f"{synset}/{model}")

    return build(models(), options, least_families=3, on_progress=on_progress, **facts), []


_UNPACKED = "register with its authors, fetch ShapeNetCore, unpack it, and name the folder with --source"


def _synsets(path: Path) -> dict[str, str]:
    """Read the first name of each synset from ShapeNet's taxonomy; nothing without the file."""
    if not path.exists():
        return {}
    entries = read_json(path, "ShapeNet's taxonomy", remedy="remove it to name classes by their numbers")
    try:
        return {str(entry["synsetId"]): str(entry["name"]).split(",")[0] for entry in entries}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{path}: expected a list of synsets with synsetId and name, got something else") from error


def build_modelnet40(
    folder: Path, options: Sampling, *, on_progress: Callable[[int], None] | None = None, **facts: Any
) -> tuple[PointSet, list[Path]]:
    """Sample ModelNet40 from its unpacked folder, which users fetch themselves; return the point set and no files."""
    inner = folder / "ModelNet40"
    place = inner if inner.is_dir() else folder
    if not any(place.glob("*/train/*.off")):
        raise FileNotFoundError(
            f"{place}: expected ModelNet40's tree (airplane/train/airplane_0001.off, ...), got none; "
            "fetch ModelNet40.zip from its authors, unpack it, and name the folder with --source"
        )
    return from_meshes(place, **asdict(options), on_progress=on_progress, **facts), []
