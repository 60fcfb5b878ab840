"""Sinkhorn re-basin: descent over doubly stochastic plans, then the nearest group element."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from weightspace._checks import check_generator, number, whole_number
from weightspace._random import randn
from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights
from weightspace.align._elements import project
from weightspace.align._matching import distance
from weightspace.align._pairs import prepared
from weightspace.align._relaxation import Relaxation, doubly_stochastic, rescaled

Loss = Callable[[Weights], Tensor]

_ENTRIES = 2**23  # entries of one axis' plans are held at once
_LEAST = -30.0  # one step takes at most this off a logit
_SMALL = 1e-30  # entries of a plan are raised to this, because one that is zero would stay zero
_EVERY = 10  # steps pass between two looks at the hard element
_SCALE_RATE = 0.05  # the learning rate of Adam on the logarithms of positive scales


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
    r"""Find the symmetry by descent over soft group elements, batched over pairs and on their device.

    Every hidden axis has a transport plan ``P`` over (neuron of ``a``, neuron of ``b``, sign and parity of the phase)
    whose rows and columns sum to one. Starting from the uniform plan, each step follows the gradient of the objective
    in the geometry of the entropy, and Sinkhorn's iterations bring the plan back:

    .. math:: P \leftarrow Sinkhorn\Big( \log P - \frac{1}{\tau \, steps} \; \frac{\partial f / \partial P}
        {std(\partial f / \partial P)} \Big)

    ``f`` is the expected squared distance when every axis draws its element from its plan, or the given loss at the
    midpoint. Every ten steps the plans are projected to a group element by one assignment an axis, and the best one
    of each pair is returned, so that the result is never worse than the start. Phases of sines are in closed form for
    each pair of neurons, sign and parity; the logarithms of positive scales (ReLU) descend along with the plans.

    Args:
        a: the targets, ``[batch, param]``, or one network for all of ``b``.
        b: the networks to move, ``[batch, param]``.
        group: see :func:`match`.
        steps: number of steps of the descent.
        temperature: ``tau``, how far from hard the plans may stay, in spreads of the gradient's entries.
        iterations: number of iterations of Sinkhorn's algorithm in each step.
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
    target, moved = prepared(a, b, group)
    whole_number("steps", steps)
    whole_number("iterations", iterations)
    number("temperature", temperature, "a positive temperature", above=0)
    _check_init(init, b)
    if generator is not None:
        check_generator(generator)
    if loss is not None and not callable(loss):
        raise TypeError(f"loss: expected a function of Weights, got {type(loss).__name__}")
    if group == "none":
        return Symmetry.identity(b.spec, batch=len(b)) if init is None else init
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
    g = Symmetry.cat(found)
    return (g if first is None else g @ first).to(dtype=b.dtype)


def _check_init(init: Symmetry | None, b: Weights) -> None:
    """Raise unless ``init`` is ``None`` or one group element for each network of ``b``."""
    if init is None:
        return
    if not isinstance(init, Symmetry):
        raise TypeError(f"init: expected a Symmetry, got {type(init).__name__}; pass what another alignment returned")
    if init.spec != b.spec or len(init) != len(b):
        raise ValueError(f"init: expected {len(b)} elements for {b.spec}, got {len(init)} for {init.spec}")


def _rows(b: Weights) -> int:
    """Return how many pairs have plans that fit the memory set aside."""
    return max(1, _ENTRIES // max([4 * axis.size**2 for axis in b.spec.hidden], default=1))


class _Descent:
    """The plans of a chunk of pairs, and the best group element seen."""

    def __init__(self, a: Weights, b: Weights, group: Group, loss: Loss | None, iterations: int) -> None:
        self.a, self.b, self.loss, self.iterations = a, b, loss, iterations
        self.group: Group = group
        self.relaxed = Relaxation(a, b, group)
        self.plans: dict[str, Tensor] = {}
        positive = [axis for axis in b.spec.hidden if self.relaxed.elements[axis.name].positive]
        self.logs = {axis.name: b.flat.new_zeros(len(b), axis.size).requires_grad_() for axis in positive}
        self.adam = torch.optim.Adam(self.logs.values(), lr=_SCALE_RATE) if self.logs else None

    def begin(self, generator: torch.Generator | None) -> None:
        """Start from uniform plans, and from the identity as the first element seen."""
        for axis in self.b.spec.hidden:
            shape = (len(self.b), axis.size, axis.size, len(self.relaxed.elements[axis.name]))
            logits = self.b.flat.new_zeros(shape)
            if generator is not None:
                logits += 0.1 * randn(shape, generator=generator, dtype=logits.dtype, device=logits.device)
            self.plans[axis.name] = doubly_stochastic(logits, 1.0, self.iterations)
        self.best = project(self.a, self.b, self.group, self.plans, self._scales()).identity_like()
        self.least = self._hard(self.best)

    def step(self, rate: float) -> None:
        """Take one step of mirror descent on the plans, and of Adam on the positive scales."""
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
            least = 16 * limits.eps * flat.abs().amax(1) + limits.tiny  # entries that differ by less differ by rounding
            spread = torch.maximum(flat.std(1, correction=0), least)
            move = (flat.mean(1)[:, None, None, None] - gradient) * (rate / spread)[:, None, None, None]
            move = (move - move.amax((2, 3), keepdim=True)).clamp_min(_LEAST)
            self.plans[name] = rescaled((plan.detach() * move.exp()).clamp_min(_SMALL), self.iterations)

    def look(self) -> None:
        """Project, and note the elements that are better than all before."""
        g = project(self.a, self.b, self.group, self.plans, self._scales())
        value = self._hard(g)
        size = self.relaxed.size if self.loss is None else self.least.abs()
        better = value < self.least - 16 * torch.finfo(value.dtype).eps * size  # more than rounding
        self.best, self.least = Symmetry.where(better, g, self.best), torch.where(better, value, self.least)

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
