"""Sinkhorn re-basin: descent over doubly stochastic plans, then the nearest group element."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from weightspace._checks import check_generator, number, whole_number
from weightspace._random import randn
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights
from weightspace.align._elements import check_init, chosen, neutral, pairs, project
from weightspace.align._matching import distance, joined
from weightspace.align._relaxation import Relaxation, doubly_stochastic, rescaled
from weightspace.align.solver._problem import Group

Loss = Callable[[Weights], Tensor]

_ENTRIES = 2**23  # entries of one axis' plans that are held at once
_LEAST = -30.0  # the most that one step may take off a logit
_SMALL = 1e-30  # of a plan's entries: one that is zero could not come back
_EVERY = 10  # steps between two looks at the hard element
_SCALE_RATE = 0.05  # Adam's, on the logarithms of positive scales


def sinkhorn(
    a: Weights,
    b: Weights,
    *,
    group: Group = "permutation",
    steps: int = 100,
    temperature: float = 0.01,
    iterations: int = 20,
    loss: Loss | None = None,
    init: Symmetry | None = None,
    generator: torch.Generator | None = None,
) -> Symmetry:
    r"""The symmetry that descent over soft group elements finds, batched over pairs and on their device.

    Every hidden axis holds a plan ``P`` over (neuron of ``a``, neuron of ``b``, sign and parity of the phase), rows and
    columns summing to one. Starting from the uniform plan, each step follows the gradient of the objective in the
    geometry of the entropy and Sinkhorn's iterations bring the plan back:

    .. math:: P \leftarrow Sinkhorn\Big( \log P - \frac{1}{\tau \, steps} \; \frac{\partial f / \partial P}
        {std(\partial f / \partial P)} \Big)

    ``f`` is the expected squared distance when every axis draws its element from its plan, or the given loss at the
    midpoint. Every ten steps the plans are projected to a group element by one assignment an axis, and the best one
    of each pair is kept, so that the result is never worse than the start. Sine's phases are closed form for each pair
    of neurons and sheet; positive scales (ReLU, ``"full"``) descend by their logarithms beside the plans.

    Args:
        a: the targets, ``[batch, param]``, or one network for all of ``b``.
        b: the networks to move, ``[batch, param]``.
        group: ``"permutation"``, ``"signed"`` or ``"full"``: all that the activations allow.
        steps: of the descent.
        temperature: ``tau``, how far from hard the plans may stay, in spreads of the gradient's entries.
        iterations: of Sinkhorn's algorithm in each step.
        loss: from the ``batch`` midpoints ``(a + g b) / 2`` to ``[batch]`` losses, differentiable; then
            the objective is this loss, and not the distance.
        init: the first element seen, such as what :func:`match` found: the result is at least as good. The plans start
            uniform all the same.
        generator: draws a little noise onto the start, for restarts; by default the start has none.

    Returns:
        A ``Symmetry`` with ``g.act(b)`` close to ``a``, on the device of ``b``.

    Raises:
        TypeError: for something other than ``Weights`` and plain numbers.
        ValueError: for networks of another spec, number, dtype or device, weights that are not finite, numbers out of
            range, a group that is unknown or not allowed, or a loss of another shape.

    Example:
        >>> import weightspace as ws
        >>> spec, gen = ws.siren(2, 16, 1), torch.Generator().manual_seed(0)
        >>> a = ws.testing.random_weights(spec, 3, generator=gen)
        >>> b = ws.Symmetry.sample(spec, batch=3, generator=gen).act(a)
        >>> g = ws.align.sinkhorn(a, b, group="full")
        >>> torch.allclose(g.act(b).flat, a.flat, atol=1e-5)
        True

    Reference:
        Peña et al., *Re-basin via implicit Sinkhorn differentiation*, 2023, section 3. Departures: the expected
        distance instead of the distance of averaged weights, mirror descent instead of Adam on logits, and signs and
        phases beside the permutations.
    """
    start = pairs(a, b, group)
    whole_number("steps", steps)
    whole_number("iterations", iterations)
    number("temperature", temperature, "a positive temperature", above=0)
    check_init(init, b)
    if generator is not None:
        check_generator(generator)
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function of Weights, got {type(loss).__name__}")
    target, moved = start
    first = None if init is None else init.to(moved.device, moved.dtype)
    moved = moved if first is None else first.act(moved)
    rate = 1 / (temperature * steps)
    rows = len(b) if loss is not None else _rows(b)
    found = []
    for at in range(0, max(1, len(b)), max(1, rows)):
        part = slice(at, at + rows)
        descent = _Descent(target[part], moved[part], group, loss, iterations)
        descent.begin(generator)
        for step in range(1, steps + 1):
            descent.step(rate)
            if step % _EVERY == 0 or step == steps:
                descent.look()
        found.append(descent.best)
    g = joined(found)
    return (g if first is None else g @ first).to(dtype=b.dtype)


def _rows(b: Weights) -> int:
    """Pairs whose plans fit the memory set aside."""
    return max(1, _ENTRIES // max([4 * axis.size**2 for axis in b.spec.hidden], default=1))


class _Descent:
    """Plans of a chunk of pairs, and the best group element seen."""

    def __init__(self, a: Weights, b: Weights, group: Group, loss: Loss | None, iterations: int) -> None:
        self.a, self.b, self.loss, self.iterations = a, b, loss, iterations
        self.group: Group = group
        self.relaxed = Relaxation(a, b, group)
        self.plans: dict[str, Tensor] = {}
        positive = [axis for axis in b.spec.hidden if self.relaxed.sheets[axis.name].positive]
        self.logs = {axis.name: b.flat.new_zeros(len(b), axis.size).requires_grad_() for axis in positive}
        self.adam = torch.optim.Adam(self.logs.values(), lr=_SCALE_RATE) if self.logs else None

    def begin(self, generator: torch.Generator | None) -> None:
        """Uniform plans; the identity is the first element seen."""
        for axis in self.b.spec.hidden:
            shape = (len(self.b), axis.size, axis.size, len(self.relaxed.sheets[axis.name]))
            logits = self.b.flat.new_zeros(shape)
            if generator is not None:
                logits += 0.1 * randn(shape, generator=generator, dtype=logits.dtype, device=logits.device)
            self.plans[axis.name] = doubly_stochastic(logits, 1.0, self.iterations)
        self.best = neutral(project(self.a, self.b, self.group, self.plans, self._scales()))
        self.least = self._hard(self.best)

    def step(self, rate: float) -> None:
        """One step of mirror descent on the plans, and of Adam on the positive scales."""
        if not self.plans or not len(self.b):
            return
        plans = {name: plan.requires_grad_() for name, plan in self.plans.items()}
        with torch.enable_grad():
            scales = {name: log.exp() for name, log in self.logs.items()}
            value = self._soft(plans, scales).sum()
            gradients = torch.autograd.grad(value, [*plans.values(), *self.logs.values()])
        if self.adam is not None:
            for log, gradient in zip(self.logs.values(), gradients[len(plans) :], strict=True):
                log.grad = gradient
            self.adam.step()
        for (name, plan), gradient in zip(plans.items(), gradients, strict=False):
            limits = torch.finfo(plan.dtype)
            flat = gradient.flatten(1)
            least = 16 * limits.eps * flat.abs().amax(1) + limits.tiny  # below it the entries differ by rounding alone
            spread = torch.maximum(flat.std(1, correction=0), least)
            move = (flat.mean(1)[:, None, None, None] - gradient) * (rate / spread)[:, None, None, None]
            move = (move - move.amax((2, 3), keepdim=True)).clamp_min(_LEAST)
            self.plans[name] = rescaled((plan.detach() * move.exp()).clamp_min(_SMALL), self.iterations)

    def look(self) -> None:
        """Project, and keep the elements that are better than what has been seen."""
        g = project(self.a, self.b, self.group, self.plans, self._scales())
        value = self._hard(g)
        size = self.relaxed.size if self.loss is None else self.least.abs()
        better = value < self.least - 16 * torch.finfo(value.dtype).eps * size  # more than rounding
        self.best, self.least = chosen(better, g, self.best), torch.where(better, value, self.least)

    def _scales(self) -> dict[str, Tensor]:
        return {name: log.detach().exp() for name, log in self.logs.items()}

    def _soft(self, plans: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> Tensor:
        if self.loss is None:
            return self.relaxed.distance(plans, scales)
        return self._loss(self.relaxed.move(plans, scales))

    @torch.no_grad()
    def _hard(self, g: Symmetry) -> Tensor:
        moved = g.act(self.b)
        return distance(self.a, moved) if self.loss is None else self._loss(moved)

    def _loss(self, moved: Weights) -> Tensor:
        assert self.loss is not None
        value = self.loss(self.a.replace(torch.lerp(self.a.flat, moved.flat, 0.5)))
        if not isinstance(value, Tensor) or value.shape != (len(moved),):
            got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss: expected a tensor [{len(moved)}], one number for each midpoint, got {got}")
        return value
