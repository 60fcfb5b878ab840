"""Paths between networks: straight lines, lines on which phase is an angle, and the barrier along them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from weightspace._checks import check_tensor, number, whole_number
from weightspace._evaluate import evaluate, grid
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights, check_finite
from weightspace.align._pairs import check_pairs

Loss = Callable[[Tensor, Tensor], Tensor]
Forward = Callable[[Weights, Tensor], Tensor]
_SIDES = {1: 32, 2: 32, 3: 12}
"""Points along each side of the default grid, by the number of inputs."""


@dataclass(frozen=True, eq=False)
class Barrier:
    """The losses along the path between paired networks: their linear mode connectivity.

    Args:
        t: the points on the path, ``[point]``, 0 at the first network and 1 at the second.
        loss: ``[batch, point]``.
        height: ``[batch]``, the largest loss above the straight line between the losses of the ends; at least 0.
        middle: ``[batch, point, out]``, the outputs of the networks halfway at ``x``.
        x: the inputs of the evaluation, as given, or the default grid.
    """

    t: Tensor
    loss: Tensor
    height: Tensor
    middle: Tensor
    x: Tensor

    def __repr__(self) -> str:
        """Summarise: the number of pairs and their mean height."""
        return f"Barrier({len(self.height)} pairs, {len(self.t)} points, mean height {float(self.height.mean()):.4g})"


def interpolate(a: Weights, b: Weights, t: float | Tensor | Mapping[str, float], *, angle: bool = False) -> Weights:
    r"""Return the networks on the path from ``a`` to ``b``.

    .. math:: w_t = (1 - t)\, a + t\, b

    With ``angle`` the bias of a sine or cosine neuron is an angle that moves along the shorter arc of its period, so
    that the path ends in ``b`` up to whole periods, which is the same function.

    Args:
        a: ``[batch, param]``, or one network for all of ``b``.
        b: ``[batch, param]``; align it first, see :func:`match`.
        t: one number, one for each network ``[batch]``, or one by the name of a produced axis for each affine layer
            (as :class:`weightspace.transforms.MixUp` with ``per_layer`` draws).
        angle: whether phases are angles.

    Returns:
        ``[batch, param]``.

    Raises:
        TypeError: for something other than ``Weights`` and numbers.
        ValueError: for networks that are no pairs or not finite, a ``t`` of another length or not finite, or layers
            that are missing or unknown.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 2, generator=gen)
        >>> whole = ws.Symmetry(w.spec, 2, shift={"h1": torch.full((2, 8), 4.0)})  # two whole periods: nothing moves
        >>> middle = ws.align.interpolate(w, whole.act(w), 0.5, angle=True)
        >>> torch.allclose(middle.flat, w.flat, atol=1e-5)
        True
    """
    check_pairs(a, b)
    check_finite("a", a)
    check_finite("b", b)
    return _between(a, b, t, angle=angle)


def _between(a: Weights, b: Weights, t: float | Tensor | Mapping[str, float], *, angle: bool) -> Weights:
    """Interpolate networks that have been checked."""
    end = b.flat
    if angle:
        end = end.clone()
        moved = b.replace(end)
        for name, period in _periods(b):
            here = moved.view(name)
            here -= period * ((here - a.view(name)) / period).round()
    return b.replace(torch.lerp(a.flat.expand_as(end), end, _shares(b, t)))


def barrier(
    a: Weights,
    b: Weights,
    g: Symmetry | None = None,
    *,
    x: Tensor | None = None,
    targets: Tensor | None = None,
    points: int = 11,
    angle: bool = False,
    loss: Loss | None = None,
    forward: Forward = evaluate,
) -> Barrier:
    r"""Measure the loss barrier along the path from ``a`` to ``g.act(b)``.

    .. math:: \max_t L(w_t) - (1 - t)\, L(a) - t\, L(g\,b)

    Without targets the loss is that of the function itself: the mean squared difference between the outputs of
    ``w_t`` and the straight line between the outputs of the ends, which is zero at both.

    Args:
        a: ``[batch, param]``, or one network for all of ``b``.
        b: ``[batch, param]``.
        g: brings ``b`` close to ``a``, see :func:`match`; ``None`` leaves it where it is.
        x: points, ``[point, in]`` or ``[batch, point, in]``; by default a regular grid over [-1, 1] in each input, the
            last one running fastest: 32 points a side for one input or two, 12 for three.
        targets: the outputs that the networks should have there, ``[point, out]`` or ``[batch, point, out]`` for the
            mean squared error; whatever ``loss`` takes, if one is given.
        points: number of points on the path, the ends included.
        angle: see :func:`interpolate`.
        loss: ``(outputs [batch, point, out], targets) -> [batch]``.
        forward: evaluates the networks; pass your own for other than chains of linear layers.

    Returns:
        A :class:`Barrier`, with the outputs of the networks halfway.

    Raises:
        TypeError: for something other than ``Weights``, a ``Symmetry``, tensors and whole numbers.
        ValueError: for networks that are no pairs or not finite, no points at all or none for networks of more than
            three inputs, targets of another shape, points or targets that are not finite, fewer than three points on
            the path, a loss without targets, or one that is not a finite number for each network.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 4, generator=gen)
        >>> far = ws.Symmetry.sample(w.spec, batch=4, generator=gen, group="scaled").act(w)
        >>> g = ws.align.match(w, far, group="signed")
        >>> before, after = ws.align.barrier(w, far), ws.align.barrier(w, far, g)
        >>> bool((after.height <= before.height).all()), after.middle.shape
        (True, torch.Size([4, 1024, 1]))
    """
    _check_ends(a, b, g)
    x = _default_grid(b) if x is None else x
    _check_numbers("x", x)
    if not x.numel():
        raise ValueError(f"x: expected at least one point, got shape {list(x.shape)}; leave x out for a regular grid")
    if whole_number("points", points) < 3:
        raise ValueError(f"points: expected at least 3, the ends and one between, got {points}")
    if loss is not None and targets is None:
        raise ValueError("loss: expected targets to compare with, got none; pass targets= or drop loss")
    b = b if g is None else g.act(b)
    a = a.replace(a.flat.expand_as(b.flat))
    first, last = (forward(w, x) for w in (a, b))
    if loss is None and targets is not None:
        targets = _targets(targets, last)
    t = torch.linspace(0, 1, points, dtype=torch.float64)
    losses = []
    for share in t.tolist():
        outputs = forward(_between(a, b, share, angle=angle), x)
        goal = torch.lerp(first, last, share) if targets is None else targets
        found = (outputs - goal).square().flatten(1).mean(1) if loss is None else loss(outputs, goal)
        losses.append(_checked(found, len(b)))
    values = torch.stack(losses, 1)
    line = torch.lerp(values[:, :1], values[:, -1:], t.to(values))
    middle = forward(_between(a, b, 0.5, angle=angle), x)
    return Barrier(t.to(values), values, (values - line).amax(1).clamp(min=0), middle, x)


def _check_ends(a: Weights, b: Weights, g: Symmetry | None) -> None:
    check_pairs(a, b)
    if g is not None and not isinstance(g, Symmetry):
        raise TypeError(f"g: expected a Symmetry, got {type(g).__name__}; make one with ws.align.match")
    check_finite("a", a)
    check_finite("b", b)


def _check_numbers(name: str, value: Tensor) -> None:
    check_tensor(name, value)
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity; leave those points out")


def _default_grid(weights: Weights) -> Tensor:
    """Return regular points over [-1, 1] in each input, ``[point, in]``, the last input running fastest."""
    inputs = weights.spec.in_features
    if inputs not in _SIDES:
        raise ValueError(f"x: expected points for networks of {inputs} inputs, got none; pass x=, [point, {inputs}]")
    return grid(*[_SIDES[inputs]] * inputs).to(weights.flat)


def _targets(targets: Tensor, outputs: Tensor) -> Tensor:
    """Return targets of the mean squared error, if they have the outputs' shape, with or without the batch."""
    _check_numbers("targets", targets)
    if targets.shape not in (outputs.shape, outputs.shape[1:]):
        raise ValueError(
            f"targets: expected {list(outputs.shape[1:])} or {list(outputs.shape)}, as the outputs are, "
            f"got {list(targets.shape)}; reshape them, or pass a loss"
        )
    return targets.to(outputs)


def _checked(found: Tensor, batch: int) -> Tensor:
    """Return a loss, if it is one finite number for each network."""
    if not isinstance(found, Tensor) or found.shape != (batch,):
        got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"loss: expected a number for each network, shape [{batch}], got {got}")
    if bad := (~found.isfinite()).nonzero()[:, 0].tolist():
        raise ValueError(
            f"loss: expected finite losses along the path, got NaN or infinity for networks {bad[:5]}; leave them out"
        )
    return found


def _periods(weights: Weights) -> list[tuple[str, float]]:
    """List the biases that are angles, the only ones on an axis with a periodic activation, with their periods."""
    biases = [(weights.spec.bias_of(axis.name), axis.phase_step) for axis in weights.spec.hidden]
    return [(name, 2 * step) for name, step in biases if name is not None and step]


def _shares(weights: Weights, t: float | Tensor | Mapping[str, float]) -> Tensor:
    """Return the share of the second network, ``[batch, 1]`` or ``[1, param]``."""
    if isinstance(t, Mapping):
        layers = list(dict.fromkeys(p.produces for p in weights.spec.params))
        if sorted(t) != sorted(layers):
            raise ValueError(f"t: expected a number for each of the axes {layers}, got {sorted(t)}")
        out = weights.flat.new_empty(1, weights.spec.num_params)
        for param in weights.spec.params:
            out[:, weights.spec.slices[param.name]] = number(f"t[{param.produces!r}]", t[param.produces])
        return out
    if isinstance(t, Tensor) and t.ndim:
        if t.shape != (len(weights),):
            raise ValueError(f"t: expected one number, or one for each of {len(weights)} networks, got {list(t.shape)}")
        if not bool(t.isfinite().all()):
            bad = (~t.isfinite()).nonzero()[:, 0].tolist()
            raise ValueError(f"t: expected finite numbers, got NaN or infinity for networks {bad[:5]}; leave them out")
        return t.to(weights.flat)[:, None]
    return weights.flat.new_full((1, 1), number("t", t.item() if isinstance(t, Tensor) else t))
