"""Fitting a data set into a zoo: splits, resuming after an interruption with the same bits, what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace.fitting import Executor, FitConfig, add_views
from weightspace.zoo import verify, write_zoo

SPEC = ws.siren(2, 6, 1)
CONFIG = FitConfig(steps=6, lr=5e-3, views=2, seed=3)
COUNTS = {"train": 9, "val": 4, "test": 5}


def data(**change) -> ws.signals.ImageSet:
    """20 training and 7 test images in one shuffled array, with sources unlike their positions."""
    rng = np.random.default_rng(0)
    order = rng.permutation(27)
    given = {
        "images": rng.integers(0, 256, (27, 5, 4), dtype=np.uint8),
        "labels": rng.integers(0, 3, 27),
        "sources": 1000 + rng.permutation(27),
        "splits": {"train": order[:20], "test": order[20:]},
        "classes": ("a", "b", "c"),
        "name": "toy",
    }
    return ws.signals.ImageSet(**{**given, **change})


def assert_same_zoo(a: ws.Zoo, b: ws.Zoo) -> None:
    assert a.splits == b.splits
    for split in a.splits:
        assert torch.equal(a.weights(split).flat, b.weights(split).flat)
        for name in ("labels", "sources", "views", "psnr"):
            assert torch.equal(getattr(a, name)(split), getattr(b, name)(split)), name
    assert [shard.sha256 for shard in a.shards] == [shard.sha256 for shard in b.shards]


def test_a_zoo_holds_the_fits_of_the_chosen_images(tmp_path: Path) -> None:
    images = data()
    zoo = ws.fit_zoo(tmp_path / "zoo", images, SPEC, config=CONFIG, counts=COUNTS, shard_size=4)
    assert verify(zoo) == []
    assert (zoo.spec, zoo.seed, zoo.num_views, zoo.init_regime) == (SPEC, 3, 2, "independent")
    assert zoo.recipe == {**CONFIG.recipe(), "init": zoo.spec.init, "start": None}
    assert zoo.provenance["data"] == "toy"
    train, test = images.splits["train"], images.splits["test"]
    expected = {"train": train[:9], "val": train[9:13], "test": test[:5]}
    assert set(zoo.splits) == set(expected)
    for split, index in expected.items():
        assert zoo.sources(split).tolist() == np.repeat(images.sources[index], 2).tolist()
        assert zoo.labels(split).tolist() == np.repeat(images.labels[index], 2).tolist()
        assert zoo.views(split).tolist() == [0, 1] * len(index)
        coords, targets = ws.signals.images(images.images[index])
        direct = ws.fit(coords, targets, SPEC, config=CONFIG, sources=torch.as_tensor(images.sources[index]))
        assert torch.equal(zoo.weights(split).flat, direct.weights.flat)
        assert torch.equal(zoo.psnr(split), direct.psnr)
    sets = [set(zoo.sources(split).tolist()) for split in zoo.splits]
    assert sum(map(len, sets)) == len(set().union(*sets)) == 18


def test_without_counts_everything_is_fitted(tmp_path: Path) -> None:
    zoo = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, config=FitConfig(steps=1))
    assert {split: zoo.count(split) for split in zoo.splits} == {"train": 20, "test": 7}


def test_images_without_splits_or_labels_are_all_training(tmp_path: Path) -> None:
    zoo = ws.fit_zoo(tmp_path / "zoo", data(splits={}, labels=None, classes=()), SPEC, config=FitConfig(steps=1))
    assert zoo.splits == ("train",)
    assert zoo.count("train") == 27
    assert zoo.labels("train").tolist() == [-1] * 27


def test_a_validation_split_of_the_data_is_used(tmp_path: Path) -> None:
    images = data()
    train = images.splits["train"]
    images = data(splits={"train": train[:12], "val": train[12:]})
    zoo = ws.fit_zoo(tmp_path / "zoo", images, SPEC, config=FitConfig(steps=1), counts={"train": 12, "val": 3})
    assert zoo.sources("val").tolist() == images.sources[train[12:15]].tolist()


class Stop(Exception):
    """An interruption."""


@pytest.mark.parametrize("after", [1, 9, 25])
@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
def test_an_interrupted_fit_goes_on_to_the_same_bits(tmp_path: Path, after: int, error: type[BaseException]) -> None:
    def on_progress(done: int, total: int, psnr: torch.Tensor) -> None:
        assert total == 36
        if done >= after:
            raise error

    options = {"config": CONFIG, "counts": COUNTS, "shard_size": 4}
    whole = ws.fit_zoo(tmp_path / "whole", data(), SPEC, **options)
    with pytest.raises(error):
        ws.fit_zoo(tmp_path / "cut", data(), SPEC, on_progress=on_progress, **options)
    with pytest.raises(ValueError, match="complete"):
        ws.Zoo.open(tmp_path / "cut")
    part = ws.Zoo.open(tmp_path / "cut", allow_incomplete=True)
    kept = sum(shard.count for shard in part.shards if shard.done)
    assert kept <= after
    seen: list[int] = []
    cut = ws.fit_zoo(tmp_path / "cut", data(), SPEC, on_progress=lambda done, *_: seen.append(done), **options)
    assert min(seen) > kept  # what was done is not done again
    assert max(seen) == 36
    assert_same_zoo(whole, cut)


def test_a_finished_zoo_is_left_alone(tmp_path: Path) -> None:
    options = {"config": CONFIG, "counts": COUNTS, "shard_size": 4}
    zoo = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, **options)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "zoo").rglob("*")}
    seen: list[int] = []
    again = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, on_progress=lambda done, *_: seen.append(done), **options)
    assert seen == []
    assert_same_zoo(zoo, again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "zoo").rglob("*")} == before


def test_shards_and_workers_do_not_change_the_networks(tmp_path: Path) -> None:
    a = ws.fit_zoo(tmp_path / "a", data(), SPEC, config=CONFIG, counts=COUNTS, shard_size=4, workers=1)
    b = ws.fit_zoo(tmp_path / "b", data(), SPEC, config=CONFIG, counts=COUNTS, shard_size=5, workers=2)
    for split in a.splits:
        assert torch.equal(a.weights(split).flat, b.weights(split).flat)
    c = ws.fit_zoo(tmp_path / "c", data(), SPEC, config=FitConfig(steps=6, lr=5e-3, views=2, seed=4), counts=COUNTS)
    assert not torch.equal(a.weights("train").flat, c.weights("train").flat)


def other_pixel() -> np.ndarray:
    images = data().images.copy()
    images[data().splits["train"][0], 0, 0] ^= 1
    return images


OTHERS = {
    "recipe": ({"config": FitConfig(steps=7, lr=5e-3, views=2, seed=3)}, {}),
    "seed": ({"config": FitConfig(steps=6, lr=5e-3, views=2, seed=4)}, {}),
    "spec": ({"spec": ws.siren(2, 7, 1)}, {}),
    "counts": ({"counts": {"train": 10, "val": 3, "test": 5}}, {}),
    "pixel": ({}, {"images": other_pixel()}),
    "labels": ({}, {"labels": (data().labels + 1) % 3}),
    "sources": ({}, {"sources": np.arange(27)}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_recipe_or_other_data_is_refused_and_nothing_changes(tmp_path: Path, name: str) -> None:
    options = {"spec": SPEC, "config": CONFIG, "counts": COUNTS, "shard_size": 4}
    ws.fit_zoo(tmp_path / "zoo", data(), **options)
    before = {path: path.read_bytes() for path in (tmp_path / "zoo").rglob("*") if path.is_file()}
    change, images = OTHERS[name]
    with pytest.raises(ValueError, match="was begun otherwise"):
        ws.fit_zoo(tmp_path / "zoo", data(**images), **{**options, **change})
    assert {path: path.read_bytes() for path in (tmp_path / "zoo").rglob("*") if path.is_file()} == before


BAD = {
    "too many": ({"counts": {"train": 21}}, ValueError, r"'train' expected 1 to 20 images of toy, got 21"),
    "val too many": ({"counts": {"train": 18, "val": 3}}, ValueError, r"'val' expected 1 to 2 images"),
    "none": ({"counts": {"train": 0}}, ValueError, "'train' expected 1 to 20"),
    "no train": ({"counts": {"test": 2}}, ValueError, "expected a 'train' entry"),
    "unknown": ({"counts": {"train": 2, "dev": 1}}, ValueError, r"expected splits among .*'val'.*got 'dev'"),
    "fraction": ({"counts": {"train": 0.5}}, TypeError, r"counts\['train'\]: expected a whole number, got 0.5"),
    "channels": ({"spec": ws.siren(2, 6, 3)}, ValueError, r"targets: expected \[signal, 20, 3\]"),
    "inputs": ({"spec": ws.siren(3, 6, 1)}, ValueError, r"coords: expected \[point, 3\]"),
    "shards": ({"shard_size": 0}, ValueError, "shard_size: expected at least 1"),
    "workers": ({"workers": 0}, ValueError, "workers: expected at least 1"),
    "repeated sources": (
        {"data": data(splits={}, sources=np.arange(27) // 2), "counts": None},
        ValueError,
        "sources: expected one signal of each, got 13 repeated",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_leaves_no_folder(tmp_path: Path, name: str) -> None:
    change, error, text = BAD[name]
    options = {"data": data(), "spec": SPEC, "config": CONFIG, "counts": COUNTS}
    with pytest.raises(error, match=text):
        ws.fit_zoo(tmp_path / "zoo", **{**options, **change})
    assert not (tmp_path / "zoo").exists()


def test_images_that_are_not_finite_never_get_that_far() -> None:
    with pytest.raises(ValueError, match=r"finite|NaN"):
        data(images=np.full((27, 5, 4), np.nan, np.float32))


def by_network(zoo: ws.Zoo, split: str) -> dict[tuple[int, int], tuple[bytes, float, int]]:
    """Every network's bits, PSNR and label, by source and view."""
    rows = zip(
        zoo.sources(split).tolist(),
        zoo.views(split).tolist(),
        zoo.weights(split).flat,
        zoo.psnr(split).tolist(),
        zoo.labels(split).tolist(),
        strict=True,
    )
    return {(source, view): (flat.numpy().tobytes(), psnr, label) for source, view, flat, psnr, label in rows}


def test_views_added_later_are_those_asked_for_at_once(tmp_path: Path) -> None:
    options = {"counts": COUNTS, "shard_size": 4}
    once = ws.fit_zoo(tmp_path / "once", data(), SPEC, config=replace(CONFIG, views=5), **options)
    ws.fit_zoo(tmp_path / "later", data(), SPEC, config=CONFIG, **options)
    old = {path: path.stat().st_mtime_ns for path in (tmp_path / "later" / "shards").iterdir()}
    seen: list[tuple[int, int]] = []
    add_views(tmp_path / "later", data(), 3, on_progress=lambda done, total, _: seen.append((done, total)))
    assert seen[-1] == (54, 54)
    assert min(done for done, _ in seen) > 36
    later = add_views(tmp_path / "later", data(), 5)
    assert verify(later, data()) == []
    assert (later.num_views, later.recipe) == (once.num_views, once.recipe)
    assert once.splits == later.splits
    for split in once.splits:
        assert by_network(once, split) == by_network(later, split)
    assert all(path.stat().st_mtime_ns == then for path, then in old.items())
    again = {path: path.stat().st_mtime_ns for path in (tmp_path / "later").rglob("*")}
    add_views(tmp_path / "later", data(), 5, on_progress=lambda *_: pytest.fail("there is nothing to do"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "later").rglob("*")} == again


def test_adding_views_goes_on_where_it_stopped(tmp_path: Path) -> None:
    def stop(done: int, total: int, psnr: torch.Tensor) -> None:
        if done >= 45:
            raise Stop

    options = {"config": CONFIG, "counts": COUNTS, "shard_size": 4}
    for name in ("whole", "cut"):
        ws.fit_zoo(tmp_path / name, data(), SPEC, **options)
    whole = add_views(tmp_path / "whole", data(), 3)
    with pytest.raises(Stop):
        add_views(tmp_path / "cut", data(), 3, on_progress=stop)
    with pytest.raises(ValueError, match=r"cut: \d of 12 shards are done"):
        ws.Zoo.open(tmp_path / "cut")
    with pytest.raises(ValueError, match=r"expected a finished zoo, got \d of 12 shards; finish what was begun first"):
        add_views(tmp_path / "cut", data(), 4)
    assert_same_zoo(whole, add_views(tmp_path / "cut", data(), 3))


def test_views_that_cannot_be_added(tmp_path: Path) -> None:
    options = {"config": CONFIG, "counts": COUNTS, "shard_size": 4}
    zoo = ws.fit_zoo(tmp_path / "zoo", data(), SPEC, **options)
    before = {path: path.read_bytes() for path in (tmp_path / "zoo").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"views: expected at least the 2 that .*zoo has, got 1"):
        add_views(zoo.path, data(), 1)
    with pytest.raises(ValueError, match="got toy without source"):
        add_views(zoo.path, data(sources=np.arange(27)), 3)
    with pytest.raises(ValueError, match="expected the data that the zoo was fitted to, got others"):
        add_views(zoo.path, data(images=other_pixel()), 3)
    assert {path: path.read_bytes() for path in (tmp_path / "zoo").rglob("*") if path.is_file()} == before
    own = write_zoo(tmp_path / "own", train=zoo["test"])
    with pytest.raises(ValueError, match=r"expected a zoo that fit_zoo made, got one without a digest"):
        add_views(own.path, data(), 3)


def test_points_are_fitted_like_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    targets = rng.random((6, 30, 1), dtype=np.float32)
    points = ws.signals.PointSet(rng.random((30, 3), dtype=np.float32), targets, name="field")
    zoo = ws.fit_zoo(tmp_path / "zoo", points, ws.siren(3, 6, 1), config=CONFIG, shard_size=4)
    assert (zoo.count("train"), zoo.provenance["data"], verify(zoo, points)) == (12, "field", [])


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    images = data()
    groups = images.sources.copy()
    train = images.splits["train"]
    groups[train[9]] = groups[train[8]]  # the first of "val" and the last of "train"
    with pytest.raises(
        ValueError, match=r"expected every group of signals in one split, got group \d+ in both 'train'"
    ):
        ws.fit_zoo(tmp_path / "zoo", data(groups=groups), SPEC, config=CONFIG, counts=COUNTS)
    assert not (tmp_path / "zoo").exists()


def test_an_executor_of_ones_own(tmp_path: Path) -> None:
    """Tasks in any order, each in a process of its own: what is written is the same."""

    class Backwards(Executor):
        def run(self, tasks, on_progress):  # pyright: ignore
            for task in reversed(list(tasks)):
                shard, psnr = pickle.loads(pickle.dumps(task)).run()
                on_progress(len(psnr), len(psnr), psnr)
                yield task.index, shard

    options = {"config": CONFIG, "counts": COUNTS, "shard_size": 4}
    a = ws.fit_zoo(tmp_path / "a", data(), SPEC, **options)
    b = ws.fit_zoo(tmp_path / "b", data(), SPEC, executor=Backwards(), **options)
    assert_same_zoo(a, b)
    with pytest.raises(ValueError, match="executor: expected 'local', 'ray' or an Executor, got 'slurm'"):
        ws.fit_zoo(tmp_path / "c", data(), SPEC, executor="slurm", **options)
    assert not (tmp_path / "c").exists()
