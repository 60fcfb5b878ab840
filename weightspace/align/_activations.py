"""Activation matching: pair the neurons that respond alike to the same inputs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from weightspace._checks import check_tensor
from weightspace._spec import Axis
from weightspace._symmetry import Group, Symmetry
from weightspace._weights import Weights
from weightspace.align._elements import NeuronElements, nearest_steps, neuron_elements
from weightspace.align._pairs import prepared
from weightspace.align.solver._assignment import assign

Measure = Literal["inner", "correlation"]
_ENTRIES = 2**22  # activations of one axis are held at once


def match_activations(
    a: Weights,
    b: Weights,
    inputs: Tensor,
    *,
    group: Group = "permutation",
    measure: Measure = "inner",
) -> Symmetry:
    r"""Find the symmetry that pairs the neurons whose activations on the given inputs are most alike.

    With the activations ``h`` of a hidden axis on all inputs, one column a neuron,

    .. math:: \min_{\pi, \sigma} \sum_i \| h^a_i - \sigma_i h^b_{\pi(i)} \|^2
        = const - 2 \max_{\pi} \sum_i \max_\sigma \sigma \langle h^a_i, h^b_{\pi(i)} \rangle

    This takes one assignment for each axis: no axis waits for another, because a symmetry below does not reach a
    neuron's input. The activation determines the factor ``sigma`` alone. Where several elements have it (sine:
    ``s = -1`` and a phase of half a period both flip the sign), the pre-activation ``z`` decides: the sign ``s`` and
    the whole number of steps ``k`` of the right parity, for which ``s z^b + k pi / omega`` is closest to ``z^a``. Even
    activations swallow the sign; the pre-activations decide it too. For ReLU under ``"scaled"`` and ``"full"`` neurons
    are compared by the cosine, and the scale is the ratio of their norms, or 1 if a neuron is dead in either network.

    Args:
        a: the targets, ``[batch, param]``, or one network for all of ``b``.
        b: the networks to move, ``[batch, param]``.
        inputs: points ``[point, in]`` shared by all networks or ``[batch, point, in]``, in the units that the networks
            were fitted on.
        group: see :func:`match`.
        measure: ``"inner"`` products, or the ``"correlation"``: centred, and each neuron to norm 1.

    Returns:
        A ``Symmetry`` with ``g.act(b)`` close to ``a``, on the device of ``b``.

    Raises:
        TypeError: for something other than ``Weights`` and a tensor.
        ValueError: for networks of another spec, number, dtype or device, weights or inputs that are not finite,
            inputs of another shape, an unknown measure, a group that is unknown or not allowed, or a spec that
            is not a chain.

    Example:
        >>> import weightspace as ws
        >>> spec, gen = ws.siren(2, 16, 16, 1), torch.Generator().manual_seed(0)
        >>> a = ws.testing.random_weights(spec, 3, generator=gen)
        >>> b = ws.Symmetry.sample(spec, batch=3, generator=gen).act(a)
        >>> g = ws.align.match_activations(a, b, 2 * torch.rand(100, 2, generator=gen) - 1, group="full")
        >>> torch.allclose(g.act(b).flat, a.flat, atol=1e-5)
        True

    Reference:
        Ainsworth et al., *Git Re-Basin: Merging Models modulo Permutation Symmetries*, 2023, section 3.1 (inner
        products); Li et al., *Convergent Learning: Do different neural networks learn the same representations?*, 2015,
        section 3 (correlations).
    """
    target, moved = prepared(a, b, group)
    inputs = _check_inputs(b, inputs).to(moved.flat)
    if measure not in ("inner", "correlation"):
        raise ValueError(f"unknown measure: expected 'inner' or 'correlation', got {measure!r}")
    if group == "none":
        return Symmetry.identity(b.spec, batch=len(b))
    widest = max([axis.size for axis in b.spec.hidden], default=1)
    rows = max(1, _ENTRIES // max(1, inputs.shape[-2] * widest))
    found = []
    for at in range(0, max(1, len(b)), rows):
        part = slice(at, at + rows)
        found.append(_match(target[part], moved[part], inputs[part] if inputs.ndim == 3 else inputs, group, measure))
    return Symmetry.cat(found).to(dtype=b.dtype)


def _check_inputs(b: Weights, inputs: Tensor) -> Tensor:
    check_tensor("inputs", inputs)
    spec = b.spec
    fits = inputs.ndim in (2, 3) and inputs.shape[-1] == spec.in_features and inputs.shape[-2] > 0
    if not fits or (inputs.ndim == 3 and len(inputs) != len(b)):
        raise ValueError(
            f"inputs: expected [point, {spec.in_features}] or [{len(b)}, point, {spec.in_features}], "
            f"got {list(inputs.shape)}"
        )
    if not bool(inputs.isfinite().all()):
        raise ValueError("inputs: expected finite numbers, got NaN or infinity")
    return inputs.detach()


def _match(a: Weights, b: Weights, inputs: Tensor, group: Group, measure: str) -> Symmetry:
    perm, scale, shift = {}, {}, {}
    for (axis, za, ha), (_, zb, hb) in zip(_hidden(a, inputs), _hidden(b, inputs), strict=True):
        elements = neuron_elements(b.spec, axis, group)
        score = _similarity(ha, hb, measure, cosine=elements.positive)
        both = -1.0 in elements.sigma
        perm[axis.name] = own = assign(score.abs() if both else score)
        columns = own[:, None, :].expand_as(hb)
        if elements.positive:
            scale[axis.name] = _ratio(ha, hb.gather(2, columns))
        if len(elements) == 1:
            continue
        picked = score.gather(2, own[:, :, None])[:, :, 0]
        sigma = torch.where(picked < 0, -1.0, 1.0).to(picked) if both else torch.ones_like(picked)
        scale[axis.name], steps = _nearest_element(elements, za, zb.gather(2, columns), sigma)
        if elements.phase_step:
            shift[axis.name] = steps
    return Symmetry(b.spec, len(b), perm, scale, shift, check=False)


def _hidden(weights: Weights, inputs: Tensor) -> Iterator[tuple[Axis, Tensor, Tensor]]:
    """Yield every hidden axis with its pre-activations and activations, ``[pair, point, size]``, from the input on."""
    h = inputs.expand(len(weights), *inputs.shape) if inputs.ndim == 2 else inputs
    for layer in weights.spec.layers:
        axis = weights.spec.axis(layer.produces)
        if not axis.hidden:
            return
        w = weights.view(layer.weight).mT
        z = torch.bmm(h, w) if layer.bias is None else torch.baddbmm(weights.view(layer.bias)[:, None], h, w)
        h = axis.symmetry.forward(z, axis.omega)
        yield axis, z, h


def _similarity(ha: Tensor, hb: Tensor, measure: str, *, cosine: bool) -> Tensor:
    """Compare the neurons of both sides, ``[pair, size, size]``, by their activations ``[pair, point, size]``."""
    if measure == "correlation":
        ha, hb = (h - h.mean(1, keepdim=True) for h in (ha, hb))
    if measure == "correlation" or cosine:
        ha, hb = (torch.nn.functional.normalize(h, dim=1) for h in (ha, hb))
    return ha.mT @ hb


def _ratio(ha: Tensor, hb: Tensor) -> Tensor:
    """Return the positive scale with which each neuron of ``b`` has the norm of its partner."""
    top, bottom = (torch.linalg.vector_norm(h, dim=1) for h in (ha, hb))
    alive = (top > 0) & (bottom > 0)
    return torch.where(alive, top / torch.where(alive, bottom, 1.0), 1.0)


def _nearest_element(elements: NeuronElements, za: Tensor, zb: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sign and the phase of each neuron, with factor ``sigma``, that bring pre-activations closest."""
    sign, parity, factor = (elements.tensor(field, za) for field in ("sign", "parity", "sigma"))
    inner, mean_a, mean_b = (v[:, :, None] for v in ((za * zb).mean(1), za.mean(1), zb.mean(1)))
    offset = mean_a - sign * mean_b
    step = elements.phase_step
    steps = nearest_steps(offset, step, parity) if step else torch.zeros_like(offset)
    move = steps * step
    left = -2 * sign * inner - 2 * move * offset + move.square()  # the mean squared difference, but for a constant
    best = left.masked_fill(factor != sigma[:, :, None], torch.inf).argmin(2)
    return sign[best], steps.gather(2, best[:, :, None])[:, :, 0]
