"""The equivariant layer spans the whole space of equivariant maps, and broken layers and heads are caught."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from _helpers import networks as drawn
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace._features import Features
from weightspace.models import DWSNet
from weightspace.models.layers import EquivariantLinear, InvariantHead

TIGHT: Any = {"atol": 1e-8, "rtol": 1e-8, "dtype": torch.float64}
SPEC = ws.siren(2, 5, 4, 1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random_spec(seed: int) -> ws.NetSpec:
    return testing.random_spec(generator=torch.Generator().manual_seed(seed))


def conv(in_size: int, h1: int, h2: int, k: int, pos: int, out: int) -> ws.NetSpec:
    axes = [ws.Axis("in", in_size), ws.Axis("h1", h1, "relu"), ws.Axis("h2", h2, "relu")]
    axes += [ws.Axis("k", k), ws.Axis("pos", pos), ws.Axis("out", out)]
    weights = {"c1": ("h1", "in", "k", "k"), "c2": ("h2", "h1", "k", "k"), "fc": ("out", "h2", "pos")}
    params = [ws.Param(f"{name}.weight", shape) for name, shape in weights.items()]
    biases = [ws.Param(f"{name}.bias", (shape[0],), "bias") for name, shape in weights.items()]
    return ws.NetSpec(tuple(axes), (*params, *biases))


def residual() -> ws.NetSpec:
    """Two blocks that write to one stream: the axis "h" is in four parameters."""
    axes = (ws.Axis("in", 2), ws.Axis("h", 3, "relu"), ws.Axis("m", 2, "relu"), ws.Axis("out", 1))
    names = {"up": ("h", "in"), "a": ("m", "h"), "b": ("h", "m"), "down": ("out", "h")}
    return ws.NetSpec(axes, (*(ws.Param(n, a) for n, a in names.items()), ws.Param("bias", ("h",), "bias")))


SMALL = {
    "2-3-2-1": ws.mlp(2, 3, 2, 1),
    "1-2-3-2": ws.mlp(1, 2, 3, 2),
    "2-4-1": ws.mlp(2, 4, 1),
    "1-2-3-2-1": ws.mlp(1, 2, 3, 2, 1),
    "2-3-2-1 without biases": ws.mlp(2, 3, 2, 1, bias=False),
    "with an axis of one neuron": ws.mlp(2, 1, 3, 1),
    "without hidden axes": ws.mlp(2, 2),
    "convolutions": conv(1, 2, 3, 2, 2, 1),
    "residual": residual(),
}
every_small = pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)


def group(spec: ws.NetSpec) -> Tensor:
    """All elements of the group as permutation matrices of the flat vector, ``[element, param, param]``."""
    choices = [list(itertools.permutations(range(axis.size))) for axis in spec.hidden]
    elements = list(itertools.product(*choices))
    perms = {axis.name: torch.tensor([e[i] for e in elements]) for i, axis in enumerate(spec.hidden)}
    count = spec.num_params
    position = ws.Weights(torch.arange(count, dtype=torch.float64).expand(len(elements), -1), spec)
    moved = ws.Symmetry(spec, len(elements), perms, {}, {}).act(position).flat.long()
    return nn.functional.one_hot(moved, count).double()


def matrix(layer: EquivariantLinear) -> Tensor:
    """The layer without its bias as a matrix ``[param, param]``."""
    eye = torch.eye(layer.spec.num_params, dtype=torch.float64)[..., None]
    zero = torch.zeros_like(eye)
    with torch.no_grad():
        return (layer(ws.Weights(eye, layer.spec)).flat - layer(ws.Weights(zero, layer.spec)).flat)[..., 0].t()


def basis(spec: ws.NetSpec) -> Tensor:
    """The matrix of every single free parameter of the layer, ``[parameter, param * param]``."""
    layer = EquivariantLinear(spec, 1, 1, bias=False).double()
    rows = []
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for parameter in layer.parameters():
            for i in range(parameter.numel()):
                parameter.view(-1)[i] = 1.0
                rows.append(matrix(layer).flatten())
                parameter.view(-1)[i] = 0.0
    return torch.stack(rows)


@every_small
def test_rank_is_the_dimension_found_by_averaging_over_the_group(spec: ws.NetSpec) -> None:
    elements, maps = group(spec), basis(spec)
    traces = elements.diagonal(dim1=1, dim2=2).sum(1)  # fixed entries of each element
    dimension = round(traces.square().mean().item())
    assert abs(traces.square().mean().item() - dimension) < 1e-9
    assert int(torch.linalg.matrix_rank(maps)) == dimension
    if all(axis.size > 1 for axis in spec.hidden):
        assert len(maps) == dimension  # no parameter is redundant


@every_small
def test_every_map_of_the_layer_commutes_and_every_commuting_map_is_in_it(spec: ws.NetSpec) -> None:
    elements, maps = group(spec), basis(spec)
    one = (torch.randn(len(maps), dtype=torch.float64) @ maps).view(spec.num_params, -1)
    torch.testing.assert_close(elements @ one, one @ elements, atol=1e-10, rtol=0)
    dense = torch.randn(3, spec.num_params, spec.num_params, dtype=torch.float64)
    averaged = torch.stack([(elements.mT @ m @ elements).mean(0) for m in dense]).flatten(1)

    def outside(targets: Tensor, span: Tensor) -> float:
        found = torch.linalg.lstsq(span.t(), targets.t(), driver="gelsd").solution
        return (span.t() @ found - targets.t()).abs().max().item()

    assert outside(averaged, maps) < 1e-9
    if len(elements) > 1:
        assert outside(dense.flatten(1), maps) > 1e-2  # what was not averaged is not in it
        thinned = maps[torch.arange(len(maps)) != len(maps) - 1]
        if all(axis.size > 1 for axis in spec.hidden):
            assert outside(averaged, thinned) > 1e-6  # and a layer with one map less would be noticed


@every_small
def test_the_bias_is_every_invariant_vector(spec: ws.NetSpec) -> None:
    elements, layer = group(spec), EquivariantLinear(spec, 1, 1).double()
    biases = [linear.bias for linear in layer.maps if linear.bias is not None]
    zero = ws.Weights(torch.zeros(1, spec.num_params, 1, dtype=torch.float64), spec)
    rows = []
    with torch.no_grad():
        for bias in biases:
            for i in range(bias.numel()):
                bias[i] = 1.0
                rows.append(layer(zero).flat.flatten())
                bias[i] = 0.0
    vectors = torch.stack(rows)
    fixed = elements.diagonal(dim1=1, dim2=2).sum(1).mean().item()
    assert int(torch.linalg.matrix_rank(vectors)) == len(vectors) == round(fixed)
    torch.testing.assert_close(vectors @ elements.mT, vectors.expand(len(elements), -1, -1), atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("channels", "out"), [(1, 1), (2, 3)])
def test_the_layer_is_equivariant_on_random_specs(seed: int, channels: int, out: int) -> None:
    spec = random_spec(20 + seed)
    layer = EquivariantLinear(spec, channels, out)
    testing.assert_equivariant(layer, spec, **TIGHT)
    testing.assert_equivariant(layer, spec, dtype=torch.float32)
    free = sum(p.numel() for p in EquivariantLinear(spec, channels, out, bias=False).parameters())
    assert free == channels * out * sum(p.numel() for p in EquivariantLinear(spec, 1, 1, bias=False).parameters())


def test_parameters_have_one_order_in_every_process() -> None:
    """By first appearance in the spec, never by the order of a Python set, which changes from run to run."""
    spec = ws.mlp(2, *range(2, 12), 1)
    hidden = [axis.name for axis in spec.hidden]
    pairs = [pair[::-1] for pair in itertools.pairwise(hidden)]
    layer = EquivariantLinear(spec, 1, 1)
    assert layer.sets == [(), *((name,) for name in hidden), *pairs]
    torch.manual_seed(5)
    a = EquivariantLinear(spec, 1, 1).state_dict()
    torch.manual_seed(5)
    b = EquivariantLinear(spec, 1, 1).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("layers", [1, 4])
def test_features_stay_of_order_one_at_the_start(layers: int) -> None:
    spec = ws.siren(2, 32, 32, 1)
    w = ws.Weights(torch.randn(32, spec.num_params), spec)
    model = DWSNet(spec, 4, hidden=16, layers=layers, head="equivariant")
    assert 0.1 < model(w).flat.std() < 10


def test_the_layer_and_the_head_refuse_other_features() -> None:
    layer, head = EquivariantLinear(SPEC, 2, 3), InvariantHead(SPEC, 2, 3)
    features = ws.Weights(torch.randn(4, SPEC.num_params, 2), SPEC)
    for module in (layer, head):
        module(features)
        with pytest.raises(ValueError, match=r"expected features \[batch, param, 2\].*got \[4, 44, 3\]"):
            module(features.replace(torch.randn(4, 44, 3)))
        with pytest.raises(ValueError, match=r"expected features \[batch, param, 2\].*got \[4, 44\]"):
            module(drawn(SPEC, 4, dtype=torch.float32))
        with pytest.raises(ValueError, match="built for"):
            module(ws.Weights(features.flat, ws.siren(2, 5, 4, 1, omega=3.0)))
    for bad in (EquivariantLinear, InvariantHead):
        with pytest.raises(TypeError, match="spec: expected a NetSpec, got NoneType"):
            bad(None, 2, 2)  # pyright: ignore
    with pytest.raises(TypeError, match="out_channels: expected a whole number, got"):
        EquivariantLinear(SPEC, 2, 2.5)  # pyright: ignore
    with pytest.raises(ValueError, match="at least one channel, got in_channels=0"):
        EquivariantLinear(SPEC, 0, 1)


# Broken layers must fail: equal widths, so that every wrong axis has the right size.

SQUARE = ws.mlp(4, 4, 4, 4)


class Dense(nn.Module):
    """A plain matrix on the flat vector."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SQUARE.num_params, SQUARE.num_params)

    def forward(self, w: ws.Weights) -> ws.Weights:
        return w.replace(self.linear(w.flat))


def _put(w: ws.Weights, name: str, value: Tensor) -> ws.Weights:
    out = w.clone()
    out.view(name).add_(value)
    return out


WRONG = {
    "pools the wrong axis": lambda w: _put(w, "0.bias", w.view("1.weight").mean(2)),
    "broadcasts along the wrong axis": lambda w: _put(w, "1.weight", w.view("0.bias")[:, :, None]),
    "transposes": lambda w: _put(w, "1.weight", w.view("1.weight").mT),
    "takes one layer's neurons for another's": lambda w: _put(w, "1.bias", w.view("0.bias")),
    "a bias of its own for every neuron": lambda w: _put(w, "0.bias", torch.arange(4, dtype=w.dtype)),
    "takes the first neuron": lambda w: _put(w, "0.bias", w.view("0.bias")[:, :1]),
}
RIGHT = {
    "pools the right axis": lambda w: _put(w, "1.bias", w.view("1.weight").mean(2)),
    "broadcasts along the right axis": lambda w: _put(w, "1.weight", w.view("0.bias")[:, None, :]),
    "one bias for all neurons": lambda w: _put(w, "0.bias", torch.ones(4, dtype=w.dtype)),
    "takes the mean neuron": lambda w: _put(w, "0.bias", w.view("0.bias").mean(1, keepdim=True)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_layer_fails(name: str) -> None:
    with pytest.raises(AssertionError, match=r"equivariance \(permutation\): largest difference"):
        testing.assert_equivariant(WRONG[name], SQUARE, **TIGHT)


@pytest.mark.parametrize("name", RIGHT)
def test_its_mended_twin_passes(name: str) -> None:
    testing.assert_equivariant(RIGHT[name], SQUARE, **TIGHT)


def test_a_dense_layer_fails() -> None:
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(Dense(), SQUARE, **TIGHT)


class MixedUp(EquivariantLinear):
    """The real layer, but its output has two axes of one parameter exchanged."""

    def forward(self, features: ws.Weights) -> ws.Weights:
        out = super().forward(features).clone()
        out.view("1.weight").copy_(out.view("1.weight").transpose(1, 2).clone())
        return out


def test_the_real_layer_with_one_mistake_fails() -> None:
    testing.assert_equivariant(EquivariantLinear(SQUARE, 2, 3), SQUARE, **TIGHT)
    with pytest.raises(AssertionError, match="largest difference"):
        testing.assert_equivariant(MixedUp(SQUARE, 2, 3), SQUARE, **TIGHT)


class FirstNeuron(InvariantHead):
    """A head that reads one neuron besides the pools."""

    def forward(self, features: ws.Weights | Features) -> Tensor:
        assert isinstance(features, Features)
        return super().forward(features) + 1e-3 * features.values[0][:, 0, :1]


def test_a_model_with_a_broken_head_fails() -> None:
    model = DWSNet(SPEC, 3, hidden=4, layers=1)
    testing.assert_invariant(model, SPEC, **TIGHT)
    model.stack.head = FirstNeuron(SPEC, 4, 3)
    with pytest.raises(AssertionError, match=r"invariance \(permutation\): largest difference"):
        testing.assert_invariant(model, SPEC, **TIGHT)
