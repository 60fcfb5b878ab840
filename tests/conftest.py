"""Fixtures that every test may use: where, in what precision, and from which random stream."""

from __future__ import annotations

import pytest
import torch

from weightspace import Axis, NetSpec, Param

torch.set_num_threads(1)  # the networks of tests are tiny: threads would only wait for one another

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def conv_spec() -> NetSpec:
    """Two convolutions and a linear layer whose columns stay unfolded into channel and position."""
    return NetSpec(
        (
            Axis("in", 3),
            Axis("h1", 5, "relu"),
            Axis("h2", 4, "sine", 2.0),
            Axis("k", 3),
            Axis("pos", 6),
            Axis("out", 2),
        ),
        (
            Param("conv1.weight", ("h1", "in", "k", "k")),
            Param("conv1.bias", ("h1",), "bias"),
            Param("conv2.weight", ("h2", "h1", "k", "k")),
            Param("conv2.bias", ("h2",), "bias"),
            Param("fc.weight", ("out", "h2", "pos")),
            Param("fc.bias", ("out",), "bias"),
        ),
    )
