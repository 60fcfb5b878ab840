"""The library's own models against slow references; what each keeps and breaks. The contract is in test_models.py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import weightspace as ws
from weightspace import testing
from weightspace._activation import activation
from weightspace.models import ForwardMessages, ProbeGridNet, ProbeNet, TypedMessages
from weightspace.models.layers import GaussianRBF
from weightspace.models.layers._typed import types_of
from weightspace.models.ours._forward_messages import FirstMessages, LearnedActivation
from weightspace.models.ours._typed_messages import ChannelUpdate

CLOSE: Any = {"atol": 1e-10, "rtol": 1e-8}
TIGHT: Any = {"atol": 1e-8, "rtol": 1e-8, "dtype": torch.float64}
SPEC = ws.siren(2, 6, 5, 2, omega=(30.0, 7.0))
MIXED = ws.mlp(2, 5, 4, 3, activation=("gaussian", "tanh"))
SPECS = {
    "sine": SPEC,
    "relu": ws.mlp(2, 5, 4, 1),
    "gaussian, tanh": MIXED,
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def networks(spec: ws.NetSpec, batch: int = 4, seed: int = 1) -> ws.Weights:
    return testing.random_weights(spec, batch, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def passes(model: ProbeNet, w: ws.Weights) -> tuple[Tensor, Tensor]:
    """Outputs ``[batch, out, point]`` and gradients ``[batch, in, point]``."""
    return model.passes(w)


# ProbeNet and ProbeGridNet.


@every_spec
def test_without_mixing_it_reads_the_outputs_and_their_gradients(spec: ws.NetSpec) -> None:
    model, w = ProbeNet(spec, 3, points=7, rank=0).double(), networks(spec)
    x = model.passes.points.detach().t().expand(len(w), -1, -1).clone().requires_grad_()
    expected = ws.evaluate(w, x)
    (slope,) = torch.autograd.grad((expected * model.passes.seeds.t()).sum(), x)
    outputs, gradients = passes(model, w)
    torch.testing.assert_close(outputs.mT + spec.output_shift, expected, **CLOSE)
    torch.testing.assert_close(gradients.mT, slope, **CLOSE)


@every_spec
def test_it_starts_near_the_outputs_and_mixing_takes_it_elsewhere(spec: ws.NetSpec) -> None:
    model, w = ProbeNet(spec, 3, points=7, rank=3).double(), networks(spec)
    expected = ws.evaluate(w, model.passes.points.t()).mT - spec.output_shift
    near = (passes(model, w)[0] - expected).abs().max() / expected.abs().max()
    assert 1e-9 < near < 0.05
    for step in model.passes.mix:
        torch.nn.init.normal_(step.up, std=20.0)  # pyright: ignore
    assert (passes(model, w)[0] - expected).abs().max() / expected.abs().max() > 0.1


def test_the_passes_are_those_of_the_equations() -> None:
    """Neuron by neuron and channel by channel."""
    model, w = ProbeNet(SPEC, 3, points=3, rank=2, phase=False).double(), networks(SPEC, 1)
    for step in (*model.passes.mix, *model.passes.mix_back):
        torch.nn.init.normal_(step.up)  # pyright: ignore
    assert model.passes.factors is not None
    mixing = [torch.eye(3).double() + 0.1 * m.down @ m.up for m in (*model.passes.mix, *model.passes.mix_back)]  # pyright: ignore
    w1, b1, w2, b2, w3, b3 = (value[0] for _, value in w.items())
    c1, c2, c3 = model.passes.factors

    def layer(matrix: Tensor, bias: Tensor, factor: Tensor, below: Tensor) -> Tensor:
        rows = [[row @ below[:, c] + b * factor[c] for c in range(3)] for row, b in zip(matrix, bias, strict=True)]
        return torch.stack([torch.stack(row) for row in rows])

    z1 = layer(w1, b1, c1, model.passes.points)
    h1 = torch.sin(30 * z1) @ mixing[0]
    z2 = layer(w2, b2, c2, h1)
    h2 = torch.sin(7 * z2) @ mixing[1]
    outputs, gradients = passes(model, w)
    torch.testing.assert_close(outputs[0], w3 @ h2 + b3[:, None] * c3, **CLOSE)
    g2 = ((w3.t() @ model.passes.seeds) * 7 * torch.cos(7 * z2)) @ mixing[3]
    g1 = ((w2.t() @ g2) * 30 * torch.cos(30 * z1)) @ mixing[2]
    torch.testing.assert_close(gradients[0], w1.t() @ g1, **CLOSE)


@pytest.mark.parametrize("phase", [True, False])
def test_phases_are_kept_where_biases_enter_as_they_are(phase: bool) -> None:
    model = ProbeNet(SPEC, 3, points=7, rank=3, phase=phase).double()
    assert model.equivariance == ("full" if phase else "scaled")
    testing.assert_invariant(model, SPEC, group="scaled", **TIGHT)
    if phase:
        testing.assert_invariant(model, SPEC, group="full", **TIGHT)
        return
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_invariant(model, SPEC, group="full", **TIGHT)


def test_the_grid_is_read_where_its_points_are() -> None:
    """Without mixing, what the convolutions see at row i and column j is the picture and its slopes there."""
    model, w = ProbeGridNet(SPEC, 3, size=5, layers=1, rank=0).double(), networks(SPEC)
    seen: list[Tensor] = []
    model.net.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model(w)
    line, outputs = torch.linspace(-1, 1, 5).double(), SPEC.out_features
    for i, j in ((0, 0), (1, 4), (3, 2)):
        x = torch.tensor([line[i], line[j]], dtype=torch.float64).expand(len(w), 1, 2).clone().requires_grad_()
        value = ws.evaluate(w, x)
        (slope,) = torch.autograd.grad((value[:, 0] @ model.passes.seeds[:, 0]).sum(), x)
        torch.testing.assert_close(seen[0][:, :outputs, i, j], 2 * (value[:, 0] - SPEC.output_shift), **CLOSE)
        torch.testing.assert_close(seen[0][:, outputs:, i, j], 0.1 * slope[:, 0], **CLOSE)


def test_grids_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"size: expected more than 4 points to halve 2 times, got 4"):
        ProbeGridNet(SPEC, 3, size=4)
    with pytest.raises(ValueError, match=r"expected networks of 1, 2 or 3 inputs, got 4"):
        ProbeGridNet(ws.siren(4, 8, 1), 3)


def test_options_out_of_range_are_refused() -> None:
    for name, low in (("points", 2), ("rank", 0)):
        with pytest.raises(ValueError, match=rf"{name}: expected at least {low}, got"):
            ProbeNet(SPEC, 3, **{name: low - 1})  # pyright: ignore


# The network's layers on functions of its first neurons' weights.

FIRST = {"sine": ("sign", True), "cosine": ("sign", True), "tanh": ("sign", False), "gaussian": ("sign", False)}
FIRST |= {"relu": ("positive", False), "leaky_relu": ("positive", False), "gelu": ("none", False)}


@pytest.mark.parametrize("name", FIRST)
def test_first_messages_have_the_type_of_what_leaves_a_neuron(name: str) -> None:
    """Moved as the table says: the neuron's weights by a factor and a phase, what it sends by ``sigma``."""
    axis, (scale, phases) = ws.Axis("h", 5, name, 7.0), FIRST[name]
    row = activation(name)
    assert (row.scale, row.periodic) == (scale, phases)
    layer = FirstMessages(axis, 2, 4, functions=6, rbfs=3).double()
    matrix, bias = torch.randn(3, 5, 2, dtype=torch.float64), torch.randn(3, 5, dtype=torch.float64)
    shape = (3, 5)
    factor = {
        "sign": torch.randint(2, shape) * 2.0 - 1,
        "positive": torch.rand(shape) + 0.5,
        "none": torch.ones(shape),
    }[scale].double()
    shift = torch.randint(-2, 3, shape).double() if phases else torch.zeros(shape).double()
    sent = row.sigma(factor, shift if phases else None)
    moved = layer(factor.unsqueeze(-1) * matrix, factor * bias + shift * row.phase_step(7.0))
    expected = layer(matrix, bias) * (1 if sent is None else sent.unsqueeze(-1))
    torch.testing.assert_close(moved, expected, **CLOSE)
    assert (layer(1.3 * matrix, bias) - layer(matrix, bias)).abs().max() > 1e-3  # and reads the weights


@pytest.mark.parametrize("name", FIRST)
def test_learned_activations_have_the_type_of_what_leaves_a_neuron(name: str) -> None:
    axis, (scale, phases), row = ws.Axis("h", 5, name, 2.0), FIRST[name], activation(name)
    layer = LearnedActivation(axis, 4).double()
    value, bias = torch.randn(3, 5, 4, dtype=torch.float64), torch.randn(3, 5, 1, dtype=torch.float64)
    factor = {
        "sign": torch.randint(2, bias.shape) * 2.0 - 1,
        "positive": torch.rand(bias.shape) + 0.5,
        "none": torch.ones(bias.shape),
    }[scale].double()
    shift = torch.randint(-2, 3, bias.shape).double() if phases else torch.zeros(bias.shape).double()
    sent = row.sigma(factor, shift if phases else None)
    moved = layer(factor * value, factor * bias + shift * row.phase_step(2.0))
    torch.testing.assert_close(moved, layer(value, bias) * (1 if sent is None else sent), **CLOSE)
    assert (layer(1.3 * value, bias) - layer(value, bias)).abs().max() > 1e-3
    assert (layer(value, 1.3 * bias) - layer(value, bias)).abs().max() > 1e-3


def test_learned_activations_are_sums_of_gaussians() -> None:
    """Horner's rule against the sum, one Gaussian after the other, and in half precision."""
    layer, z = LearnedActivation(ws.Axis("h", 5, "gelu"), 4).double(), torch.linspace(-7, 7, 57).double()
    layer.factor.data.zero_()  # pyright: ignore
    value = z[:, None].expand(-1, 4)[None]
    bias = torch.zeros(1, len(z), 1, dtype=torch.float64)
    expected = torch.zeros_like(value)
    for m in range(7):
        right, left = (torch.exp(-0.7 * (z - sign * m).square())[None, :, None] for sign in (1, -1))
        expected = expected + layer.even[m] * (right + left if m else right)  # pyright: ignore
        expected = expected + (layer.odd[m - 1] * (right - left) if m else 0)  # pyright: ignore
    torch.testing.assert_close(layer(value, bias), expected, **CLOSE)
    assert layer(50 * value, bias).isfinite().all()
    small = layer.to(torch.bfloat16)(value.to(torch.bfloat16), bias.to(torch.bfloat16))
    torch.testing.assert_close(small.double(), expected, atol=0.05, rtol=0.05)


def test_radial_basis_functions_are_exact_where_frequencies_are_high() -> None:
    rbfs = GaussianRBF(2, 16, 15.0)
    near = (rbfs.centers + 0.3).detach()
    for dtype, close in ((torch.float32, 1e-5), (torch.bfloat16, 0.15)):
        rounded, value = copy.deepcopy(rbfs).to(dtype), near.to(dtype)
        exact = copy.deepcopy(rounded).double()(value.double())
        found = rounded(value)
        assert found.max() <= 1
        torch.testing.assert_close(found.double(), exact, atol=close, rtol=0)


class Waves(torch.nn.Module):
    """Functions of frequencies that make a message a neuron's value at an input."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x

    def forward(self, value: Tensor) -> Tensor:
        angle = value @ self.x
        return torch.stack([angle.cos(), angle.sin()], -1)


def test_with_waves_and_its_own_activation_it_is_the_network_at_an_input() -> None:
    """The docstring says that the tracks differ in the functions that enter, and in nothing else."""
    spec, x = ws.siren(2, 6, 5, 4, 1, omega=(30.0, 7.0, 4.0)), torch.tensor([0.3, -0.8], dtype=torch.float64)
    w = networks(spec)
    exact = (ws.evaluate(w, x[None]) - spec.output_shift)[:, 0, 0]
    for learned in (False, True):
        model = ForwardMessages(spec, 3, channels=2, functions=2, rbfs=0, rank=0, learned=learned).double()
        first: Any = model.first
        first.net = Waves(x)
        first.mix.weight.data = torch.tensor([[1.0, 0, 0, 1.0], [0, 0, 0, 0]], dtype=torch.float64)
        seen: list[Tensor] = []
        net: Any = model.net
        net.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach()))
        model(w)
        assert ((seen[0][:, 0] - exact).abs().max() < 1e-9) != learned


def test_a_constant_in_what_is_sent_breaks_signs() -> None:
    """Negative control of the type."""
    model = ForwardMessages(SPEC, 3, channels=4, functions=4, rbfs=2).double()
    first: Any = model.first
    out, wide = first.mix.weight.shape
    first.mix = torch.nn.Linear(wide, out).double()
    testing.assert_invariant(model, SPEC, group="permutation", **TIGHT)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_invariant(model, SPEC, group="signed", **TIGHT)


def test_positive_scales_may_be_large() -> None:
    spec = ws.mlp(2, 5, 4, 1)
    model, w = ForwardMessages(spec, 3, channels=4, functions=4).float(), networks(spec).to(torch.float32)
    moved = w.clone()
    for name, factor in (("0.weight", 1e25), ("0.bias", 1e25), ("1.weight", 1e-25)):
        moved.view(name).mul_(factor)
    torch.testing.assert_close(model(moved), model(w), atol=1e-4, rtol=1e-4)


def test_messages_need_functions() -> None:
    with pytest.raises(ValueError, match=r"functions: expected at least 1 without radial basis functions, got 0"):
        ForwardMessages(SPEC, 3, functions=0, rbfs=0)
    with pytest.raises(ValueError, match=r"rbfs are for periodic activations, and '.*' is relu"):
        ForwardMessages(ws.mlp(2, 5, 4, 1), 3, functions=0, rbfs=8)
    assert ForwardMessages(SPEC, 3, functions=0, rbfs=8).double()(networks(SPEC)).isfinite().all()
    with pytest.raises(TypeError, match=r"learned: expected True or False, got 1"):
        ForwardMessages(SPEC, 3, learned=1)  # pyright: ignore
    with pytest.raises(ValueError, match=r"rbfs: expected at least 0, got -1"):
        ForwardMessages(ws.mlp(2, 5, 4, 1), 3, rbfs=-1)
    for name, low in (("functions", 0), ("rbfs", 0), ("rank", 0), ("channels", 2)):
        with pytest.raises(ValueError, match=rf"{name}: expected at least {low}, got"):
            ForwardMessages(SPEC, 3, **{name: low - 1})  # pyright: ignore


# Messages linear in the weights.


def test_typed_messages_never_compute_an_activation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strictly weights-only: an activation that raises changes nothing. ProbeNet is the negative control."""
    from weightspace import _activation

    def refuse(z: Tensor, omega: float) -> Tensor:
        raise AssertionError("an activation was computed")

    for row in _activation.ACTIVATIONS.values():
        monkeypatch.setitem(row.__dict__, "forward", refuse)
        monkeypatch.setitem(row.__dict__, "derivative", refuse)
    for spec in SPECS.values():
        assert TypedMessages(spec, 3, hidden=8).double()(networks(spec)).isfinite().all()
        with pytest.raises(AssertionError, match="an activation was computed"):
            ProbeNet(spec, 3, points=4).double()(networks(spec))


@every_spec
@pytest.mark.parametrize("layers", [1, 3])
def test_typed_messages_respect_the_whole_group(spec: ws.NetSpec, layers: int) -> None:
    testing.assert_invariant(TypedMessages(spec, 3, hidden=8, layers=layers), spec, group="full", **TIGHT)


def test_a_type_that_is_wrong_is_caught() -> None:
    """Negative control: a bias in a map of signed features breaks signs, and nothing else."""
    model = TypedMessages(SPEC, 3, hidden=8).double()
    step = model.rounds[0].forth[0]  # pyright: ignore
    step.mix = torch.nn.Linear(8, 8).double()  # pyright: ignore
    testing.assert_invariant(model, SPEC, group="permutation", **TIGHT)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_invariant(model, SPEC, group="signed", **TIGHT)


@every_spec
def test_updates_keep_the_type_of_their_axis(spec: ws.NetSpec) -> None:
    for axis in spec.hidden:
        types = types_of(axis)[0]
        layer = ChannelUpdate(types, 6, other=True, dropout=0.0).double()
        value, dual = torch.randn(2, 5, 6, dtype=torch.float64), torch.randn(2, 5, 6, dtype=torch.float64)
        factor = torch.tensor(2.5 if "positive" in types else -1.0)
        torch.testing.assert_close(layer(factor * value, dual / factor), factor * layer(value, dual), **CLOSE)
        assert (layer(3 * value, dual) - 3 * layer(value, dual)).abs().max() > 1e-3  # nor is it linear


def test_messages_of_any_scale_are_read_alike() -> None:
    """Messages that arrive are normalised over the batch before anything reads them, and so are the MLP's features."""
    spec = ws.siren(2, 6, 1, bias=False)
    model = ws.models.ForwardMessages(spec, 3, hidden=8, layers=1, channels=5, functions=4, rbfs=0)
    w = ws.testing.random_weights(spec, 8, generator=torch.Generator().manual_seed(0))
    before = model(w)
    scale = torch.tensor([1.0, 30.0, 5.0, 7.0, 2.0])
    with torch.no_grad():
        model.first.mix.weight.mul_(scale[:, None])
        model.net[1][0].weight.mul_(torch.arange(1.0, 9.0)[:, None])
        model.net[1][0].bias.mul_(torch.arange(1.0, 9.0))
    torch.testing.assert_close(model(w), before, atol=2e-3, rtol=2e-3)
