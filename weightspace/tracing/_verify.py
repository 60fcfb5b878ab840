"""The check of a spec on the module itself: random symmetries of the weights must leave its output."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from weightspace._evaluate import evaluate
from weightspace._random import rand, randn
from weightspace._spec import NetSpec
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.tracing._axes import Refused
from weightspace.tracing._module import Network

_SMALL = (2**20, 2**15)  # parameters and numbers of input up to which the check runs in double precision
_TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}


@torch.no_grad()
def verify(net: Network, spec: NetSpec, *, rounds: bool = False) -> None:
    """Move the network's weights, a little off their values, along a random symmetry, and compare the outputs.

    Args:
        net: the network.
        spec: what was read off it.
        rounds: whether the network casts values to single precision.

    Raises:
        Refused: if they differ.
    """
    size = sum(value.numel() for value in (*net.args, *net.kwargs.values()))
    small = spec.num_params <= _SMALL[0] and size <= _SMALL[1]
    dtypes = [torch.float64] if small else [torch.float32, torch.float64]
    difference, error = math.nan, ""
    for dtype in dtypes:
        try:
            difference = _difference(net, spec, dtype)
        except RuntimeError as failure:  # constants of another precision, which cannot be moved along
            if dtype == torch.float64:
                difference, error = _difference(net, spec, torch.float32), str(failure)
                dtype = torch.float32
        if difference <= (1e-5 if rounds and dtype == torch.float64 else _TOLERANCE[dtype]):
            return
    raise Refused(
        f"moving the weights along the traced symmetries changes the output by {difference:.3e}; does the module have "
        f"hooks, or operators that write in place? {error}".rstrip()
    )


def _difference(net: Network, spec: NetSpec, dtype: torch.dtype) -> float:
    """Return the largest change of the output, relative to its size where that is above one."""
    generator = torch.Generator().manual_seed(0)
    state = perturbed(net, dtype, generator)
    args, kwargs = inputs(net, dtype, generator)
    expected = functional_call(net.module, state, args, kwargs, tie_weights=False)
    if not bool(expected.isfinite().all()):
        raise Refused("the output on the example is not finite; pass an example_input on which it is")
    names: dict[str, list[str]] = {}
    for name in state:
        for key in net.keys[name]:
            names.setdefault(key, []).append(name)
    weights = Weights.from_state_dicts([{key: state[names[key][0]] for key in spec.by_state_key}], spec)
    moved = _element(spec, dtype, generator).act(weights)
    del weights
    for key, value in moved.state_dict(0).items():
        state.update(dict.fromkeys(names[key], value))
    found = functional_call(net.module, state, args, kwargs, tie_weights=False)
    return float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))


def _element(spec: NetSpec, dtype: torch.dtype, generator: torch.Generator) -> Symmetry:
    """A random element that leaves no axis in its order."""
    drawn = Symmetry.sample(spec, batch=1, generator=generator, dtype=dtype)
    perm = {}
    for name, value in drawn.perm.items():
        axis = spec.axis(name)
        lead = drawn.perm[axis.follows or name].view(1, axis.blocks, -1)[:, :, 0]
        still = bool((lead.diff(dim=1) > 0).all()) if axis.blocks > 1 else bool((value.diff(dim=1) == 1).all())
        perm[name] = value.view(1, axis.blocks if axis.blocks > 1 else axis.size, -1).flip(1).flatten(1)
        perm[name] = perm[name] if still else value
    return Symmetry(spec, 1, perm, drawn.scale, drawn.shift, drawn.linear, check=False)


def perturbed(net: Network, dtype: torch.dtype, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the network's numbers, parameters a little off their values, which may be equal, zero or not finite."""
    done: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, value in net.tensors():
        if value.is_floating_point():
            if id(value) not in done:
                done[id(value)] = _off(value, name, dtype, generator) if net.keys[name] else value.to(dtype)
            state[name] = done[id(value)]
    return state


def _off(value: Tensor, name: str, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if name.endswith("running_var"):
        return 0.5 + rand(value.shape, generator=generator, dtype=dtype)
    value = value.detach().to(dtype, copy=True)
    if not bool(value.sum().isfinite()):
        value.nan_to_num_(0.0, 0.0, 0.0)
    if value.ndim < 2:
        return value.add_(randn(value.shape, generator=generator, dtype=dtype), alpha=0.05)
    flat = value.flatten(1)
    size = 0.1 * max(float(torch.linalg.vector_norm(flat)) / math.sqrt(flat.numel()), 1 / math.sqrt(flat.shape[1]))
    rows, columns = (randn((n,), generator=generator, dtype=dtype) for n in flat.shape)
    return flat.addr_(rows, columns, alpha=size).view(value.shape)


def inputs(net: Network, dtype: torch.dtype, generator: torch.Generator) -> tuple[Any, dict[str, Any]]:
    """Return the example, where its numbers are all one with random numbers in their place."""

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        value = value.to(dtype)
        plain = bool((value == value.flatten()[0]).all())
        return 2 * rand(value.shape, generator=generator, dtype=dtype) - 1 if plain else value

    return tuple(own(value) for value in net.args), {name: own(value) for name, value in net.kwargs.items()}


def is_chain(spec: NetSpec) -> bool:
    """Whether :func:`weightspace.evaluate` can compute the network: a chain of linear layers, its activations known."""
    try:
        return all(spec.axis(layer.produces).activation not in (None, "other") for layer in spec.layers[:-1])
    except ValueError:
        return False


@torch.no_grad()
def check_chain(net: Network, spec: NetSpec) -> None:
    """Compare ``evaluate`` with the module's own forward pass, its parameters moved a little off their values.

    Raises:
        Refused: if they differ.
    """
    generator = torch.Generator().manual_seed(0)
    state = perturbed(net, torch.float64, generator)
    args, kwargs = inputs(net, torch.float64, generator)
    names = {key: name for name in state for key in net.keys[name]}
    weights = Weights.from_state_dicts([{key: state[names[key]] for key in spec.by_state_key}], spec)
    expected = functional_call(net.module, state, args, kwargs, tie_weights=False)
    found = evaluate(weights, args[0].reshape(-1, spec.in_features))[0].reshape(expected.shape)
    difference = float((found - expected).abs().max())
    if not difference <= 1e-6 * max(1.0, float(expected.abs().max())):
        raise Refused(
            f"the traced network differs from the module by {difference:.3e}; does it have hooks, or operators that "
            "write in place?"
        )
