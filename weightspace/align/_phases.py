"""Phases of periodic neurons, brought to one representative."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._weights import Weights


def fold_phases(weights: Weights) -> Weights:
    r"""Bring the bias of every periodic neuron to within half a phase step of zero without changing the function.

    .. math:: b' = b - r \delta, \qquad r = \mathrm{round}(b / \delta), \qquad \delta = \pi / \omega

    The weights that read the neuron are multiplied by :math:`(-1)^r`. Networks that differ by phases alone become
    equal. Where a bias is exactly half a step from zero, a set of measure zero, the result jumps. Axes with several
    biases, or with none, stay as they are. Gradients flow through the weights and treat ``r`` as a constant.

    Args:
        weights: the networks, ``[batch, param]``.

    Returns:
        The same functions with folded biases.

    Example:
        >>> import weightspace as ws
        >>> gen = torch.Generator().manual_seed(0)
        >>> spec = ws.siren(2, 8, 8, 1)
        >>> w = ws.testing.random_weights(spec, 3, generator=gen)
        >>> g = ws.Symmetry.sample(spec, batch=3, generator=gen, parts=("shift",))
        >>> torch.allclose(fold_phases(g.act(w)).flat, fold_phases(w).flat, atol=1e-5)
        True

    Reference:
        Kalogeropoulos et al., *Scale Equivariant Graph Metanetworks*, 2024, appendix on phase canonicalisation.
    """
    spec, parts = weights.spec, dict(weights.items())
    for axis in spec.hidden:
        bias = spec.bias_of(axis.name)
        if not axis.symmetry.periodic or bias is None:
            continue
        steps = folding_steps(parts[bias].detach(), axis.phase_step)
        parts[bias] = parts[bias] - steps * axis.phase_step
        factor = 1 - 2 * steps.remainder(2)
        for param in spec.params:
            if param.consumes == axis.name:
                value = parts[param.name]
                parts[param.name] = value * factor.reshape(len(weights), 1, -1, *[1] * (value.ndim - 3))
    return weights.replace(torch.cat([parts[p.name].flatten(1) for p in spec.params], 1))


def folding_steps(bias: Tensor, phase_step: float) -> Tensor:
    """Return how many steps of phase a bias lies from the representative within half a step of zero."""
    return (bias / phase_step).round()
