"""Coordinate descent with tensors: any device, any number of neurons. The compiled code is tested against it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weightspace._weights import Weights
from weightspace.align.solver._assignment import assign
from weightspace.align.solver._problem import (
    NEGLIGIBLE,
    SCALE_LIMIT,
    AxisProblem,
    MatchingProblem,
    NeuronGroup,
    Role,
)
from weightspace.align.solver._threads import in_slices


class TensorDescent:
    """The state of a descent. A pair is *pending* on an axis until solving it again cannot help.

    Args:
        a: the targets, as many as in ``b`` or one.
        b: the networks to move, in float32 or float64.
        problem: the matching problem of their spec.
    """

    def __init__(self, a: Weights, b: Weights, problem: MatchingProblem) -> None:
        self.problem = problem
        flat = problem.weighted(b.flat.detach().clone())
        self.target = a.replace(problem.weighted(a.flat.detach()).expand_as(flat))
        self.moved = b.replace(flat)
        self.pending = torch.tensor([axis.searchable for axis in problem.axes], dtype=torch.bool).repeat(len(b), 1)
        sizes, like = [axis.size for axis in problem.axes], {"dtype": b.dtype, "device": b.device}
        self.perm = [torch.arange(n, device=b.device).repeat(len(b), 1) for n in sizes]
        self.scale = [torch.ones(len(b), n, **like) for n in sizes]
        self.shift = [torch.zeros(len(b), n, **like) for n in sizes]

    def solve(self, number: int) -> None:
        """Find the best element on one axis for every pair that is pending there, and move the pairs that gain."""
        axis = self.problem.axes[number]
        rows = self.pending[:, number].nonzero()[:, 0]
        if not len(rows):
            return
        self.pending[rows, number] = False
        target, moved = (_features(weights, axis, rows.to(weights.device)) for weights in (self.target, self.moved))
        values = _values(axis, target, moved)
        perm = assign(values.best)
        gain = values.best.gather(2, perm[:, :, None])[:, :, 0].double().sum(1) - values.now
        noise = 16 * torch.finfo(values.best.dtype).eps * values.best.abs().amax((1, 2))
        gaining = (gain > axis.size * noise).nonzero()[:, 0]
        if not len(gaining):
            return
        perm = perm[gaining]
        scale, shift = (None if part is None else _picked(part[gaining], perm) for part in (values.scale, values.shift))
        self._move(number, rows[gaining.cpu()].to(perm.device), perm, scale, shift)
        for neighbour in axis.neighbours:
            self.pending[rows[gaining.cpu()], neighbour] = True

    def _move(self, number: int, rows: Tensor, perm: Tensor, scale: Tensor | None, shift: Tensor | None) -> None:
        axis = self.problem.axes[number]
        s = torch.ones(perm.shape, dtype=self.moved.dtype, device=perm.device) if scale is None else scale
        sigma = s
        if shift is not None:
            sigma = (s if axis.group == NeuronGroup.ODD_PHASE else 1) * (1 - 2 * shift.remainder(2))
        elif axis.group == NeuronGroup.EVEN_SIGN:
            sigma = torch.ones_like(s)
        for param, role in axis.params:
            view = self.moved.view(param.name)
            position = 2 if role == Role.OUTGOING else 1
            shape = [len(rows), *[1] * (view.ndim - 1)]
            shape[position] = axis.size
            value = view[rows].gather(position, perm.reshape(shape).expand(len(rows), *view.shape[1:]))
            value = value / sigma.reshape(shape) if role == Role.OUTGOING else value * s.reshape(shape)
            if role == Role.BIAS and shift is not None:
                value = value + shift.reshape(shape) * axis.phase_step
            view[rows] = value
        self.perm[number][rows] = self.perm[number][rows].gather(1, perm)
        self.scale[number][rows] = s * self.scale[number][rows].gather(1, perm)
        moved = s * self.shift[number][rows].gather(1, perm)
        self.shift[number][rows] = moved if shift is None else moved + shift


class _Features(NamedTuple):
    """The numbers of each neuron of an axis, ``[pair, neuron, feature]``."""

    incoming: Tensor
    bias: Tensor
    outgoing: Tensor


def _features(weights: Weights, axis: AxisProblem, rows: Tensor) -> _Features:
    parts: dict[Role, list[Tensor]] = {role: [weights.flat.new_empty(len(rows), axis.size, 0)] for role in Role}
    for param, role in axis.params:
        value = weights.view(param.name)
        value = value if len(rows) == len(value) else value[rows]
        position = 2 if role == Role.OUTGOING else 1
        parts[role].append(value.movedim(position, 1).reshape(len(rows), axis.size, -1))
    return _Features(*(torch.cat(part, 2) for part in parts.values()))


class _Values(NamedTuple):
    """The values of pairs of neurons: half of what the squared distance loses, but for a constant.

    Fields: the value of each pair of neurons at its ``best`` element, ``[pair, neuron of a, neuron of b]``; the value
    of where the neurons are ``now``, ``[pair]``; the ``scale`` and ``shift`` of the best elements, if they have any.
    """

    best: Tensor
    now: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


def _values(axis: AxisProblem, a: _Features, b: _Features) -> _Values:
    if axis.group in (NeuronGroup.ODD_PHASE, NeuronGroup.EVEN_PHASE):
        return _phase_values(axis, a, b)
    inward_a, inward_b = torch.cat([a.incoming, a.bias], 2), torch.cat([b.incoming, b.bias], 2)
    inner = inward_a @ inward_b.mT
    outer = a.outgoing @ b.outgoing.mT
    if axis.group == NeuronGroup.SCALE:
        u, v = inward_b.square().sum(2)[:, None], b.outgoing.square().sum(2)[:, None]
        scale = best_scales(inner, outer, u, v)
        now = _diagonal(scale_value(torch.ones_like(inner), inner, outer, u, v))
        return _Values(scale_value(scale, inner, outer, u, v), now, scale)
    now = _diagonal(inner + outer)
    if axis.group == NeuronGroup.TRIVIAL:
        return _Values(inner + outer, now)
    if axis.group == NeuronGroup.EVEN_SIGN:  # the activation swallows the sign of its input
        return _Values(inner.abs() + outer, now, _sign(inner))
    return _Values((inner + outer).abs(), now, _sign(inner + outer))


def _phase_values(axis: AxisProblem, a: _Features, b: _Features) -> _Values:
    """Try both signs, and for each parity of the phase the closest number of steps."""
    inner, outer = a.incoming @ b.incoming.mT, a.outgoing @ b.outgoing.mT
    values, signs, counts = [], [], []
    for s in (1, -1):
        t = a.bias - s * b.bias.mT
        for parity in (0, 1):
            k = 2 * torch.floor((t / axis.phase_step - parity) / 2 + 0.5) + parity
            sigma = (s if axis.group == NeuronGroup.ODD_PHASE else 1) * (1 - 2 * parity)
            values.append(s * inner + sigma * outer - 0.5 * (t - k * axis.phase_step).square())
            signs.append(torch.full_like(inner, s))
            counts.append(k)
    best, which = torch.stack(values).max(0)
    sign, count = (torch.stack(part).gather(0, which[None])[0] for part in (signs, counts))
    now = _diagonal(inner + outer - 0.5 * (a.bias - b.bias.mT).square())
    return _Values(best, now, sign, count)


def _sign(values: Tensor) -> Tensor:
    return torch.where(values < 0, -1.0, 1.0).to(values.dtype)


def _picked(values: Tensor, perm: Tensor) -> Tensor:
    return values.gather(2, perm[:, :, None])[:, :, 0]


def _diagonal(values: Tensor) -> Tensor:
    return torch.diagonal(values, dim1=1, dim2=2).double().sum(1)


def scale_value(s: Tensor, p: Tensor, q: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Return ``p*s + q/s - (u*s**2 + v/s**2) / 2``: half of what the squared distance loses, but for a constant."""
    return p * s + q / s - 0.5 * (u * s.square() + v / s.square())


def best_scales(p: Tensor, q: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Find the best scales of all pairs of neurons, ``[pair, size, size]``: in compiled code on the host.

    Halving in on the roots of tensors takes ten times as long there, and most of the time of a wide axis.
    """
    if p.device.type != "cpu":
        return best_scale(p, q, u, v).to(p.dtype)
    from weightspace.align.solver import _compiled_scales  # Numba takes a while to load

    out = torch.empty(p.shape, dtype=p.dtype)
    arrays = [*(x.contiguous().numpy() for x in (p, q, u[:, 0], v[:, 0])), out.numpy()]
    in_slices(lambda start, stop: _compiled_scales.best_scales(*arrays, start, stop), len(p) * p.shape[1])
    return out


def best_scale(p: Tensor, q: Tensor, u: Tensor, v: Tensor) -> Tensor:
    r"""Find the scale that brings one neuron closest to another.

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
    alive = (u > NEGLIGIBLE) & (v > NEGLIGIBLE)
    one = torch.ones((), dtype=p.dtype, device=p.device)
    unit = torch.where(alive, v / torch.where(alive, u, one), one).pow(0.25)
    below = torch.where(alive, v, one)
    x = _best_root(torch.where(alive, p * unit**3 / below, 0), torch.where(alive, q * unit / below, 0))
    far = torch.full_like(p, SCALE_LIMIT)
    no_input = torch.where(q > 0, v / torch.where(q > 0, q, one), far)
    no_output = torch.where(p > 0, p / torch.where(u > NEGLIGIBLE, u, one), 0)
    rest = torch.where(u > NEGLIGIBLE, no_output, torch.where(v > NEGLIGIBLE, no_input, 1))
    return torch.where(alive, unit * x, rest).clamp(1 / SCALE_LIMIT, SCALE_LIMIT)


def _best_root(f: Tensor, g: Tensor) -> Tensor:
    """Find the positive root of ``x**4 - f*x**3 + g*x - 1`` that is the higher maximum."""
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
