"""Random specs, networks and group elements."""

from __future__ import annotations

import itertools
import math

import torch

from weightspace._activation import ACTIVATIONS
from weightspace._activation import activation as lookup
from weightspace._checks import whole_number
from weightspace._random import rand, randn
from weightspace._spec import Axis, NetSpec, Param
from weightspace._symmetry import GROUPS, Group, Symmetry, check_group
from weightspace._weights import Weights

_GAIN = 1.5


def _integers(low: int, high: int, count: int, generator: torch.Generator) -> list[int]:
    """Draw ``count`` integers from [low, high]."""
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
        spec: the spec of the networks.
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
    """Draw elements of one of the groups, in float64 by default.

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
        >>> g = random_symmetry(ws.siren(2, 8, 1), 3, generator=gen, group="signed")
        >>> sorted(g.perm), sorted(g.scale), sorted(g.shift)
        (['h1'], ['h1'], [])
    """
    check_group(group, GROUPS[1:])
    return Symmetry.sample(spec, batch=batch, generator=generator, group=group, dtype=dtype)
