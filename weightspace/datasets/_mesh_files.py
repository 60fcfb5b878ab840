"""Reading a mesh from a file: OFF and VRML by our own readers, OBJ, PLY and STL by trimesh."""

from __future__ import annotations

import io
import re
from os import PathLike
from pathlib import Path

import numpy as np

from weightspace._extras import optional
from weightspace.datasets._mesh import Mesh
from weightspace.datasets._vrml import read_vrml

SUFFIXES = (".off", ".obj", ".ply", ".stl", ".wrl")


def read_mesh(path: str | PathLike[str]) -> Mesh:
    """Read a triangle mesh from an ``.off``, ``.obj``, ``.ply``, ``.stl`` or ``.wrl`` file.

    Polygons are cut into triangles. Materials, colours and normals are ignored.

    Args:
        path: the file; its suffix decides the format.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: for OBJ, PLY and STL files if trimesh is not installed (extra ``mesh``).
        ValueError: for another suffix, a malformed file, or one without faces.

    Example:
        >>> import pathlib, tempfile
        >>> import weightspace as ws
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "triangle.off"
        >>> _ = path.write_text("OFF\\n3 1 0\\n0 0 0\\n1 0 0\\n0 1 0\\n3 0 1 2\\n")
        >>> read_mesh(path)
        Mesh('triangle.off', 3 vertices, 1 faces)
    """
    path = Path(path)
    return parse_mesh(path.read_bytes(), path.suffix.lower(), path.name, str(path))


def parse_mesh(data: bytes, suffix: str, name: str, where: str | None = None) -> Mesh:
    """Parse the bytes of a file as a mesh; error messages call the file ``where``."""
    if suffix not in SUFFIXES:
        raise ValueError(f"{where or name}: expected a mesh ({', '.join(SUFFIXES)}), got {suffix or 'no suffix'}")
    try:
        if suffix == ".off":
            vertices, faces = _read_off(data.decode("ascii", errors="replace"))
        elif suffix == ".wrl":
            vertices, faces = read_vrml(data.decode("utf-8", errors="replace"))
        else:
            vertices, faces = _by_trimesh(data, suffix)
        return Mesh(vertices, faces, name)
    except ImportError:
        raise
    except Exception as error:  # a malformed file makes a parser raise nearly anything
        detail = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where or name}: expected a good {suffix} mesh, got: {detail}") from error


def _by_trimesh(data: bytes, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    if suffix == ".ply":
        _check_ply(data)
    trimesh = optional("trimesh", "trimesh", "mesh", f"reading {suffix} files")
    options = {"skip_materials": True} if suffix == ".obj" else {}
    read = trimesh.load(io.BytesIO(data), file_type=suffix[1:], force="mesh", process=False, **options)
    if not hasattr(read, "faces") or not len(read.faces):
        raise ValueError("no faces")
    return np.asarray(read.vertices), np.asarray(read.faces)


def _check_ply(data: bytes) -> None:
    """Raise ``ValueError`` if the header of a PLY file counts more elements than the file has room for."""
    header, _, body = data.partition(b"end_header")
    counts = [int(word) for word in re.findall(rb"^\s*element\s+\S+\s+([-+]?\d{1,30})", header, re.MULTILINE)]
    room = body.count(b"\n") + 1 if re.search(rb"^\s*format\s+ascii", header, re.MULTILINE) else len(body)
    if min(counts, default=0) < 0 or sum(counts) > room:
        raise ValueError(f"elements {counts[:5]} in a file that has room for {room}: it is truncated")


def _read_off(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse an OFF file into vertices and triangles; as in ModelNet40, the counts may follow "OFF" without a break."""
    lines = [line for raw in text.splitlines() if (line := raw.split("#")[0].strip())]
    if not lines or not lines[0].startswith("OFF"):
        raise ValueError(f"a first line other than OFF: {lines[0][:20] if lines else 'an empty file'!r}")
    lines = ([glued] if (glued := lines[0][3:].strip()) else []) + lines[1:]
    count, number = (int(word) for word in lines[0].split()[:2])
    if min(count, number) < 0 or len(lines) < 1 + count + number:
        raise ValueError(f"{len(lines) - 1} lines for {count} vertices and {number} faces: the file is truncated")
    vertices = np.array([line.split()[:3] for line in lines[1 : 1 + count]], dtype=np.float64).reshape(-1, 3)
    rows = [line.split() for line in lines[1 + count : 1 + count + number]]
    if short := next((row for row in rows if len(row) <= int(row[0])), None):
        raise ValueError(f"a face that claims {short[0]:.20} corners and has {len(short) - 1}")
    if all(row[0] == "3" for row in rows):
        return vertices, np.array([row[1:4] for row in rows], dtype=np.int64).reshape(-1, 3)
    corners = [[int(word) for word in row[1 : 1 + int(row[0])]] for row in rows]
    fans = [[c[0], c[i], c[i + 1]] for c in corners for i in range(1, len(c) - 1)]
    return vertices, np.array(fans, dtype=np.int64).reshape(-1, 3)
