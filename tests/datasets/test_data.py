"""Named data sets: emoji, parts and furniture from tiny packages, the cache, the catalogue, and the commands."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from _helpers import run_command

from weightspace import datasets, signals
from weightspace._files import sha256
from weightspace.cli._options import argument_help
from weightspace.datasets import DATASETS, _emoji, _packages, _parts, _places
from weightspace.datasets._data_set import imported
from weightspace.datasets._emoji import PACKAGES, concept_of, drawings, emoji_set, read_table, render

pytest.importorskip("resvg_py")
pytest.importorskip("igl")
pytest.importorskip("trimesh")

TABLE = """# emoji-test.txt
# group: Smileys & Emotion
1F600                 ; fully-qualified     # 😀 E1.0 grinning face
263A FE0F             ; fully-qualified     # ☺️ E0.6 smiling face
263A                  ; unqualified         # ☺ E0.6 smiling face
# group: People & Body
1F44B                 ; fully-qualified     # 👋 E0.6 waving hand
1F44B 1F3FB           ; fully-qualified     # 👋🏻 E1.0 waving hand: light skin tone
1F9D1 200D 1F373      ; fully-qualified     # 🧑‍🍳 E12.1 cook
1F468 200D 1F373      ; fully-qualified     # 👨‍🍳 E4.0 man cook
1F3C3                 ; fully-qualified     # 🏃 E0.6 person running
1F3C3 200D 2642 FE0F  ; fully-qualified     # 🏃‍♂️ E4.0 man running
# group: Component
1F3FB                 ; component           # 🏻 E1.0 light skin tone
# group: Flags
1F1EB 1F1F7           ; fully-qualified     # 🇫🇷 E2.0 flag: France
1F1E8 1F1F5           ; fully-qualified     # 🇨🇵 E2.0 flag: Clipperton Island
1F1E8 1F1EE           ; fully-qualified     # 🇨🇮 E2.0 flag: Côte d’Ivoire
"""

NAMES = {
    "1f600": "grinning-face",
    "263a": "smiling-face",
    "1f44b": "waving-hand",
    "1f44b-1f3fb": "waving-hand-light-skin-tone",
    "1f9d1-200d-1f373": "cook",
    "1f468-200d-1f373": "man-cook",
    "1f3c3": "person-running",
    "1f3c3-200d-2642": "man-running",
    "1f1eb-1f1f7": "flag-france",
    "1f1e8-1f1f5": "flag-clipperton-island",
    "1f1e8-1f1ee": "flag-cote-divoire",
    "1f3fb": "light-skin-tone",
    "e000": "unknown",
}


def body(number: int) -> str:
    return f'<circle cx="16" cy="16" r="{3 + number % 13}" fill="#{(number * 4021) % 0xFFFFFF:06x}"/>'


def icon_set(prefix: str, names: dict[str, str], offset: int = 0) -> dict:
    """An icon set of the tiny table; France and Clipperton share one drawing, as they do in the world."""
    icons = {name: {"body": body(i + offset)} for i, name in enumerate(names.values())}
    if "flag-clipperton-island" in icons:
        icons["flag-clipperton-island"] = dict(icons["flag-france"])
    return {"prefix": prefix, "icons": icons, "width": 32, "height": 32}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WEIGHTSPACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WEIGHTSPACE_DATA", raising=False)
    return tmp_path / "cache"


def npm_folder(folder: Path) -> Path:
    """Stand in for what npm would fetch: a small package for every vendor, half of them without code points."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "emoji-test.txt").write_text(TABLE, encoding="utf-8")
    for number, (vendor, version) in enumerate(PACKAGES.items()):
        files = {"icons.json": icon_set(vendor, NAMES, 100 * number)}
        if number < 4:
            files["chars.json"] = NAMES
        with tarfile.open(folder / f"iconify-json-{vendor}-{version}.tgz", "w:gz") as tar:
            for name, content in files.items():
                data = json.dumps(content).encode()
                info = tarfile.TarInfo(f"package/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return folder


CUBE_V = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
CUBE_F = [(0, 1, 3), (0, 3, 2), (4, 6, 7), (4, 7, 5), (0, 4, 5), (0, 5, 1)]
CUBE_F += [(2, 3, 7), (2, 7, 6), (0, 2, 6), (0, 6, 4), (1, 5, 7), (1, 7, 3)]


def wrl(*sides: float) -> str:
    points = ", ".join(" ".join(str(c * s) for c, s in zip(v, sides, strict=True)) for v in CUBE_V)
    faces = ",".join(f"{a},{b},{c},-1" for a, b, c in CUBE_F)
    shape = f"geometry IndexedFaceSet {{ coordIndex [{faces}] coord Coordinate {{ point [{points}] }} }}"
    return f"#VRML V2.0 utf8\nShape {{ {shape} }}\n"


def obj(*sides: float) -> str:
    lines = [f"v {' '.join(str(c * s) for c, s in zip(v, sides, strict=True))}" for v in CUBE_V]
    return "\n".join(lines + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in CUBE_F]) + "\n"


def sh3f(path: Path, entries: list[tuple[str, str, tuple[float, ...]]]) -> Path:
    text = ["# furniture", "id=Test", "name=Test library"]
    with zipfile.ZipFile(path, "w") as library:
        for i, (name, category, sides) in enumerate(entries, start=1):
            text += [f"id#{i}=x", f"name#{i}={name}", f"category#{i}={category}", f"model#{i}=/test/m{i}/m{i}.obj"]
            library.writestr(f"test/m{i}/m{i}.obj", obj(*sides))
        library.writestr("PluginFurnitureCatalog.properties", "\n".join(text).encode("latin-1"))
    return path


def deb(folder: Path, name: str, files: dict[str, bytes]) -> Path:
    """A Debian package of these files, made by dpkg-deb."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("needs dpkg-deb")
    tree = folder / f"{name}.tree"
    for path, content in {"DEBIAN/control": b"", **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: N <n@example.org>\nDescription: d\n"
    (tree / "DEBIAN" / "control").write_text(control)
    out = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(out)], check=True, capture_output=True)
    shutil.rmtree(tree)
    return out


def no_leaks(data: signals.ImageSet | signals.PointSet) -> None:
    """Every signal lies in one split, and no group in two."""
    assert sorted(np.concatenate(list(data.splits.values())).tolist()) == list(range(len(data)))
    sides = [set(data.groups[index].tolist()) for index in data.splits.values()]
    assert sum(map(len, sides)) == len(set().union(*sides))


# --- emoji ---


def test_the_table_of_emoji() -> None:
    table = read_table(TABLE)
    assert set(table.groups.values()) == {"Smileys & Emotion", "People & Body", "Flags"}
    assert table.groups[(0x263A,)] == "Smileys & Emotion"
    assert table.names["flag-cote-divoire"] == (0x1F1E8, 0x1F1EE)
    assert concept_of([0x1F44B, 0x1F3FB]) == concept_of([0x1F44B, 0xFE0F]) == (0x1F44B,)
    with pytest.raises(ValueError, match=r"emoji-test\.txt: line 2: expected 'code points"):
        read_table("# group: A\nnonsense\n")
    with pytest.raises(ValueError, match="expected the groups"):
        read_table("# nothing\n")


def test_drawings_are_known_by_code_points_or_by_name() -> None:
    table = read_table(TABLE)
    coded = icon_set("a", NAMES)
    coded["aliases"] = {"french-flag": {"parent": "flag-france"}, "lost": {"parent": "nowhere"}}
    coded["icons"]["smiling-face"]["hidden"] = True
    spelt = {"1": "french-flag", "2": "flag-for-france", "3": "grinning-face", "4": "mystery"}
    spelt |= {"5": "cook-dark-skin-tone", "6": "smiling-face"}
    found = list(drawings({"a": (coded, NAMES), "b": (icon_set("b", spelt), {})}, table))
    by_name = {(d.vendor, d.name): d for d in found}
    assert ("a", "smiling-face") not in by_name  # hidden
    assert ("a", "unknown") not in by_name
    assert ("a", "light-skin-tone") not in by_name  # a component
    assert {d.name for d in found if d.toned} == {"waving-hand-light-skin-tone", "cook-dark-skin-tone"}
    assert by_name["b", "french-flag"].concept == by_name["b", "flag-for-france"].concept == (0x1F1EB, 0x1F1F7)
    assert by_name["b", "cook-dark-skin-tone"].concept == by_name["a", "cook"].concept
    assert ("b", "mystery") not in by_name


def test_a_name_of_two_concepts_is_no_name() -> None:
    table = read_table(TABLE)
    first, second = icon_set("a", {"1f600": "thing"}), icon_set("b", {"1f44b": "thing"})
    packages = {"a": (first, {"1f600": "thing"}), "b": (second, {"1f44b": "thing"}), "c": (first, {})}
    assert [d.vendor for d in drawings(packages, table)] == ["a", "b"]


def test_render_on_white_in_the_middle() -> None:
    svg = _emoji._svg({"width": 20, "height": 10}, {"body": '<rect width="20" height="10" fill="#ff0000"/>'})
    picture = render(svg, 16)
    assert (picture.shape, picture.dtype) == ((16, 16, 3), np.uint8)
    assert (picture[:4] == 255).all()
    assert (picture[12:] == 255).all()
    assert (picture[5:11] == [255, 0, 0]).all()
    half = _emoji._svg({"width": 8, "height": 8}, {"body": '<rect width="8" height="8" fill-opacity="0.5"/>'})
    assert abs(int(render(half, 8)[4, 4, 0]) - 127) <= 1
    assert render(svg, 64).shape == (64, 64, 3)


def test_concepts_genders_and_equal_drawings_are_groups() -> None:
    table = read_table(TABLE)
    packages = {v: (icon_set(v, NAMES, 50 * i), NAMES) for i, v in enumerate("abc")}
    found = list(drawings(packages, table))
    data = emoji_set(found, table, size=8)
    groups: dict[str, set[int]] = {}
    for drawing, group in zip(found, data.groups.tolist(), strict=True):
        groups.setdefault(drawing.name, set()).add(group)
    assert all(len(numbers) == 1 for numbers in groups.values())  # three vendors, one group
    assert groups["waving-hand"] == groups["waving-hand-light-skin-tone"]
    assert groups["cook"] == groups["man-cook"]
    assert groups["person-running"] == groups["man-running"]
    assert groups["flag-france"] == groups["flag-clipperton-island"] != groups["flag-cote-divoire"]
    assert len({frozenset(numbers) for numbers in groups.values()}) == 7
    no_leaks(data)
    for index in data.splits.values():
        assert len(index)


def test_preparing_emoji_end_to_end(cache: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    source = npm_folder(tmp_path / "source")
    with pytest.raises(FileNotFoundError, match=r"emoji: expected it in .*; run: weightspace data prepare emoji"):
        datasets.load("emoji")
    path = datasets.prepare("emoji", source=source, on_progress=seen.append)
    assert path == cache / "emoji.npz"
    data = datasets.load("emoji")
    assert isinstance(data, signals.ImageSet)
    assert data.images.shape == (8 * 10, 32, 32, 3)  # without the toned one, the component and the unknown
    assert seen == list(range(1, 81))
    assert data.classes == ("Smileys & Emotion", "People & Body", "Flags")
    assert "CC BY-SA" in data.licence
    assert "Twemoji" in data.citation
    no_leaks(data)
    record = json.loads((cache / "emoji.json").read_text(encoding="utf-8"))
    assert record["signals"] == 80
    assert record["sha256"] == sha256(path)
    assert len(record["made_of"]) == 9
    assert sum(record["splits"].values()) == 80
    assert record["options"] == {"size": 32, "tones": False}
    datasets.prepare("emoji", source=source, size=8, tones=True, out=tmp_path / "small.npz")
    small = datasets.load(tmp_path / "small.npz")
    assert isinstance(small, signals.ImageSet)
    assert small.images.shape == (88, 8, 8, 3)


def test_an_altered_file_is_refused(cache: Path, tmp_path: Path) -> None:
    path = datasets.prepare("emoji", source=npm_folder(tmp_path / "source"), size=4)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"altered; run: weightspace data prepare emoji"):
        datasets.load("emoji")
    path.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match="expected the record of a prepared data set"):
        datasets.load("emoji")
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match="weightspace data prepare emoji"):
        datasets.load("emoji")


def test_a_damaged_package(tmp_path: Path) -> None:
    source = npm_folder(tmp_path / "source")
    broken = source / f"iconify-json-noto-{PACKAGES['noto']}.tgz"
    broken.write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"expected a good npm package, got: [^\n]*; delete it to fetch it again"):
        datasets.prepare("emoji", source=source, out=tmp_path / "a.npz")
    with tarfile.open(broken, "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"expected an icon set with icons\.json"):
        datasets.prepare("emoji", source=source, out=tmp_path / "a.npz")


# --- parts and furniture ---


def part_files() -> dict[str, bytes]:
    """Two kinds of parts, three families each, and a kind with one family, which is left out."""
    files, side = {}, 1.0
    for kind in ("Resistor_SMD", "Crystal"):
        for family in ("long", "flat", "tall"):
            for number in (10, 22, 47):
                side += 0.37
                files[f"usr/share/kicad/3dmodels/{kind}.3dshapes/{family}_{number}mm.wrl"] = wrl(1, 2, side).encode()
    files["usr/share/kicad/3dmodels/Valve.3dshapes/Valve.wrl"] = wrl(1, 1, 0.2).encode()
    return {**files, "usr/share/doc/readme.txt": b"text"}


def test_preparing_parts_end_to_end(cache: Path, tmp_path: Path) -> None:
    deb(tmp_path, "kicad-packages3d", part_files())
    path = datasets.prepare("kicad", source=tmp_path, points=64)
    data = datasets.load("kicad")
    assert isinstance(data, signals.PointSet)
    assert data.classes == ("Crystal", "Resistor")
    assert data.targets.shape == (18, 64, 1)
    assert data.targets.min() < 0 < data.targets.max()
    assert len(set(data.groups.tolist())) == 3  # "long_mm", "flat_mm" and "tall_mm" are families of both kinds
    no_leaks(data)
    datasets.prepare("kicad", source=tmp_path, points=64, per_family=2, signed=False, out=tmp_path / "few.npz")
    few = datasets.load(tmp_path / "few.npz")
    assert isinstance(few, signals.PointSet)
    assert len(few) == 3 * 2
    assert few.targets.min() >= 0
    assert set(few.sources) < set(data.sources)
    assert json.loads(path.with_suffix(".json").read_text())["options"]["per_family"] == 16


def test_a_bad_part_is_named(tmp_path: Path) -> None:
    deb(tmp_path, "kicad-packages3d", {"3dmodels/A_B.3dshapes/bad.wrl": b"nothing"})
    with pytest.raises(ValueError, match=r"3dmodels/A_B\.3dshapes/bad\.wrl: expected a good \.wrl mesh.*VRML 2"):
        datasets.prepare("kicad", source=tmp_path, out=tmp_path / "a.npz")
    (tmp_path / "kicad-packages3d_1_all.deb").write_bytes(b"nothing")
    with pytest.raises(
        OSError, match=r"expected a good Debian package, got: dpkg-deb: .*; delete it to fetch it again"
    ):
        datasets.prepare("kicad", source=tmp_path, out=tmp_path / "a.npz")


def test_preparing_furniture_end_to_end(cache: Path, tmp_path: Path) -> None:
    kinds = {
        "Kitchen": ("Pan", "Pot", "Cup"),
        "Office": ("Desk 1", "Desk 2", "Chair", "Lamp"),
        "Staircases": ("Stair",),
    }
    entries = [(n, kind, (1, 2, 3 + i + 4.1 * j)) for i, kind in enumerate(kinds) for j, n in enumerate(kinds[kind])]
    library = sh3f(tmp_path / "a.sh3f", entries)
    models = list(_parts.furniture_models(library.read_bytes(), "a.sh3f"))
    assert [model.family for model in models][3:5] == ["Office/desk", "Office/desk"]
    deb(tmp_path, "sweethome3d-furniture", {"usr/share/sweethome3d/furniture/a.sh3f": library.read_bytes()})
    datasets.prepare("furniture", source=tmp_path, points=32)
    data = datasets.load("furniture")
    assert data.classes == ("Kitchen", "Office")  # a category with fewer than three families is left out
    assert len(data) == 7
    assert data.signals()[1].min() >= 0
    no_leaks(data)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda path: path.write_bytes(b"nothing"), r"a\.sh3f: expected a Sweet Home 3D library .* not a zip file"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "no item named 'PluginFurnitureCatalog.properties"),
    ],
)
def test_bad_libraries(spoil: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    path = sh3f(tmp_path / "a.sh3f", [("Pan", "Kitchen", (1, 1, 1))])
    assert len(list(_parts.furniture_models(path.read_bytes(), path.name))) == 1
    spoil(path)
    with pytest.raises(ValueError, match=text):
        list(_parts.furniture_models(path.read_bytes(), path.name))


def test_preparing_modelnet40(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected ModelNet40's tree .* name the folder with --source"):
        datasets.prepare("modelnet40", source=tmp_path)
    text = "OFF\n8 12 0\n" + "".join(f"{x} {y} {z}\n" for x, y, z in CUBE_V)
    text += "".join(f"3 {a} {b} {c}\n" for a, b, c in CUBE_F)
    for part in ("train", "test"):
        folder = tmp_path / "ModelNet40" / "bed" / part
        folder.mkdir(parents=True)
        (folder / "bed_0001.off").write_text(text)
    datasets.prepare("modelnet40", source=tmp_path, points=16)
    assert {name: len(index) for name, index in datasets.load("modelnet40").splits.items()} == {"train": 1, "test": 1}


def test_preparing_shapenet(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected ShapeNetCore's tree .* name the folder with --source"):
        datasets.prepare("shapenet", source=tmp_path)
    for synset, place in (("02691156", "models/model_normalized.obj"), ("03001627", "model.obj")):
        for number in range(5):  # versions 2 and 1; each model another box
            text = "".join(f"v {x} {y} {(1 + number) * z}\n" for x, y, z in CUBE_V)
            text += "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in CUBE_F)
            file = tmp_path / synset / f"{number}abc" / place
            file.parent.mkdir(parents=True)
            file.write_text(text)
    (tmp_path / "taxonomy.json").write_text(json.dumps([{"synsetId": "02691156", "name": "airplane,plane"}]))
    datasets.prepare("shapenet", source=tmp_path, points=16)
    data = datasets.load("shapenet")
    assert data.classes == ("03001627", "airplane")
    assert {name: len(index) for name, index in data.splits.items()} == {"train": 6, "val": 2, "test": 2}
    no_leaks(data)
    (tmp_path / "taxonomy.json").write_text("[3]")
    with pytest.raises(ValueError, match=r"taxonomy.json: expected a list of synsets with synsetId and name"):
        datasets.prepare("shapenet", source=tmp_path, points=17)


def test_mnist_is_read_where_it_was_put(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEIGHTSPACE_DATA", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"mnist: expected MNIST's IDX files, got none; fetch its four IDX files"
    ):
        datasets.load("mnist")
    (tmp_path / "mnist").mkdir()
    for part, count in (("train", 5), ("t10k", 3)):
        head = (0x803).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
        (tmp_path / "mnist" / f"{part}-images-idx3-ubyte").write_bytes(head + bytes(count * 784))
        labels = (0x801).to_bytes(4, "big") + count.to_bytes(4, "big") + bytes(range(count))
        (tmp_path / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    assert DATASETS["mnist"].state == "here"
    data = datasets.load("mnist")
    assert {name: len(index) for name, index in data.splits.items()} == {"train": 5, "test": 3}
    assert data.classes == tuple("0123456789")


def test_fashion_mnist_from_its_package(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_places, "DEBIAN", tmp_path / "none")
    assert DATASETS["fashion-mnist"].state == "prepare"
    import gzip

    images = gzip.compress(bytes([0, 0, 8, 3] + [0, 0, 0, 2] * 3) + bytes(8))
    labels = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 3]))
    place = "usr/share/datasets/fashion-mnist"
    files = {f"{place}/train-images-idx3-ubyte.gz": images, f"{place}/train-labels-idx1-ubyte.gz": labels}
    deb(tmp_path, "dataset-fashion-mnist", files)
    assert datasets.prepare("fashion-mnist", source=tmp_path) == cache / "fashion-mnist"
    assert DATASETS["fashion-mnist"].state == "here"
    assert len(datasets.load("fashion-mnist")) == 2
    with pytest.raises(ValueError, match="fashion-mnist: expected no out"):
        datasets.prepare("fashion-mnist", out=tmp_path / "a.npz")


# --- the cache and the clients ---


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WEIGHTSPACE_CACHE", str(tmp_path / "mine"))
    assert _places.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("WEIGHTSPACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert _places.cache_dir() == tmp_path / "weightspace"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(sys, "platform", "linux")
    assert _places.cache_dir() == Path.home() / ".cache" / "weightspace"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert _places.cache_dir() == Path.home() / "Library" / "Caches" / "weightspace"


@pytest.mark.parametrize(("name", "client"), [("emoji", "npm"), ("kicad", "apt-get"), ("furniture", "apt-get")])
def test_a_missing_client(name: str, client: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "emoji-test.txt").write_text(TABLE, encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"expected the program {client}, got none .* with --source") as raised:
        datasets.prepare(name, source=tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_a_client_that_fails(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "bin" / "apt-get"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho reading >&2\necho 'E: no such package' >&2\nexit 100\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    with pytest.raises(
        OSError, match="apt-get download kicad-packages3d: failed with exit code 100: E: no such package"
    ):
        datasets.prepare("kicad")
    script.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(OSError, match=r"expected kicad-packages3d_\*\.deb in .*, got none"):
        datasets.prepare("kicad")


def test_the_client_is_asked_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """npm is called for a package that is not there, by name and version, and not again."""
    calls: list[list[str]] = []

    def run(command: list[str], folder: Path, remedy: str) -> None:
        calls.append(command)
        (folder / "iconify-json-noto-1.2.9.tgz").write_bytes(b"")

    monkeypatch.setattr(_packages, "_run", run)
    for _ in range(2):
        path = _packages.npm_package("@iconify-json/noto", "1.2.9", tmp_path / "new")
        assert path.is_file()
    assert calls == [["npm", "pack", "--silent", "@iconify-json/noto@1.2.9"]]


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("emoji", "resvg_py", "emoji"), ("kicad", "igl", "mesh"), ("furniture", "trimesh", "mesh")],
)
def test_a_missing_extra(
    name: str, module: str, extra: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setenv("PATH", str(tmp_path))  # nothing is fetched before the extra is asked for
    with pytest.raises(ImportError, match=rf"pip install weightspace\[{extra}\]"):
        datasets.prepare(name)


# --- the catalogue ---


@pytest.mark.parametrize("entry", DATASETS.values(), ids=list(DATASETS))
def test_every_data_set_declares_all(entry: datasets.DataSet) -> None:
    assert DATASETS[entry.name] is entry
    assert all((entry.description, entry.split, entry.licence, entry.citation, entry.obtain))
    assert entry.classes > 1
    assert all(callable(imported(function)) for function in (entry.read, entry.fetch, entry.build) if function)
    assert entry.state in ("here", "prepare", "fetch")
    assert (entry.options is None) == (entry.build is None)
    if entry.options is not None:
        assert set(argument_help(type(entry.configured()))) == {own.name for own in fields(entry.configured())}


def test_what_is_declared_is_what_the_data_says() -> None:
    for name in ("embedded", "digits"):
        data = datasets.load(name)
        assert (len(data.classes), data.licence, data.citation) == (
            DATASETS[name].classes,
            DATASETS[name].licence,
            DATASETS[name].citation,
        )


def test_the_page_lists_every_data_set() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "howto" / "data.md"
    rows = re.findall(r"^\| `([\w-]+)` \|[^|]*\| (\d+) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: int(classes) for name, classes in rows} == {name: e.classes for name, e in DATASETS.items()}


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        (
            "emojis",
            {},
            ValueError,
            "unknown dataset: expected one of .*emoji.* or an import path .*did you mean 'emoji'",
        ),
        (
            "digits",
            {},
            ValueError,
            r"digits: nothing to prepare: it comes with scikit-learn: pip install weightspace\[dig",
        ),
        ("cifar-10", {}, ValueError, r"cifar-10: nothing to prepare: fetch it .* into \$WEIGHTSPACE_DATA/cifar-10"),
        ("emoji", {"points": 3}, TypeError, r"emoji: expected options among \['size', 'tones'\], got 'points'"),
        ("emoji", {"out": "a.pt"}, ValueError, r"out: expected a name that ends in \.npz, got a\.pt"),
        ("emoji", {"source": "nowhere"}, FileNotFoundError, "source: expected a folder, got nowhere"),
        ("kicad", {"per_family": 0}, ValueError, "per_family: expected at least 1"),
    ],
)
def test_prepare_refuses(name: str, options: dict, error: type[Exception], text: str, cache: Path) -> None:
    with pytest.raises(error, match=text):
        datasets.prepare(name, **options)
    assert not cache.exists()


def test_cifar_10_is_read_where_it_was_put(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"cifar-10: expected CIFAR-10 batches"):
        datasets.load("cifar-10")
    monkeypatch.setenv("WEIGHTSPACE_DATA", str(tmp_path))
    (tmp_path / "cifar-10").mkdir()
    (tmp_path / "cifar-10" / "test_batch.bin").write_bytes((bytes([6]) + bytes(3072)) * 2)
    assert DATASETS["cifar-10"].state == "here"
    assert datasets.load("cifar-10").out_features == 3


# --- the commands ---


def test_the_command_lists_data_sets(
    capsys: pytest.CaptureFixture[str], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run_command(capsys, "data", "list")
    assert (code, err) == (0, "")
    assert all(name in out for name in DATASETS)
    code, out, _ = run_command(capsys, "data", "list", "emoji")
    entry = DATASETS["emoji"]
    words = " ".join(out.split())
    assert code == 0
    assert all(" ".join(text.split()) in words for text in (entry.split, entry.licence, entry.citation, entry.obtain))
    assert "option size (32): pixels each way." in words
    assert "option tones (False): whether to add" in words
    assert "state prepare" in words


def test_the_command_prepares(capsys: pytest.CaptureFixture[str], cache: Path, tmp_path: Path) -> None:
    source = npm_folder(tmp_path / "source")
    code, out, err = run_command(capsys, "data", "prepare", "emoji", "--source", source, "--size", "8", "--tones")
    assert (code, err) == (0, "")
    assert f"wrote {cache / 'emoji.npz'}" in out
    assert "ImageSet('emoji', 88 images 8x8x3 uint8" in out
    code, out, _ = run_command(capsys, "data", "list", "emoji")
    assert "state here" in " ".join(out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["list", "nothing"], 2, "unknown dataset: expected one of"),
        (["prepare", "nothing"], 2, "unknown dataset: expected one of"),
        (
            ["prepare", "emoji", "--per-family", "3"],
            2,
            "emoji: expected no --per-family: see weightspace data list emoji",
        ),
        (["prepare", "digits"], 1, "digits: nothing to prepare"),
        (["prepare", "emoji", "--source", "nowhere"], 1, "source: expected a folder, got nowhere"),
        ([], 2, "Missing command"),
    ],
)
def test_the_command_fails_in_one_line(
    arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    got, _, err = run_command(capsys, "data", *arguments)
    assert got == code
    assert err.count("\n") == 1
    assert text in err


# --- the real thing, where it is prepared ---


@pytest.mark.parametrize("name", ["emoji", "kicad", "furniture"])
def test_what_is_prepared_on_this_machine(name: str) -> None:
    if DATASETS[name].state != "here":
        pytest.skip(f"needs: weightspace data prepare {name}")
    data = datasets.load(name)
    assert len(data.classes) == DATASETS[name].classes
    assert list(data.splits) == ["train", "val", "test"]
    no_leaks(data)
    assert data.labels is not None
    for part in ("train", "test"):
        assert set(data.labels[data.splits[part]].tolist()) == set(range(len(data.classes)))
    if isinstance(data, signals.ImageSet):
        assert data.images.shape[3] == 3
        sides = [{data.images[i].tobytes() for i in index} for index in data.splits.values()]
        assert sum(map(len, sides)) == len(set().union(*sides))  # no drawing on both sides of a split
    else:
        assert np.abs(data.coords.astype(np.float32)).max() < 2
        assert np.abs(data.targets).max() < 3


def test_the_packages_are_pinned() -> None:
    assert len(PACKAGES) == 8
    assert imported(DATASETS["emoji"].build) is _emoji.build_emoji
