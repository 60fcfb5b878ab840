"""Signals: coordinates and targets, image sets, splits by source, and every reader, on good files and bad ones."""

from __future__ import annotations

import builtins
import gzip
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import weightspace.signals as signals
from weightspace import datasets
from weightspace._split import split_by_source
from weightspace.datasets import _named, _places
from weightspace.signals._cifar import from_cifar10
from weightspace.signals._idx import from_idx
from weightspace.signals._read import from_folder, from_npz


def pictures(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


# --- coordinates and targets ---


def test_surface_is_what_is_exported():
    assert signals.__all__ == sorted(signals.__all__, key=lambda n: (n[0].islower(), n))
    assert all(hasattr(signals, name) for name in signals.__all__)


def test_grid_runs_rows_first_with_the_ends_included():
    coords = signals.grid(3, 5)
    slow = [[-1 + 2 * i / 2, -1 + 2 * j / 4] for i in range(3) for j in range(5)]
    assert coords.dtype == torch.float32
    torch.testing.assert_close(coords, torch.tensor(slow))
    assert signals.grid(1, 2).tolist() == [[0, -1], [0, 1]]
    with pytest.raises(ValueError, match="at least one point"):
        signals.grid(0, 3)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 3)])
def test_images_keep_every_pixel_at_its_place(shape: tuple[int, ...]):
    array = pictures(5, *shape)
    coords, targets = signals.images(array)
    channels = shape[2] if len(shape) == 3 else 1
    assert coords.shape == (24, 2)
    assert targets.shape == (5, 24, channels)
    assert targets.dtype == coords.dtype == torch.float32
    row, column = 2, 5
    point = int(((coords - torch.tensor([2 * row / 3 - 1, 1.0])).abs().sum(1) < 1e-6).nonzero())
    expected = array[:, row, column].reshape(5, channels).astype(np.float32) / 255
    np.testing.assert_array_equal(targets[:, point].numpy(), expected)


def test_images_of_other_kinds():
    array = pictures(3, 4, 4)
    expected = signals.images(array)[1]
    floats = array.astype(np.float64) / 255
    torch.testing.assert_close(signals.images(floats)[1], expected)
    assert torch.equal(signals.images(torch.from_numpy(array))[1], expected)
    assert torch.equal(signals.images(list(array))[1], expected)
    grown = [torch.from_numpy(own).float().div(255).requires_grad_() for own in array]
    torch.testing.assert_close(signals.images(grown)[1], expected)
    assert torch.equal(signals.images(signals.ImageSet(array))[1], expected)
    assert signals.images(array > 127)[1].unique().tolist() == [0, 1]
    assert signals.images(np.full((1, 2, 2), -7.5))[1].unique().tolist() == [-7.5]  # taken as it is
    assert torch.equal(signals.images(array[:, ::-1, ::2])[1][:, 0], expected[:, 12])  # no need to be contiguous


def test_images_share_no_memory_and_write_nothing():
    array = pictures(2, 3, 3).astype(np.float32) / 255
    before = array.copy()
    signals.images(array)[1].zero_()
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (np.full((2, 3, 3), np.nan), ValueError, "NaN or infinity in image 0"),
        (np.stack([np.zeros((3, 3)), np.full((3, 3), np.inf)]), ValueError, "NaN or infinity in image 1"),
        (np.zeros((0, 3, 3), np.uint8), ValueError, "at least one image"),
        (np.zeros((2, 0, 3), np.uint8), ValueError, "at least one image"),
        ([], ValueError, "empty list"),
        (np.zeros((3, 3), np.uint8), ValueError, r"expected \[image, height, width\].*got \[3, 3\]"),
        (np.zeros((1, 1, 1, 3, 3), np.uint8), ValueError, r"expected \[image, height, width\]"),
        ([np.zeros((3, 3)), np.zeros((3, 4))], ValueError, r"one size, got \(3, 3\) and \(3, 4\); resize"),
        (np.zeros((2, 3, 32, 32), np.uint8), ValueError, "channels last"),
        (np.zeros((2, 3, 3), np.int64), TypeError, "expected uint8"),
        (np.array([[["a"]]]), TypeError, "expected uint8"),
        (
            [[[1.0, 2.0], [3.0]], [[1.0]]],
            ValueError,
            "image 0: expected a rectangular array, got lists of different le",
        ),
        (torch.zeros(2, 3, 3, dtype=torch.bfloat16), TypeError, r"got torch.bfloat16, .*convert tensors with .float"),
        ([torch.zeros(3, 3, dtype=torch.bfloat16)], TypeError, r"image 0: expected dense numbers .*torch.bfloat16"),
        (torch.zeros(2, 3, 3).to_sparse(), TypeError, "expected dense numbers .*got torch.float32, torch.sparse_coo"),
        (torch.zeros(2, 3, 3, device="meta"), TypeError, "expected dense numbers .*got .* on meta"),
    ],
)
def test_images_refuse(bad, error, text: str):
    with pytest.raises(error, match=text):
        signals.images(bad)


def test_psnr():
    assert signals.psnr(0.01) == pytest.approx(20)
    assert signals.psnr(0.0) == float("inf")
    torch.testing.assert_close(signals.psnr(torch.tensor([1.0, 0.1, 0.0])), torch.tensor([0.0, 10.0, float("inf")]))
    with pytest.raises(ValueError, match="zero or more"):
        signals.psnr(-0.1)


# --- splits by source ---


def test_split_by_source_is_a_partition_of_about_the_fraction():
    sources = np.arange(20_000)
    for fraction in (0.0, 0.1, 0.5, 1.0):
        rest, held = split_by_source(sources, fraction, seed=3)
        np.testing.assert_array_equal(np.sort(np.concatenate([rest, held])), sources)
        assert abs(len(held) - 20_000 * fraction) < 5 * (20_000 * 0.25) ** 0.5
    assert len(split_by_source(sources, 0.0, 0)[1]) == len(split_by_source(sources, 1.0, 0)[0]) == 0
    assert [len(part) for part in split_by_source([], 0.5, 0)] == [0, 0]


def test_split_by_source_depends_on_each_source_alone():
    rng = np.random.default_rng(0)
    few = rng.integers(-(2**62), 2**62, 500)
    many = rng.permutation(np.concatenate([few, few, rng.integers(0, 1000, 900)]))  # views, more data, another order
    held_few = set(few[split_by_source(few, 0.3, seed=1)[1]])
    rest, held = split_by_source(many, 0.3, seed=1)
    assert not set(many[rest]) & set(many[held])
    assert set(many[held]) & set(few) == held_few
    assert set(few[split_by_source(few, 0.3, seed=2)[1]]) != held_few
    assert held_few < set(few[split_by_source(few, 0.5, seed=1)[1]])  # a larger fraction only adds


def test_split_by_source_is_independent_over_seeds_and_pinned():
    sources = np.arange(10_000)
    first = np.isin(sources, split_by_source(sources, 0.5, 0)[1])
    second = np.isin(sources, split_by_source(sources, 0.5, 1)[1])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert split_by_source(np.arange(40), 0.2, seed=0)[1].tolist() == slow_split(40, 0.2, 0)


def slow_split(count: int, fraction: float, seed: int) -> list[int]:
    def mix(z: int) -> int:
        z = (z + 0x9E3779B97F4A7C15) % 2**64
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        return z ^ (z >> 31)

    assert mix(0) == 0xE220A8397B1DCDAF  # the generator's first output from state 0
    return [s for s in range(count) if (mix(mix(s) ^ mix(seed)) >> 11) / 2**53 < fraction]


def test_split_by_source_refuses():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        split_by_source([1, 2], 1.5, 0)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got nan"):
        split_by_source([1, 2], float("nan"), 0)
    with pytest.raises(TypeError, match="expected integers, got float64"):
        split_by_source([1.0], 0.5, 0)
    with pytest.raises(ValueError, match="one axis"):
        split_by_source([[1]], 0.5, 0)
    with pytest.raises(TypeError, match="seed: expected an integer"):
        split_by_source([1], 0.5, 0.5)  # pyright: ignore[reportArgumentType]


# --- ImageSet ---


def test_image_set_subset_and_split():
    data = signals.ImageSet(
        pictures(6, 2, 2),
        labels=np.array([0, 1, 0, 1, 0, 1]),
        sources=[10, 11, 12, 13, 14, 15],
        splits={"train": [5, 0], "test": [3]},
    )
    assert data.labels is not None
    assert data.labels.dtype == data.sources.dtype == np.int64
    train = data.split("train")
    assert train.sources.tolist() == [15, 10]
    assert {name: index.tolist() for name, index in train.splits.items()} == {"train": [0, 1]}
    part = data.subset([3, 0, 2])
    np.testing.assert_array_equal(part.images, data.images[[3, 0, 2]])
    assert part.labels is not None
    assert part.labels.tolist() == [1, 0, 0]
    assert {name: index.tolist() for name, index in part.splits.items()} == {"train": [1], "test": [0]}
    assert data.subset(data.labels == 1).sources.tolist() == [11, 13, 15]
    assert "6 images 2x2 uint8, train 2, test 1" in repr(data)
    with pytest.raises(AttributeError):
        data.name = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_image_set_with_split_keeps_sources_together():
    data = signals.ImageSet(pictures(200, 2, 2), sources=np.arange(200) // 2).with_split(0.3, seed=5)
    train, test = data.split("train"), data.split("test")
    assert len(train) + len(test) == 200
    assert not set(train.sources) & set(test.sources)


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"labels": [0, 1]}, ValueError, r"labels: expected one an image, \[3\], got \[2\]"),
        ({"labels": [0.0, 1.0, 1.0]}, TypeError, "labels: expected integers"),
        ({"labels": [0, -1, 1]}, ValueError, "zero or more, got -1 to 1"),
        ({"labels": [0, 1, 2], "classes": ("a", "b")}, ValueError, r"in \[0, 2\), got 0 to 2"),
        ({"sources": [1, 2]}, ValueError, "sources: expected one an image"),
        ({"splits": {"train": [0, 3]}}, ValueError, r"splits\['train'\]: expected indices in \[0, 3\)"),
        ({"splits": {"train": []}}, ValueError, "at least one index"),
        ({"splits": {"train": [0, 1], "test": [1, 2]}}, ValueError, "share 1 sources"),
        ({"sources": [1, 2, 1], "splits": {"train": [0], "test": [2]}}, ValueError, "must not straddle"),
    ],
)
def test_image_set_refuses(fields: dict, error, text: str):
    with pytest.raises(error, match=text):
        signals.ImageSet(pictures(3, 2, 2), **fields)


def test_image_set_refuses_what_numpy_cannot_hold():
    with pytest.raises(TypeError, match=r"images: expected dense numbers .*got torch.bfloat16"):
        signals.ImageSet(torch.zeros(2, 3, 3, dtype=torch.bfloat16))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="labels: expected a rectangular array, got lists of different lengths"):
        signals.ImageSet(pictures(2, 3, 3), labels=[[1], [2, 3]])  # pyright: ignore[reportArgumentType]


def test_image_set_refuses_bad_indices_and_names():
    data = signals.ImageSet(pictures(3, 2, 2), splits={"train": [0, 1]})
    with pytest.raises(ValueError, match=r"one of images's splits \('train'\), got 'test'"):
        data.split("test")
    for bad, error in (([3], ValueError), ([-1], ValueError), ([], ValueError), ([0.5], TypeError)):
        with pytest.raises(error, match="indices: expected"):
            data.subset(bad)


# --- npz ---


def test_npz_images_and_labels(tmp_path: Path):
    images = pictures(4, 5, 6, 3)
    np.savez_compressed(tmp_path / "a.npz", images=images, labels=np.array([[2], [0], [1], [1]]), sources=[7, 8, 9, 3])
    data = from_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.images, images)
    assert data.labels is not None
    assert data.labels.tolist() == [2, 0, 1, 1]
    assert data.sources.tolist() == [7, 8, 9, 3]
    assert data.classes == ("0", "1", "2")
    np.savez(tmp_path / "b.npz", images=images / 255)
    plain = from_npz(tmp_path / "b.npz")
    assert (plain.labels, plain.splits, plain.images.dtype) == (None, {}, np.float32)
    assert list(datasets.load(tmp_path / "b.npz").splits)


def test_npz_in_the_layout_of_keras(tmp_path: Path):
    x, y = pictures(6, 4, 4), np.array([0, 1, 2, 0, 1, 2], np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x[:4], y_train=y[:4], x_test=x[4:], y_test=y[4:])
    data = from_npz(tmp_path / "mnist.npz")
    np.testing.assert_array_equal(data.split("test").images, x[4:])
    assert data.split("test").sources.tolist() == [4, 5]
    assert len(data.split("train")) == 4


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"pictures": np.zeros(3)}, "expected the arrays images .* got pictures"),
        ({"images": pictures(3, 2, 2), "labels": np.zeros(2, int)}, r"expected 3 labels in labels, .* got shape \[2\]"),
        ({"images": np.array([None, 1], dtype=object)}, "plain arrays"),
        ({"images": np.full((1, 2, 2), np.nan)}, "finite pixels"),
        ({"x_train": pictures(2, 2, 2), "y_train": np.zeros(3, int)}, "expected 2 labels in y_train"),
        ({"x_train": pictures(2, 2, 2), "y_train": np.zeros((2, 10), int)}, "expected 2 labels in y_train"),
        ({"x_train": pictures(2, 2, 2), "x_test": pictures(2, 3, 3)}, "one size and type"),
        ({"x_train": pictures(2, 2, 2), "x_test": np.zeros((2, 2, 2))}, "one size and type"),
        ({"x_train": pictures(2, 2, 2), "x_test": pictures(2, 2, 2), "y_test": np.zeros(2, int)}, "both y_train and"),
    ],
)
def test_npz_refuses(tmp_path: Path, arrays: dict, text: str):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=text):
        from_npz(tmp_path / "bad.npz")


def test_npz_refuses_other_and_broken_files(tmp_path: Path):
    (tmp_path / "no.npz").write_bytes(b"not a zip archive")
    with pytest.raises(ValueError, match=r"expected an \.npz file"):
        from_npz(tmp_path / "no.npz")
    np.savez(tmp_path / "cut.npz", images=pictures(9, 9, 9))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"expected an \.npz file"):
        from_npz(tmp_path / "cut.npz")
    with pytest.raises(FileNotFoundError):
        from_npz(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match=r"expected an \.npz file, got a folder; name the file"):
        from_npz(tmp_path)


# --- folders ---


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def test_folder_of_class_folders(tmp_path: Path):
    images = pictures(4, 5, 7)
    for i, name in enumerate(["dog/b.png", "cat/a.PNG", "cat/c.png", "dog/a.png"]):
        save(tmp_path / name, images[i])
    (tmp_path / ".hidden").mkdir()
    data = from_folder(tmp_path)
    np.testing.assert_array_equal(data.images, images[[1, 2, 3, 0]])
    assert data.labels is not None
    assert (data.classes, data.labels.tolist(), data.splits) == (("cat", "dog"), [0, 0, 1, 1], {})
    save(tmp_path / "ant" / "new.png", images[0])  # a new class and file: no other source moves
    more = from_folder(tmp_path)
    assert more.sources[1:].tolist() == data.sources.tolist()
    assert data.sources.min() >= 0
    assert data.sources.max() < 2**53


def test_folder_with_splits_colour_and_resizing(tmp_path: Path):
    flat = np.full((6, 8, 3), (10, 200, 90), np.uint8)
    save(tmp_path / "train" / "x" / "0.jpg", flat)
    save(tmp_path / "train" / "y" / "0.png", np.full((9, 9), 77, np.uint8))
    save(tmp_path / "test" / "x" / "0.jpeg", flat)
    with pytest.raises(ValueError, match=r"expected an image of 6x8 .* got 9x9; give size"):
        from_folder(tmp_path)
    data = datasets.load(tmp_path, size=(4, 5))
    assert data.images.shape == (3, 4, 5, 3)
    assert {k: v.tolist() for k, v in data.splits.items()} == {"train": [0, 1], "test": [2]}
    assert np.abs(data.images[0].astype(int) - flat[0, 0]).max() <= 3  # JPEG
    assert (data.images[1] == 77).all()  # grey becomes colour beside colour
    assert from_folder(tmp_path, size=3).images.shape == (3, 3, 3, 3)


def test_folder_refuses(tmp_path: Path):
    with pytest.raises(ValueError, match="expected class folders of"):
        from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="expected a folder"):
        from_folder(tmp_path / "absent")
    save(tmp_path / "a" / "0.png", pictures(1, 4, 4)[0])
    with pytest.raises(ValueError, match="at least one pixel"):
        from_folder(tmp_path, size=0)
    (tmp_path / "a" / "1.png").write_bytes((tmp_path / "a" / "0.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"1\.png: expected a picture"):
        from_folder(tmp_path)
    save(tmp_path / "a" / "1.png", np.full((4, 4), 40_000, np.uint16))
    with pytest.raises(ValueError, match="expected 8 bits a channel"):
        from_folder(tmp_path)


# --- IDX ---


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, prefix: str, images: np.ndarray, labels: np.ndarray, zipped: bool = False) -> None:
    for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))


@pytest.mark.parametrize("zipped", [False, True])
def test_idx(tmp_path: Path, zipped: bool):
    x, y = pictures(5, 4, 6), np.array([3, 1, 0, 2, 3], np.uint8)
    write_idx(tmp_path, "train", x[:3], y[:3], zipped)
    write_idx(tmp_path, "t10k", x[3:], y[3:], zipped)
    data = datasets.load(str(tmp_path))
    np.testing.assert_array_equal(data.images, x)
    assert data.labels is not None
    assert data.labels.tolist() == y.tolist()
    assert data.sources.tolist() == [0, 1, 2, 60_000, 60_001]
    assert data.split("test").sources.tolist() == [60_000, 60_001]
    assert data.classes == ("0", "1", "2", "3")
    assert from_idx(tmp_path, classes="abcd", name="letters").classes == ("a", "b", "c", "d")


def test_idx_of_one_part(tmp_path: Path):
    write_idx(tmp_path, "t10k", pictures(2, 4, 4), np.zeros(2, np.uint8))
    data = from_idx(tmp_path)
    assert list(data.splits) == ["test"]
    assert data.sources.tolist() == [60_000, 60_001]


def test_idx_refuses(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="expected IDX files"):
        from_idx(tmp_path)
    x, y = pictures(3, 4, 4), np.zeros(3, np.uint8)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(idx(x))
    with pytest.raises(FileNotFoundError, match="expected labels beside"):
        from_idx(tmp_path)
    write_idx(tmp_path, "train", x, y[:2])
    with pytest.raises(ValueError, match=r"expected 3 labels, one an image, got shape \[2\]"):
        from_idx(tmp_path)
    bad = {
        "expected 48 bytes .* got 47: the file is truncated": idx(x)[:-1],
        "expected 48 bytes .* got 49": idx(x) + b"x",
        "header of 16 bytes, got 9": idx(x)[:9],
        "expected an IDX file": b"\x89PNG" + idx(x)[4:],
        "magic 00 00 08": b"\0\0\x0d\x03" + idx(x)[4:],  # floats
        "got 1 axes": idx(y),
        "expected an IDX file of unsigned bytes": b"",
    }
    for text, content in bad.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=text):
            from_idx(tmp_path)
    write_idx(tmp_path, "train", x, y)
    write_idx(tmp_path, "t10k", pictures(2, 5, 5), y[:2])
    with pytest.raises(ValueError, match="of one size"):
        from_idx(tmp_path)


def test_idx_refuses_broken_gzip(tmp_path: Path):
    write_idx(tmp_path, "train", pictures(3, 20, 20), np.zeros(3, np.uint8), zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[:-200], b"no gzip at all", whole[:20] + bytes(40) + whole[60:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a gzip file"):
            from_idx(tmp_path)


# --- CIFAR-10 ---


PythonPickler: Any = vars(pickle)["_Pickler"]  # the one written in Python, which can be told how to write


class Python2Pickler(PythonPickler):
    """Writes bytes as Python 2 wrote its str, and NumPy's functions under their old names: what the originals hold."""

    dispatch = dict(PythonPickler.dispatch)  # noqa: RUF012

    def save_str(self, obj) -> None:
        raw = obj.encode("latin1") if isinstance(obj, str) else obj
        if len(raw) < 256:
            self.write(pickle.SHORT_BINSTRING + bytes([len(raw)]) + raw)
        else:
            self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(obj)

    def save_global(self, obj, name=None) -> None:
        if getattr(obj, "__name__", "") == "_reconstruct":
            self.write(pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch[bytes] = save_str
    dispatch[str] = save_str
    dispatch[type(os.system)] = save_global
    dispatch[type(np.zeros)] = save_global


def write_pickle(path: Path, content: object) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


def cifar(count: int, seed: int = 0) -> tuple[np.ndarray, list[int]]:
    """Pixels as CIFAR's files hold them, [image, 3072] in planes of red, green and blue, and labels."""
    return pictures(count, 3072, seed=seed), [int(i) for i in np.random.default_rng(seed).integers(0, 10, count)]


def write_cifar(folder: Path, name: str, pixels: np.ndarray, labels: list[int], binary: bool) -> None:
    if binary:
        records = np.concatenate([np.array(labels, np.uint8)[:, None], pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    else:
        write_pickle(
            folder / name, {"batch_label": "a batch", "labels": labels, "data": pixels, "filenames": ["a.png"]}
        )


@pytest.mark.parametrize("binary", [True, False])
def test_cifar10(tmp_path: Path, binary: bool):
    folder = tmp_path / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    folder.mkdir()
    parts = {"data_batch_1": cifar(3, 1), "data_batch_3": cifar(2, 2), "test_batch": cifar(2, 3)}
    for name, (pixels, labels) in parts.items():
        write_cifar(folder, name, pixels, labels, binary)
    data = datasets.load(tmp_path)  # finds the folder within
    assert data.images.shape == (7, 32, 32, 3)
    for row, column, channel in ((0, 0, 0), (3, 7, 1), (31, 30, 2)):
        assert data.images[1, row, column, channel] == parts["data_batch_1"][0][1, 1024 * channel + 32 * row + column]
    assert data.labels is not None
    assert data.labels.tolist() == [y for _, labels in parts.values() for y in labels]
    assert data.sources.tolist() == [0, 1, 2, 20_000, 20_001, 50_000, 50_001]
    assert data.split("test").sources.tolist() == [50_000, 50_001]
    np.testing.assert_array_equal(from_cifar10(folder).images, data.images)


def test_cifar10_pickles_of_the_test_are_like_the_originals(tmp_path: Path):
    write_cifar(tmp_path, "test_batch", *cifar(2), binary=False)
    raw = (tmp_path / "test_batch").read_bytes()
    assert raw.startswith(b"\x80\x02")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in raw
    assert b"_codecs" not in raw
    fortran = np.asfortranarray(cifar(2)[0])
    write_cifar(tmp_path, "test_batch", fortran, cifar(2)[1], binary=False)
    np.testing.assert_array_equal(
        from_cifar10(tmp_path).images[0, 3, 7], fortran[0, [96 + 7, 1024 + 96 + 7, 2048 + 96 + 7]]
    )


class Shell:
    def __init__(self, marker: Path):
        self.command = f"touch {marker}"

    def __reduce__(self):
        return os.system, (self.command,)


class Opener(Shell):
    def __reduce__(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return builtins.eval, (f"__import__('os').system({self.command!r})",)


@pytest.mark.parametrize("kind", [Shell, Opener])
def test_cifar10_runs_no_code(tmp_path: Path, kind):
    marker = tmp_path / "ran"
    pixels, labels = cifar(2)
    write_pickle(tmp_path / "data_batch_1", {"labels": labels, "data": pixels, "extra": kind(marker)})
    with pytest.raises(ValueError, match=r"refused: expected a CIFAR-10 batch .* which may run code"):
        from_cifar10(tmp_path)
    assert not marker.exists()
    pickle.loads((tmp_path / "data_batch_1").read_bytes(), encoding="latin1")  # the control: plain pickle does run it
    assert marker.exists()


def test_cifar10_pickle_cannot_reach_numpy(tmp_path: Path):
    for name in ("frombuffer", "load", "ndarray.tofile"):
        module, _, attribute = f"numpy.{name}".rpartition(".")
        (tmp_path / "test_batch").write_bytes(f"\x80\x02c{module}\n{attribute}\n.".encode("latin1"))
        with pytest.raises(ValueError, match="refused"):
            from_cifar10(tmp_path)


def test_cifar10_refuses(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="expected CIFAR-10 batches"):
        from_cifar10(tmp_path)
    pixels, labels = cifar(3)
    path = tmp_path / "data_batch_1"
    for content, text in (
        ({"labels": labels[:2], "data": pixels}, "expected 3 integer labels"),
        ({"labels": labels, "data": pixels[:, :100]}, r"expected pixels \[image, 3072\]"),
        ({"labels": labels, "data": pixels.astype(np.float64)}, "array of unsigned bytes"),
        ({"labels": labels}, "KeyError"),
        ([1, 2], "AttributeError"),
    ):
        write_pickle(path, content)
        with pytest.raises(ValueError, match=text):
            from_cifar10(tmp_path)
    write_cifar(tmp_path, "data_batch_1", pixels, labels, binary=False)
    for content in (path.read_bytes()[:-1000], b"", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="refused: expected a CIFAR-10 batch"):
            from_cifar10(tmp_path)
    path.unlink()
    write_cifar(tmp_path, "data_batch_1", pixels, labels, binary=True)
    binary = tmp_path / "data_batch_1.bin"
    whole = binary.read_bytes()
    for content in (whole[:-1], b""):
        binary.write_bytes(content)
        with pytest.raises(ValueError, match="expected records of 3073 bytes"):
            from_cifar10(tmp_path)
    binary.write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(ValueError, match=r"in \[0, 10\), got .* to 10"):
        from_cifar10(tmp_path)


# --- data sets by name ---


def test_embedded_is_a_stratified_subset():
    data = datasets.embedded()
    train, test = data.split("train"), data.split("test")
    assert train.labels is not None
    assert test.labels is not None
    assert data.images.shape == (4000, 28, 28)
    assert data.images.dtype == np.uint8
    assert np.bincount(train.labels).tolist() == [300] * 10
    assert np.bincount(test.labels).tolist() == [100] * 10
    assert (train.sources < 60_000).all()
    assert (test.sources >= 60_000).all()
    assert len(np.unique(data.sources)) == 4000
    assert len(data.classes) == 10
    assert "MIT" in data.licence
    assert data.images.mean() == pytest.approx(73, abs=3)  # pictures, not zeros


def test_embedded_file_is_small_and_licensed():
    folder = Path(datasets.__file__).parent / "data"
    assert (folder / _named.EMBEDDED).stat().st_size < 2_000_000
    licence = (folder / "LICENSE-fashion-mnist.txt").read_text()
    assert "MIT License" in licence
    assert "Copyright (c) 2017 Zalando SE" in licence


def test_embedded_equals_the_original():
    try:
        full = _named.fashion_mnist()
    except FileNotFoundError:
        pytest.skip("the full Fashion-MNIST is not installed")
    data = datasets.embedded()
    assert full.labels is not None
    assert data.labels is not None
    rows = data.sources  # 60,000 training images come first, so that a source is a row
    np.testing.assert_array_equal(full.sources[rows], data.sources)
    np.testing.assert_array_equal(full.images[rows], data.images)
    np.testing.assert_array_equal(full.labels[rows], data.labels)
    for split, count in (("train", 300), ("test", 100)):
        part = full.split(split)
        seen: dict[int, int] = {}
        chosen = []
        assert part.labels is not None
        for source, label in zip(part.sources.tolist(), part.labels.tolist(), strict=True):
            seen[label] = seen.get(label, 0) + 1
            if seen[label] <= count:
                chosen.append(source)
        assert data.split(split).sources.tolist() == chosen
    assert (len(full.split("train")), len(full.split("test"))) == (60_000, 10_000)


def test_fashion_mnist_looks_in_its_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_places, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("WEIGHTSPACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WEIGHTSPACE_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"debian, got none; install Debian's package"):
        _named.fashion_mnist()
    for i, name in enumerate(["debian", "home/fashion-mnist", "given"]):
        (tmp_path / name).mkdir(parents=True)
        write_idx(tmp_path / name, "train", pictures(i + 1, 28, 28), np.zeros(i + 1, np.uint8))
    assert len(datasets.load("fashion-mnist")) == 1
    monkeypatch.setenv("WEIGHTSPACE_DATA", str(tmp_path / "home"))
    assert len(_named.fashion_mnist()) == 2
    given = _named.fashion_mnist(tmp_path / "given")
    assert (len(given), given.name, given.classes[9]) == (3, "fashion-mnist", "Ankle boot")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"in .*empty, got none"):
        _named.fashion_mnist(tmp_path / "empty")  # never silently another folder than the one given


def test_digits():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    digits = _named.digits()
    np.testing.assert_array_equal(np.rint(digits.images * (16 / 255)), data.images)  # no grey level is lost
    assert digits.images.max() == 255
    assert digits.labels is not None
    assert digits.labels.tolist() == data.target.tolist()
    assert sorted(datasets.load("digits").splits) == ["test", "train"]


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install weightspace\[digits\]"):
        _named.digits()


def test_load_refuses(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("text")
    for bad, got in (("absent", "nothing there"), ("empty", "a folder of none"), ("notes.txt", "another file")):
        with pytest.raises(ValueError, match=f"expected one of embedded, fashion-mnist, digits.*got {got}"):
            datasets.load(tmp_path / bad)
    with pytest.raises(ValueError, match="size: expected it for files of images alone"):
        datasets.load("embedded", size=8)
