"""TrainConfig: what it takes, what it refuses, and that a record of it is plain."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from weightspace.training import Classification, TrainConfig

FIELDS = tuple(asdict(TrainConfig()))


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 1.5},
        {"epochs": "3"},
        {"epochs": True},
        {"epochs": None},
        {"batch_size": 1.5},
        {"batch_size": math.nan},
        {"seed": 1.5},
        {"seed": "0"},
        {"lr": "1e-3"},
        {"weight_decay": None},
        {"warmup": "a"},
        {"clip": "1"},
        {"clip": False},
        {"val_fraction": [0.1]},
    ],
    ids=str,
)
def test_other_types_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(TypeError, match=rf"^{name}: expected .*, got .*; pass a plain int"):
        TrainConfig(**options)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0], ids=str)
@pytest.mark.parametrize("name", ["lr", "weight_decay", "warmup", "clip", "val_fraction", "ema"])
def test_numbers_out_of_range_are_refused(name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got {bad}"):
        TrainConfig(**{name: bad})


@pytest.mark.parametrize(
    "options", [{"warmup": 1}, {"val_fraction": 0}, {"val_fraction": 1.0}, {"lr": 0}, {"clip": 0}, {"ema": 1}], ids=str
)
def test_open_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        TrainConfig(**options)


def test_closed_bounds_are_taken() -> None:
    config = TrainConfig(epochs=1, batch_size=1, weight_decay=0, warmup=0, clip=None, seed=0)
    assert (config.weight_decay, config.warmup, config.clip) == (0.0, 0.0, None)


def test_numpy_numbers_become_plain_ones() -> None:
    given = TrainConfig(epochs=np.int64(3), seed=np.int32(2), lr=np.float32(0.5), clip=np.float64(2))  # type: ignore[arg-type]
    assert given == TrainConfig(epochs=3, seed=2, lr=0.5, clip=2.0)
    assert json.loads(json.dumps(asdict(given))) == asdict(given)
    assert tuple(asdict(given)) == FIELDS


@pytest.mark.parametrize("bad", ["3", 2.5, None, True])
def test_number_of_classes_must_be_whole(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"num_classes: expected a whole number, got"):
        Classification(bad)
