"""Coordinate descent with tensors: any device, any number of neurons. The compiled code is tested against it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.align.solver._assignment import Prices, assign
from weightspace.align.solver._problem import (
    NEGLIGIBLE,
    SCALE_LIMIT,
    AxisProblem,
    MatchingProblem,
    NeuronGroup,
    Role,
    as_symmetry,
)
from weightspace.align.solver._products import BLOCK, KeptProducts, Products, fresh_products, position
from weightspace.align.solver._threads import in_slices


class TensorDescent:
    """The state of a descent. A pair is *pending* on an axis until solving it again cannot help.

    Args:
        a: the targets, as many as in ``b``, weighted by the roots of the costs.
        b: the networks that move, in place: weighted, in float32 or float64.
        problem: the matching problem of their spec.
    """

    def __init__(self, a: Weights, b: Weights, problem: MatchingProblem) -> None:
        self.problem, self.target, self.moved = problem, a, b
        self.pending = torch.tensor([axis.searchable for axis in problem.axes], dtype=torch.bool).repeat(len(b), 1)
        sizes, like = [axis.size for axis in problem.axes], {"dtype": b.dtype, "device": b.device}
        self.perm = [torch.arange(n, device=b.device).repeat(len(b), 1) for n in sizes]
        self.scale = [torch.ones(len(b), n, **like) for n in sizes]
        self.shift = [torch.zeros(len(b), n, **like) for n in sizes]
        self.prices = [Prices(len(b), n) for n in sizes]
        self.products = KeptProducts(self.target, self.moved, problem) if len(b) == 1 else None

    def symmetry(self) -> Symmetry:
        """Return what has moved each network so far."""
        return as_symmetry(self.problem, self.moved, self.perm, self.scale, self.shift)

    def solve(self, number: int) -> None:
        """Find the best element on one axis for every pair that is pending there, and move the pairs that gain."""
        axis = self.problem.axes[number]
        rows = self.pending[:, number].nonzero()[:, 0]
        if not len(rows):
            return
        self.pending[rows, number] = False
        if self.products is None:
            values = _values(axis, fresh_products(axis, self.target, self.moved, rows.to(self.moved.device)))
        else:
            values = _values(axis, self.products.of(number))
        perm = assign(values.best, self.prices[number], rows)
        gain = values.best.gather(2, perm[:, :, None])[:, :, 0].double().sum(1) - values.now
        low, high = (found(values.best, (1, 2)) for found in (torch.amin, torch.amax))
        noise = 16 * torch.finfo(values.best.dtype).eps * torch.maximum(-low, high)
        gaining = (gain > axis.size * noise).nonzero()[:, 0]
        if not len(gaining):
            return
        perm = perm[gaining]
        scale, shift = (None if part is None else _picked(part[gaining], perm) for part in (values.scale, values.shift))
        self.prices[number].move(rows[gaining.cpu()], perm)
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
        added = None if shift is None else shift * axis.phase_step
        if self.products is None:
            for param, role in axis.params:
                view, factor = self.moved.view(param.name), 1 / sigma if role == Role.OUTGOING else s
                view[rows] = _moved(view[rows], role, perm, factor, added if role == Role.BIAS else None)
        else:
            still = (perm == torch.arange(axis.size, device=perm.device)) & (s == 1) & (sigma == 1)
            changed = (~(still if shift is None else still & (shift == 0)))[0].nonzero()[:, 0]
            self.products.before_move(number, changed)
            for param, role in axis.params:
                factor = (1 / sigma if role == Role.OUTGOING else s)[0]
                _move_in_place(
                    self.moved.view(param.name)[0], role, perm[0], changed, factor, added if role == Role.BIAS else None
                )
            self.products.after_move(number, changed, perm[0], s[0], sigma[0])
        self.perm[number][rows] = self.perm[number][rows].gather(1, perm)
        self.scale[number][rows] = s * self.scale[number][rows].gather(1, perm)
        moved = s * self.shift[number][rows].gather(1, perm)
        self.shift[number][rows] = moved if shift is None else moved + shift


def _moved(value: Tensor, role: Role, perm: Tensor, factor: Tensor, added: Tensor | None) -> Tensor:
    """Return a parameter of some pairs, ``[pair, *shape]``, with the neurons of one axis moved."""
    shape = [len(value), *[1] * (value.ndim - 1)]
    shape[position(role)] = perm.shape[1]
    value = value.gather(position(role), perm.reshape(shape).expand(value.shape)) * factor.reshape(shape)
    return value if added is None else value + added.reshape(shape)


def _move_in_place(
    value: Tensor, role: Role, perm: Tensor, changed: Tensor, factor: Tensor, added: Tensor | None
) -> None:
    """Move the changed neurons of a parameter of one network, a block at a time, so that no copy of it is held."""
    if not len(changed):
        return
    dim = position(role) - 1
    parts = value.flatten(1) if value.ndim > 1 and not dim else value  # what does not move is cut into blocks
    shape = [-1 if i == dim else 1 for i in range(parts.ndim)]
    size = 1 if parts.ndim == 1 else max(1, BLOCK * parts.shape[1 - dim] // parts.numel())
    for part in (parts,) if parts.ndim == 1 else parts.split(size, 1 - dim):
        new = part.index_select(dim, perm[changed]).mul_(factor[changed].view(shape))
        part.index_copy_(dim, changed, new if added is None else new.add_(added[0, changed].view(shape)))


class _Values(NamedTuple):
    """The values of pairs of neurons: half of what the squared distance loses, but for a constant.

    Fields: the value of each pair of neurons at its ``best`` element, ``[pair, neuron of a, neuron of b]``; the value
    of where the neurons are ``now``, ``[pair]``; the ``scale`` and ``shift`` of the best elements, if they have any.
    """

    best: Tensor
    now: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None


def _values(axis: AxisProblem, products: Products) -> _Values:
    if axis.group in (NeuronGroup.ODD_PHASE, NeuronGroup.EVEN_PHASE):
        return _phase_values(axis, products)
    inner = torch.baddbmm(products.inner, products.bias_a, products.bias_b.mT)
    outer = products.outer
    if axis.group == NeuronGroup.SCALE:
        u, v = (products.norm_in + products.bias_b.square().sum(2))[:, None], products.norm_out[:, None]
        scale = best_scales(inner, outer, u, v)
        now = _diagonal(scale_value(torch.ones_like(inner), inner, outer, u, v))
        return _Values(scale_value(scale, inner, outer, u, v), now, scale)
    if axis.group == NeuronGroup.EVEN_SIGN:  # the activation swallows the sign of its input
        return _Values(inner.abs() + outer, _diagonal(inner + outer), _sign(inner))
    both = inner.add_(outer)
    if axis.group == NeuronGroup.TRIVIAL:
        return _Values(both, _diagonal(both))
    return _Values(both.abs(), _diagonal(both), _sign(both))


def _phase_values(axis: AxisProblem, products: Products) -> _Values:
    """Try both signs, and for each parity of the phase the closest number of steps."""
    inner, outer, bias_a, bias_b = products[:4]
    values, signs, counts = [], [], []
    for s in (1, -1):
        t = bias_a - s * bias_b.mT
        for parity in (0, 1):
            k = 2 * torch.floor((t / axis.phase_step - parity) / 2 + 0.5) + parity
            sigma = (s if axis.group == NeuronGroup.ODD_PHASE else 1) * (1 - 2 * parity)
            values.append(s * inner + sigma * outer - 0.5 * (t - k * axis.phase_step).square())
            signs.append(torch.full_like(inner, s))
            counts.append(k)
    best, which = torch.stack(values).max(0)
    sign, count = (torch.stack(part).gather(0, which[None])[0] for part in (signs, counts))
    now = _diagonal(inner + outer - 0.5 * (bias_a - bias_b.mT).square())
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
