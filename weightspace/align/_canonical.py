"""Canonical forms: one representative for all the weights of a function, by a reference or by a stated rule."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from weightspace._checks import check_generator, whole_number
from weightspace._spec import NetSpec
from weightspace._symmetry import Symmetry
from weightspace._weights import Weights, check_weights
from weightspace.align._matching import CHUNK, check_range, match_to, narrowed, power_of_range
from weightspace.align.solver._descent import working
from weightspace.align.solver._problem import (
    EVEN,
    EVEN_PHASE,
    INWARD,
    ODD,
    ODD_PHASE,
    OUTWARD,
    SCALED,
    AxisPlan,
    Group,
    check_group,
    cost_roots,
    plan_of,
)


def canonicalize(
    weights: Weights,
    reference: Weights | None = None,
    *,
    group: Group = "full",
    costs: Mapping[str, float] | None = None,
) -> tuple[Weights, Symmetry]:
    r"""Move every network to one representative of its function.

    With a reference (a network, or a mean of aligned ones from :func:`anchor`) that is the one which weight matching
    finds closest to it. Without, it is fixed by rules that no element of the group can change,

    .. math:: c(g\,w) = c(w)

    up to rounding, wherever no two neurons tie. Axes are taken from the input on; on each axis

    - signs: of the weights that come in from axes already settled (with their bias, where there is no phase), the one
      of largest magnitude is positive;
    - phases: the bias lies within half a step, in ``[-unit / 2, unit / 2]``;
    - positive scales: those weights and their bias have norm one;
    - order: by the norm of those weights, the smallest first; after a positive scale by the first of them instead.

    Args:
        weights: the networks, ``[batch, param]``.
        reference: one network to come close to, or ``None`` for the rules.
        group: see :func:`match`.
        costs: see :func:`match`; for a reference only.

    Returns:
        The moved networks, and the ``Symmetry`` that moved them.

    Raises:
        TypeError: see :func:`match_to`.
        ValueError: see :func:`match_to`; without a reference also for costs, for weights that are not finite or too
            large to square, and for a spec with an axis that no weight joins to the input, directly or over others.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 5, generator=gen, dtype=torch.float64)
        >>> g = ws.Symmetry.sample(w.spec, batch=5, generator=gen, dtype=torch.float64)
        >>> one, two = (ws.align.canonicalize(v)[0] for v in (w, g.act(w)))
        >>> torch.allclose(one.flat, two.flat)
        True
    """
    check_weights("weights", weights)
    if reference is not None:
        found = match_to(weights, reference, group=group, costs=costs)
        return found.act(weights), found
    if costs is not None:
        raise ValueError("costs: expected a reference to measure against, got none; pass reference= or drop costs")
    if weights.flat.ndim != 2:
        raise ValueError(f"weights: expected [batch, param], got features of shape {list(weights.flat.shape)}")
    check_group(weights.spec, group)
    check_range("weights", weights, plan_of(weights.spec, group))
    element, moved = Symmetry.identity(weights.spec, batch=len(weights)), weights.to(working(weights))
    for plan, settled in _settling(weights.spec, group):
        step = _rules(moved, plan, settled)
        element, moved = step @ element, step.act(moved)
    element = element if moved.dtype == weights.dtype else narrowed(element, weights)
    return element.act(weights), element


def anchor(
    weights: Weights,
    *,
    group: Group = "full",
    rounds: int = 3,
    start: Weights | None = None,
    costs: Mapping[str, float] | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Weights:
    r"""A reference for :func:`canonicalize`: the mean of aligned networks, iterated or learned in batches.

    .. math:: r \leftarrow \frac{1}{n} \sum_i g_i w_i, \qquad g_i \leftarrow \arg\min_g \| r - g\,w_i \|^2

    Both steps lower the mean squared distance to the reference. It is a point in weight space to align with, not a
    network of any use itself. With positive scales that distance depends on the reference's own: networks move to the
    scales of the reference, the reference to where they are small, and so its last layers grow with every step. There
    a smaller distance does not say that a reference is better.

    With a ``batch_size`` the reference is learned: stochastic gradient steps on half that mean squared distance,

    .. math:: r \leftarrow r - \eta_k \Big( r - \frac{1}{|B_k|} \sum_{i \in B_k} g_i w_i \Big), \qquad
        \eta_k = \frac{1}{2} \Big( 1 + \cos \frac{\pi k}{K} \Big)

    on random batches, each network in one batch of every round, ``K`` steps in all. By the envelope theorem the bracket
    is the gradient, the best elements counting as constants (with costs, each component divided by its own). Networks
    are matched anew each time, so no aligned copy of them is kept: beside them, a few copies of one batch and 8 bytes a
    network. A split that is mapped from one file may be larger than the memory.

    Args:
        weights: the networks, ``[batch, param]``, of a training split alone if their labels are to be predicted.
        group: see :func:`match`.
        rounds: how often to align and average; passes over the networks, when learned.
        start: one network to begin with, by default the first.
        costs: see :func:`match`.
        batch_size: the most networks of one gradient step (batches of a round differ by one network at most), or
            ``None`` for the iterated mean.
        generator: draws the batches; needed with a ``batch_size``.

    Returns:
        One network.

    Raises:
        TypeError: for a ``batch_size`` that is no whole number, or a generator that is none; see :func:`match_to`.
        ValueError: for no networks at all, a ``batch_size`` below one, or only one of ``batch_size`` and
            ``generator``; see :func:`match_to`.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 50, generator=gen)
        >>> r = ws.align.anchor(w, rounds=2)
        >>> aligned, g = ws.align.canonicalize(w, r)
        >>> float(ws.align.distance(r, aligned).mean()) < float(ws.align.distance(w[0], w).mean())
        True
        >>> ws.align.anchor(w, rounds=2, batch_size=10, generator=gen)  # learned
        Weights(1x105, torch.float32, cpu)

    Reference:
        Ainsworth et al., *Git Re-Basin*, 2023, section 5.2 (merging many models), for permutations.
    """
    check_weights("weights", weights)
    whole_number("rounds", rounds)
    if not len(weights):
        raise ValueError("weights: expected at least one network, got none")
    _check_batches(batch_size, generator)
    reference = weights[:1] if start is None else start
    _check_start(weights, reference, group, costs)
    if batch_size is not None and generator is not None:
        return _learned_anchor(weights, reference, group, rounds, costs, batch_size, generator)
    aligned = weights
    kept = torch.empty_like(weights.flat)
    size = max(1, CHUNK // weights.spec.num_params)
    for _ in range(rounds):
        total = torch.zeros(weights.spec.num_params, dtype=torch.float64, device=weights.device)
        for first in range(0, len(weights), size):
            part = aligned[first : first + size]
            part = match_to(part, reference, group=group, costs=costs).act(part)
            kept[first : first + size] = part.flat
            total += part.flat.sum(0, dtype=torch.float64)
        aligned = weights.replace(kept)
        reference = weights.replace((total / len(weights)).to(weights.dtype)[None])
    return reference


def _check_batches(batch_size: int | None, generator: torch.Generator | None) -> None:
    """Refuse one of the two without the other."""
    if batch_size is not None:
        whole_number("batch_size", batch_size)
    if generator is not None:
        check_generator(generator)
    if batch_size is not None and generator is None:
        raise ValueError("batch_size: expected a generator to draw the batches from, got none; pass generator=")
    if batch_size is None and generator is not None:
        raise ValueError("generator: expected a batch_size to draw batches of, got none; pass batch_size= or drop it")


def _check_start(weights: Weights, start: Weights, group: Group, costs: Mapping[str, float] | None) -> None:
    """Refuse, by the names that :func:`anchor` gives them, what matching would refuse by its own."""
    for name, given in (("start", start), ("weights", weights)):
        check_weights(name, given)
        if given.flat.ndim != 2:
            raise ValueError(f"{name}: expected [batch, param], got features of shape {list(given.flat.shape)}")
    if len(start) != 1:
        raise ValueError(f"start: expected one network, got {len(start)}; pass one of them, or their mean")
    for name, given in (("start", start), ("weights", weights)):
        check_group(given.spec, group)
        check_range(name, given, plan_of(given.spec, group, cost_roots(given.spec, costs)))


def _learned_anchor(
    weights: Weights,
    reference: Weights,
    group: Group,
    rounds: int,
    costs: Mapping[str, float] | None,
    batch_size: int,
    generator: torch.Generator,
) -> Weights:
    """The reference after ``rounds`` passes of gradient steps, its rate falling from one along a cosine."""
    per_round = math.ceil(len(weights) / batch_size)
    state = reference.flat.detach().to(torch.float64)
    for number in range(rounds):
        order = torch.randperm(len(weights), generator=generator, device=generator.device).to(weights.device)
        for step, rows in enumerate(order.tensor_split(per_round), start=number * per_round):
            batch = weights[rows]
            aligned = match_to(batch, reference, group=group, costs=costs).act(batch).flat.detach()
            rate = (1 + math.cos(math.pi * step / (rounds * per_round))) / 2
            state = state.lerp(aligned.mean(0, keepdim=True, dtype=torch.float64), rate)
            reference = reference.replace(state.to(weights.dtype))
    return reference


def _settling(spec: NetSpec, group: Group) -> list[tuple[AxisPlan, frozenset[str]]]:
    """The hidden axes in an order in which each is joined to settled ones, with what is settled before it."""
    settled, out = frozenset(a.name for a in spec.axes if not a.hidden), []
    left = list(plan_of(spec, group).axes)
    while left:
        ready = [p for p in left if any(_usable(x.axes, p, settled) for x, role in p.params if role == INWARD)]
        if not ready:
            names = [p.axis.name for p in left]
            raise ValueError(
                f"expected weights that join each hidden axis to the input, got none for {names}; use a reference"
            )
        out.append((ready[0], settled))
        settled |= {ready[0].axis.name}
        left.remove(ready[0])
    return out


def _usable(axes: tuple[str, ...], plan: AxisPlan, settled: frozenset[str]) -> bool:
    return all(name == plan.axis.name or name in settled for name in axes)


def _rules(weights: Weights, plan: AxisPlan, settled: frozenset[str]) -> Symmetry:
    """The element on one axis that the rules of :func:`canonicalize` ask for."""
    size, name = plan.axis.size, plan.axis.name
    parts, biases = [], []
    for param, role in plan.params:
        if role != OUTWARD and _usable(param.axes, plan, settled):
            (parts if role == INWARD else biases).append(
                weights.view(param.name).detach().reshape(len(weights), size, -1)
            )
    phased = plan.kind in (ODD_PHASE, EVEN_PHASE)
    features = torch.cat(parts if phased else parts + biases, 2)
    norm = features.norm(dim=2)
    scale: Tensor | None = None
    shift: Tensor | None = None
    key = norm
    if plan.kind in (ODD, EVEN, ODD_PHASE, EVEN_PHASE):
        largest = features.gather(2, features.abs().argmax(2, keepdim=True))[:, :, 0]
        scale = torch.where(largest < 0, -1.0, 1.0).to(norm)
    elif plan.kind == SCALED:
        scale = torch.where(norm > 0, norm, 1).reciprocal().clamp(max=power_of_range(norm.dtype))
        key = features[:, :, 0] * scale
    if phased and scale is not None:
        shift = -(scale * biases[0][:, :, 0] / plan.unit).round() + 0.0
    order = key.argsort(dim=1, stable=True)
    parts_of = [{} if value is None else {name: value.gather(1, order)} for value in (scale, shift)]
    return Symmetry(weights.spec, len(weights), {name: order}, *parts_of, check=False)
