"""Files of version 0.1.0: a zoo opens with the numbers that it was written with, a run is refused with the remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import weightspace as ws
from weightspace.zoo import verify

OLD = Path(__file__).parents[1] / "data" / "v0.1.0"  # written by that version itself


def test_a_zoo_of_version_0_1_0_opens() -> None:
    zoo = ws.Zoo.open(OLD / "zoo")
    assert zoo.splits == ("train", "test")
    assert (zoo.classes, zoo.num_views, zoo.init_regime) == (("even", "odd"), 1, "unknown")
    assert zoo.spec == ws.siren(2, 4, 1, output_shift=0.5, init="dws")
    train, test = (next(zoo.batches(split, zoo.count(split), shuffle=False)) for split in zoo.splits)
    assert float(train.weights.flat.double().sum()) == pytest.approx(2.140730172395706)  # read by version 0.1.0
    assert train.weights.flat[0, :2].tolist() == pytest.approx([-0.8377519845962524, -0.8457080721855164])
    assert float(test.weights.flat.double().sum()) == pytest.approx(-0.5470746755599976)
    found = {name: getattr(train, name).tolist() for name in ("label", "source", "view", "psnr")}
    assert found == {"label": [0, 1] * 4, "source": [*range(8)], "view": [0] * 8, "psnr": [*range(20, 28)]}
    assert test.source is not None
    assert test.source.tolist() == [20, 21, 22, 23]


def test_a_zoo_of_version_0_1_0_trains_and_is_copied(tmp_path: Path) -> None:
    zoo = ws.Zoo.open(OLD / "zoo")
    model = ws.models.build("mlp", zoo.spec, zoo.num_classes, hidden=4, seed=0)
    found = ws.train(model, zoo, epochs=1, batch_size=4, run_dir=tmp_path / "run")
    assert found.history
    ws.zoo.copy(OLD / "zoo", tmp_path / "copy")
    copied = ws.Zoo.open(tmp_path / "copy")
    for split in zoo.splits:
        assert torch.equal(copied.weights(split).flat, zoo.weights(split).flat)


def test_a_damaged_zoo_of_version_0_1_0_is_found(tmp_path: Path) -> None:
    shutil.copytree(OLD / "zoo", tmp_path / "zoo")
    file = next((tmp_path / "zoo" / "shards").glob("train*"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert verify(ws.Zoo.open(tmp_path / "zoo")) != []


def test_a_run_of_version_0_1_0_is_refused_with_the_remedy(tmp_path: Path) -> None:
    shutil.copytree(OLD / "run", tmp_path / "run")
    zoo = ws.Zoo.open(OLD / "zoo")
    model = ws.models.build("mlp", zoo.spec, zoo.num_classes, hidden=4, seed=0)
    with pytest.raises(ValueError, match=r"got one of version 0\.1\.0; finish it with that version"):
        ws.train(model, zoo, epochs=1, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match=r"a run of version 0\.1\.0; its weights are in best\.safetensors"):
        ws.models.load_model(tmp_path / "run")
