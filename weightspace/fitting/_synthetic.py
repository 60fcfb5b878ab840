"""New networks of a signal from one that was fitted to it: leave it, and return to its function."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from weightspace._checks import check_generator, number, whole_number
from weightspace._evaluate import evaluate
from weightspace._random import randn
from weightspace._weights import Weights, check_weights
from weightspace.fitting._fit import fit

Directions = Literal["flat", "any"]
"""Directions that change the function least, or all alike."""
BLOCK = 64
"""Networks whose directions are computed together."""
TINY = 1e-30


def synthetic_views(
    weights: Weights,
    coords: Tensor,
    *,
    targets: Tensor | None = None,
    strength: float = 0.7,
    directions: Directions = "any",
    iterations: int = 20,
    damping: float = 1e-4,
    steps: int = 100,
    lr: float = 2e-3,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
    workers: int | None = None,
) -> Weights:
    r"""Make another network of nearly the same function from each network, at a fraction of the cost of a fit.

    Each network moves by ``strength`` times a random direction :math:`v`, noise of the size of each parameter's
    tensor; then ``steps`` of the fitting kernel bring its outputs back. With ``directions="flat"`` it moves along

    .. math:: u = \lambda \, (J^\top J / m + \lambda)^{-1} v

    scaled to the length of :math:`v`, with the Jacobian :math:`J` of the ``m`` outputs at ``coords``: ``iterations`` of
    conjugate gradients keep the part of :math:`v` that changes no output, and damp the rest. That helps small moves;
    an iteration costs more than a step of a fit. ``docs/results/fitting.md`` has the figures.

    Args:
        weights: ``batch`` networks, float32, chains of linear layers.
        coords: ``[point, in]``, where the outputs shall stay.
        targets: ``[batch, point, out]``, to which the outputs return; those that the networks have, where None.
        strength: length of the move, relative to the network's own size; none where 0.
        directions: ``"any"`` for :math:`v`, ``"flat"`` for :math:`u`.
        iterations: of conjugate gradients.
        damping: :math:`\lambda`, relative to the curvature along :math:`v`.
        steps: of Adam on the way back; none where 0.
        lr: their size.
        generator: source of the directions.
        device: where to compute; the result comes back on the CPU.
        workers: threads of the way back on a CPU; all cores where None.

    Returns:
        The new networks, on the CPU, in the same order.

    Raises:
        ValueError: for numbers out of range, unknown directions, weights that are not float32, or points or targets of
            another size.
        TypeError: for arguments of another type.

    Example:
        >>> import weightspace as ws
        >>> coords, targets = ws.signals.images(torch.rand(2, 8, 8).numpy())
        >>> fitted = ws.fit(coords, targets, ws.siren(2, 8, 8, 1), steps=200, lr=1e-3).weights
        >>> again = ws.fitting.synthetic_views(fitted, coords, generator=torch.Generator().manual_seed(0))
        >>> apart = (ws.evaluate(again, coords) - ws.evaluate(fitted, coords)).square().mean()
        >>> bool(apart < 1e-2), bool((again.flat - fitted.flat).norm() > 0.5)
        (True, True)

    Reference:
        The matrix :math:`J^\top J`: Schraudolph, *Fast Curvature Matrix-Vector Products for Second-Order Gradient
        Descent*, 2002.
    """
    check_weights("weights", weights)
    number("strength", strength, "strength >= 0", low=0)
    number("damping", damping, "damping > 0", above=0)
    whole_number("iterations", iterations)
    whole_number("steps", steps, 0)
    if directions not in get_args(Directions):
        raise ValueError(f"directions: expected one of {list(get_args(Directions))}, got {directions!r}")
    if weights.dtype != torch.float32:
        raise ValueError(f"weights: expected float32, in which networks are fitted, got {weights.dtype}")
    check_generator(generator)
    weights, coords = weights.to(device), coords.to(device, torch.float32)
    told = evaluate(weights, coords).detach().cpu() if targets is None else targets
    moved = []
    for rows in torch.arange(len(weights), device=weights.device).split(BLOCK):
        own = weights[rows]
        noise = _noise(own, generator)
        away = noise if directions == "any" else _flat(own, coords, noise, iterations, damping)
        length = noise.norm(dim=1, keepdim=True) / away.norm(dim=1, keepdim=True).clamp_min(TINY)
        moved.append(own.flat + strength * length * away)
    start = weights.replace(torch.cat(moved)).to("cpu")
    if not steps:
        return start
    recipe = {"steps": steps, "lr": lr, "device": device, "workers": workers}
    return fit(coords.cpu(), told, weights.spec, start=start, **recipe).weights


def _noise(weights: Weights, generator: torch.Generator) -> Tensor:
    """Draw noise of the size of every parameter's tensor, network by network, ``[batch, param]``."""
    out = weights.replace(randn(weights.flat.shape, generator=generator, dtype=weights.dtype, device=weights.device))
    for param in weights.spec.params:
        own = weights.view(param.name)
        dims = tuple(range(1, own.ndim))
        out.view(param.name).mul_(own.square().mean(dims, keepdim=True).sqrt())
    return out.flat


def _flat(weights: Weights, coords: Tensor, noise: Tensor, iterations: int, damping: float) -> Tensor:
    """Damp the part of the noise that changes the outputs, by conjugate gradients in all networks at once."""
    flat = weights.flat.detach().requires_grad_()
    values = evaluate(weights.replace(flat), coords).flatten(1)
    dual = torch.zeros_like(values, requires_grad=True)
    (pulled,) = torch.autograd.grad(values, flat, dual, create_graph=True)  # linear in dual: its derivative pushes
    points = values.shape[1]

    def curvature(direction: Tensor) -> Tensor:
        (change,) = torch.autograd.grad(pulled, dual, direction, retain_graph=True)
        return torch.autograd.grad(values, flat, change, retain_graph=True)[0] / points

    size = (noise * curvature(noise)).sum(1, keepdim=True) / noise.square().sum(1, keepdim=True).clamp_min(TINY)
    shift = damping * size
    x = torch.zeros_like(noise)
    residual = shift * noise
    step, square = residual.clone(), residual.square().sum(1, keepdim=True)
    for _ in range(iterations):
        image = curvature(step) + shift * step
        rate = square / (step * image).sum(1, keepdim=True).clamp_min(TINY)
        x, residual = x + rate * step, residual - rate * image
        before, square = square, residual.square().sum(1, keepdim=True)
        step = residual + square / before.clamp_min(TINY) * step
    return x
