"""Anchors: a reference that many networks are aligned to, iterated or learned in batches."""

from __future__ import annotations

import math

import torch

from weightspace._checks import check_generator, whole_number
from weightspace._symmetry import Group
from weightspace._weights import Weights, check_weights
from weightspace.align._matching import CHUNK, match
from weightspace.align._pairs import check_networks, check_range
from weightspace.align.solver._problem import Costs, check_group_of, cost_roots


def anchor(
    weights: Weights,
    *,
    group: Group = "full",
    rounds: int = 3,
    start: Weights | None = None,
    costs: Costs | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Weights:
    r"""Compute a reference for :func:`align_to`: the mean of aligned networks, iterated or learned in batches.

    .. math:: r \leftarrow \frac{1}{n} \sum_i g_i w_i, \qquad g_i \leftarrow \arg\min_g \| r - g\,w_i \|^2

    Both steps lower the mean squared distance to the reference. The anchor is only a reference for alignment; it does
    not compute anything meaningful. With positive scales that distance depends on the reference's own: networks move to
    the scales of the reference, the reference to where they are small, and so its last layers grow with every step.
    There a smaller distance does not say that a reference is better.

    With a ``batch_size`` the reference is learned: stochastic gradient steps on half that mean squared distance,

    .. math:: r \leftarrow r - \eta_k \Big( r - \frac{1}{|B_k|} \sum_{i \in B_k} g_i w_i \Big), \qquad
        \eta_k = \frac{1}{2} \Big( 1 + \cos \frac{\pi k}{K} \Big)

    on random batches, each network in one batch of every round, ``K`` steps in all. By the envelope theorem the bracket
    is the gradient, the best elements counting as constants (with costs, each component divided by its own). Networks
    are matched anew each time, so that no aligned copy of them is held: beside them, a few copies of one batch and 8
    bytes a network. A split that is mapped from one file may be larger than the memory.

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
        TypeError: for a ``batch_size`` that is not a whole number, or something other than a generator; see
            :func:`match`.
        ValueError: for no networks at all, a ``batch_size`` below one, or only one of ``batch_size`` and
            ``generator``; see :func:`match`.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(ws.siren(2, 8, 8, 1), 50, generator=gen)
        >>> r = ws.align.anchor(w, rounds=2)
        >>> aligned, g = ws.align.align_to(w, r)
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
        return _learned(weights, reference, group, rounds, costs, batch_size, generator)
    return _iterated(weights, reference, group, rounds, costs)


def _iterated(weights: Weights, reference: Weights, group: Group, rounds: int, costs: Costs | None) -> Weights:
    """Return the mean of networks that are aligned to the mean of the round before, in chunks of bounded memory."""
    aligned, moved = weights, torch.empty_like(weights.flat)
    size = max(1, CHUNK // weights.spec.num_params)
    for _ in range(rounds):
        total = torch.zeros(weights.spec.num_params, dtype=torch.float64, device=weights.device)
        for first in range(0, len(weights), size):
            part = aligned[first : first + size]
            part = match(reference, part, group=group, costs=costs).act(part)
            moved[first : first + size] = part.flat
            total += part.flat.sum(0, dtype=torch.float64)
        aligned = weights.replace(moved)
        reference = weights.replace((total / len(weights)).to(weights.dtype)[None])
    return reference


def _learned(
    weights: Weights,
    reference: Weights,
    group: Group,
    rounds: int,
    costs: Costs | None,
    batch_size: int,
    generator: torch.Generator,
) -> Weights:
    """Return the reference after ``rounds`` passes of gradient steps, their rate falling from one along a cosine."""
    per_round = math.ceil(len(weights) / batch_size)
    state = reference.flat.detach().to(torch.float64)
    for number in range(rounds):
        order = torch.randperm(len(weights), generator=generator, device=generator.device).to(weights.device)
        for step, rows in enumerate(order.tensor_split(per_round), start=number * per_round):
            batch = weights[rows]
            aligned = match(reference, batch, group=group, costs=costs).act(batch).flat.detach()
            rate = (1 + math.cos(math.pi * step / (rounds * per_round))) / 2
            state = state.lerp(aligned.mean(0, keepdim=True, dtype=torch.float64), rate)
            reference = reference.replace(state.to(weights.dtype))
    return reference


def _check_batches(batch_size: int | None, generator: torch.Generator | None) -> None:
    """Raise if there is one of the two without the other."""
    if batch_size is not None:
        whole_number("batch_size", batch_size)
    if generator is not None:
        check_generator(generator)
    if batch_size is not None and generator is None:
        raise ValueError("batch_size: expected a generator to draw the batches from, got none; pass generator=")
    if batch_size is None and generator is not None:
        raise ValueError("generator: expected a batch_size to draw batches of, got none; pass batch_size= or drop it")


def _check_start(weights: Weights, start: Weights, group: Group, costs: Costs | None) -> None:
    """Make the checks of :func:`match` under the names of the arguments of :func:`anchor`."""
    for name, given in (("start", start), ("weights", weights)):
        check_weights(name, given)
        check_networks(name, given)
    if len(start) != 1:
        raise ValueError(f"start: expected one network, got {len(start)}; pass one of them, or their mean")
    for name, given in (("start", start), ("weights", weights)):
        check_group_of(given.spec, group, blocks=True)
        check_range(name, given, cost_roots(given.spec, costs))
