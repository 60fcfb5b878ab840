"""The first attempts of a new user: arguments in another order or under other names, inputs that are surely wrong."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from _helpers import write_small_zoo

import weightspace as ws

SPEC = ws.siren(2, 4, 1)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> ws.Zoo:
    return write_small_zoo(tmp_path_factory.mktemp("doors") / "zoo", SPEC)


def mlp() -> ws.models.MLP:
    return ws.models.MLP(SPEC, 3, hidden=8, layers=1, seed=0)


def test_arguments_in_another_order_are_named(zoo: ws.Zoo, tmp_path: Path) -> None:
    data: Any = ws.signals.ImageSet(np.zeros((4, 3, 3), np.uint8))
    calls: Any = ws
    with pytest.raises(TypeError, match=r"model: .*got Zoo; the order is ws\.train\(model, zoo\)"):
        calls.train(zoo, mlp())
    with pytest.raises(
        TypeError, match=r"zoo: expected a Zoo, got Networks; .*ws\.zoo\.write_zoo\(path, train=networks"
    ):
        calls.train(mlp(), zoo["train"])
    with pytest.raises(TypeError, match=r"path: .*got ImageSet; the order is ws\.fit_zoo\(path, data, spec\)"):
        calls.fit_zoo(data, SPEC, tmp_path / "new")
    with pytest.raises(
        TypeError, match=r"data: expected a set of signals, got ndarray; read one with ws\.datasets\.load"
    ):
        calls.fit_zoo(tmp_path / "new", np.zeros((4, 3, 3)), SPEC)
    with pytest.raises(TypeError, match="config: expected a FitConfig, got str; RECIPES"):
        calls.fit_zoo(tmp_path / "new", data, SPEC, config="dws")
    with pytest.raises(TypeError, match=r"expected ws\.Zoo\.open\('here'\), got Zoo\(\.\.\.\)"):
        calls.Zoo("here")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"num_classes": 10},
            r"DWSNet: expected some of \['spec', 'out_features', .*'num_classes'; did you mean 'out_f",
        ),
        ({"out_features": 10, "hiden": 4}, "got 'hiden'; did you mean 'hidden'"),
        ({"out_features": 10, "depth": 4}, "got 'depth'; did you mean 'layers'"),
        ({"out_features": 10, "zzz": 4}, "got 'zzz'$"),
        ({}, "DWSNet: expected the arguments .*missing a required argument: 'out_features'"),
    ],
)
def test_models_say_which_arguments_they_take(arguments: dict, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        ws.models.DWSNet(SPEC, **arguments)
    if "out_features" in arguments:
        with pytest.raises(TypeError, match=text):
            ws.models.build("dwsnet", SPEC, **arguments)


def test_unknown_keywords_of_fit_and_train(zoo: ws.Zoo) -> None:
    with pytest.raises(TypeError, match=r"ws\.train: expected some of .*got 'augment'; did you mean 'transform'"):
        ws.train(mlp(), zoo, augment="noise")
    with pytest.raises(TypeError, match=r"got 'learning_rate'; did you mean 'lr'"):
        ws.train(mlp(), zoo, learning_rate=0.1)
    coords, targets = ws.signals.images(np.zeros((2, 3, 3), np.float32))
    with pytest.raises(TypeError, match=r"unknown option: expected some of .*got 'epochs'"):
        ws.fit(coords, targets, SPEC, epochs=3)


def step(model: ws.models.Model, weights: ws.Weights) -> None:
    out = model(weights)
    (out if isinstance(out, torch.Tensor) else out.flat).sum().backward()


def test_training_without_a_fitted_normalisation_is_warned_of_once(zoo: ws.Zoo) -> None:
    weights = zoo.weights("train")
    equivariant = ws.models.DWSNet(SPEC, 1, hidden=4, layers=1, head="equivariant", seed=0)
    for model in (mlp(), equivariant):
        with pytest.warns(UserWarning, match=r"expected a fitted normalisation.*zoo\.weights\('train'\)"):
            step(model, weights)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            step(model, weights)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = mlp()
        fitted.normalize.fit(weights)
        step(fitted, weights)
        step(mlp().eval(), weights)
        mlp()(weights)
        ws.train(mlp(), zoo, epochs=1, batch_size=16)
        step(ws.models.ProbeNet(SPEC, 3, points=8, seed=0), weights)


def test_poor_fits_are_warned_of() -> None:
    coords, targets = ws.signals.images(np.ones((2, 3, 3), np.float32))
    with pytest.warns(UserWarning, match=r"expected networks that fit their signals, got a PSNR of -\d+ dB on average"):
        ws.fit(coords, 4 * targets, SPEC, steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ws.fit(coords, targets, SPEC, steps=100, lr=1e-2)


def test_signals_of_another_range_are_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"images: expected signals of range one.*values from 100 to 101"):
        ws.signals.ImageSet(np.linspace(100, 101, 32, dtype=np.float32).reshape(2, 4, 4))


def test_a_video_is_no_image_of_many_channels() -> None:
    with pytest.warns(UserWarning, match=r"images: expected at most 4 channels, got \[2, 8, 8, 6\]"):
        ws.signals.ImageSet(np.zeros((2, 8, 8, 6), np.uint8))


def test_a_split_that_comes_out_empty_is_warned_of() -> None:
    data = ws.signals.ImageSet(np.zeros((6, 2, 2), np.uint8), groups=np.zeros(6, np.int64))
    with pytest.warns(UserWarning, match=r"expected groups for the split '(test|train)', got none of 1 in 6 signals"):
        data.with_split(0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(data.with_split(0.0).splits) == ["train"]
