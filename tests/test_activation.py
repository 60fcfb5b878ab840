"""Each row of the activation table: its derivative, the maps it claims to commute with, and ones it does not."""

from __future__ import annotations

import math

import pytest
import torch

from weightspace._activation import ACTIVATIONS, activation

NAMES = sorted(ACTIVATIONS)
OMEGAS = [1.0, 2.5]


def _z(generator: torch.Generator, count: int = 400) -> torch.Tensor:
    return 3 * torch.randn(count, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("omega", OMEGAS)
@pytest.mark.parametrize("name", NAMES)
def test_derivative_is_what_autograd_finds(name: str, omega: float, generator: torch.Generator) -> None:
    row = ACTIVATIONS[name]
    z = _z(generator).requires_grad_()
    (expected,) = torch.autograd.grad(row.forward(z, omega).sum(), z)
    torch.testing.assert_close(row.derivative(z.detach(), omega), expected, atol=1e-12, rtol=1e-10)
    torch.autograd.gradcheck(lambda z: row.forward(z, omega), (z[:10].detach().requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_derivative_keep_the_dtype(name: str, dtype: torch.dtype) -> None:
    z = torch.linspace(-1, 1, 5, dtype=dtype)
    assert ACTIVATIONS[name].forward(z, 2.0).dtype == dtype
    assert ACTIVATIONS[name].derivative(z, 2.0).dtype == dtype


def _deviation(name: str, omega: float, s: float, k: float, generator: torch.Generator) -> float:
    """How far ``a(s z + k unit)`` is from ``sigma(s, k) a(z)``."""
    row, z = ACTIVATIONS[name], _z(generator)
    scale, shift = torch.full_like(z, s), torch.full_like(z, k)
    sigma = row.sigma(scale, shift)
    expected = row.forward(z, omega) if sigma is None else sigma * row.forward(z, omega)
    return float((row.forward(s * z + k * row.phase_step(omega), omega) - expected).abs().max())


@pytest.mark.parametrize("omega", OMEGAS)
@pytest.mark.parametrize("name", NAMES)
def test_claimed_maps_commute(name: str, omega: float, generator: torch.Generator) -> None:
    row = ACTIVATIONS[name]
    scales = {"none": [1.0], "sign": [1.0, -1.0], "positive": [1.0, 0.3, 4.0]}[row.scale]
    for s in scales:
        for k in (-3, -2, -1, 0, 1, 2, 3) if row.periodic else (0,):
            assert _deviation(name, omega, s, k, generator) < 1e-12, (name, omega, s, k)


@pytest.mark.parametrize("name", NAMES)
def test_maps_that_are_not_claimed_do_not_commute(name: str, generator: torch.Generator) -> None:
    row, z = ACTIVATIONS[name], _z(generator) / 3

    def best_factor_error(moved: torch.Tensor) -> float:
        """The least relative deviation over *all* factors, so that no sigma could save the map."""
        out, base = row.forward(moved, 1.0), row.forward(z, 1.0)
        factor = (out @ base) / (base @ base)
        return float((out - factor * base).norm() / out.norm())

    if row.scale != "sign":
        assert best_factor_error(-z) > 0.05
    if row.scale != "positive":
        assert best_factor_error(2 * z) > 0.05
    if not row.periodic:
        assert best_factor_error(z + math.pi) > 0.05
    else:
        assert best_factor_error(z + math.pi / 2) > 0.05


def test_sigma_is_none_where_it_is_one() -> None:
    s, k = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 2.0])
    assert ACTIVATIONS["gaussian"].sigma(s, None) is None
    assert ACTIVATIONS["gelu"].sigma(None, None) is None
    assert ACTIVATIONS["sine"].sigma(s, None) is s
    assert ACTIVATIONS["sine"].sigma(s, k).tolist() == [-1.0, 1.0, -1.0]  # type: ignore[union-attr]
    assert ACTIVATIONS["cosine"].sigma(s, k).tolist() == [-1.0, -1.0, 1.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["swish", "", None, ["relu"]])
def test_unknown_activation_is_refused(name: object) -> None:
    with pytest.raises(ValueError, match=r"unknown activation: expected one of \['cosine'.*got"):
        activation(name)  # type: ignore[arg-type]
