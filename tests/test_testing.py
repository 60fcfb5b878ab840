"""The public checks themselves: what is right passes, what is wrong fails, what checks nothing is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing

SPEC = ws.mlp(2, 6, 4, 1, activation=["relu", "tanh"])
RELU = ws.mlp(2, 6, 1, activation="relu")


class Pool(nn.Module):
    """Mean over every parameter, one linear map: invariant, and equivariant when broadcast back."""

    def __init__(self, channels: int, broadcast: bool = False) -> None:
        super().__init__()
        self.in_channels = channels
        self.linear = nn.Linear(channels, 3)
        self.broadcast = broadcast

    def forward(self, weights: ws.Weights) -> ws.Weights | Tensor:
        pooled = torch.stack([v.flatten(1, -2).mean(1) for _, v in weights.items()]).sum(0)
        if not self.broadcast:
            return self.linear(pooled)
        return weights.replace(self.linear(weights.flat) + self.linear(pooled)[:, None])


class PerNeuronBias(nn.Module):
    """Not equivariant, but only once its zero-initialised parameter moves."""

    def __init__(self, spec: ws.NetSpec) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(spec.num_params))

    def forward(self, weights: ws.Weights) -> ws.Weights:
        return weights.replace(weights.flat.sin() + self.bias)


@pytest.mark.parametrize("seed", range(6))
def test_equivariant_and_invariant_layers_pass(seed: int, dtype: torch.dtype, device: torch.device) -> None:
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen)
    options: dict[str, Any] = {"dtype": dtype, "device": device, "generator": gen}
    testing.assert_equivariant(Pool(5, broadcast=True), spec, **options)
    testing.assert_equivariant(Pool(5), spec, **options)
    testing.assert_invariant(Pool(5), spec, **options)


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        (lambda w: w.replace(w.flat.roll(1, 1)), None),
        (lambda w: w.replace(w.flat.cumsum(1)), 3),
        (lambda w: w.replace(w.flat * torch.linspace(1, 1.1, w.flat.shape[1]).double()), None),
        (lambda w: w.flat[:, 0], None),
        (lambda w: w.flat[:, 3:5], 2),
        (PerNeuronBias(SPEC), None),
    ],
)
def test_layers_that_break_the_symmetry_fail(layer: Any, channels: int | None) -> None:
    with pytest.raises(AssertionError, match=r"\(permutation\): largest difference"):
        testing.assert_equivariant(layer, SPEC, channels=channels)


def test_noise_finds_what_a_zero_start_hides() -> None:
    testing.assert_equivariant(PerNeuronBias(SPEC), SPEC, noise=0.0)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(PerNeuronBias(SPEC), SPEC)


def test_groups_are_nested_and_each_adds_something() -> None:
    spec = ws.mlp(2, 6, 5, 4, 1, activation=["relu", "tanh", "sine"])

    def norms(w: ws.Weights) -> Tensor:
        return torch.stack([w.view(n).square().flatten(1).sum(1) for n in ("0.bias", "1.bias", "2.bias")], 1)

    def signs(w: ws.Weights) -> Tensor:
        return w.view("1.bias").sum(1)

    testing.assert_invariant(norms, spec, group="signed")
    testing.assert_invariant(signs, spec, group="permutation")
    for model, group in ((signs, "signed"), (norms, "scaled")):
        with pytest.raises(AssertionError, match=rf"invariance \({group}\)"):
            testing.assert_invariant(model, spec, group=group)
    sine = ws.siren(2, 6, 1)
    first = lambda w: w.view("0.bias").square().sum(1)  # noqa: E731
    testing.assert_invariant(first, sine, group="scaled")
    with pytest.raises(AssertionError, match=r"invariance \(full\)"):
        testing.assert_invariant(first, sine, group="full")


def test_functions_are_invariant_under_the_full_group() -> None:
    points = torch.linspace(-1, 1, 10, dtype=torch.float64)[:, None].expand(-1, 2)
    for seed in range(5):
        spec = ws.mlp(2, 6, 5, 4, 1, activation=["relu", "tanh", "sine"])
        gen = torch.Generator().manual_seed(seed)
        testing.assert_invariant(lambda w: ws.evaluate(w, points), spec, group="full", generator=gen)


def test_the_module_is_left_as_it_is() -> None:
    layer = nn.Sequential(Pool(3, broadcast=True), nn.Identity())
    before = [p.clone() for p in layer.parameters()]
    testing.assert_equivariant(layer, SPEC, channels=3)
    assert layer.training
    assert all(torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(before, layer.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in layer.parameters())


def test_the_global_random_state_is_left_alone(generator: torch.Generator) -> None:
    layer = Pool(3)
    state = torch.get_rng_state()
    w = testing.random_weights(SPEC, 2, generator=generator)
    testing.assert_same_function(w, ws.Symmetry.sample(SPEC, batch=2, generator=generator).act(w))
    testing.assert_equivariant(layer, SPEC)
    testing.random_spec(generator=generator)
    assert torch.equal(torch.get_rng_state(), state)


def test_checks_that_would_check_nothing_are_refused() -> None:
    with pytest.raises(AssertionError, match="same for every network"):
        testing.assert_invariant(lambda w: torch.ones(len(w), 2), SPEC)
    with pytest.raises(AssertionError, match="same for every network"):
        testing.assert_equivariant(lambda w: w.replace(0 * w.flat), SPEC)
    with pytest.raises(ValueError, match="nothing would be checked"):
        testing.assert_equivariant(Pool(3), ws.mlp(2, 1))
    with pytest.raises(ValueError, match="at least 2 networks"):
        testing.assert_equivariant(Pool(3), SPEC, batch=1)


def test_wrong_outputs_are_refused() -> None:
    with pytest.raises(TypeError, match=r"return Weights or a Tensor, got list"):
        testing.assert_equivariant(lambda w: w.flat.tolist(), SPEC)
    with pytest.raises(TypeError, match=r"return a tensor, got Weights; use assert_equivariant"):
        testing.assert_invariant(lambda w: w, SPEC)  # type: ignore[arg-type,return-value]
    with pytest.raises(AssertionError, match="nan or inf"):
        testing.assert_invariant(lambda w: w.flat.sum(1).log(), SPEC)
    with pytest.raises(ValueError, match="group: expected one of"):
        testing.assert_equivariant(Pool(3), SPEC, group="everything")  # type: ignore[arg-type]


def test_same_function_measures_what_it_says(generator: torch.Generator, dtype: torch.dtype) -> None:
    w = testing.random_weights(RELU, 3, generator=generator, dtype=dtype)
    moved = w.clone()
    moved.view("1.bias")[1] += 0.25
    with pytest.raises(AssertionError, match=r"largest difference 2\.500e-01; network 1 differs by 2\.500e-01"):
        testing.assert_same_function(w, moved)
    testing.assert_same_function(w, moved, atol=0.26)
    testing.assert_same_function(w, moved, x=torch.rand(7, 2, generator=generator), atol=0.26, rtol=0.0)
    with pytest.raises(AssertionError):
        testing.assert_same_function(w, moved, atol=0.24, rtol=0.0, generator=generator)
    with pytest.raises(AssertionError, match="nan or inf"):
        testing.assert_same_function(w, w.replace(w.flat * float("nan")))
    with pytest.raises(ValueError, match="as many networks, inputs and outputs"):
        testing.assert_same_function(w, w[:2])
    with pytest.raises(ValueError, match="as many networks, inputs and outputs"):
        testing.assert_same_function(w[:0], w[:0])


def test_a_small_error_in_a_small_function_is_found(generator: torch.Generator) -> None:
    """Phase errors of a tenth of a degree in one bias, in float64."""
    spec = ws.siren(2, 16, 16, 1, output_shift=0.0)
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    moved = w.clone()
    moved.view("0.bias")[0, 3] += 1e-3 / 30
    with pytest.raises(AssertionError, match="network 0"):
        testing.assert_same_function(w, moved)


@pytest.mark.parametrize("seed", range(20))
def test_random_networks_are_not_degenerate(seed: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    spec = testing.random_spec(generator=gen)
    w = testing.random_weights(spec, 8, generator=gen)
    y = ws.evaluate(w, 2 * torch.rand(100, spec.in_features, generator=gen) - 1)
    assert y.std(1).mean() > 5e-3
    assert y.abs().max() < 100
    assert not torch.allclose(w.flat[0], w.flat[1])


def test_random_weights_agree_between_dtypes() -> None:
    a, b = (
        testing.random_weights(SPEC, 2, generator=torch.Generator().manual_seed(1), dtype=dtype)
        for dtype in (torch.float32, torch.float64)
    )
    torch.testing.assert_close(a.flat, b.flat.float(), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (lambda w: testing.assert_same_function(w.flat, w), "a: expected Weights, got Tensor; wrap"),
        (lambda w: testing.assert_same_function(w, None), "b: expected Weights, got NoneType"),
        (lambda w: testing.assert_same_function(w, w, x=[[0.0, 0.0]]), "x: expected a tensor, got list"),
        (lambda w: testing.assert_same_function(w, w, generator=3), "expected a torch.Generator, got int"),
        (lambda w: testing.assert_equivariant(lambda v: v, None), "spec: expected a NetSpec, got NoneType"),
        (lambda w: testing.assert_equivariant(None, w.spec), "layer: expected a module or function, got NoneType"),
        (lambda w: testing.assert_equivariant(lambda v: v, w.spec, batch="4"), "batch: expected a whole number"),
        (lambda w: testing.assert_invariant(lambda v: v.flat, None), "spec: expected a NetSpec, got NoneType"),
        (lambda w: testing.random_spec(generator=torch.Generator(), max_hidden_layers=2.5), "expected a whole number"),
    ],
)
def test_other_types_are_refused(check, text: str) -> None:
    spec = ws.mlp(2, 5, 1)
    with pytest.raises(TypeError, match=text):
        check(testing.random_weights(spec, 2, generator=torch.Generator().manual_seed(0)))
