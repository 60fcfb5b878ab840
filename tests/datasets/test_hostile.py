"""Hostile and unlucky meshes: a clear error at once, or the right value."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from pathlib import Path

import pytest

from weightspace.datasets._mesh_files import read_mesh
from weightspace.datasets._parts import furniture_models
from weightspace.datasets._vrml import read_vrml

HEAD = "#VRML V2.0 utf8\n"
FACE_SET = "IndexedFaceSet { coord Coordinate { point [0 0 0, 1 0 0, 0 1 0] } coordIndex [0 1 2 -1] }"
TRIANGLE = f"Shape {{ geometry {FACE_SET} }}"


def doubled(depth: int) -> str:
    lines = [f"DEF A{i} Group {{ children [ USE A{i - 1} USE A{i - 1} ] }}" for i in range(1, depth + 1)]
    return "\n".join([HEAD + "DEF A0 " + TRIANGLE, *lines])


BOMBS = {
    "USE of USE": doubled(30),
    "USE of USE without faces": doubled(30).replace(TRIANGLE, "Group { }"),
    "escaped quotes": HEAD + '"' + '\\"' * 60_000,
    "quotes": HEAD + '"' * 99_999,
    "open brackets": HEAD + "[" * 100_000,
    "open nodes": HEAD + "Group { children " * 50_000,
    "a node within itself": HEAD + "DEF A Group { children [ USE A USE A ] }",
    "long numbers": HEAD + TRIANGLE.replace("0 1 2 -1", "0 1 2 -1 " + "9" * 100_000),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_of_vrml_are_refused_at_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.wrl"
    path.write_text(BOMBS[name])
    start = time.process_time()
    with pytest.raises(ValueError, match=r"m\.wrl: expected a good \.wrl mesh, got: "):
        read_mesh(path)
    assert time.process_time() - start < 2


def test_shapes_that_are_used_many_times_are_read() -> None:
    legs = "".join(f"Transform {{ translation {i} 0 0 children USE LEG }}\n" for i in range(1000))
    vertices, faces = read_vrml(HEAD + f"DEF LEG {TRIANGLE}\n" + legs)
    assert (len(vertices), len(faces)) == (3003, 1001)
    assert len(read_vrml(doubled(10))[1]) >= 1024


def test_strings_are_skipped_whole() -> None:
    node = 'Anchor { description "a \\"quoted\\" } brace\\\\" url "x" children ' + TRIANGLE + " }"
    assert len(read_vrml(HEAD + node)[1]) == 1


@pytest.mark.parametrize("index", ["0 1.5 2 -1", "0 1 2 -0.5", "0 1 1e30 -1", "0 1 1e999 -1"])
def test_indices_of_vrml_are_whole_numbers(index: str) -> None:
    with pytest.raises(ValueError, match="coordIndex: expected whole numbers, got "):
        read_vrml(HEAD + TRIANGLE.replace("0 1 2 -1", index))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OFF\n4 1 0\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n5 0 1 2 3\n", "a face that claims 5 corners and has 4"),
        ("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "a face that claims 3 corners and has 2"),
        ("OFF\n-1 1 0\n0 0 0\n", "-1 vertices and 1 faces|lines for -1 vertices"),
        ("OFF\n3 1000000000000 0\n0 0 0\n", "lines for 3 vertices and 1000000000000 faces: the file is truncated"),
    ],
)
def test_off_files_that_claim_too_much(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.off"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"m\.off: expected a good \.off mesh, got: .*({message})"):
        read_mesh(path)


PLY = "ply\nformat {0} 1.0\nelement vertex {1}\nproperty float x\nproperty float y\nproperty float z\n"
FACES = "element face {2}\nproperty list uchar int vertex_indices\nend_header\n"


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("counts", [(10**12, 1), (3, 10**12), (2**63, 1), (-1, 1)])
def test_ply_files_that_claim_too_much(tmp_path: Path, kind: str, counts: tuple[int, int]) -> None:
    pytest.importorskip("trimesh")
    body = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0) + struct.pack("<B3i", 3, 0, 1, 2)
    body = body if kind != "ascii" else b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
    path = tmp_path / "m.ply"
    path.write_bytes((PLY + FACES).format(kind, *counts).encode() + body)
    start = time.process_time()
    with pytest.raises(ValueError, match=r"m\.ply: expected a good \.ply mesh"):
        read_mesh(path)
    assert time.process_time() - start < 2


def test_stl_files_that_claim_too_much(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    path = tmp_path / "m.stl"
    path.write_bytes(bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(50))
    with pytest.raises(ValueError, match=r"m\.stl: expected a good \.stl mesh"):
        read_mesh(path)


def test_libraries_of_furniture_that_unpack_to_far_more() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("PluginFurnitureCatalog.properties", bytes(2**27))
    with pytest.raises(ValueError, match=r"a\.sh3f: expected a Sweet Home 3D library .* far larger than the file"):
        next(furniture_models(packed.getvalue(), "a.sh3f"))
