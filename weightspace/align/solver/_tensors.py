"""Coordinate descent with tensors: any device, any number of neurons. The compiled kernel is tested against it."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._weights import Weights
from weightspace.align.solver._assignment import assign
from weightspace.align.solver._problem import BIAS, EVEN, INWARD, ODD, ODD_PHASE, OUTWARD, PLAIN, SCALED, AxisPlan, Plan
from weightspace.align.solver._scales import best_scale, scale_value


class BatchedDescent:
    """The state of a descent. A pair is *open* on an axis until solving it again cannot help.

    Args:
        a: the targets, as many as in ``b`` or one.
        b: the networks to move.
        plan: of their spec.
        dtype: to work in.
    """

    def __init__(self, a: Weights, b: Weights, plan: Plan, dtype: torch.dtype) -> None:
        self.plan = plan
        flat = plan.scale(b.flat.detach().to(dtype, copy=True))
        self.target = a.replace(plan.scale(a.flat.detach().to(dtype)).expand_as(flat))
        self.moved = b.replace(flat)
        self.open = torch.tensor(plan.open, dtype=torch.bool).repeat(len(b), 1)
        sizes = [x.axis.size for x in plan.axes]
        self.perm = [torch.arange(n, device=b.device).repeat(len(b), 1) for n in sizes]
        self.scale = [torch.ones(len(b), n, dtype=dtype, device=b.device) for n in sizes]
        self.shift = [torch.zeros(len(b), n, dtype=dtype, device=b.device) for n in sizes]

    def solve(self, number: int) -> None:
        """Find the best element on one axis for every pair that is open there, and move the pairs that gain."""
        x = self.plan.axes[number]
        rows = self.open[:, number].nonzero()[:, 0]
        if not len(rows):
            return
        self.open[rows, number] = False
        target, moved = (self._features(w, x, rows.to(w.device)) for w in (self.target, self.moved))
        score, here, choose = _scores(x, target, moved)
        perm = assign(score)
        gain = score.gather(2, perm[:, :, None])[:, :, 0].double().sum(1) - here
        noise = 16 * torch.finfo(score.dtype).eps * score.abs().amax((1, 2))
        kept = (gain > x.axis.size * noise).nonzero()[:, 0]
        if not len(kept):
            return
        perm = perm[kept]
        scale, shift = choose(kept, perm)
        self._move(number, rows[kept.cpu()].to(perm.device), perm, scale, shift)
        for neighbour in x.neighbours:
            self.open[rows[kept.cpu()], neighbour] = True

    def _features(self, weights: Weights, x: AxisPlan, rows: Tensor) -> tuple[Tensor, ...]:
        """Incoming weights, biases and outgoing weights of each neuron, ``[pair, neuron, feature]`` each."""
        parts: dict[int, list[Tensor]] = {INWARD: [], BIAS: [], OUTWARD: []}
        for param, role in x.params:
            value = weights.view(param.name)
            value = value if len(rows) == len(value) else value[rows]
            position = 2 if role == OUTWARD else 1
            parts[role].append(value.movedim(position, 1).reshape(len(rows), x.axis.size, -1))
        empty = weights.flat.new_empty(len(rows), x.axis.size, 0)
        return tuple(torch.cat([empty, *part], 2) for part in parts.values())

    def _move(self, number: int, rows: Tensor, perm: Tensor, scale: Tensor | None, shift: Tensor | None) -> None:
        x = self.plan.axes[number]
        s = torch.ones(perm.shape, dtype=self.moved.dtype, device=perm.device) if scale is None else scale
        sigma = s
        if shift is not None:
            sigma = (s if x.kind == ODD_PHASE else 1) * (1 - 2 * shift.remainder(2))
        elif x.kind == EVEN:
            sigma = torch.ones_like(s)
        for param, role in x.params:
            view = self.moved.view(param.name)
            position = 2 if role == OUTWARD else 1
            shape = [len(rows), *[1] * (view.ndim - 1)]
            shape[position] = x.axis.size
            value = view[rows].gather(position, perm.reshape(shape).expand(len(rows), *view.shape[1:]))
            value = value / sigma.reshape(shape) if role == OUTWARD else value * s.reshape(shape)
            if role == BIAS and shift is not None:
                value = value + shift.reshape(shape) * x.unit
            view[rows] = value
        self.perm[number][rows] = self.perm[number][rows].gather(1, perm)
        self.scale[number][rows] = s * self.scale[number][rows].gather(1, perm)
        moved = s * self.shift[number][rows].gather(1, perm)
        self.shift[number][rows] = moved if shift is None else moved + shift


def _scores(x: AxisPlan, target: tuple[Tensor, ...], moved: tuple[Tensor, ...]):
    """What each pair of neurons is worth at its best, what the pairs are worth now, and how to get that best.

    Values are half of what the squared distance loses, but for a constant.
    """
    if x.kind in (ODD_PHASE, ODD_PHASE + 1):
        return _phase_scores(x, target, moved)
    passed = (PLAIN, ODD)
    inner = torch.cat(target[:2], 2) @ torch.cat(moved[:2], 2).mT
    outer = target[2] @ moved[2].mT
    linear, fixed = (inner + outer, torch.zeros_like(inner)) if x.kind in passed else (inner, outer)
    if x.kind == SCALED:
        u, v = torch.cat(moved[:2], 2).square().sum(2)[:, None], moved[2].square().sum(2)[:, None]
        best = best_scale(inner, outer, u, v).to(inner.dtype)
        score = scale_value(best, inner, outer, u, v)
        here = _diagonal(scale_value(torch.ones_like(inner), inner, outer, u, v))
        return score, here, lambda kept, perm: (_picked(best[kept], perm), None)
    here = _diagonal(linear + fixed)
    if x.kind == PLAIN:
        return linear, here, lambda kept, perm: (None, None)
    sign = torch.where(linear < 0, -1.0, 1.0).to(linear.dtype)
    return linear.abs() + fixed, here, lambda kept, perm: (_picked(sign[kept], perm), None)


def _phase_scores(x: AxisPlan, target: tuple[Tensor, ...], moved: tuple[Tensor, ...]):
    """Signs of both kinds, and for each parity of the phase the closest number of steps."""
    inner, outer = target[0] @ moved[0].mT, target[2] @ moved[2].mT
    values, signs, counts = [], [], []
    for s in (1, -1):
        t = target[1] - s * moved[1].mT
        for parity in (0, 1):
            k = 2 * torch.floor((t / x.unit - parity) / 2 + 0.5) + parity
            sigma = (s if x.kind == ODD_PHASE else 1) * (1 - 2 * parity)
            values.append(s * inner + sigma * outer - 0.5 * (t - k * x.unit).square())
            signs.append(torch.full_like(inner, s))
            counts.append(k)
    score, which = torch.stack(values).max(0)
    sign, count = (torch.stack(part).gather(0, which[None])[0] for part in (signs, counts))
    here = _diagonal(inner + outer - 0.5 * (target[1] - moved[1].mT).square())
    return score, here, lambda kept, perm: (_picked(sign[kept], perm), _picked(count[kept], perm))


def _picked(values: Tensor, perm: Tensor) -> Tensor:
    return values.gather(2, perm[:, :, None])[:, :, 0]


def _diagonal(values: Tensor) -> Tensor:
    return torch.diagonal(values, dim1=1, dim2=2).double().sum(1)
