"""Checks of one property each: two batches compute the same functions, a layer commutes with a group."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from weightspace._checks import check_tensor, whole_number
from weightspace._evaluate import evaluate
from weightspace._random import randn
from weightspace._spec import NetSpec, check_spec
from weightspace._symmetry import Group
from weightspace._weights import Weights, check_weights
from weightspace.testing._compare import Comparison, expect, points, tolerance
from weightspace.testing._random import random_symmetry, random_weights


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
        x: points ``[point, in]`` or ``[batch, point, in]``; by default 64 uniform ones in [-1, 1]. With a module: its
            input, the same for all networks.
        module: for networks that are not a chain of linear layers, the module that ``ws.spec_of`` read: it computes the
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
    __tracebackhide__ = True
    check_weights("a", a)
    check_weights("b", b)
    if x is not None:
        check_tensor("x", x)
    shapes = [(len(w), w.spec.in_features, w.spec.out_features) for w in (a, b)]
    if shapes[0] != shapes[1] or not len(a):
        raise ValueError(
            f"expected as many networks, inputs and outputs on both sides, got {shapes[0]} and {shapes[1]}"
        )
    default = tolerance(a.dtype, b.dtype)
    both = [w.to(device=a.device, dtype=torch.float64) for w in (a, b)]
    if module is None:
        x = (points(a.spec, generator) if x is None else x).to(a.device)
        ya, yb = (evaluate(w, x) for w in both)
    else:
        ya, yb = (_call(module, w, x) for w in both)
    atol, rtol = (default if t is None else t for t in (atol, rtol))
    Comparison.of(yb, ya, "functions").assert_within(atol, rtol)


def _call(module: Any, weights: Weights, x: Tensor | None) -> Tensor:
    """Return the module's outputs for every network, ``[batch, ...]``, in evaluation mode and float64."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module: expected an nn.Module, got {type(module).__name__}")
    if x is None:
        raise ValueError("x: expected the input of the module, got None; pass x with a module")
    module = copy.deepcopy(module).to(device=weights.device, dtype=torch.float64).eval()
    x = x.to(weights.flat)
    with torch.no_grad():
        return torch.stack([torch.func.functional_call(module, state, (x,)) for state in weights.state_dicts()])


class Setting(TypedDict, total=False):
    """The options of :func:`equivariance_error`, which the asserts take too."""

    group: Group
    channels: int | None
    batch: int
    dtype: torch.dtype
    device: torch.device | str
    generator: torch.Generator | None
    noise: float


def equivariance_error(
    layer: Callable[[Weights], Weights | Tensor], spec: NetSpec, **options: Unpack[Setting]
) -> float:
    r"""Measure how far a layer is from commuting with the symmetries of the networks that it reads.

    .. math:: \max_i \frac{\| layer(g\,w)_i - g\,layer(w)_i \|_\infty}{1 + \| layer(w)_i \|_\infty}

    over networks ``w`` and group elements ``g`` drawn at random. A layer that returns a tensor is measured for
    invariance, ``layer(g w) = layer(w)``. A module is copied, cast and put in evaluation mode; noise is added to the
    copy's parameters, because a parameter that starts at zero can hide a fault.

    Args:
        layer: a module or function from ``Weights`` to ``Weights`` or to a tensor ``[batch, ...]``.
        spec: the networks that it reads.
        options: any of the following, by keyword. ``group="permutation"``: the elements to draw, see
            :func:`random_symmetry`; features with channels carry no phase, so ``"full"`` is for layers that read raw
            weights. ``channels``: size of the input's channel axis; by default ``layer.in_channels`` where there is
            one, else the layer reads raw weights ``[batch, param]``. ``batch=4``: number of networks, at least two.
            ``dtype=torch.float64`` and ``device="cpu"``: precision and place of the computation. ``generator``: draws
            networks and elements; without it they are always the same. ``noise=0.1``: standard deviation of the noise
            on the copy's parameters.

    Returns:
        The error; for a layer that commutes it is rounding, about ``1e-15`` in float64.

    Raises:
        AssertionError: if outputs are not finite or differ in shape, or if the output does not depend on the input, so
            that nothing would be measured.
        ValueError: for a spec without hidden axes, or fewer than two networks.
        TypeError: if the layer is not callable or returns something else, or ``spec`` is not a ``NetSpec``.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.mlp(2, 5, 1)
        >>> equivariance_error(lambda w: w.replace(w.flat.exp()), spec)
        0.0
        >>> equivariance_error(lambda w: w.replace(w.flat.cumsum(1)), spec) > 0.1
        True
    """
    __tracebackhide__ = True
    return _commuted(layer, spec, **options).error


def assert_equivariant(
    layer: Callable[[Weights], Weights | Tensor],
    spec: NetSpec,
    *,
    atol: float | None = None,
    rtol: float | None = None,
    **options: Unpack[Setting],
) -> None:
    r"""Check that a layer commutes with the symmetries of the networks that it reads.

    .. math:: layer(g \cdot w) = g \cdot layer(w)

    A layer that returns a tensor is checked for invariance, ``layer(g w) = layer(w)``.

    Args:
        layer: a module or function from ``Weights`` to ``Weights`` or to a tensor ``[batch, ...]``.
        spec: the networks that it reads.
        atol: absolute tolerance, by default the square root of the dtype's epsilon.
        rtol: tolerance relative to the largest output of a network, the same default.
        options: as for :func:`equivariance_error`.

    Raises:
        AssertionError: if the outputs differ, saying by how much, or if nothing would be checked.
        ValueError: for a spec without hidden axes, or fewer than two networks.
        TypeError: if the layer is not callable or returns something else, or ``spec`` is not a ``NetSpec``.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.mlp(2, 5, 1)
        >>> ws.testing.assert_equivariant(lambda w: w.replace(w.flat.exp()), spec)
        >>> ws.testing.assert_equivariant(lambda w: w.replace(w.flat.cumsum(1)), spec)
        Traceback (most recent call last):
        AssertionError: equivariance (permutation): largest difference ...
    """
    __tracebackhide__ = True
    default = tolerance(options.get("dtype", torch.float64))
    atol, rtol = (default if t is None else t for t in (atol, rtol))
    _commuted(layer, spec, **options).assert_within(atol, rtol)


def _commuted(
    layer: Any,
    spec: NetSpec,
    *,
    group: Group = "permutation",
    channels: int | None = None,
    batch: int = 4,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
    generator: torch.Generator | None = None,
    noise: float = 0.1,
) -> Comparison:
    """Compare ``layer(g w)`` with ``g layer(w)``."""
    __tracebackhide__ = True
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
    with torch.no_grad():
        before, after = run(weights), run(g.act(weights))
    expected = g.act(before) if isinstance(before, Weights) else before
    what = f"{'equivariance' if isinstance(before, Weights) else 'invariance'} ({group})"
    rows = _values(before).double()
    expect(
        not bool((rows == rows[:1]).all()),
        f"{what}: the layer returns the same for every network, so this would check nothing",
    )
    return Comparison.of(_values(after), _values(expected), what)


def _prepared(layer: Any, dtype: torch.dtype, device: Any, noise: float, generator: torch.Generator) -> Any:
    """Return a copy of a module in evaluation mode, with noise on its parameters; other callables as they are."""
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
    r"""Check that a model's output does not change along the symmetries of the networks that it reads.

    .. math:: model(g \cdot w) = model(w)

    Args:
        model: a module or function from ``Weights`` to a tensor ``[batch, ...]``.
        spec: the networks that it reads.
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
    __tracebackhide__ = True
    assert_equivariant(_OnlyTensors(model), spec, **options)
