"""spec_of: networks as people write them are read and agree with the module; everything else is refused by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import weightspace as ws
from weightspace import testing
from weightspace._trace import spec_of


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


# What is refused, and the operator that the message names.


class Skip(nn.Module):
    def __init__(self, merge: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.merge = merge

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        return self.c(self.merge(h, torch.relu(self.b(h))))


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.c = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.a(torch.relu(self.a(x)))))


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


def _old_norm(wrap: Callable[[nn.Module], nn.Module], *, used: bool = False) -> nn.Module:
    """A layer whose weight is an attribute; after a forward pass without gradients it can even be copied."""
    with pytest.warns(FutureWarning) if wrap is nn.utils.weight_norm else nullcontext():
        module = nn.Sequential(wrap(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 1))
    if used:
        with torch.no_grad():
            module(torch.zeros(1, 2))
    return module


def _hooked() -> nn.Module:
    module = _mlp(nn.Tanh())
    module[0].register_forward_hook(lambda _m, _a, out: out * 2)
    return module


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(x) if x.sum() > 0 else self.b(self.a(x))


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x + y)


class WithCoords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = _mlp(torch.sin)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), x


class Widen(nn.Linear):
    """A subclass with a forward of its own is looked into, not trusted."""

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(super().forward(input))


class InPlace(nn.Module):
    """A sum, or an activation, that is written into a value by a statement of its own."""

    def __init__(self, write: Callable[[nn.Module, Tensor, Tensor], object]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout(inplace=True)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        h = torch.sigmoid(self.a(x))
        self.write(self, h, torch.sigmoid(self.b(x)))
        return self.c(h)


def _tail(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(*_mlp(nn.Tanh()), Fn(function))


def _head(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return nn.Sequential(Fn(function), *_mlp(nn.Tanh()))


REFUSED = {
    "skip by add": (lambda: Skip(lambda a, b: a + b), r"a sum \(add\) that ties what 'b.weight' reads"),
    "skip by cat": (lambda: Skip(lambda a, b: torch.cat([a, b])), r"torch\.cat"),
    "gate by mul": (lambda: Skip(lambda a, b: a * b), "mul of two values"),
    "shared weight": (Shared, "one parameter shared by 'a.weight' and 'b.weight'"),
    "layer used twice": (Twice, r"parameters \['a.bias', 'a.weight'\] used more than once"),
    "no activation": (lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "no activation between '0.weight' and"),
    "factor only": (lambda: _mlp(lambda z: 2 * z), "no activation of the table between '0.weight' and '2.weight'"),
    "unused parameter": (lambda: Extra(nn.Parameter(torch.ones(2))), r"parameters \['extra'\]"),
    "unused layer": (lambda: Extra(nn.Linear(2, 2)), r"parameters \['extra.weight', 'extra.bias'\]"),
    "dead layer": (
        lambda: Extra(nn.Linear(2, 2), lambda m, x: (m.extra(x), m.net(x))[1]),
        r"parameters \['extra.weight', 'extra.bias'\]",
    ),
    "buffer": (lambda: Extra(torch.ones(2)), r"buffers \['extra'\]"),
    "learned factor": (
        lambda: Extra(nn.Parameter(torch.tensor(3.0)), lambda m, x: m.net(x) * m.extra),
        "mul with something other than a Python number",
    ),
    "computed weight": (
        lambda: Extra(nn.Parameter(torch.ones(3, 1)), lambda m, x: F.linear(m.net(x).tanh(), m.extra * 2)),
        "mul",
    ),
    "tensor constant": (lambda: _mlp(lambda z: torch.sin(torch.tensor(30.0) * z)), "hold constants as Python numbers"),
    "hook": (_hooked, "differs from the module by .*hooks"),
    "control flow": (Branches, "torch.fx cannot trace Branches"),
    "two inputs": (TwoInputs, "a second input 'y'"),
    "tuple": (WithCoords, "an output of type tuple"),
    "no layer": (nn.Identity, "a network without a linear layer"),
    "subclass": (lambda: nn.Sequential(Widen(2, 3), nn.Linear(3, 1)), "softplus"),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), nn.Tanh(), nn.Linear(3, 1)),
        r"ParametrizedLinear \('0'\)",
    ),
    "old weight norm": (lambda: _old_norm(nn.utils.weight_norm), r"Linear \('0'\), whose weight is computed"),
    "old weight norm, used": (
        lambda: _old_norm(nn.utils.weight_norm, used=True),
        r"Linear \('0'\), whose weight is computed \(weight_norm",
    ),
    "old spectral norm": (lambda: _old_norm(nn.utils.spectral_norm), r"Linear \('0'\), whose weight is computed"),
    "add in place": (lambda: InPlace(lambda _m, h, z: h.add_(z)), r"torch\.Tensor\.add_ in place, as a statement"),
    "function in place": (lambda: InPlace(lambda _m, h, _z: torch.relu_(h)), r"torch\.relu_ in place"),
    "option in place": (lambda: InPlace(lambda _m, h, _z: F.elu(h, inplace=True)), r"elu in place, as a statement"),
    "out": (lambda: InPlace(lambda _m, h, z: torch.add(h, z, out=h)), r"torch\.add in place, as a statement"),
    "module in place": (lambda: InPlace(lambda m, h, _z: m.relu(h)), r"ReLU \('relu'\) in place, as a statement"),
    "group norm": (lambda: _mlp(nn.GroupNorm(3, 6)), r"GroupNorm \('1'\) with 3 groups of 6 channels"),
    "softplus": (lambda: _mlp(nn.Softplus()), r"Softplus \('1'\)"),
    "elu, function": (lambda: _mlp(F.elu), r"torch\.nn\.functional\.elu"),
    "method": (lambda: _mlp(lambda z: z.clamp(0, 6)), r"torch\.Tensor\.clamp"),
    "leaky relu slope": (lambda: _mlp(nn.LeakyReLU(0.2)), "leaky_relu with slope 0.2"),
    "leaky relu slope, function": (lambda: _mlp(lambda z: F.leaky_relu(z, 0.1)), "leaky_relu with slope 0.1"),
    "gelu tanh": (lambda: _mlp(nn.GELU("tanh")), "gelu with approximate='tanh'"),
    "dropout": (lambda: nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Dropout(0.5)), r"dropout with p=0.5 in training"),
    "dropout, function": (lambda: _mlp(lambda z: F.dropout(torch.tanh(z))), r"dropout with p=0.5 in training"),
    "negative omega": (lambda: _mlp(lambda z: torch.sin(-30 * z)), r"sine of -30 \* z \*\* 1"),
    "sine of a square": (lambda: _mlp(lambda z: torch.sin(z**2)), r"sine of 1 \* z \*\* 2"),
    "wide gaussian": (lambda: _mlp(lambda z: torch.exp(-(z**2) / 2)), r"exp of -0.5 \* z \*\* 2"),
    "exp": (lambda: _mlp(torch.exp), r"exp of 1 \* z \*\* 1"),
    "cube": (lambda: _mlp(lambda z: z**3), "exponent other than 2"),
    "scaled tanh": (lambda: _mlp(lambda z: torch.tanh(3 * z)), r"tanh of 3 \* z"),
    "shift before the activation": (lambda: _mlp(lambda z: torch.sin(z + 1)), "sine after the addition of a constant"),
    "shift after the activation": (lambda: _mlp(lambda z: torch.sin(z) + 1), "add of a constant anywhere but"),
    "factor after the activation": (lambda: _mlp(lambda z: 2 * torch.sin(z)), "mul on what leaves an activation"),
    "reciprocal": (lambda: _mlp(lambda z: 1 / z), "div of a value by something other"),
    "reversed sub": (lambda: _tail(lambda y: 1 - y), "sub of a value from something else"),
    "alpha": (lambda: _tail(lambda y: torch.add(y, 1, alpha=2)), r"torch\.add with 2 positional arguments"),
    "output activation": (lambda: _tail(torch.sigmoid), "sigmoid after the last linear layer"),
    "output factor": (lambda: _tail(lambda y: 2 * y), r"output 2 \* z \*\* 1"),
    "output squeezed": (lambda: _tail(lambda y: y.squeeze(-1)), r"torch\.Tensor\.squeeze"),
    "input factor": (lambda: _head(lambda x: 2 * x), "mul on the input"),
    "positional encoding": (lambda: _head(torch.sin), "sine on the input"),
    "matmul": (lambda: _head(lambda x: x @ x), r"operator\.matmul"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), "UninitializedParameter"),
    "complex": (lambda: nn.Linear(2, 3, dtype=torch.complex64), "expected initialised real numbers"),
    "widths that do not fit": (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(4, 1)), "after 3 features"),
}


def test_statements_that_write_nothing_are_passed_over() -> None:
    module = Extra(None, lambda m, x: (x.requires_grad_(), m.net(x))[1])
    assert spec_of(module).num_params == spec_of(_mlp(nn.Tanh())).num_params
    still = InPlace(lambda m, h, _z: m.dropout(h)).eval()
    with pytest.raises(ValueError, match=r"parameters \['b.weight', 'b.bias'\] that the output does not depend on"):
        spec_of(still)


def test_examples_that_are_empty_or_not_finite_are_refused() -> None:
    for make in (lambda: _mlp(nn.Tanh()), lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 3))):
        with pytest.raises(ValueError, match=r"example_input: expected at least one input, got shape \[0, 1, 8, 8\]"):
            spec_of(make(), torch.zeros(0, 1, 8, 8))
        with pytest.raises(ValueError, match="example_input: expected finite numbers, got NaN or infinity; torch"):
            spec_of(make(), torch.full((2, 1, 8, 8), math.nan))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_by_name(name: str) -> None:
    make, text = REFUSED[name]
    with pytest.raises(ValueError, match="cannot prove symmetric: .*" + text):
        spec_of(make())


def test_an_unknown_convention_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown init: expected one of"):
        spec_of(_mlp(nn.Tanh()), init="kaiming")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"module: expected an nn\.Module, got OrderedDict"):
        spec_of(_mlp(nn.Tanh()).state_dict())  # type: ignore[arg-type]


def test_random_weights_of_a_traced_spec_are_usable(generator: torch.Generator) -> None:
    spec = spec_of(NotebookSiren())
    w = testing.random_weights(spec, 2, generator=generator)
    testing.assert_same_function(w, ws.Symmetry.sample(spec, batch=2, generator=generator).act(w))
