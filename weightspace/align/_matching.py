"""Weight matching: the group element that moves one network closest to another, by coordinate descent over axes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from weightspace._checks import check_generator, whole_number
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights, check_same_spec, check_weights
from weightspace.align.solver._descent import descend, working
from weightspace.align.solver._problem import PLAIN, SCALED, Group, Plan, check_group, cost_roots, plan_of

CHUNK = 2**24  # scalars of one call of match_to: 64 MB of float32 for the networks, a few times that while they move


def distance(a: Weights, b: Weights, *, costs: Mapping[str, float] | None = None) -> Tensor:
    r"""Squared Euclidean distance between the parameters of paired networks, what :func:`match` minimises.

    .. math:: \sum_p c_p \| a_p - b_p \|^2

    Args:
        a: ``[batch, param]``, or one network for all of ``b``.
        b: ``[batch, param]``.
        costs: ``c_p`` by the name of a parameter, or of the axis that parameters produce; one for all others.

    Returns:
        ``[batch]``; in float32 for networks of half precision, whose squares would leave their range.

    Raises:
        TypeError: for something other than ``Weights``, or a mapping of costs.
        ValueError: for networks of another spec, number, dtype or device, or costs that do not fit.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.align import distance
        >>> spec = ws.mlp(2, 3, 1)
        >>> distance(ws.Weights(torch.ones(2, 13), spec), ws.Weights(torch.zeros(2, 13), spec))
        tensor([13., 13.])
    """
    check_pairs(a, b)
    plan = Plan(b.spec, (), cost_roots(b.spec, costs))
    return plan.scale(a.flat.to(working(a)) - b.flat.to(working(b))).square().sum(1)


def match(
    a: Weights,
    b: Weights,
    *,
    group: Group = "permutation",
    costs: Mapping[str, float] | None = None,
    restarts: int = 0,
    max_sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> Symmetry:
    r"""The symmetry ``g`` that brings each network of ``b`` close to its partner in ``a``.

    .. math:: \min_g \sum_p c_p \| a_p - (g\,b)_p \|^2

    by coordinate descent: with all other axes held, each pair of neurons has a best sign, phase or scale in closed
    form, and the best element on the axis is a linear assignment between neurons; axes are solved in turn until none
    gains. The distance falls with every move. The parameters are found by the axes they name, so any network that a
    spec describes can be matched. A local optimum, as every polynomial method gives.

    Args:
        a: the targets, ``[batch, param]``, or one network for all of ``b``.
        b: the networks to move, ``[batch, param]``.
        group: ``"permutation"``; ``"signed"``: also a sign for each neuron, where activations commute with signs;
            ``"full"``: whatever the activation of each axis allows, signs and whole phases (sine, cosine) or positive
            scales (ReLU) too.
        costs: ``c_p`` by the name of a parameter, or of the axis that parameters produce; one for all others. See
            :func:`period_costs`.
        restarts: how many more times to start, from random permutations of ``b``, and random signs wherever the group
            has signs; the best result is kept. Needs a generator.
        max_sweeps: most passes over all axes.
        generator: draws the order of the axes anew for every sweep, as in the paper, and the restarts; by default the
            spec's order.

    Returns:
        A ``Symmetry`` with ``g.act(b)`` close to ``a``, on the device of ``b``. The objective reached is
        ``distance(a, g.act(b))``. Networks of half precision are matched in float32; positive scales are kept within
        what their dtype can hold and undo. A network that would still leave its range gets no scales and phases.

    Raises:
        TypeError: for something other than ``Weights``, whole numbers, a mapping of costs and a generator.
        ValueError: for networks of another spec, number, dtype or device, for weights that are not finite or too
            large to square, for costs that do not fit or are not within 1e-24 and 1e24, and for a group that is
            unknown or that an activation does not allow.

    Example:
        >>> import weightspace as ws
        >>> from weightspace.align import distance, match
        >>> spec, gen = ws.siren(2, 32, 1), torch.Generator().manual_seed(0)
        >>> a = ws.Weights(torch.randn(3, spec.num_params, generator=gen), spec)
        >>> b = ws.Symmetry.sample(spec, batch=3, generator=gen, group="permutation").act(a)
        >>> match(a, b).act(b).flat.equal(a.flat)
        True

    Reference:
        Ainsworth et al., *Git Re-Basin: Merging Models modulo Permutation Symmetries*, 2023, algorithm 1, for
        permutations.
    """
    check_pairs(a, b)
    check_group(b.spec, group)
    whole_number("max_sweeps", max_sweeps)
    whole_number("restarts", restarts, 0)
    if generator is not None:
        check_generator(generator)
    elif restarts:
        raise ValueError("restarts: expected a generator to draw them from, got none; pass generator=")
    plan = plan_of(b.spec, group, cost_roots(b.spec, costs))
    for name, weights in (("a", a), ("b", b)):
        check_range(name, weights, plan)
    left, right = (weights.to(working(weights)) for weights in (a, b))
    best = descend(left, right, plan, _orders(plan, max_sweeps, generator))
    for _ in range(restarts):
        assert generator is not None
        start = _start(plan, right, generator)
        other = descend(left, start.act(right), plan, _orders(plan, max_sweeps, generator)) @ start
        best = _better(left, right, best, other, costs)
    return best if right.dtype == b.dtype else narrowed(best, b)


def match_to(
    weights: Weights,
    reference: Weights,
    *,
    group: Group = "permutation",
    costs: Mapping[str, float] | None = None,
    restarts: int = 0,
    max_sweeps: int = 100,
    generator: torch.Generator | None = None,
) -> Symmetry:
    """The symmetry that brings each of many networks close to one reference: :func:`match`, in bounded memory.

    Networks are taken in chunks, so that beside the weights only the elements (8 to 16 bytes a neuron for each part)
    and a few copies of one chunk are held. Without a generator the result is that of :func:`match`. With one, each
    chunk draws orders and restarts of its own, so that a zoo of several chunks (together more than 2**24 parameters)
    follows other draws than one call of :func:`match` does.

    Args:
        weights: the networks to move, ``[batch, param]``; a memory-mapped zoo is read chunk by chunk.
        reference: one network.
        group: see :func:`match`.
        costs: see :func:`match`.
        restarts: see :func:`match`.
        max_sweeps: see :func:`match`.
        generator: see :func:`match`.

    Returns:
        A ``Symmetry`` with ``g.act(weights)`` close to the reference.

    Raises:
        TypeError: see :func:`match`.
        ValueError: for a reference of other than one network; see :func:`match`.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 50, generator=gen)
        >>> g = ws.align.match_to(w, w[0], group="full")
        >>> bool((ws.align.distance(w[0], g.act(w)) <= ws.align.distance(w[0], w)).all())
        True
    """
    check_weights("weights", weights)
    check_weights("reference", reference)
    if len(reference) != 1:
        raise ValueError(f"reference: expected one network, got {len(reference)}; pass one of them, or ws.align.anchor")
    size = max(1, CHUNK // weights.spec.num_params)
    options = {"group": group, "costs": costs, "restarts": restarts, "max_sweeps": max_sweeps, "generator": generator}
    if len(weights) <= size:
        return match(reference, weights, **options)
    parts = [match(reference, weights[i : i + size], **options) for i in range(0, len(weights), size)]
    return joined(parts)


def joined(parts: list[Symmetry]) -> Symmetry:
    """Elements of several batches as one batch; all parts hold the same axes."""
    first = parts[0]
    pieces = [
        {name: torch.cat([getattr(part, kind)[name] for part in parts]) for name in getattr(first, kind)}
        for kind in ("perm", "scale", "shift")
    ]
    return Symmetry(first.spec, sum(map(len, parts)), *pieces, check=False)


def _better(a: Weights, b: Weights, one: Symmetry, two: Symmetry, costs: Mapping[str, float] | None) -> Symmetry:
    """For each network the element that brings it closer; the first in a tie."""
    second = distance(a, two.act(b), costs=costs) < distance(a, one.act(b), costs=costs)
    pieces = [
        {name: torch.where(second[:, None], getattr(two, kind)[name], value) for name, value in found.items()}
        for kind, found in (("perm", one.perm), ("scale", one.scale), ("shift", one.shift))
    ]
    return Symmetry(b.spec, len(b), *pieces, check=False)


def _orders(plan: Plan, sweeps: int, generator: torch.Generator | None) -> Tensor:
    """The order of the axes in each sweep, int64 ``[sweep, axis]``."""
    count = len(plan.axes)
    if generator is None:
        return torch.arange(count).repeat(sweeps, 1)
    rows = [torch.randperm(count, generator=generator, device=generator.device) for _ in range(sweeps)]
    return torch.stack(rows).cpu()


def _start(plan: Plan, b: Weights, generator: torch.Generator) -> Symmetry:
    """Where a restart begins: random permutations, and random signs wherever the group has signs."""
    signed = {x.axis.name for x in plan.axes if x.kind not in (PLAIN, SCALED)}
    drawn = Symmetry.sample(
        b.spec, batch=len(b), generator=generator, group="scaled" if signed else "permutation", dtype=b.dtype
    ).to(b.device)
    signs = {name: value for name, value in drawn.scale.items() if name in signed}
    return Symmetry(b.spec, len(b), drawn.perm, signs, check=False)


def narrowed(g: Symmetry, b: Weights) -> Symmetry:
    """The elements in the half precision of ``b``, their scales so that they and their inverses move it finitely."""
    reach = power_of_range(b.dtype)
    scale = {name: torch.where(s > 0, s.clamp(1 / reach, reach), s) for name, s in g.scale.items()}  # signs stay
    out = Symmetry(g.spec, len(g), g.perm, scale, g.shift, check=False).to(dtype=b.dtype)
    lost = ~out.act(b).flat.isfinite().all(1, keepdim=True)
    if not bool(lost.any()):
        return out
    scale = {name: torch.where(lost & (s > 0), 1, s) for name, s in out.scale.items()}
    shift = {name: torch.where(lost, 0, k) for name, k in out.shift.items()}
    return Symmetry(g.spec, len(g), g.perm, scale, shift, check=False)


def power_of_range(dtype: torch.dtype) -> float:
    """The largest power of two that a dtype holds together with its inverse, at full precision."""
    limits = torch.finfo(dtype)
    return 2.0 ** math.floor(min(math.log2(limits.max), -math.log2(limits.tiny)))


def check_finite(name: str, weights: Weights) -> tuple[float, float]:
    """Refuse NaN and infinity; the smallest and the largest weight."""
    if not weights.flat.numel():
        return 0.0, 0.0
    low, high = (float(x) for x in torch.aminmax(weights.flat.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = (~weights.flat.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"{name}: expected finite weights, got NaN or infinity in networks {bad[:5]}; leave them out")
    return low, high


def check_range(name: str, weights: Weights, plan: Plan) -> None:
    """Refuse weights whose squares, times their costs, leave the range of the dtype to work in."""
    low, high = check_finite(name, weights)
    most = math.sqrt(torch.finfo(working(weights)).max / (16 * weights.spec.num_params))
    most /= max([1.0, *(root for _, root in plan.roots)])
    if max(-low, high) > most:
        raise ValueError(f"{name}: expected weights below {most:.2g}, got {max(-low, high):.2g}; scale or drop them")


def check_pairs(a: Weights, b: Weights) -> None:
    """Refuse batches that are no pairs."""
    for name, weights in (("a", a), ("b", b)):
        check_weights(name, weights)
        if weights.flat.ndim != 2:
            raise ValueError(f"{name}: expected [batch, param], got features of shape {list(weights.flat.shape)}")
    check_same_spec(a, b)
    if len(a) not in (1, len(b)):
        raise ValueError(f"expected pairs, as many networks in a as in b (or one), got {len(a)} and {len(b)}")
    if a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"expected one dtype and device, got {a.dtype} on {a.device} and {b.dtype} on {b.device}; "
            "move one with weights.to(...)"
        )
