"""The batched forward pass."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._activation import activation
from weightspace._checks import check_tensor
from weightspace._weights import Weights, check_weights


def evaluate(weights: Weights, x: Tensor) -> Tensor:
    r"""Every network's outputs at the given points.

    .. math:: h_0 = x, \quad h_{l} = a_l(W_l h_{l-1} + b_l), \quad y = W_L h_{L-1} + b_L + shift

    For chains of linear layers. Networks with convolutions, norms or sums are computed by the module that
    :func:`weightspace.spec_of` read them off: ``torch.func.functional_call(module, weights.state_dict(i), x)``.

    Args:
        weights: ``batch`` networks.
        x: points, ``[point, in]`` shared by all networks or ``[batch, point, in]``.

    Returns:
        ``[batch, point, out]``.

    Raises:
        TypeError: if ``weights`` is no ``Weights`` or ``x`` no tensor.
        ValueError: if ``x`` has other than ``in`` columns or another batch, or if the spec is not a chain.

    Example:
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.zeros(4, 1185), ws.siren(2, 32, 32, 1))
        >>> ws.evaluate(w, torch.zeros(7, 2)).shape
        torch.Size([4, 7, 1])
    """
    check_weights("weights", weights)
    check_tensor("x", x)
    spec = weights.spec
    if x.ndim not in (2, 3) or x.shape[-1] != spec.in_features or (x.ndim == 3 and x.shape[0] != len(weights)):
        raise ValueError(
            f"x: expected [point, {spec.in_features}] or [{len(weights)}, point, {spec.in_features}], "
            f"got {list(x.shape)}"
        )
    if weights.flat.ndim != 2:
        raise ValueError(f"expected weights [batch, param], got features of shape {list(weights.flat.shape)}")
    h = x.to(weights.flat)
    h = h.expand(len(weights), *h.shape) if h.ndim == 2 else h
    for layer in spec.layers:
        w = weights.view(layer.weight).transpose(1, 2)
        h = torch.bmm(h, w) if layer.bias is None else torch.baddbmm(weights.view(layer.bias)[:, None], h, w)
        axis = spec.axis(layer.produces)
        if axis.activation is not None:
            h = activation(axis.activation).forward(h, axis.omega)
    return h + spec.output_shift if spec.output_shift else h
