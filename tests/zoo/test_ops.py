"""New zoos out of old ones, and the statistics of their weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import weightspace as ws
from weightspace.zoo import Zoo, ZooWriter, copy, merge, sample, split, stats, subset, verify, write_zoo

SPEC = ws.siren(2, 4, 1)
SETTINGS: dict[str, Any] = {
    "recipe": {"steps": 20},
    "seed": 5,
    "init_regime": "independent",
    "classes": ["a", "b", "c"],
}


def networks(count: int, seed: int = 0, spec: ws.NetSpec = SPEC) -> ws.Weights:
    return ws.Weights(torch.randn(count, spec.num_params, generator=torch.Generator().manual_seed(seed)), spec)


def make(path: Path, first: int = 0, train: int = 14, test: int = 6, shard_size: int = 5, **settings: Any) -> Zoo:
    """Two views a source, sources from ``first`` on."""
    data = {}
    for name, count in (("train", train), ("test", test)):
        sources = first + torch.arange(count) // 2
        first += count // 2
        psnr = torch.arange(count, dtype=torch.float32)
        data[name] = ws.Networks(networks(count, first), sources % 3, sources, torch.arange(count) % 2, psnr)
    return write_zoo(path, data, shard_size=shard_size, **{**SETTINGS, **settings})


def rows(zoo: Zoo, splits: tuple[str, ...] | None = None) -> dict[tuple[int, int], tuple[Any, ...]]:
    """Every network by source and view, with all that is known about it but its split."""
    found: dict[tuple[int, int], tuple[Any, ...]] = {}
    for name in splits or zoo.splits:
        columns = (zoo.labels(name), zoo.psnr(name), zoo.weights(name).flat)
        for place, key in enumerate(zip(zoo.sources(name).tolist(), zoo.views(name).tolist(), strict=True)):
            assert key not in found, "doubled"
            label, psnr, flat = (column[place] for column in columns)
            found[key] = (label.item(), psnr.item(), flat.numpy().tobytes())
    return found


@pytest.mark.parametrize("shard_size", [3, 100])
def test_merge_holds_all_networks_of_all(tmp_path: Path, shard_size: int) -> None:
    zoos = [make(tmp_path / "a"), make(tmp_path / "b", first=50), make(tmp_path / "c", first=90, test=2)]
    zoo = merge(zoos, tmp_path / "all", shard_size=shard_size)
    assert verify(zoo) == []
    for name in zoo.splits:
        assert rows(zoo, (name,)) == {key: row for own in zoos for key, row in rows(own, (name,)).items()}
    assert {shard.count for shard in zoo.shards} <= set(range(1, shard_size + 1))
    assert (zoo.recipe, zoo.seed, zoo.init_regime, zoo.num_views) == ({"steps": 20}, 5, "independent", 2)
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_merge_says_what_differs(tmp_path: Path) -> None:
    a = make(tmp_path / "a", provenance={"data": "x"})
    b = make(tmp_path / "b", first=50, recipe={"steps": 9}, seed=6, init_regime="shared", provenance={"data": "y"})
    zoo = merge([a, b], tmp_path / "both")
    assert zoo.recipe == {"merged": [{"steps": 20}, {"steps": 9}]}
    assert (zoo.seed, zoo.init_regime, zoo.data_digest) == (None, "unknown", None)
    assert [own["data"] for own in zoo.provenance["merged"]] == ["x", "y"]


def test_merge_refuses(tmp_path: Path) -> None:
    a = make(tmp_path / "a")
    other = ws.siren(2, 5, 1)
    bad = {
        "expected one spec, got siren.2-4-1.*and siren.2-5-1": write_zoo(
            tmp_path / "spec", {"train": ws.Networks(networks(2, spec=other))}
        ),
        "expected the same classes": make(tmp_path / "classes", first=50, classes=["x", "y", "z"]),
        "expected every view of a source once, got source 0, view 0 twice in 'train'": make(tmp_path / "again"),
        "expected no source in two splits, got source 3": write_zoo(
            tmp_path / "straddles", {"test": ws.Networks(networks(1), [0], [3])}, **SETTINGS
        ),
    }
    for match, zoo in bad.items():
        with pytest.raises(ValueError, match=match):
            merge([a, zoo], tmp_path / "out")
    with pytest.raises(ValueError, match="zoos: expected at least one, got none"):
        merge([], tmp_path / "out")
    with pytest.raises(ValueError, match="expected a new or empty folder, got a zoo"):
        merge([a], tmp_path / "spec")
    assert not (tmp_path / "out").exists()
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_subset_by_mask_and_by_index(tmp_path: Path) -> None:
    zoo = make(tmp_path / "zoo")
    mask = zoo.labels("train") == 1
    part = subset(zoo, tmp_path / "part", {"train": mask, "test": [5, 0]}, shard_size=2)
    assert verify(part) == []
    assert torch.equal(part.weights("train").flat, zoo.weights("train").flat[mask])
    assert torch.equal(part.weights("test").flat, zoo.weights("test").flat[[5, 0]])
    assert torch.equal(part.psnr("test"), zoo.psnr("test")[[5, 0]])
    assert (part.recipe, part.classes, part.num_views) == (zoo.recipe, zoo.classes, zoo.num_views)
    assert subset(zoo, tmp_path / "one", {"test": [1]}).splits == ("test",)


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        ({}, "rows: expected at least one split, got none"),
        ({"val": [0]}, r"split: expected one of \['train', 'test'\], got 'val'"),
        ({"train": []}, r"rows\['train'\]: expected different indices, at least one, got 0"),
        ({"train": [0.5]}, "expected indices or a mask"),
        ({"train": [True, False]}, r"expected indices or a mask \[14\], got \[2\]"),
        ({"train": torch.zeros(14, dtype=torch.bool)}, "at least one"),
        ({"train": [14]}, r"expected indices in \[0, 14\), got others"),
        ({"train": [-1]}, "expected indices in"),
        ({"train": [3, 3]}, "expected different indices"),
    ],
)
def test_subset_refuses(tmp_path: Path, chosen: dict[str, Any], match: str) -> None:
    zoo = make(tmp_path / "zoo")
    with pytest.raises((ValueError, IndexError), match=match):
        subset(zoo, tmp_path / "out", chosen)
    assert not (tmp_path / "out").exists()


def test_sample_keeps_all_views_of_what_it_draws(tmp_path: Path) -> None:
    zoo = make(tmp_path / "zoo")

    def draw(name: str, seed: int) -> Zoo:
        counts = {"train": 3, "test": 1}
        return sample(zoo, tmp_path / name, counts, generator=torch.Generator().manual_seed(seed))

    part = draw("part", 0)
    assert {name: part.count(name) for name in part.splits} == {"train": 6, "test": 2}
    assert rows(part).items() <= rows(zoo).items()
    assert rows(part) == rows(draw("same", 0)) != rows(draw("other", 1))
    with pytest.raises(ValueError, match="counts: expected at most the 3 sources of 'test', got 4"):
        sample(zoo, tmp_path / "out", {"test": 4}, generator=torch.Generator())
    with pytest.raises(TypeError, match=r"generator: expected a torch\.Generator"):
        sample(zoo, tmp_path / "out", {"test": 1}, generator=None)  # pyright: ignore[reportArgumentType]


def test_split_deals_every_source_once(tmp_path: Path) -> None:
    zoo = make(tmp_path / "zoo", train=1000, test=200, shard_size=300)
    fractions = {"train": 0.7, "val": 0.1, "test": 0.2}
    new = split(zoo, tmp_path / "new", fractions, shard_size=77)
    assert verify(new) == []
    assert rows(new) == rows(zoo)  # nothing lost, nothing doubled
    for name, fraction in fractions.items():
        spread = math.sqrt(600 * fraction * (1 - fraction))
        assert abs(len(new.sources(name).unique()) - 600 * fraction) < 4 * spread, name
    other = split(zoo, tmp_path / "other", fractions, seed=1)
    assert set(other.sources("val").tolist()) != set(new.sources("val").tolist())
    # a source's side is its own affair: in a part of the zoo it stays where it was
    part = split(subset(zoo, tmp_path / "part", {"train": range(500)}), tmp_path / "dealt", fractions)
    for name in fractions:
        assert set(part.sources(name).tolist()) <= set(new.sources(name).tolist())


@pytest.mark.parametrize(
    ("fractions", "match"),
    [
        ({}, r"fractions: expected some that sum to 1, got \{\}"),
        ({"train": 0.5, "test": 0.4}, "fractions: expected some that sum to 1"),
        ({"train": 1.5, "test": -0.5}, r"fractions\['train'\]: expected a fraction in \[0, 1\], got 1.5"),
        ({"train": 1.0, "test": 0.0}, "expected sources for every split, got none for 'test'"),
    ],
)
def test_split_refuses(tmp_path: Path, fractions: dict[str, float], match: str) -> None:
    zoo = make(tmp_path / "zoo")
    with pytest.raises(ValueError, match=match):
        split(zoo, tmp_path / "out", fractions)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shard_size", [1, 5, 100])
def test_stats_against_all_in_memory(tmp_path: Path, shard_size: int) -> None:
    zoo = make(tmp_path / "zoo", shard_size=shard_size)
    found = stats(zoo)
    assert set(found) == {"train", "test"}
    for name, own in found.items():
        weights = zoo.weights(name)
        assert own["count"] == len(weights)
        slow = {param: weights.view(param).double() for param in zoo.spec.slices}
        slow["norm"] = weights.flat.double().norm(dim=1)
        for param, values in slow.items():
            got = own["norm"] if param == "norm" else own["params"][param]
            want = [values.mean(), values.std(correction=0), values.min(), values.max()]
            assert [got[key] for key in ("mean", "std", "min", "max")] == pytest.approx([v.item() for v in want])


def test_stats_of_large_numbers_with_a_small_spread(tmp_path: Path) -> None:
    """The difference of two large squares would lose the spread."""
    flat = 1e4 + 1e-2 * networks(4000).flat
    zoo = write_zoo(tmp_path / "zoo", {"train": ws.Networks(ws.Weights(flat, SPEC))}, shard_size=500)
    found, values = stats(zoo)["train"]["params"]["0.weight"], flat[:, :8].double()
    assert found["std"] == pytest.approx(values.std(correction=0).item(), rel=1e-6)


def test_verify_evaluates_a_sample(tmp_path: Path) -> None:
    """PSNR as recorded: a zoo is compared with its data, and a wrong record, wrong network or wrong data is found."""
    rng = np.random.default_rng(0)
    data = ws.signals.ImageSet(rng.integers(0, 256, (12, 6, 6), dtype=np.uint8), name="toy")
    zoo = ws.fit_zoo(tmp_path / "zoo", data, ws.siren(2, 6, 1), config=ws.FitConfig(steps=5, views=2), shard_size=5)
    assert verify(zoo, data) == verify(zoo, data, sample=3) == []
    good = zoo["train"]
    wrong = {
        "psnr": good.replace(psnr=good.psnr + 0.5),
        "weights": good.replace(weights=ws.Weights(good.weights.flat.roll(2, 0), zoo.spec)),
    }
    for name, changed in wrong.items():
        bad = write_zoo(tmp_path / name, train=changed)
        assert verify(bad) == []  # nothing wrong in itself
        (problem,) = verify(bad, data)
        assert "dB; these are other networks, or other data" in problem
    (problem,) = verify(zoo, data.subset(range(4)))
    assert "expected sources of toy, got 4; verify with the zoo's data" in problem
    unknown = write_zoo(tmp_path / "unknown", train=good.replace(psnr=None))
    assert verify(unknown, data) == []
    with pytest.raises(ValueError, match="sample: expected at least 1, got 0"):
        verify(zoo, data, sample=0)


def test_copies_to_an_object_store_and_back(tmp_path: Path) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    store = MemoryFileSystem()
    zoo = make(tmp_path / "zoo")
    url = f"memory://{tmp_path.name}/zoo"
    copy(zoo.path, url)
    copy(url, tmp_path / "back")
    names = [path.relative_to(zoo.path) for path in zoo.path.rglob("*") if path.is_file()]
    assert all((tmp_path / "back" / name).read_bytes() == (zoo.path / name).read_bytes() for name in names)
    assert rows(Zoo.open(tmp_path / "back", verify=True)) == rows(zoo)
    with pytest.raises(ValueError, match="expected a place without a zoo, got one"):
        copy(zoo.path, url)
    with pytest.raises(ValueError, match="expected a new or empty folder, got a zoo"):
        copy(url, zoo.path)
    with pytest.raises(ValueError, match="expected a folder as source or as target"):
        copy(url, "memory://elsewhere")
    with pytest.raises(ValueError, match=r"expected a zoo, a place with a manifest\.json, got none"):
        copy("memory://nowhere", tmp_path / "new")
    file = f"/{tmp_path.name}/zoo/{zoo.shards[0].file}"
    whole = store.cat_file(file)
    store.pipe_file(file, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"is altered: expected sha256.*copy again"):
        copy(url, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_finished_zoos_are_copied(tmp_path: Path) -> None:
    with ZooWriter.create(tmp_path / "zoo", SPEC, plan=[("train", 2, 0)]):
        pass
    for source, target in ((tmp_path / "zoo", "memory://unfinished"), (tmp_path / "zoo", tmp_path / "new")):
        with pytest.raises(ValueError, match=r"0 of 1 shards are done|1 shards that are not done"):
            copy(source, target)
    assert not (tmp_path / "new").exists()
