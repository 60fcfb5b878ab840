"""Distances between all networks of two batches, up to a group."""

from __future__ import annotations

import torch
from torch import Tensor

from weightspace._checks import whole_number
from weightspace._symmetry import Group
from weightspace._weights import Weights, check_same_spec, check_weights
from weightspace.align._matching import distance, match


def distances(
    a: Weights,
    b: Weights,
    *,
    group: Group = "permutation",
    block: int = 4096,
    device: str | torch.device | None = None,
) -> Tensor:
    r"""Compute the Euclidean distance of every pair of networks, with the second one moved onto the first.

    .. math:: d_{ij} = \min_g \lVert a_i - g\,b_j \rVert

    by :func:`match`, a local search. Where ``a`` is ``b`` each pair is matched once, and the table is symmetric with
    zeros on its diagonal. ``group="none"`` moves nothing.

    Args:
        a: ``[rows, param]``.
        b: ``[columns, param]``, of the same spec.
        group: see :func:`match`.
        block: pairs that are matched at a time.
        device: where to compute; by default where ``a`` is.

    Returns:
        ``[rows, columns]`` on the CPU. Clustering and maps take it, such as ``sklearn.cluster.HDBSCAN`` and
        ``sklearn.manifold.MDS`` with ``metric="precomputed"``.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for networks of different specs, and as :func:`match`.

    Example:
        >>> import weightspace as ws
        >>> spec = ws.mlp(2, 3, 1)
        >>> w = ws.Weights(torch.randn(4, spec.num_params), spec)
        >>> g = ws.Symmetry.sample(spec, batch=4, group="permutation", generator=torch.Generator().manual_seed(0))
        >>> d = distances(w, g.act(w))
        >>> d.shape, bool((d.diagonal() < 1e-5).all())
        (torch.Size([4, 4]), True)
    """
    check_weights("a", a)
    check_weights("b", b)
    check_same_spec(a, b)
    size, same = whole_number("block", block), a is b
    first = a.to(a.device if device is None else device)
    second = first if same else b.to(first.device)
    if group == "none":
        return torch.cdist(first.flat.double(), second.flat.double()).to(a.dtype).cpu()
    rows, columns = (
        torch.triu_indices(len(a), len(a), 1) if same else torch.cartesian_prod(_range(a), _range(b)).reshape(-1, 2).T
    )
    out = torch.zeros(len(a), len(b))
    for i, j in zip(rows.split(size), columns.split(size), strict=True):
        target, moved = first[i.to(first.device)], second[j.to(first.device)]
        found = distance(target, match(target, moved, group=group).act(moved)).clamp(min=0).sqrt().float().cpu()
        out[i, j] = found
        if same:
            out[j, i] = found
    return out


def _range(weights: Weights) -> Tensor:
    return torch.arange(len(weights))
