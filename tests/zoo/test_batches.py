"""Epochs of a zoo: every network once, the same in memory and from the files; and rows of shards in any order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import weightspace as ws
from weightspace.zoo import Zoo, write_zoo
from weightspace.zoo._columns import ShardRows, row_numbers

SPEC = ws.siren(2, 4, 1)
COUNT = 37


def networks(count: int = COUNT) -> ws.Networks:
    """Two views a source; the PSNR of one network is unknown."""
    number = torch.arange(count)
    psnr = number.float()
    psnr[3] = float("nan")
    flat = torch.randn(count, SPEC.num_params, generator=torch.Generator().manual_seed(0))
    return ws.Networks(ws.Weights(flat, SPEC), number % 3, number // 2, number % 2, psnr)


def make(path: Path, shard_size: int = 5) -> Zoo:
    return write_zoo(path, train=networks(), shard_size=shard_size)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_same(found: ws.Networks, expected: ws.Networks) -> None:
    assert found.spec == expected.spec
    assert torch.equal(found.weights.flat, expected.weights.flat)
    for name in ("label", "source", "view", "psnr"):
        own, theirs = getattr(found, name), getattr(expected, name)
        assert own.dtype == theirs.dtype
        assert torch.equal(own.nan_to_num(-1), theirs.nan_to_num(-1)), name


@pytest.mark.parametrize("resident_bytes", [0, 2**30], ids=["mapped", "resident"])
@pytest.mark.parametrize("shard_size", [3, 100])
@pytest.mark.parametrize("batch_size", [1, 4, COUNT, 50])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_an_epoch_against_all_in_memory(
    tmp_path: Path, resident_bytes: int, shard_size: int, batch_size: int, shuffle: bool, drop_last: bool
) -> None:
    zoo = make(tmp_path / "zoo", shard_size)
    options = {"shuffle": shuffle, "drop_last": drop_last, "resident_bytes": resident_bytes}
    batches = list(zoo.batches("train", batch_size, generator=seeded(3) if shuffle else None, **options))
    order = torch.randperm(COUNT, generator=seeded(3)) if shuffle else torch.arange(COUNT)
    expected = networks()[order[: COUNT - COUNT % batch_size] if drop_last else order]
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert sum(map(len, batches)) == len(expected)
    if batches:
        assert_same(ws.Networks.cat(batches), expected)


ROWS = {
    "some": torch.tensor([30, 2, 2, 17, 0, 36]),
    "all": torch.arange(COUNT).flip(0),
    "mask": torch.arange(COUNT) % 3 == 1,
    "none": torch.tensor([], dtype=torch.int64),
}


@pytest.mark.parametrize("resident_bytes", [0, 2**30], ids=["mapped", "resident"])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_of_some_rows(tmp_path: Path, resident_bytes: int, name: str, shuffle: bool) -> None:
    rows, zoo = ROWS[name], make(tmp_path / "zoo")
    chosen = torch.nonzero(rows).flatten() if rows.dtype == torch.bool else rows
    order = torch.randperm(len(chosen), generator=seeded(1)) if shuffle else torch.arange(len(chosen))
    options = {"generator": seeded(1)} if shuffle else {"shuffle": False}
    batches = list(zoo.batches("train", 4, rows=rows, resident_bytes=resident_bytes, **options))
    assert [len(batch) for batch in batches] == [len(part) for part in chosen.split(4) if len(part)]
    if batches:
        assert_same(ws.Networks.cat(batches), networks()[chosen[order]])


def test_a_small_zoo_is_held_in_memory_and_a_large_one_is_not(tmp_path: Path) -> None:
    zoo = make(tmp_path / "zoo")
    size = networks().weights.flat.nbytes

    def first(resident_bytes: int) -> Tensor:
        return next(zoo.batches("train", 4, shuffle=False, resident_bytes=resident_bytes)).weights.flat

    assert first(size - 1).data_ptr() != first(size).data_ptr()
    assert first(size).data_ptr() == zoo.weights("train").flat.data_ptr()  # one copy for both


def test_batches_follow_the_generator_and_not_the_shards(tmp_path: Path) -> None:
    few, one = make(tmp_path / "few", 3), make(tmp_path / "one", 100)

    def epoch(zoo: Zoo, generator: torch.Generator) -> ws.Networks:
        return ws.Networks.cat(list(zoo.batches("train", 4, generator=generator)))

    assert_same(epoch(few, seeded()), epoch(one, seeded()))
    generator = seeded()
    first, second = epoch(few, generator), epoch(few, generator)
    assert not torch.equal(first.weights.flat, second.weights.flat)
    assert not torch.equal(epoch(few, seeded(1)).weights.flat, first.weights.flat)
    both = [few.batches("train", 4, generator=generator) for generator in [seeded()] for _ in range(2)]
    assert_same(ws.Networks.cat(list(both[1])), second)  # the order is drawn at the call, not at the first batch
    assert_same(ws.Networks.cat(list(both[0])), first)


@pytest.mark.parametrize("resident_bytes", [0, 2**30], ids=["mapped", "resident"])
def test_batches_come_to_the_device(tmp_path: Path, resident_bytes: int) -> None:
    zoo = make(tmp_path / "zoo")
    for options in ({"shuffle": False}, {"generator": seeded()}):
        batch = next(zoo.batches("train", 4, device="meta", resident_bytes=resident_bytes, **options))
        columns = (batch.weights, batch.label, batch.source, batch.view, batch.psnr)
        assert {column.device.type for column in columns if column is not None} == {"meta"}


def test_batches_refuse_at_the_call(tmp_path: Path) -> None:
    zoo = make(tmp_path / "zoo")
    with pytest.raises(TypeError, match=r"expected a torch.Generator to shuffle with, got NoneType"):
        zoo.batches("train", 4)
    for options, match in {
        "batch_size: expected at least 1, got 0": {"batch_size": 0},
        "resident_bytes: expected at least 0, got -1": {"resident_bytes": -1},
        r"rows: expected indices or a mask \[37\], got \[2\] of torch.float32": {"rows": torch.zeros(2)},
        r"rows: expected indices or a mask \[37\], got \[5\] of torch.bool": {"rows": torch.zeros(5) > 1},
        r"rows: expected indices or a mask \[37\], got \[1, 1\]": {"rows": torch.zeros(1, 1).long()},
    }.items():
        with pytest.raises(ValueError, match=options):
            zoo.batches("train", **{"batch_size": 4, "shuffle": False, **match})
    for row in (-1, COUNT):
        with pytest.raises(IndexError, match=r"rows: expected indices in \[0, 37\), got others"):
            zoo.batches("train", 4, shuffle=False, rows=torch.tensor([0, row]))
    for ask in (zoo.weights, zoo.labels, zoo.count, zoo.__getitem__, lambda s: zoo.batches(s, 4, shuffle=False)):
        with pytest.raises(ValueError, match=r"expected one of \['train'\], got 'val'"):
            ask("val")


@pytest.mark.parametrize("joined", [True, False])
def test_networks_taken_by_row(tmp_path: Path, joined: bool) -> None:
    zoo = make(tmp_path / "zoo")
    if joined:
        zoo.weights("train")
    for rows in ROWS.values():
        assert_same(
            zoo.take("train", rows), networks()[torch.nonzero(rows).flatten() if rows.dtype == torch.bool else rows]
        )
    with pytest.raises(IndexError, match=r"rows: expected indices in \[0, 37\), got others"):
        zoo.take("train", torch.tensor([37]))


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_rows_of_parts_in_any_order(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    parts = [torch.randint(-99, 99, (count, *shape), generator=generator).to(dtype) for count in (4, 1, 6, 2)]
    joined, rows = torch.cat(parts), ShardRows(parts)
    assert len(rows) == len(joined)
    assert rows.nbytes == joined.nbytes
    assert torch.equal(rows.tensor(), joined)
    for count in (0, 1, 5, 40):
        index = torch.randint(0, 13, (count,), generator=generator)
        assert torch.equal(rows.take(index), joined[index])
        assert torch.equal(ShardRows([joined]).take(index), joined[index])
    spaced = ShardRows([torch.stack([part, part], -1)[..., 0] for part in parts])
    for index in (torch.tensor([12, 0, 4, 4]), torch.tensor([], dtype=torch.int64)):
        assert torch.equal(spaced.take(index), joined[index])
    for start in range(13):
        for end in range(start + 1, 14):
            assert torch.equal(rows.stretch(start, end), joined[start:end])
    assert rows.stretch(5, 9).data_ptr() == parts[2].data_ptr()  # a view where one part holds them


def test_numbers_of_rows() -> None:
    assert row_numbers("rows", [2, 0], 3).tolist() == [2, 0]
    assert row_numbers("rows", range(3), 3).tolist() == [0, 1, 2]
    assert row_numbers("rows", [True, False, True], 3).tolist() == [0, 2]
    assert row_numbers("rows", [], 3).dtype == torch.int64


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system does not say how files are mapped")
def test_of_mapped_files_a_shuffled_epoch_reads_nothing_ahead(tmp_path: Path) -> None:
    zoo = make(tmp_path)

    def flags() -> set[bool]:
        blocks = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
        own = [block for block in blocks if str(tmp_path) in block]
        return {" rr" in block.split("VmFlags:")[1] for block in own}

    next(zoo.batches("train", 4, shuffle=False, resident_bytes=0))
    assert flags() == {False}
    next(zoo.batches("train", 4, generator=seeded(), resident_bytes=0))
    assert True in flags()
    next(zoo.batches("train", 4, shuffle=False, resident_bytes=0))
    assert flags() == {False}
