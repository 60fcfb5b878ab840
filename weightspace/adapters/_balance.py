"""The balanced form of low-rank pairs, and their singular values, in the small dimension."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from weightspace._weights import Weights, check_finite, check_weights


def balance(weights: Weights) -> Weights:
    r"""Bring every pair of adapters to the one form that depends on its product alone.

    .. math:: B A = U S V^T, \qquad A' = S^{1/2} V^T, \qquad B' = U S^{1/2}

    with the singular values in order, the largest first, and the entry of largest magnitude in each row of ``A'``
    positive. Pairs of lower rank end in rows and columns of zeros. For pairs of full rank this is the canonical form of
    :func:`weightspace.align.canonicalize`. Models that commute with permutations and signs read it.

    Args:
        weights: adapters as :func:`read` returns them, ``[batch, param]``.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for networks that are not pairs around linear axes, or numbers that are not finite.

    Example:
        >>> import weightspace as ws
        >>> spec, gen = ws.mlp(5, 2, 3, activation="linear", bias=False), torch.Generator().manual_seed(0)
        >>> w = ws.testing.random_weights(spec, 4, generator=gen, dtype=torch.float64)
        >>> g = ws.Symmetry.sample(spec, batch=4, generator=gen, dtype=torch.float64)
        >>> torch.allclose(ws.adapters.balance(g.act(w)).flat, ws.adapters.balance(w).flat)
        True

    Reference:
        Putterman et al., *Learning on LoRAs*, 2024, section 3 (the symmetry and canonical forms).
    """
    out = weights.clone() if isinstance(weights, Weights) else weights
    for a, b, u, s, vh in _decomposed(weights):
        root = s.sqrt()
        new = root[..., None] * vh
        sign = torch.where(new.gather(2, new.abs().argmax(2, keepdim=True)) < 0, -1.0, 1.0)
        out.view(a).copy_(sign * new)
        out.view(b).copy_(u * (root[..., None] * sign).mT)
    return out


def singular_values(weights: Weights) -> Tensor:
    """Compute the singular values of the product of every pair: no matrix on the rank changes them.

    Args:
        weights: adapters as :func:`read` returns them, ``[batch, param]``.

    Returns:
        ``[batch, value]`` in the weights' dtype: the values of one pair after another, each in order.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for networks that are not pairs around linear axes, or numbers that are not finite.

    Example:
        >>> import weightspace as ws
        >>> w = ws.Weights(torch.ones(1, 8), ws.mlp(2, 2, 2, activation="linear", bias=False))
        >>> ws.adapters.singular_values(w).round(decimals=3)
        tensor([[4., 0.]])
    """
    return torch.cat([s for _, _, _, s, _ in _decomposed(weights)], 1).to(weights.dtype)


def _decomposed(weights: Weights) -> Iterator[tuple[str, str, Tensor, Tensor, Tensor]]:
    """Yield the names of each pair and its decomposition, ``[batch, out, r]``, ``[batch, r]``, ``[batch, r, in]``."""
    check_weights("weights", weights)
    check_finite("weights", weights)
    spec = weights.spec
    pairs = [[p for p in spec.params if axis.name in p.axes] for axis in spec.linear]
    fits = [len(own) == 2 and own[0].produces == own[1].consumes and not own[0].dual for own in pairs]
    ends = [
        name for own in pairs for p in own for name in p.axes if spec.axis(name).hidden and name not in _names(weights)
    ]
    if weights.flat.ndim != 2 or not pairs or not all(fits) or 2 * len(pairs) != len(spec.params) or ends:
        raise ValueError(f"expected pairs of matrices around linear axes, got {spec}; read them with ws.adapters.read")
    for a, b in pairs:
        down, up = (weights.view(p.name).detach().double() for p in (a, b))
        right, left = torch.linalg.qr(down.mT), torch.linalg.qr(up)
        u, s, vh = torch.linalg.svd(left.R @ right.R.mT, full_matrices=False)
        rank, found = down.shape[1], s.shape[1]
        u, s = left.Q @ u, torch.nn.functional.pad(s, (0, rank - found))
        u = torch.nn.functional.pad(u, (0, rank - found))
        vh = torch.nn.functional.pad(vh @ right.Q.mT, (0, 0, 0, rank - found))
        zero = s > 1e-12 * s[:, :1]
        yield a.name, b.name, u, torch.where(zero, s, 0.0), vh


def _names(weights: Weights) -> set[str]:
    return {axis.name for axis in weights.spec.linear}
