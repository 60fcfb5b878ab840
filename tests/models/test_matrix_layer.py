"""The pass that adds, activates and pools: compiled code against torch's own operators, and its derivatives."""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

import weightspace as ws
from weightspace import _matrix_layer
from weightspace._matrix_layer import Reduction, matrix_layer

CASES = list(product((True, False), (True, False), get_args(Reduction)))


def inputs(weight: bool, dtype: torch.dtype = torch.float64, size: tuple[int, int, int] = (5, 7, 6)) -> list[Any]:
    """The features, the matrix if there is one, and what is added to rows and columns."""
    gen = torch.Generator().manual_seed(0)
    batch, rows, cols = size
    read = 3 if weight else 4
    shapes = [(*size, read), (4, read) if weight else None, (batch, rows, 4), (batch, cols, 4)]
    return [
        None if shape is None else torch.randn(shape, generator=gen, dtype=dtype).requires_grad_() for shape in shapes
    ]


@pytest.mark.parametrize(("weight", "relu", "reduction"), CASES)
@pytest.mark.parametrize("block", [1, 2**19])
def test_it_is_what_torch_computes(
    weight: bool, relu: bool, reduction: Reduction, block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_matrix_layer, "BLOCK", block)
    x, w, rows, cols = inputs(weight, dtype)
    found = matrix_layer(x, w, rows, cols, relu=relu, reduction=reduction)
    expected = _matrix_layer._plain(x, w, rows, cols, relu, reduction)
    atol = 1e-5 if dtype == torch.float32 else 1e-12
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=atol)
    wanted = [value for value in (x, w, rows, cols) if value is not None]
    for chosen in ((0, 1, 2), (1,), (2,), (1, 2), (0,)):  # a layer may use some of the three outputs alone
        sums = [
            sum((v * v.detach().sin()).sum() for i, v in enumerate(out) if i in chosen) for out in (found, expected)
        ]
        grads = [torch.autograd.grad([total], wanted, retain_graph=True) for total in sums if isinstance(total, Tensor)]
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, atol=20 * atol, rtol=20 * atol)


@pytest.mark.parametrize(("weight", "relu", "reduction"), CASES)
def test_first_and_second_derivatives_are_those_of_differences(weight: bool, relu: bool, reduction: Reduction) -> None:
    given = inputs(weight, size=(2, 3, 4))

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        x, w, rows, cols = values if weight else (values[0], None, *values[1:])
        return matrix_layer(x, w, rows, cols, relu=relu, reduction=reduction)

    wanted = [value for value in given if value is not None]
    assert torch.autograd.gradcheck(function, wanted)
    assert torch.autograd.gradgradcheck(function, wanted)


def test_no_gradient_where_none_is_asked_for() -> None:
    x, w, rows, cols = inputs(True)
    y, _, _ = matrix_layer(x.detach(), w, rows, cols.detach(), relu=True, reduction="mean")
    y.sum().backward()
    assert [value.grad is None for value in (x, w, rows, cols)] == [True, False, False, True]


def test_other_types_and_torchs_transforms_take_the_plain_path(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ws.models.DWSNet(ws.siren(2, 5, 4, 1), 3, hidden=4, layers=2, seed=0)
    w = ws.testing.random_weights(model.spec, 6, generator=torch.Generator().manual_seed(0))
    expected = model(w)
    x, matrix, rows, cols = inputs(True)
    each = torch.func.vmap(
        lambda *given: matrix_layer(given[0][None], matrix, given[1][None], given[2][None], relu=True, reduction="max")
    )(x, rows, cols)
    for a, b in zip(each, matrix_layer(x, matrix, rows, cols, relu=True, reduction="max"), strict=True):
        torch.testing.assert_close(a[:, 0], b)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(w) - expected).abs().max() < 0.1
    half = model.to(torch.bfloat16)(w.to(torch.bfloat16))
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().max() < 0.2
    monkeypatch.setattr(_matrix_layer, "_compiled", lambda *tensors: False)
    torch.testing.assert_close(model.float()(w), expected, atol=2e-2, rtol=2e-2)


def test_a_number_that_is_not_one_is_not_hidden() -> None:
    x = torch.zeros(1, 2, 2, 1)
    x[0, 0, 0] = float("nan")
    y, p, q = matrix_layer(x, None, torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), relu=True, reduction="mean")
    assert all(value.isnan().sum() == 1 for value in (y, p, q))


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction: expected 'mean' or 'max', got 'median'"):
        ws.models.DWSNet(ws.siren(2, 4, 1), 3, reduction="median")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("attention", [0, 2])
def test_maxima_keep_the_symmetry_and_are_not_averages(attention: int) -> None:
    spec = ws.siren(2, 5, 4, 1)
    options = {"hidden": 4, "layers": 2, "attention": attention, "seed": 0}
    models = [ws.models.DWSNet(spec, 3, reduction=name, **options).double() for name in ("mean", "max")]
    w = ws.testing.random_weights(spec, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, maximum = (model(w) for model in models)
    assert (mean - maximum).abs().max() > 1e-2
    for model in models:
        ws.testing.assert_invariant(model, spec, atol=1e-9, rtol=1e-9)
    edit = ws.models.DWSNet(spec, 1, head="equivariant", reduction="max", **options).double()
    ws.testing.assert_equivariant(edit, spec, atol=1e-9, rtol=1e-9)
