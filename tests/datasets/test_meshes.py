"""Meshes: distances against closed forms and brute force, points on, near and off the surface, every file format."""

from __future__ import annotations

import builtins
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from weightspace import datasets
from weightspace.datasets import Mesh
from weightspace.datasets._mesh_files import read_mesh
from weightspace.datasets._mesh_sets import Sampling, sampled, shape_key
from weightspace.datasets._vrml import read_vrml

igl = pytest.importorskip("igl")
pytest.importorskip("trimesh")

CORNERS = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
QUADS = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]  # outward
FACES = np.array([face for a, b, c, d in QUADS for face in ([a, b, c], [a, c, d])])


def cube(low: float = -0.5, high: float = 0.5) -> Mesh:
    return Mesh(low + (high - low) * CORNERS, FACES, "cube")


def sphere(radius: float = 1.0, rings: int = 40) -> Mesh:
    """A sphere of latitudes and longitudes: off by less than 1 % for 40 rings."""
    theta, phi = np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    vertices = radius * np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=-1).reshape(-1, 3)
    around, faces = len(phi), []
    for i in range(rings):
        for j in range(around):
            a, b = i * around + j, i * around + (j + 1) % around
            c, d = a + around, b + around
            faces += [[a, c, b]] * (i < rings) + [[b, c, d]] * (i < rings)
    kept = [f for f in faces if np.linalg.norm(np.cross(*(vertices[f[1:]] - vertices[f[0]]))) > 1e-12]
    return Mesh(vertices, kept, "sphere")


def box_distance(points: np.ndarray, half: float) -> np.ndarray:
    """The closed form for an axis-aligned box around the origin."""
    q = np.abs(points) - half
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0)


def slow_distance(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Brute force: the nearest point of every triangle, by its seven regions (Ericson 2005, 5.1.5)."""

    def closest(p: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        ab, ac = b - a, c - a
        d1, d2 = ab @ (p - a), ac @ (p - a)
        if d1 <= 0 and d2 <= 0:
            return a
        d3, d4 = ab @ (p - b), ac @ (p - b)
        if d3 >= 0 and d4 <= d3:
            return b
        vc = d1 * d4 - d3 * d2
        if vc <= 0 <= d1 and d3 <= 0:
            return a + d1 / (d1 - d3) * ab
        d5, d6 = ab @ (p - c), ac @ (p - c)
        if d6 >= 0 and d5 <= d6:
            return c
        vb = d5 * d2 - d1 * d6
        if vb <= 0 <= d2 and d6 <= 0:
            return a + d2 / (d2 - d6) * ac
        va = d3 * d6 - d5 * d4
        if va <= 0 and d4 >= d3 and d5 >= d6:
            return b + (d4 - d3) / ((d4 - d3) + (d5 - d6)) * (c - b)
        total = va + vb + vc
        return a + ab * vb / total + ac * vc / total

    corners = mesh.vertices[mesh.faces]
    return np.array([min(np.linalg.norm(p - closest(p, *t)) for t in corners) for p in points])


@pytest.fixture
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (500, 3))


# --- distances ---


def test_the_distance_of_a_cube_is_that_of_the_closed_form(points: np.ndarray) -> None:
    expected = box_distance(points, 0.5)
    found = cube().distance(torch.from_numpy(points))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert ((found.numpy() < 0) == (np.abs(points).max(1) < 0.5)).all()
    np.testing.assert_allclose(cube().distance(points, signed=False).numpy(), np.abs(expected), atol=1e-6)


def test_the_distance_of_a_sphere(points: np.ndarray) -> None:
    found = sphere(0.7).distance(points).numpy()
    expected = np.linalg.norm(points, axis=1) - 0.7
    np.testing.assert_allclose(found, expected, atol=0.7 * 0.004)
    assert (np.sign(found) == np.sign(expected))[np.abs(expected) > 0.01].all()
    assert 0.05 < (found < 0).mean() < 0.5


def test_the_distance_is_that_of_brute_force(points: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    soup = Mesh(rng.uniform(-1, 1, (30, 3)), rng.permuted(np.tile(np.arange(30), (12, 1)), axis=1)[:, :3])
    np.testing.assert_allclose(soup.distance(points[:100], signed=False), slow_distance(soup, points[:100]), atol=1e-6)


def test_the_sign_is_that_of_the_exact_winding_number(points: np.ndarray) -> None:
    mesh = sphere(0.8, rings=12)
    exact = np.asarray(igl.winding_number(mesh.vertices, mesh.faces, points)).reshape(-1)
    assert ((mesh.distance(points).numpy() < 0) == (exact > 0.5)).all()


def test_nested_and_overlapping_solids_are_inside_where_any_is() -> None:
    a, b = cube(-0.5, 0.1), cube(-0.1, 0.5)
    both = Mesh(np.concatenate([a.vertices, b.vertices]), np.concatenate([a.faces, b.faces + len(a.vertices)]))
    where = [[0.0, 0.0, 0.0], [-0.3, -0.3, -0.3], [0.3, 0.3, 0.3], [0.3, -0.3, 0.0]]
    assert both.distance(where).sign().tolist() == [-1, -1, -1, 1]


def test_inside_out_faces_have_no_inside(points: np.ndarray) -> None:
    """A control: the sign comes from the faces' direction, not from the vertices alone."""
    turned = Mesh(cube().vertices, FACES[:, ::-1])
    assert (turned.distance(points) >= 0).all()


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((2, 2)), np.zeros((1, 2, 3))])
def test_distance_refuses_other_shapes(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"points: expected \[point, 3\]"):
        cube().distance(bad)


# --- meshes and where they lie ---


@pytest.mark.parametrize(
    ("vertices", "faces", "error", "text"),
    [
        (np.zeros((3, 2)), [[0, 1, 2]], ValueError, r"vertices: expected \[vertex, 3\], got \[3, 2\]"),
        (np.eye(3), np.zeros((0, 3), int), ValueError, "faces: expected at least one"),
        (np.eye(3), [[0, 1]], ValueError, "faces: expected at least one"),
        (np.eye(3), [[0, 1, 3]], ValueError, r"in \[0, 3\), got 0 to 3"),
        (np.eye(3), [[0, 1, -1]], ValueError, "got -1 to 1"),
        (np.eye(3), [[0.0, 1.0, 2.0]], TypeError, "faces: expected integers"),
        (np.full((3, 3), np.nan), [[0, 1, 2]], ValueError, "finite coordinates"),
        (np.zeros((3, 3)), [[0, 1, 2]], ValueError, "expected a surface with an area"),
        ([["a", "b", "c"]] * 3, [[0, 1, 2]], TypeError, "vertices: expected numbers"),
    ],
)
def test_a_mesh_refuses(vertices, faces, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Mesh(vertices, faces)


def test_normalized_to_a_box_and_to_a_sphere() -> None:
    mesh = Mesh(CORNERS * [4, 2, 1] + 7, FACES)
    unused = Mesh(np.concatenate([mesh.vertices, [[99, 99, 99]]]), FACES)
    for given in (mesh, unused):
        box = given.normalized().vertices[:8]
        np.testing.assert_allclose([box.min(0), box.max(0)], [[-0.9, -0.45, -0.225], [0.9, 0.45, 0.225]])
        ball = given.normalized("sphere", size=1.0).vertices[:8]
        np.testing.assert_allclose(np.linalg.norm(ball, axis=1), 1.0)
    assert mesh.vertices.min() == 7  # the input stays as it was
    with pytest.raises(ValueError, match="expected 'box' or 'sphere', got 'ball'"):
        mesh.normalized("ball")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="size: expected a positive number"):
        mesh.normalized(size=0)


# --- points ---


def test_points_on_near_and_off_the_surface(generator: torch.Generator) -> None:
    x = cube().sample(4000, shares=(0.25, 0.5, 0.25), std=0.02, generator=generator)
    distance = cube().distance(x)
    assert x.shape == (4000, 3)
    assert x.dtype == torch.float32
    assert distance[:1000].abs().max() < 1e-6
    near = distance[1000:3000]
    assert 0.017 < float(near.square().mean().sqrt()) < 0.023  # one axis of the three counts on a flat face
    assert 0.3 < float((near < 0).float().mean()) < 0.6
    free = x[3000:]
    assert free.abs().max() <= 1
    torch.testing.assert_close(free.var(0), torch.full((3,), 1 / 3), rtol=0.15, atol=0)


def test_points_on_the_surface_are_uniform_over_its_area(generator: torch.Generator) -> None:
    """A large and a small triangle, an empty one between them; within a triangle all parts alike."""
    vertices = [[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 1, 1]]
    mesh = Mesh(vertices, [[0, 1, 2], [0, 0, 0], [3, 4, 5]])
    x = mesh.sample(20_000, shares=(1, 0, 0), generator=generator)
    large = x[x[:, 2] < 0.5]
    assert abs(len(large) / 20_000 - 0.75) < 0.02
    torch.testing.assert_close(large.mean(0), torch.tensor([1, 1 / 3, 0.0]), atol=0.02, rtol=0)
    left = (large[:, 0] < 1.5).float().mean()  # three quarters of a triangle lie in this half of its base
    assert abs(float(left) - 0.75) < 0.02
    assert (large[:, 0] / 3 + large[:, 1] <= 1 + 1e-6).all()


@pytest.mark.parametrize("points", [1, 2, 3, 7, 101])
@pytest.mark.parametrize("shares", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.3, 0.3, 0.4)])
def test_the_shares_add_up(points: int, shares: tuple[float, ...], generator: torch.Generator) -> None:
    x = cube().sample(points, shares=shares, std=0.0, generator=generator)
    assert len(x) == points
    on = int((cube().distance(x, signed=False) < 1e-6).sum())
    assert abs(on - points * (shares[0] + shares[1])) <= 1


def test_points_come_from_the_generator_alone() -> None:
    def draw(seed: int) -> torch.Tensor:
        return cube().sample(50, generator=torch.Generator().manual_seed(seed))

    torch.manual_seed(0)
    first = draw(1)
    torch.manual_seed(5)
    assert torch.equal(first, draw(1))
    assert not torch.equal(first, draw(2))
    with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator"):
        cube().sample(5, generator=3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"shares": (0.5, 0.5, 0.5)}, "add up to 1"),
        ({"shares": (0.5, 0.5)}, "expected three"),
        ({"shares": (1.5, -0.5, 0)}, "shares of at least 0"),
        ({"std": -1.0}, "std: expected"),
        ({"points": 0}, "points: expected at least 1"),
        ({"to": "ball"}, "expected 'box' or 'sphere'"),
    ],
)
def test_options_out_of_range(options: dict, text: str, generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=text):
        datasets.meshes([cube()], generator=generator, **options)


def test_meshes_as_coordinates_and_targets(generator: torch.Generator) -> None:
    coords, targets = datasets.meshes([cube(0, 8), sphere(rings=8)], points=300, generator=generator)
    assert coords.shape == (2, 300, 3)
    assert targets.shape == (2, 300, 1)
    np.testing.assert_allclose(targets[0, :, 0], box_distance(coords[0].double().numpy(), 0.9), atol=1e-6)
    assert targets[0].min() < 0
    _, absolute = datasets.meshes([cube()], points=300, signed=False, to=None, generator=generator)
    assert absolute.min() >= 0
    with pytest.raises(ValueError, match="at least one mesh"):
        datasets.meshes([], generator=generator)
    with pytest.raises(TypeError, match="expected Mesh, got int at 0"):
        datasets.meshes([1], generator=generator)  # pyright: ignore[reportArgumentType]


# --- files ---


def off(mesh: Mesh, glued: bool = False) -> str:
    head = "OFF" if glued else "OFF\n# a comment\n"
    lines = [f"{head}{len(mesh.vertices)} {len(QUADS)} 0", *(" ".join(map(str, v)) for v in mesh.vertices)]
    return "\n".join([*lines, *(f"4 {' '.join(map(str, q))} 255 0 0" for q in QUADS)]) + "\n"


def obj(mesh: Mesh) -> str:
    vertices = [f"v {x} {y} {z}" for x, y, z in mesh.vertices]
    return "\n".join(
        ["# cube", "mtllib no.mtl", *vertices, "usemtl a", *(f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES)]
    )


def ply(mesh: Mesh) -> str:
    head = ["ply", "format ascii 1.0", f"element vertex {len(mesh.vertices)}"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += [f"element face {len(FACES)}", "property list uchar int vertex_indices", "end_header"]
    rows = [" ".join(map(str, v)) for v in mesh.vertices] + [f"3 {a} {b} {c}" for a, b, c in FACES]
    return "\n".join(head + rows) + "\n"


def stl(mesh: Mesh) -> bytes:
    body = b"".join(struct.pack("<12fH", 0, 0, 0, *mesh.vertices[f].reshape(-1), 0) for f in FACES)
    return bytes(80) + struct.pack("<I", len(FACES)) + body


def wrl(mesh: Mesh) -> str:
    index = ",".join(f"{a},{b},{c},-1" for a, b, c in FACES)
    place = ",".join(f"{x:.6f} {y:.6f} {z:.6f}" for x, y, z in mesh.vertices)
    return (
        "#VRML V2.0 utf8\n# a comment with a brace {\n"
        'WorldInfo { title "a } \\" string # in it" }\n'
        "Shape {\n\tappearance Appearance {material DEF PIN-01 Material {\n\t\tdiffuseColor 0.8 0.82 0.78\n"
        "\t\tshininess 1e-1\n} } }\n"
        f"Shape {{ geometry IndexedFaceSet\n{{ creaseAngle 0.50 coordIndex [{index}]\n"
        f"coord Coordinate {{ point [{place}]\n}}}}\nappearance Appearance{{material USE PIN-01 }}\n}}\n"
    )


WRITERS: dict[str, Callable[[Mesh], str | bytes]] = {
    "cube.off": off,
    "glued.off": lambda mesh: off(mesh, glued=True),
    "cube.obj": obj,
    "cube.ply": ply,
    "cube.stl": stl,
    "cube.wrl": wrl,
    "UPPER.OFF": off,
}


def put(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_cube(name: str, tmp_path: Path, points: np.ndarray) -> None:
    mesh = read_mesh(put(tmp_path / name, WRITERS[name](cube())))
    assert len(mesh.faces) == 12
    np.testing.assert_allclose(mesh.distance(points).numpy(), box_distance(points, 0.5), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("a.off", "", "an empty file"),
        ("a.off", "PLY\n1 1 1\n", "a first line other than OFF"),
        ("a.off", "OFF\n8 6 0\n0 0 0\n", "the file is truncated"),
        ("a.off", "OFF\nx y z\n", "expected a good .off mesh, got: invalid literal"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", r"in \[0, 3\), got 0 to 7"),
        ("a.obj", "nothing\n", "expected a good .obj mesh"),
        ("a.ply", "ply\nnothing\n", "expected a good .ply mesh"),
        ("a.stl", b"\0" * 90, "expected a good .stl mesh"),
        ("a.wrl", "#VRML V1.0 ascii\n", "expected VRML 2.0"),
        ("a.wrl", "#VRML V2.0 utf8\n", "at least one IndexedFaceSet"),
        ("a.wrl", wrl(cube())[:-60], "truncated"),
        ("a.wrl", "#VRML V2.0 utf8\nShape { geometry Sphere { radius 2 } }", "got a Sphere"),
        ("a.wrl", "#VRML V2.0 utf8\nShape { geometry USE nothing }", "USE nothing, which no DEF names"),
        ("a.wrl", "#VRML V2.0 utf8\nPROTO A [] {}", "PROTO is not supported"),
        ("a.wrl", wrl(cube()).replace("[0,1,3,-1", "[0,1,99,-1"), "numbers of 8 points, got 0 to 99"),
        ("a.wrl", wrl(cube()).replace("point [", "point [1.0,"), "three numbers a point, got 25"),
        ("a.step", "", r"expected a mesh \(.off, .obj, .ply, .stl, .wrl\), got .step"),
    ],
)
def test_bad_files_say_what_is_wrong(name: str, content: str | bytes, text: str, tmp_path: Path) -> None:
    path = put(tmp_path / name, content)
    with pytest.raises(ValueError, match=text) as raised:
        read_mesh(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_file_and_missing_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError):
        read_mesh(tmp_path / "none.off")
    real = builtins.__import__

    def refuse(name: str, *args, **kwargs):
        if name.split(".")[0] in ("igl", "trimesh"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    path = put(tmp_path / "cube.obj", obj(cube()))
    for name in [name for name in sys.modules if name.split(".")[0] in ("igl", "trimesh")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"reading .obj files needs trimesh.*pip install weightspace\[mesh\]"):
        read_mesh(path)
    with pytest.raises(ImportError, match=r"the distance of a mesh needs libigl.*pip install weightspace\[mesh\]"):
        cube().distance([[0, 0, 0]])


# --- VRML ---

TRIANGLE = "Shape { geometry IndexedFaceSet { coord Coordinate { point [0 0 0, 1 0 0, 0 1 0] } coordIndex [0 1 2] } }"


def vrml(body: str) -> tuple[np.ndarray, np.ndarray]:
    return read_vrml("#VRML V2.0 utf8\n" + body)


def test_vrml_transforms_nest() -> None:
    turned = "rotation 0 0 2 1.5707963267948966"  # a quarter turn about z: the axis need not have length one
    inner = f"Transform {{ scale 2 3 4 children [ {TRIANGLE} ] }}"
    vertices, faces = vrml(f"Transform {{ translation 10 0 0 {turned} children [ {inner} ] }}")
    np.testing.assert_allclose(vertices, [[10, 0, 0], [10, 2, 0], [7, 0, 0]], atol=1e-12)
    assert faces.tolist() == [[0, 1, 2]]


def test_vrml_centre_and_scale_orientation() -> None:
    about = "center 1 1 0 rotation 0 0 1 3.141592653589793"
    vertices, _ = vrml(f"Transform {{ {about} children {TRIANGLE} }}")
    np.testing.assert_allclose(vertices, [[2, 2, 0], [1, 2, 0], [2, 1, 0]], atol=1e-12)
    along = "scale 2 1 1 scaleOrientation 0 0 1 1.5707963267948966"  # stretches y, not x
    vertices, _ = vrml(f"Transform {{ {along} children {TRIANGLE} }}")
    np.testing.assert_allclose(vertices, [[0, 0, 0], [1, 0, 0], [0, 2, 0]], atol=1e-12)


def test_vrml_names_groups_switches_and_levels() -> None:
    body = (
        f"Group {{ children [ DEF A {TRIANGLE} Transform {{ translation 0 0 5 children USE A }} ] }}"
        f"Switch {{ whichChoice 1 choice [ Group {{}} USE A ] }} Switch {{ choice [ USE A ] }}"
        "LOD { range [1, 2] level [ USE A Group { children [ USE A ] } ] }"
        "Shape { geometry IndexedLineSet { coord Coordinate { point [0 0 0 1 1 1] } coordIndex [0 1 -1] } }"
        'ROUTE a.b TO c.d NavigationInfo { type ["WALK" "ANY"] headlight TRUE }'
    )
    vertices, faces = vrml(body)
    assert len(faces) == 4  # the two of the group, the switch's second, the first level
    assert vertices[3:6, 2].tolist() == [5, 5, 5]
    assert faces.max() == 11


def test_vrml_polygons_directions_and_mirrors() -> None:
    square = "coord Coordinate { point [0 0 0 1 0 0 1 1 0 0 1 0] } coordIndex [0 1 2 3 -1 0 1 2 -1]"
    _, faces = vrml(f"Shape {{ geometry IndexedFaceSet {{ {square} }} }}")
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
    _, turned = vrml(f"Shape {{ geometry IndexedFaceSet {{ ccw FALSE {square} }} }}")
    assert turned.tolist() == [[2, 1, 0], [3, 2, 0], [2, 1, 0]]
    _, mirrored = vrml(f"Transform {{ scale -1 1 1 children {TRIANGLE} }}")
    assert mirrored.tolist() == [[2, 1, 0]]


# --- trees of class folders ---


def test_a_tree_in_the_manner_of_modelnet40(tmp_path: Path) -> None:
    for kind in ("bed", "chair"):
        for part, count in (("train", 3), ("test", 2)):
            for i in range(count):
                put(tmp_path / kind / part / f"{kind}_{i}.off", off(cube(0, 1 + i), glued=i % 2 == 1))
    data = datasets.from_meshes(tmp_path, points=64, signed=False)
    assert data.classes == ("bed", "chair")
    assert {part: len(index) for part, index in data.splits.items()} == {"train": 6, "test": 4}
    assert sorted(data.split("test").labels.tolist()) == [0, 0, 1, 1]
    assert data.targets.min() >= 0
    same = datasets.load(tmp_path)  # by its path, the options at their defaults
    assert same.in_features == 3
    assert np.array_equal(same.sources, data.sources)


def test_the_stored_distances_are_exact_at_the_stored_points(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.off", off(cube()))
    data = datasets.from_meshes(tmp_path, points=500)
    assert data.coords.dtype == np.float16
    assert data.targets.dtype == np.float32
    expected = box_distance(data.coords[0].astype(np.float64), 0.9)
    np.testing.assert_allclose(data.targets[0, :, 0], expected, atol=1e-6)


def test_a_mesh_is_sampled_alike_whatever_else_is_there(tmp_path: Path) -> None:
    put(tmp_path / "one" / "b" / "x.off", off(cube()))
    put(tmp_path / "two" / "a" / "y.off", off(cube(0, 3)))
    put(tmp_path / "two" / "b" / "x.off", off(cube()))
    one, two = (datasets.from_meshes(tmp_path / name, points=32) for name in ("one", "two"))
    np.testing.assert_array_equal(one.coords[0], two.coords[1])
    other = datasets.from_meshes(tmp_path / "one", points=32, seed=1)
    assert not np.array_equal(one.coords, other.coords)


def test_families_and_equal_shapes_stay_together(tmp_path: Path) -> None:
    for number, kind in enumerate("ab"):
        for depth, family in enumerate(("big", "flat", "tall", "wide", "thin")):
            for i in range(3):
                stretch = np.array([1, 2 + i, 8 + depth + 5 * number])
                mesh = Mesh(CORNERS * stretch, FACES)
                put(tmp_path / kind / f"{family}{i}.off", off(mesh))
    put(tmp_path / "a" / "copy-of-tall.off", off(Mesh(3 + 2 * CORNERS * [1, 2, 10], FACES)))
    data = datasets.from_meshes(tmp_path, points=16, numbered_families=True)
    names = sorted(path.stem for path in (tmp_path / "a").iterdir())
    groups = dict(zip(names, data.groups[data.labels == 0].tolist(), strict=True))
    assert groups["tall0"] == groups["tall1"] == groups["copy-of-tall"] != groups["flat0"]
    assert sorted(data.splits) == ["test", "train", "val"]
    for index in data.splits.values():
        assert set(data.labels[index]) == {0, 1}
    apart = datasets.from_meshes(tmp_path, points=16)
    groups = dict(zip(names, apart.groups[apart.labels == 0].tolist(), strict=True))
    assert groups["tall0"] == groups["copy-of-tall"] != groups["tall1"]
    assert len(set(apart.groups.tolist())) == len(apart) - 1


def test_the_key_of_a_shape_knows_no_place_size_or_order() -> None:
    rng = np.random.default_rng(0)
    mesh = sphere(rings=4)
    order = rng.permutation(len(mesh.vertices))
    back = np.argsort(order)
    moved = Mesh(mesh.vertices[order] * 7 - 3, rng.permutation(back[mesh.faces]))
    assert shape_key(moved) == shape_key(mesh)
    assert shape_key(Mesh(mesh.vertices * [1, 1, 1.1], mesh.faces)) != shape_key(mesh)


def test_sampling_depends_on_seed_and_source() -> None:
    first, _ = sampled(cube(), 5, Sampling(points=20))
    assert np.array_equal(first, sampled(cube(), 5, Sampling(points=20))[0])
    assert not np.array_equal(first, sampled(cube(), 6, Sampling(points=20))[0])
    assert not np.array_equal(first, sampled(cube(), 5, Sampling(points=20, seed=1))[0])


def test_bad_trees(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected a folder of class folders of meshes"):
        datasets.from_meshes(tmp_path / "none")
    put(tmp_path / "loose.off", off(cube()))
    with pytest.raises(ValueError, match="expected class folders of meshes"):
        datasets.from_meshes(tmp_path)
    put(tmp_path / "a" / "bad.off", "OFF\n")
    with pytest.raises(ValueError, match=r"bad\.off: expected a good \.off mesh"):
        datasets.from_meshes(tmp_path)
