"""Point sets, series, groups, and signal sets in files: shapes, splits that leak nothing, round trips, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import weightspace as ws
from weightspace import datasets, signals
from weightspace.signals._groups import at_most, group_numbers, shuffled, split_groups, stable_number
from weightspace.signals._store import FORMAT

RNG = np.random.default_rng(0)


def points(count: int = 6, size: int = 5, **options: Any) -> signals.PointSet:
    rng = np.random.default_rng(1)
    return signals.PointSet(rng.random((count, size, 3)), rng.random((count, size, 1)), **options)


# --- point sets ---


def test_shared_and_own_coordinates() -> None:
    shared = signals.PointSet(RNG.random((5, 2)), RNG.random((6, 5, 3)))
    assert (shared.in_features, shared.out_features, len(shared)) == (2, 3, 6)
    coords, targets = shared.signals([4, 0])
    assert coords.shape == (5, 2)
    np.testing.assert_array_equal(targets.numpy(), shared.targets[[4, 0]])
    own = points()
    assert (own.in_features, own.out_features, len(own)) == (3, 1, 6)
    coords, targets = own.signals(np.array([False, True, False, False, True, False]))
    np.testing.assert_array_equal(coords.numpy(), own.coords[[1, 4]])
    np.testing.assert_array_equal(targets.numpy(), own.targets[[1, 4]])
    assert own.signals()[0].shape == (6, 5, 3)


def test_half_precision_is_held_and_given_out_in_single() -> None:
    data = signals.PointSet(RNG.random((4, 5, 3)).astype(np.float16), torch.rand(4, 5, 1, dtype=torch.float64))
    assert (data.coords.dtype, data.targets.dtype) == (np.float16, np.float32)
    assert {t.dtype for t in data.signals()} == {torch.float32}


def test_signals_share_no_memory() -> None:
    for data in (points(), signals.PointSet(RNG.random((5, 2)).astype("f4"), RNG.random((6, 5, 3)).astype("f4"))):
        before = data.coords.copy(), data.targets.copy()
        for tensor in data.signals():
            tensor.zero_()
        np.testing.assert_array_equal(data.coords, before[0])
        np.testing.assert_array_equal(data.targets, before[1])


def test_subsets_carry_everything_along() -> None:
    data = points(
        labels=[0, 1, 0, 1, 0, 1],
        sources=[10, 11, 12, 13, 14, 15],
        groups=[1, 1, 2, 2, 3, 3],
        splits={"train": [0, 1, 2, 3], "test": [4, 5]},
        classes=("a", "b"),
    )
    part = data.subset([5, 0, 1])
    np.testing.assert_array_equal(part.coords, data.coords[[5, 0, 1]])
    np.testing.assert_array_equal(part.targets, data.targets[[5, 0, 1]])
    assert (part.labels.tolist(), part.sources.tolist(), part.groups.tolist()) == ([1, 0, 1], [15, 10, 11], [3, 1, 1])
    assert {name: index.tolist() for name, index in part.splits.items()} == {"train": [1, 2], "test": [0]}
    assert repr(data.split("test")) == "PointSet('signals', 2 signals of 5 points, 3 -> 1, test 2)"
    plain = points().subset([0, 3])
    assert plain.groups is plain.sources


def test_a_group_lies_on_one_side() -> None:
    with pytest.raises(ValueError, match=r"splits 'train' and 'test' share 1 groups \(the first is 7\)"):
        points(groups=[1, 7, 7, 2, 2, 2], splits={"train": [0, 1], "test": [2, 3]})
    with pytest.raises(ValueError, match="share 1 sources"):
        points(sources=[1, 7, 7, 2, 3, 4], splits={"train": [0, 1], "test": [2, 3]})
    images = np.zeros((3, 2, 2), np.uint8)
    with pytest.raises(ValueError, match="two drawings of one thing must not straddle"):
        signals.ImageSet(images, groups=[5, 5, 6], splits={"train": [0], "test": [1, 2]})
    data = points(400, 2, groups=np.arange(400) // 4).with_split(0.3)
    assert not set(data.split("train").groups) & set(data.split("test").groups)
    assert len(data.split("test")) % 4 == 0


@pytest.mark.parametrize(
    ("coords", "targets", "error", "text"),
    [
        (np.zeros((5, 2)), np.zeros((6, 5)), ValueError, r"expected \[signal, point, out\], got \[6, 5\]"),
        (np.zeros((4, 2)), np.zeros((6, 5, 1)), ValueError, r"expected \[5, in\] .* or \[6, 5, in\], got \[4, 2\]"),
        (np.zeros((5, 5, 2)), np.zeros((6, 5, 1)), ValueError, r"got \[5, 5, 2\]"),
        (np.zeros((1, 6, 5, 2)), np.zeros((6, 5, 1)), ValueError, r"got \[1, 6, 5, 2\]"),
        (np.zeros((5, 2), int), np.zeros((6, 5, 1)), TypeError, "coords: expected floating point, got int64"),
        (np.zeros((5, 2)), np.full((1, 5, 1), np.inf), ValueError, "targets: expected finite numbers"),
        (np.zeros((0, 2)), np.zeros((6, 0, 1)), ValueError, "at least one number"),
    ],
)
def test_point_sets_refuse(coords: Any, targets: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        signals.PointSet(coords, targets)


# --- series ---


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_series_keep_every_value_at_its_time(channels: tuple[int, ...]) -> None:
    array = RNG.random((4, 9, *channels))
    coords, targets = signals.series(array)
    np.testing.assert_allclose(coords[:, 0].numpy(), [2 * t / 8 - 1 for t in range(9)], atol=1e-7)
    assert targets.shape == (4, 9, *(channels or (1,)))
    np.testing.assert_array_equal(targets.reshape(array.shape).numpy(), array.astype(np.float32))
    assert coords.dtype == targets.dtype == torch.float32
    assert signals.series(torch.ones(2, 1))[0].tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (
            np.zeros(5),
            ValueError,
            r"expected \[signal, time\] or \[signal, time, channel\], got \[5\]; use array\[None\]",
        ),
        (np.zeros((2, 5), np.int16), TypeError, "series: expected floating point, got int16; divide by the largest"),
        ([[0.0, 1.0], [0.0]], ValueError, "series: expected a rectangular array"),
        (np.full((1, 5), np.nan), ValueError, "NaN or infinity in row 0"),
    ],
)
def test_series_refuse(bad: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        signals.series(bad)


# --- colour and points through the fit ---


def test_colour_images_are_fitted(tmp_path: Path) -> None:
    """The two halves of a record's red plane differ; so does what the fitted network paints there."""
    red = np.zeros((32, 32), np.uint8)
    red[:, 16:] = 255
    record = bytes([6]) + red.tobytes() + bytes([255]) * 1024 + bytes(1024)
    (tmp_path / "data_batch_1.bin").write_bytes(record * 2)
    data = datasets.load(tmp_path)
    assert (data.in_features, data.out_features) == (2, 3)
    coords, targets = signals.images(data)
    assert targets.shape == (2, 1024, 3)
    assert targets[0, 0].tolist() == [0, 1, 0]
    assert targets[0, -1].tolist() == [1, 1, 0]
    fitted = ws.fit(coords, targets, ws.siren(2, 16, 16, 3), steps=60, lr=5e-3)
    painted = ws.evaluate(fitted.weights, coords)
    assert fitted.psnr.min() > 15
    assert (painted[:, -1, 0] > 0.7).all()
    assert (painted[:, 0, 0] < 0.3).all()


def test_a_zoo_of_series_and_of_colour_images(tmp_path: Path) -> None:
    wave = torch.sin(torch.linspace(0, 6, 40)) * torch.rand(12, 1) / 2 + 0.5
    coords, targets = signals.series(wave)
    data = signals.PointSet(coords, targets, labels=np.arange(12) % 2, groups=np.arange(12) // 2).with_split(0.5)
    config = ws.FitConfig(steps=30, lr=5e-3)
    zoo = ws.fit_zoo(tmp_path / "series", data, ws.siren(1, 8, 1), config=config)
    assert zoo.count("train") + zoo.count("test") == 12
    assert zoo.psnr("train").min() > 5
    colour = signals.ImageSet(RNG.random((6, 4, 4, 3)).astype(np.float32)).with_split(0.5, seed=1)
    zoo = ws.fit_zoo(tmp_path / "colour", colour, ws.siren(2, 4, 3), config=config)
    assert zoo.spec.out_features == 3


# --- digests ---


def test_the_digest_sees_every_part_of_the_data() -> None:
    data = points(labels=[0, 1, 0, 1, 0, 1])
    rows = {"train": np.array([0, 1, 2])}
    same = data.digest(rows)
    assert points(labels=[0, 1, 0, 1, 0, 1]).digest(rows) == same
    shared = signals.PointSet(data.coords[0], data.targets)
    other = signals.PointSet(data.coords[1], data.targets)
    assert shared.digest(rows) != other.digest(rows)
    different = [
        points(labels=[0, 1, 1, 1, 0, 1]).digest(rows),
        points(labels=[0, 1, 0, 1, 0, 1], sources=range(1, 7)).digest(rows),
        signals.PointSet(data.coords + 1, data.targets, labels=data.labels).digest(rows),
        signals.PointSet(data.coords, data.targets + 1, labels=data.labels).digest(rows),
        data.digest({"test": rows["train"]}),
        data.digest({"train": np.array([0, 1, 3])}),
    ]
    assert len({same, *different}) == 7


# --- groups ---


def slow_groups(*keys: list[int]) -> list[set[int]]:
    """Merge rows that agree in any key until nothing changes."""
    parts = [{i} for i in range(len(keys[0]))]
    changed = True
    while changed:
        changed = False
        for a in range(len(parts)):
            for b in range(a + 1, len(parts)):
                if any(key[i] == key[j] for key in keys for i in parts[a] for j in parts[b]):
                    parts[a] |= parts.pop(b)
                    changed = True
                    break
            if changed:
                break
    return parts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=12))
def test_groups_are_the_closure_of_equal_keys(rows: list[tuple[int, int, int]]) -> None:
    keys = [list(key) for key in zip(*rows, strict=True)]
    numbers = group_numbers(*keys)
    slow = slow_groups(*keys)
    assert sorted(map(sorted, slow)) == sorted(
        sorted(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())
    )
    for part in slow:  # named after the smallest of the first key, whatever stands beside
        assert numbers[min(part)] == stable_number(min(str(keys[0][i]) for i in part))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=80),
    st.integers(0, 3),
    st.floats(0, 0.4),
    st.floats(0, 0.4),
)
def test_no_group_straddles_and_every_class_is_everywhere(
    rows: list[tuple[int, int]], seed: int, val: float, test: float
) -> None:
    groups, labels = (np.array(column) for column in zip(*rows, strict=True))
    splits = split_groups(groups, labels, val=val, test=test, seed=seed)
    found = np.concatenate(list(splits.values()))
    np.testing.assert_array_equal(np.sort(found), np.arange(len(groups)))
    sides = [set(groups[index].tolist()) for index in splits.values()]
    assert sum(map(len, sides)) == len(set(groups.tolist()))
    home = {g: np.bincount(labels[groups == g]).argmax() for g in set(groups.tolist())}
    for label in set(home.values()):
        own = {g for g, at in home.items() if at == label}
        present = [name for name, side in zip(splits, sides, strict=True) if own & side]
        assert present == ["train", "val", "test"][:: 2 if len(own) == 2 else 1][: len(own)]


def test_the_split_does_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(2)
    groups, labels = rng.integers(0, 40, 300), rng.integers(0, 3, 300)
    order = rng.permutation(300)
    first, second = split_groups(groups, labels), split_groups(groups[order], labels[order])
    for name in first:
        assert set(groups[first[name]]) == set(groups[order][second[name]])
    assert set(groups[split_groups(groups, labels, seed=1)["test"]]) != set(groups[first["test"]])


def test_the_first_rows_of_a_split_are_a_fair_sample() -> None:
    """Rows come sorted by class; the first hundred of a shuffled split know all of them, in any surroundings."""
    labels, sources = np.arange(1000) // 250, np.arange(1000) * 7
    splits = {"train": np.arange(0, 900), "test": np.arange(900, 1000)}
    dealt = shuffled(splits, sources)
    assert np.bincount(labels[dealt["train"][:100]], minlength=4).min() > 10
    for name in splits:
        np.testing.assert_array_equal(np.sort(dealt[name]), splits[name])
    few = shuffled({"train": splits["train"][::2]}, sources)["train"]
    np.testing.assert_array_equal(few, [i for i in dealt["train"] if i % 2 == 0])


def test_at_most_so_many_of_a_family() -> None:
    names = [f"{family}{i}" for family in "abc" for i in range(10)]
    kept = at_most(names, [name[0] for name in names], 4)
    assert sorted(name[0] for name in kept) == sorted("aaaabbbbcccc")
    assert kept == at_most(names[::-1], [name[0] for name in names[::-1]], 4)
    assert at_most(names, [name[0] for name in names], 99) == set(names)


# --- files ---


@pytest.mark.parametrize("kind", ["own", "shared", "images"])
def test_a_saved_set_comes_back(kind: str, tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "labels": [0, 1, 0, 1, 0, 1],
        "sources": [9, 8, 7, 6, 5, 4],
        "groups": [1, 1, 2, 2, 3, 3],
        "splits": {"train": [0, 1, 2, 3], "test": [4, 5]},
        "classes": ("ä", "b"),
        "name": "things",
        "licence": "CC0",
        "citation": "Nobody, 2020",
    }
    data: signals.SignalSet
    if kind == "images":
        data = signals.ImageSet(RNG.integers(0, 255, (6, 3, 3, 3)).astype(np.uint8), **facts)
    else:
        coords = RNG.random((5, 2)) if kind == "shared" else RNG.random((6, 5, 2)).astype(np.float16)
        data = signals.PointSet(coords, RNG.random((6, 5, 1)), **facts)
    signals.save(tmp_path / "deep" / "things.npz", data)
    back = datasets.load(tmp_path / "deep" / "things.npz")
    assert type(back) is type(data)
    assert repr(back) == repr(data)
    assert (back.classes, back.name, back.licence, back.citation) == (data.classes, "things", "CC0", "Nobody, 2020")
    for a, b in zip(data.signals(), back.signals(), strict=True):
        assert torch.equal(a, b)
    rows = {name: np.asarray(index) for name, index in data.splits.items()}
    assert back.digest(rows) == data.digest(rows)
    np.testing.assert_array_equal(back.groups, data.groups)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["things.npz"]


def test_saving_refuses(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a name that ends in \.npz, got \.pt"):
        signals.save(tmp_path / "a.pt", points())
    with pytest.raises(TypeError, match="expected an ImageSet or a PointSet, got ndarray"):
        signals.save(tmp_path / "a.npz", np.zeros(3))  # pyright: ignore[reportArgumentType]


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    signals.save(path, points())
    whole = path.read_bytes()
    half = len(whole) // 3
    path.write_bytes(whole[:half] + bytes(byte ^ 0xFF for byte in whole[half : half + 40]) + whole[half + 40 :])
    with pytest.raises(ValueError, match=r"expected (a file of signals\.save|an \.npz file of plain arrays .*), got"):
        datasets.load(path)
    np.savez(path, about=np.array('{"format": "weightspace-signals-9", "kind": "points"}'))
    with pytest.raises(ValueError, match=f"expected the format {FORMAT}, got 'weightspace-signals-9'"):
        datasets.load(path)


def test_plain_arrays_are_loaded_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "plain.npz"
    np.savez(path, coords=RNG.random((7, 2)), targets=RNG.random((20, 7, 3)), labels=np.arange(20) % 4)
    data = datasets.load(path)
    assert (len(data), data.in_features, data.out_features, data.classes) == (20, 2, 3, ("0", "1", "2", "3"))
    assert sorted(data.splits) == ["test", "train"]
    np.savez(path, series=RNG.random((20, 7)), groups=np.arange(20) // 10)
    data = datasets.load(path)
    assert (data.in_features, data.out_features) == (1, 1)
    assert len(set(data.groups.tolist())) == 2
    np.savez(path, coords=RNG.random((7, 2)), targets=RNG.random((20, 6, 3)))
    with pytest.raises(ValueError, match=r"plain\.npz: coords: expected \[6, in\]"):
        datasets.load(path)
    np.savez(path, series=np.array([None, 1], dtype=object))
    with pytest.raises(ValueError, match="plain arrays"):
        datasets.load(path)
