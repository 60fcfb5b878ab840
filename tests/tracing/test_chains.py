"""spec_of on sequential networks: read exactly, so that ``evaluate`` agrees with the module."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace.tracing import _chain, _rules, spec_of


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, z: Tensor) -> Tensor:
        return self.function(z)


class SineLayer(nn.Module):
    """The layer of the original SIREN notebook: omega multiplies the linear layer's output."""

    def __init__(self, inputs: int, outputs: int, omega_0: float = 30, is_first: bool = False) -> None:
        super().__init__()
        self.omega_0 = omega_0
        self.linear = nn.Linear(inputs, outputs)
        with torch.no_grad():
            bound = 1 / inputs if is_first else math.sqrt(6 / inputs) / omega_0
            self.linear.weight.uniform_(-bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega_0 * self.linear(x))


class NotebookSiren(nn.Module):
    def __init__(self, first_omega: float = 30, hidden_omega: float = 1.0) -> None:
        super().__init__()
        self.net = nn.Sequential(
            SineLayer(2, 9, first_omega, is_first=True), SineLayer(9, 7, hidden_omega), nn.Linear(7, 3)
        )

    def forward(self, coords: Tensor) -> Tensor:
        coords = coords.clone().detach().requires_grad_(True)
        return self.net(coords)


class Sine(nn.Module):
    def __init__(self, w0: float = 30.0) -> None:
        super().__init__()
        self.w0 = w0

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.w0).sin()


class ShiftedSiren(nn.Module):
    """Layers in a ModuleList, the sine a module shared by all, and 0.5 added to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 8), nn.Linear(8, 6), nn.Linear(6, 1)])
        self.activation = Sine()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x) + 0.5


class OwnParameters(nn.Module):
    """F.linear on parameters of the module, biases registered first, no bias at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.b1 = nn.Parameter(torch.zeros(5))
        self.w1 = nn.Parameter(torch.randn(5, 2))
        self.w2 = nn.Parameter(torch.randn(1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return 1.25 + F.linear(F.relu(F.linear(x, self.w1, bias=self.b1), inplace=True), self.w2)


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.Tanh()), nn.Identity(), nn.Dropout(0.0))
        self.head = nn.ModuleDict({"out": nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 2))})

    def forward(self, x: Tensor) -> Tensor:
        return self.head["out"](self.body(x)) - 1


def _mlp(activation: Callable[[Tensor], Tensor] | nn.Module) -> nn.Sequential:
    middle = activation if isinstance(activation, nn.Module) else Fn(activation)
    return nn.Sequential(nn.Linear(2, 6), middle, nn.Linear(6, 1))


def _axes(spec: ws.NetSpec) -> list[tuple[int, str | None, float]]:
    return [(axis.size, axis.activation, axis.omega) for axis in spec.axes]


WILD = {
    "notebook": (NotebookSiren, [(2, None, 1), (9, "sine", 30), (7, "sine", 1), (3, None, 1)], 0.0),
    "shared sine": (ShiftedSiren, [(2, None, 1), (8, "sine", 30), (6, "sine", 30), (1, None, 1)], 0.5),
    "own parameters": (OwnParameters, [(2, None, 1), (5, "relu", 1), (1, None, 1)], 1.25),
    "nested": (Nested, [(3, None, 1), (4, "tanh", 1), (5, "gelu", 1), (2, None, 1)], -1.0),
    "one linear": (lambda: nn.Linear(2, 3), [(2, None, 1), (3, None, 1)], 0.0),
}


@pytest.mark.parametrize("name", WILD)
def test_networks_as_found_in_the_wild(name: str) -> None:
    make, axes, shift = WILD[name]
    torch.manual_seed(0)
    module = make()
    spec = spec_of(module)
    assert _axes(spec) == axes
    assert spec.output_shift == shift
    assert [p.name for p in spec.params] == list(module.state_dict())
    x = torch.rand(11, spec.in_features) * 2 - 1
    w = ws.Weights.from_state_dicts([module.state_dict()], spec)
    torch.testing.assert_close(ws.evaluate(w, x)[0], module(x), atol=1e-4, rtol=1e-4)


ACTIVATIONS = {
    "sine module": (Sine(7.0), "sine", 7.0),
    "sine, left factor": (lambda z: torch.sin(30 * z), "sine", 30.0),
    "sine, right factor": (lambda z: torch.sin(z * 30.0), "sine", 30.0),
    "sine, torch.mul": (lambda z: torch.sin(torch.mul(z, 3)), "sine", 3.0),
    "sine, method": (lambda z: z.mul(3).sin(), "sine", 3.0),
    "sine, two factors": (lambda z: torch.sin(2 * math.pi * z / 4), "sine", math.pi / 2),
    "sine, no factor": (torch.sin, "sine", 1.0),
    "cosine": (lambda z: torch.cos(5 * z), "cosine", 5.0),
    "cosine, negative": (lambda z: torch.cos(-5 * z), "cosine", 5.0),
    "gaussian": (lambda z: torch.exp(-(z**2)), "gaussian", 1.0),
    "gaussian, float exponent": (lambda z: torch.exp(-(z**2.0)), "gaussian", 1.0),
    "gaussian, square": (lambda z: (-z.square()).exp(), "gaussian", 1.0),
    "gaussian, pow": (lambda z: torch.exp(-1 * torch.pow(z, 2)), "gaussian", 1.0),
    "gaussian, product": (lambda z: torch.exp(-z * z), "gaussian", 1.0),
    "relu": (nn.ReLU(inplace=True), "relu", 1.0),
    "relu, method": (lambda z: z.relu(), "relu", 1.0),
    "leaky relu": (nn.LeakyReLU(), "leaky_relu", 1.0),
    "leaky relu, function": (lambda z: F.leaky_relu(z, 0.01), "leaky_relu", 1.0),
    "tanh": (torch.tanh, "tanh", 1.0),
    "gelu": (nn.GELU(), "gelu", 1.0),
    "gelu, function": (lambda z: F.gelu(z), "gelu", 1.0),
    "silu": (nn.SiLU(), "silu", 1.0),
    "silu, function": (F.silu, "silu", 1.0),
    "sigmoid": (nn.Sigmoid(), "sigmoid", 1.0),
    "sigmoid, function": (torch.sigmoid, "sigmoid", 1.0),
    "sigmoid, special function": (torch.special.expit, "sigmoid", 1.0),
    "dropout in eval": (nn.Sequential(nn.Tanh(), nn.Dropout(0.5)).eval(), "tanh", 1.0),
    "dropout off": (lambda z: F.dropout(torch.tanh(z), 0.5, training=False), "tanh", 1.0),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_spelling_of_an_activation(name: str) -> None:
    function, activation, omega = ACTIVATIONS[name]
    spec = spec_of(_mlp(function))
    assert spec.axis("h1").activation == activation
    assert spec.axis("h1").omega == pytest.approx(omega, abs=0)


def test_what_is_traced_equals_what_is_constructed() -> None:
    module = nn.Sequential(nn.Linear(2, 8), Sine(), nn.Linear(8, 4), Sine(1.0), nn.Linear(4, 1))
    made, traced = ws.siren(2, 8, 4, 1, omega=[30.0, 1.0], init="siren"), spec_of(module, init="siren")
    assert (traced.axes, traced.output_shift, traced.init) == (made.axes, made.output_shift, made.init)
    assert [p.axes for p in traced.params] == [p.axes for p in made.params]


@pytest.mark.parametrize("name", WILD)
def test_symmetries_of_the_traced_spec_keep_the_module(name: str, generator: torch.Generator) -> None:
    module = WILD[name][0]().double()
    spec = spec_of(module)
    w = ws.Weights.from_state_dicts([module.state_dict()], spec)
    moved = copy.deepcopy(module)
    moved.load_state_dict(ws.Symmetry.sample(spec, batch=1, generator=generator).act(w).state_dict(0))
    x = 2 * torch.rand(30, spec.in_features, dtype=torch.float64, generator=generator) - 1
    torch.testing.assert_close(moved(x), module(x), atol=1e-9, rtol=1e-9)
    if spec.hidden:
        assert any(not torch.equal(p, q) for p, q in zip(moved.parameters(), module.parameters(), strict=True))


def test_the_module_and_the_random_state_stay_as_they_are() -> None:
    module = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Dropout(0.0), nn.Linear(4, 1))
    module[2].eval()
    before, state, names = copy.deepcopy(module.state_dict()), torch.get_rng_state(), set(vars(module))
    spec_of(module)
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert [m.training for m in module] == [True, True, False, True]
    assert all(p.dtype == torch.float32 and p.requires_grad and p.grad is None for p in module.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert set(vars(module)) == names


def test_weights_that_diverged_do_not_matter() -> None:
    module = _mlp(nn.Tanh())
    with torch.no_grad():
        module[0].weight.fill_(math.nan)
    assert spec_of(module) == spec_of(_mlp(nn.Tanh()))


class Extra(nn.Module):
    """A sequential network beside something that it does not use, or not as a linear layer does."""

    def __init__(self, extra: nn.Module | nn.Parameter | Tensor | None, forward: Callable | None = None) -> None:
        super().__init__()
        self.net = _mlp(nn.Tanh())
        if isinstance(extra, Tensor) and not isinstance(extra, nn.Parameter):
            self.register_buffer("extra", extra, persistent=False)
        else:
            self.extra = extra
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.function is None else self.function(self, x)


class WithCoords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _mlp(torch.sin)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), x


def _tail(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(*_mlp(nn.Tanh()), Fn(function))


def _head(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(Fn(function), *_mlp(nn.Tanh()))


# Around the chain: what stands before its first layer or after its last is not in the spec.

AROUND = {
    "log softmax": _tail(lambda y: torch.log_softmax(y, 1)),
    "sigmoid": _tail(torch.sigmoid),
    "factor on the output": _tail(lambda y: 2 * y),
    "reversed difference": _tail(lambda y: 1 - y),
    "added twice": _tail(lambda y: torch.add(y, 1, alpha=2)),
    "squeezed": _tail(lambda y: y.squeeze(-1)),
    "factor on the input": _head(lambda x: 2 * x),
    "positional encoding": _head(torch.sin),
    "matrix product of the input": _head(lambda x: x @ x),
    "flattened": _head(lambda x: x.view(-1, 2)),
    "points of a tuple": WithCoords(),
    "second output": Extra(None, lambda m, x: (m.net(x), x)),
    "writes nothing": Extra(None, lambda m, x: (x.requires_grad_(), m.net(x))[1]),
    "buffer beside it": Extra(torch.ones(2)),
    "dropout": nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 1)),
}


@pytest.mark.parametrize("name", AROUND)
def test_what_stands_around_a_chain_leaves_it(name: str, generator: torch.Generator) -> None:
    module = AROUND[name].double()
    spec = spec_of(module, torch.zeros(2, 2))
    assert [(axis.size, axis.activation) for axis in spec.hidden] in ([(6, "tanh")], [(6, "sine")])
    assert [layer.weight for layer in spec.layers] == [name for name in module.state_dict() if "weight" in name]
    assert spec.output_shift == 0.0
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    x = 2 * torch.rand(2, 2, dtype=torch.float64, generator=generator) - 1
    module.extra = None
    first = torch.func.functional_call(module.eval(), w.state_dict(0), (x,))
    moved = torch.func.functional_call(module, g.act(w).state_dict(0), (x,))
    first, moved = (y[0] if isinstance(y, tuple) else y for y in (first, moved))
    torch.testing.assert_close(moved, first, atol=1e-9, rtol=1e-9)


# Activations outside of the table, and numbers at other places than the spec records: permutations alone.

OTHER = {
    "factor": lambda z: 2 * z,
    "softplus": nn.Softplus(),
    "elu": F.elu,
    "clamp": lambda z: z.clamp(0, 6),
    "hardswish": nn.Hardswish(),
    "log sigmoid": nn.LogSigmoid(),
    "softsign": nn.Softsign(),
    "mish": nn.Mish(),
    "selu": nn.SELU(),
    "celu": nn.CELU(),
    "hardtanh": nn.Hardtanh(),
    "tanhshrink": nn.Tanhshrink(),
    "softshrink": nn.Softshrink(),
    "threshold": nn.Threshold(0.1, 0.0),
    "rrelu": nn.RReLU(),
    "prelu, one": nn.PReLU(),
    "prelu, each": nn.PReLU(6),
    "leaky relu, slope": nn.LeakyReLU(0.2),
    "leaky relu, slope, function": lambda z: F.leaky_relu(z, 0.1),
    "gelu, tanh": nn.GELU("tanh"),
    "negative omega": lambda z: torch.sin(-30 * z),
    "sine of a square": lambda z: torch.sin(z**2),
    "wide gaussian": lambda z: torch.exp(-(z**2) / 2),
    "exponential": torch.exp,
    "cube": lambda z: z**3,
    "scaled tanh": lambda z: torch.tanh(3 * z),
    "shift before": lambda z: torch.sin(z + 1),
    "shift after": lambda z: torch.sin(z) + 1,
    "shift after gelu": lambda z: F.gelu(z) + 1,
    "factor after": lambda z: 2 * torch.sin(z),
    "reciprocal": lambda z: 1 / (2 + z.abs()),
    "two sines": lambda z: torch.sin(torch.sin(z)),
    "product with its flipped rows": lambda z: torch.exp(-z * z.flip(0)),
    "softmax": nn.Softmax(1),
    "layer norm": nn.LayerNorm(6),
    "rms norm by hand": lambda z: z * torch.rsqrt(z.pow(2).mean(-1, keepdim=True) + 1e-6),
}


@pytest.mark.parametrize("name", OTHER)
def test_other_functions_have_permutations_alone(name: str, generator: torch.Generator) -> None:
    module = _mlp(OTHER[name]).double()
    spec = spec_of(module)
    assert [(axis.size, axis.activation) for axis in spec.hidden] == [(6, "other")]
    x = 2 * torch.rand(9, 2, dtype=torch.float64, generator=generator) - 1
    w = testing.random_weights(spec, 2, generator=generator, dtype=torch.float64)
    g = ws.Symmetry.sample(spec, batch=2, generator=generator, dtype=torch.float64)
    testing.assert_same_function(w, g.act(w), x=x, module=module, atol=1e-9, rtol=1e-9)
    with pytest.raises(ValueError, match=r"activation 'other' has no formula|expected (a chain|every parameter)"):
        ws.evaluate(w, x)


@pytest.mark.parametrize("name", ["multiply", "mul", "divide", "true_divide"])
def test_each_spelling_of_a_factor(name: str) -> None:
    factor = 4.0 if name in ("multiply", "mul") else 0.25
    assert spec_of(_mlp(lambda z: torch.sin(getattr(torch, name)(z, factor)))).axis("h1").omega == 4.0


def test_constants_are_numbers_whatever_holds_them() -> None:
    class Held(nn.Module):
        def __init__(self, omega: object, *, buffer: bool = False) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 8), nn.Linear(8, 1)
            if buffer:
                self.register_buffer("omega", omega, persistent=False)
            else:
                self.omega = omega

        def forward(self, x: Tensor) -> Tensor:
            return self.b(torch.sin(self.omega * self.a(x)))

    numbers = [np.float64(30), np.float32(30), np.array(30.0), torch.tensor(30.0), torch.full((8,), 30.0)]
    for number in numbers:
        held = torch.as_tensor(number) if isinstance(number, np.ndarray) else number
        assert spec_of(Held(held)).axis("h1") == ws.Axis("h1", 8, "sine", 30.0)
    assert spec_of(Held(torch.tensor(30.0), buffer=True)).axis("h1").omega == 30.0
    uneven = torch.linspace(1.0, 30.0, 8)
    with pytest.raises(ValueError, match=r"a network without a hidden axis: aten\.mul \(test_chains\.py:\d+\) leaves"):
        spec_of(Held(uneven))


def test_a_hook_is_part_of_the_network() -> None:
    module = _mlp(nn.Tanh())
    module[0].register_forward_hook(lambda _m, _a, out: out * 2)
    assert spec_of(module).axis("h1").activation == "other"


def test_an_activation_that_is_not_the_tables_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the comparison with ``evaluate``: a rule that reads a wrong frequency."""
    right = _chain.monomial
    monkeypatch.setattr(_rules, "monomial", lambda op, a, b=None: right(op, a, 2 * b if op == "aten.mul" else b))
    with pytest.raises(ValueError, match="the traced network differs from the module by"):
        spec_of(_mlp(lambda z: torch.sin(3 * z)))


class Tied(nn.Module):
    """Two layers, whose weights may be one, and a function of what each of them returns."""

    def __init__(self, merge: Callable[[Tensor, Tensor], Tensor], *, shared: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.merge = merge
        if shared:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.c(self.merge(h, torch.relu(self.b(h))))


def _twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.ReLU(), nn.Linear(4, 1))


TIES = "a network without a hidden axis: a sum that ties what 'b.weight' reads to what it makes"
REFUSED = {
    "sum around one layer": (lambda: Tied(lambda a, b: a + b), TIES),
    "rows of both": (lambda: Tied(lambda a, b: torch.cat([a, b])), TIES),
    "gate around one layer": (lambda: Tied(lambda a, b: a * b), TIES),
    "shared weight": (
        lambda: Tied(lambda a, b: b, shared=True),
        r"aten\.linear in 'a' \(test_chains\.py:\d+\) leaves no",
    ),
    "layer used twice": (_twice, r"a network without a hidden axis: aten\.linear in '0'"),
    "group norm": (lambda: _mlp(nn.GroupNorm(3, 6)), r"a network without a hidden axis: aten\.group_norm in '1'"),
    "no layer": (nn.Identity, "no shape was found .*it has no layer of torch.nn and no matrix to tell one"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "parameter '0.weight' of type UninitializedParameter"),
    "complex": (
        lambda: nn.Linear(2, 3, dtype=torch.complex64),
        "parameter 'weight' .*expected initialised real numbers",
    ),
    "widths that do not fit": (
        lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 1)),
        r"no shape was found .*shapes cannot be multiplied \(2x3 and 4x1\)",
    ),
    "two inputs": (lambda: Extra(None, lambda m, x, y: m.net(x + y)), r"no shape was found that the module takes"),
    "out": (
        lambda: _mlp(lambda z: torch.add(z, 1, out=z)),
        r"torch\.export cannot trace .*functions with out=\.\.\. argu",
    ),
    "dropout, function": (lambda: _mlp(lambda z: F.dropout(torch.tanh(z))), r"dropout with p=0\.5 in training mode"),
    "unused parameter": (
        lambda: Extra(nn.Parameter(torch.ones(2))),
        r"parameters \['extra'\] that the output does not",
    ),
    "learned factor without axes": (
        lambda: Extra(nn.Parameter(torch.tensor(3.0)), lambda m, x: m.net(x) * m.extra),
        "parameter 'extra' without axes",
    ),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_proved_is_refused_by_name(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    make, text = REFUSED[name]
    with pytest.raises(ValueError, match="cannot prove symmetric: .*" + text):
        spec_of(make())
    assert capfd.readouterr() == ("", "")


def test_examples_that_are_empty_or_not_finite_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"example_input: expected at least one input, got shape \[0, 2\]; pass a batch"
    ):
        spec_of(_mlp(nn.Tanh()), torch.zeros(0, 2))
    with pytest.raises(ValueError, match="example_input: expected finite numbers, got NaN or infinity; torch"):
        spec_of(_mlp(nn.Tanh()), torch.full((2, 2), math.nan))


def test_an_unknown_convention_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown init: expected one of"):
        spec_of(_mlp(nn.Tanh()), init="kaiming")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"module: expected an nn\.Module, got OrderedDict"):
        spec_of(_mlp(nn.Tanh()).state_dict())  # type: ignore[arg-type]


def test_random_weights_of_a_traced_spec_are_usable(generator: torch.Generator) -> None:
    spec = spec_of(NotebookSiren())
    w = testing.random_weights(spec, 2, generator=generator)
    testing.assert_same_function(w, ws.Symmetry.sample(spec, batch=2, generator=generator).act(w))
