"""Zoos in torch's DataLoader: every network once over workers and ranks, transforms, and pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from _helpers import labelled
from torch.utils.data import DataLoader

import weightspace as ws
from weightspace._random import new_generator
from weightspace.transforms import Compose, Flip, GaussianNoise, MixUp, Permute, RandomApply

SPEC = ws.siren(2, 4, 1)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> ws.Zoo:
    data = labelled(SPEC, 23).replace(source=torch.arange(23), columns={"file": [str(k) for k in range(23)]})
    return ws.zoo.write_zoo(tmp_path_factory.mktemp("dataset") / "zoo", train=data, shard_size=10)


def seen(batches: Any) -> list[int]:
    found = [batch.source.tolist() for batch in batches]
    return [source for part in found for source in part]


def first_draw(networks: ws.Networks) -> list[float]:
    """Return the first number that a transform would draw."""
    return torch.rand(1, generator=new_generator(networks.weights.device)).tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_every_network_once(zoo: ws.Zoo, workers: int) -> None:
    data = zoo.dataset("train")
    batches = list(DataLoader(data, batch_size=5, shuffle=True, num_workers=workers))
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(seen(batches)) == list(range(23))
    assert seen(batches) != list(range(23))
    whole = zoo["train"]
    for batch in batches:
        assert isinstance(batch, ws.Networks)
        assert torch.equal(batch.weights.flat, whole[batch.source].weights.flat)
        assert batch.columns["file"].tolist() == [str(source) for source in batch.source.tolist()]


def test_samples_are_batches_of_one(zoo: ws.Zoo) -> None:
    data = zoo.dataset("train")
    assert len(data) == 23
    assert seen([data[3], data[-1]]) == [3, 22]
    joined = torch.utils.data.default_collate([data[1], data[0]])
    assert joined.source.tolist() == [1, 0]
    weights = torch.utils.data.default_collate([data[1].weights, data[0].weights])
    assert torch.equal(weights.flat, joined.weights.flat)
    with pytest.raises(IndexError, match="index: expected one below 23, got 23"):
        data[23]
    with pytest.raises(ValueError, match=r"split: expected one of \['train'\], got 'test'"):
        zoo.dataset("test")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_stream_shards_itself_over_workers(zoo: ws.Zoo, workers: int, shuffle: bool) -> None:
    stream = zoo.stream("train", 5, shuffle=shuffle)
    alone = seen(stream)
    batches = list(DataLoader(stream, batch_size=None, num_workers=workers))
    assert seen(batches) == alone
    assert sorted(alone) == list(range(23))
    assert (alone == list(range(23))) is not shuffle
    assert len(stream) == len(batches) == 5
    stream.set_epoch(1)
    assert (seen(stream) == alone) is not shuffle


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_stream_shards_itself_over_ranks(zoo: ws.Zoo, monkeypatch: pytest.MonkeyPatch, shuffle: bool) -> None:
    parts = []
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        stream = zoo.stream("train", 4, shuffle=shuffle)
        parts.append(seen(stream))
        assert len(stream) == len(list(stream))
    assert sorted(map(len, parts)) == ([7, 7, 7] if shuffle else [7, 8, 8])
    every = [source for part in parts for source in part]
    assert len(set(every)) == len(every)
    assert shuffle or sorted(every) == list(range(23))


def test_transforms_are_called_on_batches(zoo: ws.Zoo) -> None:
    def flat(workers: int) -> torch.Tensor:
        torch.manual_seed(0)
        data = zoo.dataset("train", transform=GaussianNoise(0.1))
        return torch.cat([batch.weights.flat for batch in DataLoader(data, batch_size=12, num_workers=workers)])

    with torch.random.fork_rng(devices=[]):
        noisy = flat(0)
        assert torch.equal(noisy, flat(0))
        drawn = list(DataLoader(zoo.dataset("train", transform=first_draw), batch_size=12, num_workers=2))
    assert not torch.equal(noisy, zoo["train"].weights.flat)
    assert drawn[0] != drawn[1], "two workers draw independently"
    with pytest.raises(ValueError, match="expected a transform that leaves labels alone"):
        next(iter(zoo.stream("train", 4, transform=MixUp())))
    with pytest.raises(
        TypeError, match=r"transform: expected a function of Networks, .*got 'noise'; make one of a name"
    ):
        zoo.dataset("train", transform="noise")  # pyright: ignore[reportArgumentType]


def test_without_a_generator_torch_s_seed_decides(zoo: ws.Zoo) -> None:
    w, transform = zoo["train"].weights, Compose([Permute(), GaussianNoise()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first, second = transform(w).flat, transform(w).flat
        torch.manual_seed(3)
        again = transform(w).flat
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_a_list_is_applied_or_not_as_one(zoo: ws.Zoo) -> None:
    w, generator = zoo["train"].weights, torch.Generator().manual_seed(0)
    both = RandomApply([Flip(1.0), GaussianNoise(0.1)], p=0.5)
    assert both == RandomApply(Compose([Flip(1.0), GaussianNoise(0.1)]), p=0.5)
    moved = (both(w, generator=generator).flat != w.flat).any(1)
    assert 0 < int(moved.sum()) < 23
    with pytest.raises(TypeError, match="expected transforms, got str: 'noise'"):
        RandomApply(["noise"])  # pyright: ignore[reportArgumentType]


def test_a_zoo_travels_as_its_path(zoo: ws.Zoo, tmp_path: Path) -> None:
    packed = pickle.dumps(zoo.dataset("train", transform=Permute()))
    assert len(packed) < 2000
    again = pickle.loads(packed)
    assert torch.equal(again[7].source, zoo["train"][7].source)
    plan = [("train", 2, None), ("train", 3, None)]
    with ws.zoo.ZooWriter.create(tmp_path / "half", SPEC, plan=plan) as writer:
        writer.write(0, zoo["train"][:2].replace(columns={}, view=None))
    half = ws.Zoo.open(tmp_path / "half", allow_incomplete=True)
    assert pickle.loads(pickle.dumps(half)).count("train") == 2
