"""Hostile and unlucky files of signals: a clear error at once, or the right value."""

from __future__ import annotations

import gzip
import io
import pickle
import resource
import struct
import subprocess
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

import weightspace as ws
from weightspace import datasets
from weightspace._files import MOST_RATIO, most_unpacked
from weightspace.signals._cifar import from_cifar10
from weightspace.signals._idx import from_idx
from weightspace.signals._npz import read_arrays
from weightspace.signals._pickled import read_plain
from weightspace.signals._read import from_folder, from_npz


@contextmanager
def quickly(seconds: float = 2, megabytes: float = 500) -> Iterator[None]:
    """Fail if the content takes longer, or more memory than the process had at its peak before."""
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    yield
    assert time.process_time() - start < seconds
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < megabytes


# --- pictures ---

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(hello from PostScript) = showpage\n"


def test_postscript_in_the_guise_of_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started = []
    monkeypatch.setattr(subprocess.Popen, "__init__", lambda self, *args, **options: started.append(args))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.png").write_bytes(POSTSCRIPT)
    with pytest.raises(ValueError, match=r"0\.png: expected a picture \(PNG, JPEG, WEBP, BMP, GIF, TIFF\)"):
        datasets.load(tmp_path)
    assert not started


def test_every_door_of_pictures_names_its_formats():
    for file in Path(ws.__file__).parent.rglob("*.py"):
        for line in file.read_text().splitlines():
            assert "Image.open(" not in line or "formats=" in line, file


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_read_as_they_are_shown(tmp_path: Path, orientation: int):
    (tmp_path / "c").mkdir()
    pixels = np.zeros((16, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "c" / "0.jpg", exif=exif, quality=100)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "c" / "0.jpg")))
    np.testing.assert_array_equal(from_folder(tmp_path).images[0], shown)
    bright = np.argwhere(shown[..., 0] > 128).mean(0) * 2 + 1 - np.array(shown.shape[:2])
    expected = {1: (-12, 0), 2: (-12, 0), 3: (12, 0), 4: (12, 0), 5: (0, -12), 6: (0, 12), 7: (0, 12), 8: (0, -12)}
    assert tuple(bright) == expected[orientation]


def test_pictures_of_all_formats_are_read(tmp_path: Path):
    (tmp_path / "c").mkdir()
    names = ["0.png", "1.webp", "2.bmp", "3.gif", "4.tif", "5.tiff", "6.jpg", "7.jpeg"]
    for value, name in enumerate(names):
        options = {"lossless": True} if name.endswith("webp") else {}
        Image.new("RGB", (8, 8), (30 * value,) * 3).save(tmp_path / "c" / name, **options)
    assert [int(image.mean()) for image in from_folder(tmp_path).images] == [30 * i for i in range(8)]


def test_files_passed_over_are_named(tmp_path: Path):
    (tmp_path / "c").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "c" / "0.png")
    (tmp_path / "c" / "1.heic").write_bytes(b"")
    (tmp_path / "README").write_text("beside the class folders")
    with pytest.warns(UserWarning, match=r"1 files are passed over, .*: 'c/1\.heic'; convert them"):
        assert len(from_folder(tmp_path)) == 1


def test_animations_and_huge_pictures_are_refused(tmp_path: Path):
    (tmp_path / "c").mkdir()
    frames = [Image.new("L", (8, 8), shade) for shade in (0, 255)]
    frames[0].save(tmp_path / "c" / "0.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=r"0\.gif: .* 2 pictures in one file"):
        from_folder(tmp_path)
    (tmp_path / "c" / "0.gif").unlink()
    for side in (8200, 9800, 20000):  # as far as Pillow's own warning and error, and beyond
        Image.new("1", (side, side)).save(tmp_path / "c" / "0.png")
        with quickly(), pytest.raises(ValueError, match=r"0\.png: expected a picture"):
            from_folder(tmp_path)


# --- npz ---


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("label", [10**4, 10**8, 2**62])
@pytest.mark.parametrize("kind", ["images", "points", "saved"])
def test_labels_that_are_ids_are_refused_at_once(tmp_path: Path, label: int, kind: str):
    labels = np.array([0, 1, 2, label])
    with quickly():
        if kind == "images":
            npz(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8), labels=labels)
        else:
            npz(tmp_path / "a.npz", coords=np.zeros((9, 2)), targets=np.zeros((4, 9, 1)), labels=labels)
        with pytest.raises(ValueError, match=rf"a\.npz: expected labels that number .* got {label}; number the"):
            datasets.load(tmp_path / "a.npz")


def test_labels_of_few_signals_of_many_classes_are_read(tmp_path: Path):
    data = from_npz(npz(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8), labels=np.array([0, 999, 2, 3])))
    assert len(data.classes) == 1000


def header(shape: tuple[int, ...], kind: str = "|u1", extra: str = "") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape!r}, {extra}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive(path: Path, kind: int = zipfile.ZIP_DEFLATED, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (header((10**10, 8, 8)) + bytes(64), "whose header claims"),
        (header((2**62, 2**62)) + bytes(64), "whose header claims"),
        (header((-1, -64)) + bytes(64), "whose header claims"),
        (header((2**40,), "|V0"), "whose header claims"),
        (header((4, 4, 4)) + bytes(63), "whose header claims"),
        (header((4, 4, 4)) + bytes(65), "whose header claims"),
        (header((1, 1, 1), "|O") + bytes(8), "objects"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 2**16, "plain arrays"),
        (b"\x93NUMPY\x09\x00" + header((1, 1, 1))[8:] + bytes(1), "plain arrays"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "plain arrays"),
        (header((2, 4, 4)).replace(b"}", b" ") + bytes(32), "plain arrays"),
        (header((2, 4, 4)).replace(b"(2", b"{2") + bytes(32), "plain arrays"),
        (b"", "plain arrays"),
    ],
)
def test_headers_of_npz_that_claim_too_much(tmp_path: Path, content: bytes, text: str):
    archive(tmp_path / "a.npz", images=content)
    with quickly(), pytest.raises(ValueError, match=rf"a\.npz: .*{text}"):
        from_npz(tmp_path / "a.npz")


def test_npz_bombs(tmp_path: Path):
    bomb = header((2**17, 32, 32)) + bytes(2**27)
    small = header((2, 4, 4)) + bytes(32)
    archive(tmp_path / "bomb.npz", images=bomb)
    archive(tmp_path / "beside.npz", images=small, other=bomb)
    archive(tmp_path / "points.npz", coords=header((4, 2), "<f4") + bytes(32), targets=small, other=bomb)
    del bomb
    with quickly(), pytest.raises(ValueError, match=r"bomb\.npz: .* far larger than the file, from 'images' on"):
        datasets.load(tmp_path / "bomb.npz")
    with quickly():
        assert len(datasets.load(tmp_path / "beside.npz")) == 2  # what is not asked for is not unpacked
        with pytest.raises(ValueError, match="expected floating point"):
            datasets.load(tmp_path / "points.npz")


def test_npz_of_other_compressions_and_doubled_names(tmp_path: Path):
    archive(tmp_path / "lzma.npz", zipfile.ZIP_LZMA, images=header((2, 4, 4)) + bytes(32))
    with pytest.raises(ValueError, match=r"lzma\.npz: .* that NumPy would not write"):
        from_npz(tmp_path / "lzma.npz")
    with zipfile.ZipFile(tmp_path / "two.npz", "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            file.writestr("images.npy", header((2, 4, 4)) + bytes(32))
    with pytest.raises(ValueError, match=r"two\.npz: .* that NumPy would not write"):
        from_npz(tmp_path / "two.npz")


def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path):
    given = {
        "fortran": np.asfortranarray(np.random.default_rng(0).random((3, 4, 5))),
        "big": np.arange(6, dtype=">i4").reshape(2, 3),
        "text": np.array("naïve"),
        "empty": np.zeros((0, 3), np.float16),
        "pairs": np.zeros(3, dtype=[("a", "<f4"), ("b", "i8")]),
    }
    np.savez_compressed(tmp_path / "a.npz", **given)
    found = read_arrays(tmp_path / "a.npz")
    for name, array in given.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
        assert found[name].flags.writeable


HEAD = b'{"format": "weightspace-signals-1", "kind": "images", '


@pytest.mark.parametrize(
    "about",
    [
        b"[]",
        b"[" * 100_000,
        b'{"format": "weightspace-signals-1", "kind": "images"}',
        b'{"format": "weightspace-signals-1", "kind": ["images"], "classes": []}',
        HEAD + b'"name": 1, "licence": "", "citation": "", "classes": []}',
        HEAD + b'"name": "", "licence": "", "citation": "", "classes": 5}',
    ],
)
def test_damaged_descriptions_of_saved_signals(tmp_path: Path, about: bytes):
    npz(tmp_path / "a.npz", about=np.array(about.decode()), images=np.zeros((2, 4, 4), np.uint8), sources=[0, 1])
    with pytest.raises(ValueError, match=r"a\.npz: expected"):
        datasets.load(tmp_path / "a.npz")


def test_saved_signals_with_further_arrays_are_refused(tmp_path: Path):
    ws.signals.save(tmp_path / "a.npz", ws.signals.ImageSet(np.zeros((3, 4, 4), np.uint8)))
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    npz(tmp_path / "b.npz", **arrays, extra=np.zeros(2))
    with pytest.raises(ValueError, match=r"b\.npz: expected the arrays .* got \['extra'\]"):
        datasets.load(tmp_path / "b.npz")


# --- IDX and CIFAR-10 ---


def test_gzip_bombs(tmp_path: Path):
    packed = io.BytesIO()
    with gzip.open(packed, "wb") as file:
        for _ in range(2**7):
            file.write(bytes(2**20))
    assert most_unpacked(len(packed.getvalue())) < 2**27
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed.getvalue())
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(packed.getvalue())
    with quickly(), pytest.raises(ValueError, match=rf"idx3-ubyte\.gz: expected content of at most {MOST_RATIO} times"):
        from_idx(tmp_path)


def nested(depth: int, width: int) -> bytes:
    out = b"]r" + struct.pack("<I", 100) + b"(" + b"K\x01" * width + b"e0"
    for level in range(depth):
        inner = (b"j" + struct.pack("<I", 100 + level)) * width
        out += b"]r" + struct.pack("<I", 101 + level) + b"(" + inner + b"e" + (b"" if level == depth - 1 else b"0")
    return out


def text(value: bytes) -> bytes:
    return b"U" + bytes([len(value)]) + value


PIXELS = pickle.dumps(np.zeros((3, 3072), np.uint8), 3)[2:-1]
GOOD = b"(K\x01K\x02K\x03l"
HUGE = b"\x8a\xff" + b"\x7f" * 255  # a whole number of 255 bytes
KEY = b")" + b"".join(b"q%c0h%ch%c\x86" % (i, i, i) for i in range(60))  # a tuple of 2**60 tuples
BATCHES = {
    "memo": b"\x80\x02Nr" + struct.pack("<I", 0x0FFFFFFF) + b".",
    "labels": b"\x80\x02}(" + text(b"data") + PIXELS + text(b"labels") + nested(5, 100) + b"u.",
    "huge labels": b"\x80\x02}(" + text(b"data") + PIXELS + text(b"labels") + b"(" + 3 * HUGE + b"lu.",
    "key": b"\x80\x02}(" + KEY + b"K\x01" + text(b"data") + PIXELS + text(b"labels") + GOOD + b"u.",
    "set": b"\x80\x04\x8f(" + KEY + b"\x90.",
    "shape": b"\x80\x02}(" + text(b"data") + PIXELS.replace(b"K\x03M\x00\x0c\x86", b"(" + HUGE * 2000 + b"t")
    + text(b"labels") + GOOD + b"u.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02Pabc\n.",
    "instance": b"(ios\nsystem\n.",
    "object": b"\x80\x02(cos\nsystem\no.",
    "cut": b"\x80\x02}(" + text(b"data") + PIXELS,
    "empty stack": b"\x80\x02u.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.",
    "long text": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "digits": b"I" + b"9" * 100_000 + b"\n.",
    "list that holds itself": b"\x80\x02}(" + text(b"data") + PIXELS + text(b"labels") + b"]q\x64h\x64au.",
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHES)
def test_cifar10_pickles_of_hostile_size(tmp_path: Path, name: str):
    (tmp_path / "data_batch_1").write_bytes(BATCHES[name])
    with quickly(), pytest.raises(ValueError, match="data_batch_1: refused: expected a CIFAR-10 batch"):
        from_cifar10(tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_are_read_as_pickle_reads_them(protocol: int):
    given = {"a": [1, -5, 2**40, None, True, (), (1,), (1, 2), (1, 2, 3, 4)], "b": {"c": "naïve", 3: ["x"] * 5}}
    raw = pickle.dumps(given, protocol)
    read = read_plain(raw) if protocol > 1 else None  # earlier protocols write true and false as numbers in text
    assert read in (given, None)
    assert read_plain(pickle.dumps({"data": np.arange(6, dtype=np.uint8).tobytes()}, max(protocol, 3)))


# --- ranges ---


def test_floats_far_from_a_range_of_one_are_warned_of():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.float32)
    text = "expected signals of range one, .* got values from .* divide them by their range"
    with pytest.warns(UserWarning, match=f"images: {text}"):
        ws.signals.ImageSet(pixels)
    with pytest.warns(UserWarning, match=f"images: {text}"):
        ws.signals.images(pixels)
    with pytest.warns(UserWarning, match=f"targets: {text}"):
        ws.signals.PointSet(np.zeros((64, 2)), pixels.reshape(2, 64, 1))
    ws.signals.ImageSet(pixels / 255)
    ws.signals.ImageSet(3 * pixels / 255 - 1)


def test_no_reader_of_signals_uses_a_loader_without_bounds():
    """The readers go through the bounded ones; the archive that comes with the package is our own."""
    for file in Path(ws.__file__).parent.rglob("*.py"):
        if file.name in ("_named.py", "_npz.py", "_files.py"):
            continue
        lines = [line for line in file.read_text().splitlines() if ">>>" not in line]
        for word in ("np.load(", "gzip.decompress(", "gzip.open(", "pickle.load", "Unpickler(", "zipfile.ZipFile("):
            allowed = {"_torch_file.py": "zipfile.ZipFile(", "_parts.py": "zipfile.ZipFile(", "_cnn_zoo.py": "np.load("}
            allowed = allowed.get(file.name)  # the last maps its file, which no header can make larger
            assert word == allowed or not any(word in line for line in lines), (file, word)
        for line in lines:  # what was just made may be parsed again; what comes from a file has a reader of its own
            assert "json.loads(" not in line or "json.dumps(" in line or "to_json()" in line or "pread" in line, file
