"""Fixtures that every test may use: where, in what precision, and from which random stream."""

from __future__ import annotations

import sys
from collections.abc import Iterator

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


@pytest.fixture(autouse=True)
def _modules_end_with_the_test_that_wrote_them(request: pytest.FixtureRequest) -> Iterator[None]:
    """Two tests may each write a module of the same name and import it by its path."""
    if "tmp_path" not in request.fixturenames:
        yield
        return
    folder, before = str(request.getfixturevalue("tmp_path")), set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(folder):
            del sys.modules[name]


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def norm_spec() -> NetSpec:
    """A convolution, a batch norm and a linear layer."""
    return NetSpec(
        (Axis("in", 3), Axis("c", 5, "other"), Axis("k", 3), Axis("out", 2)),
        (
            Param("conv.weight", ("c", "in", "k", "k")),
            Param("bn.weight", ("c",), "norm"),
            Param("bn.running_var", ("c",), "norm"),
            Param("fc.weight", ("out", "c")),
        ),
    )


@pytest.fixture
def conv_spec() -> NetSpec:
    """Two convolutions and a linear layer whose columns stay unfolded into channel and position."""
    from weightspace.testing._specs import convolutional  # late, so that a test of one room imports no other

    return convolutional()
