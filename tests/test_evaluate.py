"""evaluate against plain PyTorch modules, one network at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import weightspace as ws
from weightspace import testing

MODULES = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class Sine(nn.Module):
    def __init__(self, omega: float) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.omega * z)


class Cosine(Sine):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.cos(self.omega * z)


class Gaussian(nn.Module):
    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.exp(-(z**2))


def _module(spec: ws.NetSpec, state: dict[str, torch.Tensor], dtype: torch.dtype) -> nn.Module:
    """The same network as plain PyTorch: linear layers filled by hand, activations from torch.nn."""
    parts: list[nn.Module] = []
    for i, layer in enumerate(spec.layers):
        linear = nn.Linear(spec.axis(layer.consumes).size, spec.axis(layer.produces).size, dtype=dtype)
        with torch.no_grad():
            linear.weight.copy_(state[f"{i}.weight"])
            linear.bias.copy_(state.get(f"{i}.bias", torch.tensor(0.0)))
        parts.append(linear)
        axis = spec.axis(layer.produces)
        if axis.activation in ("sine", "cosine"):
            parts.append((Sine if axis.activation == "sine" else Cosine)(axis.omega))
        elif axis.activation is not None:
            parts.append({**MODULES, "gaussian": Gaussian}[axis.activation]())
    return nn.Sequential(*parts)


@pytest.mark.parametrize("seed", range(20))
def test_agrees_with_sequential_network_by_network(seed: int, dtype: torch.dtype) -> None:
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen)
    w = testing.random_weights(spec, 3, generator=gen, dtype=dtype)
    x = torch.randn(3, 17, spec.in_features, generator=gen, dtype=dtype)
    shared, own = ws.evaluate(w, x[0]), ws.evaluate(w, x)
    assert shared.shape == own.shape == (3, 17, spec.out_features)
    assert shared.dtype == dtype
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 1e-11, "rtol": 1e-11}
    for i, state in enumerate(w.state_dicts()):
        module = _module(spec, state, dtype)
        torch.testing.assert_close(shared[i], module(x[0]) + spec.output_shift, **tolerance)
        torch.testing.assert_close(own[i], module(x[i]) + spec.output_shift, **tolerance)


def test_fitted_size_siren_with_two_omegas_and_without_biases(generator: torch.Generator) -> None:
    for spec in (ws.siren(2, 32, 32, 1, omega=[30.0, 1.0]), ws.siren(2, 32, 32, 1, bias=False, output_shift=0.25)):
        w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
        x = 2 * torch.rand(50, 2, generator=generator, dtype=torch.float64) - 1
        for i, state in enumerate(w.state_dicts()):
            expected = _module(spec, state, torch.float64)(x) + spec.output_shift
            torch.testing.assert_close(ws.evaluate(w, x)[i], expected, atol=1e-11, rtol=1e-11)


def test_gradients_reach_weights_and_points(generator: torch.Generator) -> None:
    spec = ws.mlp(2, 4, 3, 1, activation=["tanh", "sine"])
    flat = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64).flat.requires_grad_()
    x = torch.randn(3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, p: ws.evaluate(ws.Weights(f, spec), p), (flat, x))


def test_inputs_are_not_written_and_device_is_kept(device: torch.device, generator: torch.Generator) -> None:
    spec = ws.siren(2, 8, 8, 1)
    w = testing.random_weights(spec, 2, generator=generator, device=device)
    x = torch.rand(5, 2, generator=generator)
    flat, points = w.flat.clone(), x.clone()
    assert ws.evaluate(w, x).device.type == device.type
    assert torch.equal(w.flat, flat)
    assert torch.equal(x, points)


@pytest.mark.parametrize("shape", [(7, 3), (2,), (3, 7, 2), (1, 2, 7, 2)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    spec = ws.siren(2, 4, 1)
    w = ws.Weights(torch.zeros(2, spec.num_params), spec)
    with pytest.raises(ValueError, match=r"x: expected \[point, 2\] or \[2, point, 2\], got"):
        ws.evaluate(w, torch.zeros(shape))


def test_features_and_convolutions_are_refused(conv_spec: ws.NetSpec) -> None:
    spec = ws.siren(2, 4, 1)
    with pytest.raises(ValueError, match=r"expected weights \[batch, param\], got features"):
        ws.evaluate(ws.Weights(torch.zeros(2, spec.num_params, 3), spec), torch.zeros(7, 2))
    with pytest.raises(ValueError, match=r"expected a chain of linear layers .*needs 2-D weights"):
        ws.evaluate(ws.Weights(torch.zeros(2, conv_spec.num_params), conv_spec), torch.zeros(7, 3))


def test_other_types_are_refused() -> None:
    spec = ws.siren(2, 4, 1)
    w = ws.Weights(torch.zeros(2, spec.num_params), spec)
    with pytest.raises(TypeError, match=r"x: expected a tensor, got ndarray; make it with torch.as_tensor\(x\)"):
        ws.evaluate(w, np.zeros((3, 2)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"weights: expected Weights, got Tensor; wrap the tensor"):
        ws.evaluate(w.flat, torch.zeros(3, 2))  # type: ignore[arg-type]
