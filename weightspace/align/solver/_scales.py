"""The best positive scale between two neurons, for tensors of pairs."""

from __future__ import annotations

import torch
from torch import Tensor

FURTHEST = 2.0**16  # a neuron without incoming (outgoing) weights would go to infinity (zero)
NOTHING = 1e-100


def scale_value(s: Tensor, p: Tensor, q: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """``p*s + q/s - (u*s**2 + v/s**2) / 2``: half of what the squared distance loses, but for a constant."""
    return p * s + q / s - 0.5 * (u * s.square() + v / s.square())


def best_scale(p: Tensor, q: Tensor, u: Tensor, v: Tensor) -> Tensor:
    r"""The scale that brings one neuron closest to another.

    .. math:: \max_{s > 0} p s + q / s - (u s^2 + v / s^2) / 2

    by the roots of ``u*s**4 - p*s**3 + q*s - v``, each bracketed and then halved in on: see
    :mod:`weightspace.align.solver._compiled_scales` for why there are at most two maxima.

    Args:
        p: inner products of the incoming weights, any shape.
        q: inner products of the outgoing weights.
        u: squared norms of the incoming weights of the neuron to move, broadcast to ``p``.
        v: squared norms of its outgoing weights.

    Returns:
        The scales in float64, within [2**-16, 2**16].
    """
    p, q, u, v = torch.broadcast_tensors(*(t.double() for t in (p, q, u, v)))
    alive = (u > NOTHING) & (v > NOTHING)
    one = torch.ones((), dtype=p.dtype, device=p.device)
    unit = torch.where(alive, v / torch.where(alive, u, one), one).pow(0.25)
    below = torch.where(alive, v, one)
    x = _best_root(torch.where(alive, p * unit**3 / below, 0), torch.where(alive, q * unit / below, 0))
    far = torch.full_like(p, FURTHEST)
    no_input = torch.where(q > 0, v / torch.where(q > 0, q, one), far)
    no_output = torch.where(p > 0, p / torch.where(u > NOTHING, u, one), 0)
    rest = torch.where(u > NOTHING, no_output, torch.where(v > NOTHING, no_input, 1))
    return torch.where(alive, unit * x, rest).clamp(1 / FURTHEST, FURTHEST)


def _best_root(f: Tensor, g: Tensor) -> Tensor:
    """The positive root of ``x**4 - f*x**3 + g*x - 1`` that is the higher maximum."""
    reach = 1 + torch.maximum(f.abs(), g.abs()).clamp(min=1)
    bent = (f > 0) & (g < 0.25 * f**3) & (f < 0.25 * g**3)
    middle = f.clamp(min=0) / 2

    def slope(x: Tensor) -> Tensor:
        return (4 * x - 3 * f) * x.square() + g

    def curve(x: Tensor) -> Tensor:
        return ((x - f) * x.square() + g) * x - 1

    first = _halve(lambda x: slope(x) > 0, torch.zeros_like(f), middle)
    second = _halve(lambda x: slope(x) <= 0, middle, 2 * reach)
    lower = _halve(lambda x: curve(x) < 0, 1 / reach, torch.where(bent & (curve(first) > 0), first, reach))
    upper = _halve(lambda x: curve(x) < 0, torch.where(bent & (curve(second) < 0), second, 1 / reach), reach)
    value = [2 * (f * x + g / x) - x.square() - x.pow(-2) for x in (lower, upper)]
    return torch.where(value[0] >= value[1], lower, upper)


def _halve(below, low: Tensor, high: Tensor) -> Tensor:
    for _ in range(80):
        x = 0.5 * (low + high)
        under = below(x)
        low, high = torch.where(under, x, low), torch.where(under, high, x)
    return 0.5 * (low + high)
