"""Contract checks for layers, models and transforms, on random networks: public, for users' own code too.

Nothing here needs pytest; a check that fails raises ``AssertionError`` saying by how much.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from weightspace._activation import ACTIVATIONS
from weightspace._activation import activation as lookup
from weightspace._checks import check_tensor, whole_number
from weightspace._evaluate import evaluate
from weightspace._random import rand, randn
from weightspace._spec import Axis, NetSpec, Param, check_spec
from weightspace._symmetry import GROUPS, Group, Symmetry, check_group
from weightspace._weights import Weights, check_weights

__all__ = [
    "assert_equivariant",
    "assert_invariant",
    "assert_same_function",
    "random_spec",
    "random_symmetry",
    "random_weights",
]

_GAIN = 1.5


def _integers(low: int, high: int, count: int, generator: torch.Generator) -> list[int]:
    """``count`` integers drawn from [low, high]."""
    u = rand((count,), generator=generator, dtype=torch.float64)
    return [low + min(int(v * (high - low + 1)), high - low) for v in u.tolist()]


def random_spec(*, generator: torch.Generator, activation: str | None = None, max_hidden_layers: int = 4) -> NetSpec:
    """Draw a small sequential network: unequal widths, an activation and a frequency for each hidden layer.

    Args:
        generator: source of randomness.
        activation: one name of the activation table for all layers, or ``None`` to draw one for each layer.
        max_hidden_layers: the number of hidden layers is drawn from 1 to this, at most 8.

    Returns:
        A spec with the parameter names of :func:`weightspace.mlp`.

    Raises:
        ValueError: for an unknown activation, or no hidden layer at all.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.testing.random_spec(generator=torch.Generator().manual_seed(0), activation="relu")
        >>> {axis.activation for axis in spec.hidden}
        {'relu'}
    """
    if not 1 <= whole_number("max_hidden_layers", max_hidden_layers, None) <= 8:
        raise ValueError(f"max_hidden_layers: expected 1 to 8, got {max_hidden_layers}")
    if activation is not None:
        lookup(activation)
    (depth,) = _integers(1, max_hidden_layers, 1, generator)
    widths = (2 + rand((9,), generator=generator, dtype=torch.float32).argsort()).tolist()[:depth]
    names, table = [activation] * depth, sorted(ACTIVATIONS)
    if activation is None:
        names = [table[i] for i in _integers(0, len(table) - 1, depth, generator)]
    omegas = [30.0**u for u in rand((depth,), generator=generator, dtype=torch.float64).tolist()]
    inputs, outputs, shifted = _integers(1, 3, 3, generator)
    axes = [Axis("in", inputs)]
    for i, (size, name, omega) in enumerate(zip(widths, names, omegas, strict=True), start=1):
        axes.append(Axis(f"h{i}", size, name, omega if lookup(str(name)).periodic else 1.0))
    axes.append(Axis("out", outputs))
    params = []
    for i, (below, above) in enumerate(itertools.pairwise(axes)):
        params += [Param(f"{i}.weight", (above.name, below.name)), Param(f"{i}.bias", (above.name,), "bias")]
    return NetSpec(tuple(axes), tuple(params), output_shift=0.5 if shifted == 1 else 0.0)


def random_weights(
    spec: NetSpec,
    batch: int,
    *,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Weights:
    """Draw networks that compute something: pre-activations of order one (radians, for periodic activations).

    Weights are normal with standard deviation ``1.5 / sqrt(fan in)``, biases with 0.5, both divided by omega where
    the produced axis is periodic. Parameters and statistics of norms are normal with 0.5, variances uniform in
    [0.5, 1.5].

    Args:
        spec: what each network is.
        batch: number of networks.
        generator: source of randomness.
        dtype: of the result; the numbers are drawn in float64, so that they agree between dtypes.
        device: of the result; by default the generator's.

    Example:
        >>> import weightspace as ws
        >>> w = ws.testing.random_weights(ws.mlp(2, 8, 1), 3, generator=torch.Generator().manual_seed(0))
        >>> w.flat.shape
        torch.Size([3, 33])
    """
    parts = []
    for param in spec.params:
        shape, axis = spec.shape(param.name), spec.axis(param.produces)
        std = _GAIN / math.sqrt(math.prod(shape[1:])) if param.kind == "weight" else 0.5
        if axis.activation is not None and lookup(axis.activation).periodic:
            std /= axis.omega
        draws = std * randn((batch, math.prod(shape)), generator=generator, dtype=torch.float64)
        parts.append(0.5 + torch.special.ndtr(draws / std) if param.variance else draws)
    return Weights(torch.cat(parts, dim=1).to(device=device, dtype=dtype), spec)


def random_symmetry(
    spec: NetSpec,
    batch: int,
    *,
    generator: torch.Generator,
    group: Group = "full",
    dtype: torch.dtype = torch.float64,
) -> Symmetry:
    """Draw elements of one of the groups that the checks know.

    Args:
        spec: the networks to act on.
        batch: number of elements.
        generator: source of randomness.
        group: ``"permutation"``; ``"signed"`` adds signs where the activation allows them; ``"scaled"`` adds
            positive scales too; ``"full"`` adds phases.
        dtype: of scales and phases.

    Raises:
        ValueError: for an unknown group.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> g = ws.testing.random_symmetry(ws.siren(2, 8, 1), 3, generator=gen, group="signed")
        >>> sorted(g.perm), sorted(g.scale), sorted(g.shift)
        (['h1'], ['h1'], [])
    """
    check_group(group, GROUPS[1:])
    return Symmetry.sample(spec, batch=batch, generator=generator, group=group, dtype=dtype)


def _points(spec: NetSpec, generator: torch.Generator | None, count: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    return 2 * rand((count, spec.in_features), generator=generator, dtype=torch.float64) - 1


def _tolerance(*dtypes: torch.dtype) -> float:
    """The square root of the coarsest machine epsilon: 3.5e-4 in float32, 1.5e-8 in float64."""
    return math.sqrt(max(torch.finfo(dtype).eps for dtype in dtypes))


def _assert_close(found: Tensor, expected: Tensor, what: str, atol: float, rtol: float) -> None:
    """Compare row by row: the largest difference against ``atol + rtol *`` the row's largest magnitude."""
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: expected shape {list(expected.shape)}, got {list(found.shape)}")
    found, expected = (t.double().reshape(t.shape[0], -1) for t in (found, expected))
    if not (torch.isfinite(found).all() and torch.isfinite(expected).all()):
        raise AssertionError(f"{what}: expected finite numbers, got nan or inf")
    difference = (found - expected).abs().amax(1)
    allowed = atol + rtol * expected.abs().amax(1)
    if bool((difference > allowed).any()):
        row = int((difference - allowed).argmax())
        raise AssertionError(
            f"{what}: largest difference {float(difference.max()):.3e}; network {row} differs by "
            f"{float(difference[row]):.3e}, allowed {float(allowed[row]):.3e}"
        )


def assert_same_function(
    a: Weights,
    b: Weights,
    *,
    x: Tensor | None = None,
    module: nn.Module | None = None,
    generator: torch.Generator | None = None,
    atol: float | None = None,
    rtol: float | None = None,
) -> None:
    r"""Check that network ``i`` of ``a`` and network ``i`` of ``b`` compute the same function.

    .. math:: \max_x |f_{a_i}(x) - f_{b_i}(x)| \le atol + rtol \, \max_x |f_{a_i}(x)|

    Both are evaluated in float64, so that only a difference of the weights counts.

    Args:
        a: ``batch`` networks.
        b: as many.
        x: points ``[point, in]`` or ``[batch, point, in]``; by default 64 uniform ones in [-1, 1]. With a module: what
            it takes, the same for all networks.
        module: for networks that are no chain of linear layers, the module that ``ws.spec_of`` read: it computes the
            function, in evaluation mode, from the weights' state dicts.
        generator: draws the default points; without it they are always the same.
        atol: absolute tolerance, by default the square root of the coarser dtype's epsilon.
        rtol: relative tolerance, the same default.

    Raises:
        AssertionError: if they differ, saying by how much.
        TypeError: for something other than ``Weights``, points and a module.
        ValueError: if the numbers of networks, inputs or outputs differ, there is no network, or a module without
            ``x``.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> w = ws.testing.random_weights(spec, 3, generator=gen)
        >>> ws.testing.assert_same_function(w, ws.Symmetry.sample(spec, batch=3, generator=gen).act(w))
        >>> ws.testing.assert_same_function(w, w.replace(1.01 * w.flat))
        Traceback (most recent call last):
        AssertionError: functions: largest difference ...
    """
    check_weights("a", a)
    check_weights("b", b)
    if x is not None:
        check_tensor("x", x)
    shapes = [(len(w), w.spec.in_features, w.spec.out_features) for w in (a, b)]
    if shapes[0] != shapes[1] or not len(a):
        raise ValueError(
            f"expected as many networks, inputs and outputs on both sides, got {shapes[0]} and {shapes[1]}"
        )
    tolerance = _tolerance(a.dtype, b.dtype)
    both = [w.to(device=a.device, dtype=torch.float64) for w in (a, b)]
    if module is None:
        x = (_points(a.spec, generator) if x is None else x).to(a.device)
        ya, yb = (evaluate(w, x) for w in both)
    else:
        ya, yb = (_call(module, w, x) for w in both)
    atol, rtol = (tolerance if t is None else t for t in (atol, rtol))
    _assert_close(yb, ya, "functions", atol, rtol)


@torch.no_grad()
def _call(module: Any, weights: Weights, x: Tensor | None) -> Tensor:
    """The module's outputs for every network, ``[batch, ...]``, in evaluation mode and float64."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    if x is None:
        raise ValueError("x: expected what the module takes, got None; pass x with a module")
    module = copy.deepcopy(module).to(device=weights.device, dtype=torch.float64).eval()
    x = x.to(weights.flat)
    return torch.stack([torch.func.functional_call(module, state, (x,)) for state in weights.state_dicts()])


def _prepared(layer: Any, dtype: torch.dtype, device: Any, noise: float, generator: torch.Generator) -> Any:
    """A copy of the layer in evaluation mode, with noise on its parameters; other callables as they are."""
    if not isinstance(layer, nn.Module):
        return layer
    layer = copy.deepcopy(layer).to(device=device, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += noise * randn(parameter.shape, generator=generator, dtype=dtype, device=parameter.device)
    return layer


def _inputs(spec: NetSpec, batch: int, channels: int | None, generator: torch.Generator, **to: Any) -> Weights:
    if channels is None:
        return random_weights(spec, batch, generator=generator).to(**to)
    flat = randn((batch, spec.num_params, channels), generator=generator, dtype=torch.float64)
    return Weights(flat, spec).to(**to)


def _values(out: Any) -> Tensor:
    if isinstance(out, Weights):
        return out.flat
    if isinstance(out, Tensor):
        return out
    raise TypeError(f"expected the layer to return Weights or a Tensor, got {type(out).__name__}")


@torch.no_grad()
def assert_equivariant(
    layer: Callable[[Weights], Weights | Tensor],
    spec: NetSpec,
    *,
    group: Group = "permutation",
    channels: int | None = None,
    batch: int = 4,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    noise: float = 0.1,
    atol: float | None = None,
    rtol: float | None = None,
) -> None:
    r"""Check that a layer commutes with the symmetries of the networks it reads.

    .. math:: layer(g \cdot w) = g \cdot layer(w)

    A layer that returns a tensor is checked for invariance, ``layer(g w) = layer(w)``. A module is copied, cast and
    put in evaluation mode; noise is added to the copy's parameters, because what starts at zero can hide a fault.

    Args:
        layer: a module or function from ``Weights`` to ``Weights`` or to a tensor ``[batch, ...]``.
        spec: the networks it reads.
        group: the elements to draw, see :func:`random_symmetry`; features with channels carry no phase, so
            ``"full"`` is for layers that read raw weights.
        channels: size of the input's channel axis; by default ``layer.in_channels`` where there is one, else the
            layer reads raw weights ``[batch, param]``.
        batch: number of networks, at least two.
        dtype: to compute in.
        device: to compute on.
        generator: draws networks and elements; without it they are always the same.
        noise: standard deviation of what is added to the copy's parameters.
        atol: absolute tolerance, by default the square root of the dtype's epsilon.
        rtol: tolerance relative to the largest output of a network, the same default.

    Raises:
        AssertionError: if the outputs differ, saying by how much, or if the layer's output does not depend on its
            input, so that nothing would be checked.
        ValueError: for a spec without hidden axes, or fewer than two networks.
        TypeError: if the layer returns something else, or is none, or ``spec`` is no ``NetSpec``.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.mlp(2, 5, 1)
        >>> ws.testing.assert_equivariant(lambda w: w.replace(w.flat.exp()), spec)
        >>> ws.testing.assert_equivariant(lambda w: w.replace(w.flat.cumsum(1)), spec)
        Traceback (most recent call last):
        AssertionError: equivariance (permutation): largest difference ...
    """
    check_spec(spec)
    if not callable(layer):
        raise TypeError(f"layer: expected a module or function, got {type(layer).__name__}")
    if not any(axis.size > 1 for axis in spec.hidden) or whole_number("batch", batch, None) < 2:
        raise ValueError(
            f"expected a spec with a hidden axis of at least 2 neurons and at least 2 networks, "
            f"got {[axis.size for axis in spec.hidden]} and {batch}; nothing would be checked"
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    channels = getattr(layer, "in_channels", None) if channels is None else channels
    run = _prepared(layer, dtype, device, noise, generator)
    weights = _inputs(spec, batch, channels, generator, dtype=dtype, device=device)
    g = random_symmetry(spec, batch, generator=generator, group=group).to(device)
    before, after = run(weights), run(g.act(weights))
    expected = g.act(before) if isinstance(before, Weights) else before
    what = f"{'equivariance' if isinstance(before, Weights) else 'invariance'} ({group})"
    rows = _values(before).double()
    if bool((rows == rows[:1]).all()):
        raise AssertionError(f"{what}: the layer returns the same for every network, so this would check nothing")
    atol, rtol = (_tolerance(dtype) if t is None else t for t in (atol, rtol))
    _assert_close(_values(after), _values(expected), what, atol, rtol)


class _OnlyTensors(nn.Module):
    """A model that must return a tensor."""

    def __init__(self, model: Callable[[Weights], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.in_channels = getattr(model, "in_channels", None)

    def forward(self, weights: Weights) -> Tensor:
        out = self.model(weights)
        if not isinstance(out, Tensor):
            raise TypeError(f"expected the model to return a tensor, got {type(out).__name__}; use assert_equivariant")
        return out


def assert_invariant(model: Callable[[Weights], Tensor], spec: NetSpec, **options: Any) -> None:
    r"""Check that a model's output does not change along the symmetries of the networks it reads.

    .. math:: model(g \cdot w) = model(w)

    Args:
        model: a module or function from ``Weights`` to a tensor ``[batch, ...]``.
        spec: the networks it reads.
        options: as for :func:`assert_equivariant`.

    Raises:
        AssertionError: if the outputs differ, saying by how much.
        TypeError: if the model returns something other than a tensor.

    Example:
        >>> import weightspace as ws
        >>> ws.testing.assert_invariant(lambda w: w.view("0.bias").sum(1), ws.mlp(2, 5, 1))
        >>> ws.testing.assert_invariant(lambda w: w.view("0.bias")[:, 0], ws.mlp(2, 5, 1))
        Traceback (most recent call last):
        AssertionError: invariance (permutation): largest difference ...
    """
    assert_equivariant(_OnlyTensors(model), spec, **options)
