"""Pairs of networks: the type of an aligner, and the checks that all aligners share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from weightspace._symmetry import GROUPS, Group, Symmetry
from weightspace._weights import Weights, check_finite, check_same_spec, check_weights
from weightspace.align.solver._problem import CostRoots, check_group_of

Aligner = Callable[[Weights, Weights], Symmetry]
"""A callable that aligns networks: ``g = aligner(a, b)``, so that ``g.act(b)`` is close to ``a``.

``a`` holds as many networks as ``b``, or one for all of them. The element ``g`` acts on ``b``, and so never changes a
function; how close it comes is the aligner's own affair. :func:`match` and :func:`sinkhorn` are aligners as they are,
``functools.partial(match, group="full")`` is one, and so are ``partial(match_activations, inputs=x)`` and the method
:meth:`LearnedAligner.match`. :class:`weightspace.transforms.MixUp` takes any aligner.
"""


def check_pairs(a: Weights, b: Weights) -> None:
    """Raise unless ``a`` and ``b`` are networks of one spec, dtype and device, as many in both or one in ``a``."""
    for name, weights in (("a", a), ("b", b)):
        check_weights(name, weights)
        check_networks(name, weights)
    check_same_spec(a, b)
    if len(a) not in (1, len(b)):
        raise ValueError(f"expected pairs, as many networks in a as in b (or one), got {len(a)} and {len(b)}")
    if a.dtype != b.dtype or a.device != b.device:
        raise ValueError(
            f"expected one dtype and device, got {a.dtype} on {a.device} and {b.dtype} on {b.device}; "
            "move one with weights.to(...)"
        )


def check_networks(name: str, weights: Weights) -> None:
    """Raise ``ValueError`` for features with a channel axis."""
    if weights.flat.ndim != 2:
        raise ValueError(f"{name}: expected [batch, param], got features of shape {list(weights.flat.shape)}")


def check_range(name: str, weights: Weights, roots: CostRoots = ()) -> None:
    """Raise ``ValueError`` for weights that are not finite, or whose squares times their costs would overflow.

    Args:
        name: the name of the networks in the message.
        weights: the networks, ``[batch, param]``.
        roots: the square roots of the costs.
    """
    if not weights.flat.numel():
        return
    low, high = (float(x) for x in torch.aminmax(weights.flat.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        check_finite(name, weights)
    most = math.sqrt(torch.finfo(compute_dtype(weights)).max / (16 * weights.spec.num_params))
    most /= max([1.0, *(root for _, root in roots)])
    if max(-low, high) > most:
        raise ValueError(f"{name}: expected weights below {most:.2g}, got {max(-low, high):.2g}; scale or drop them")


def compute_dtype(weights: Weights) -> torch.dtype:
    """Return the precision to align networks in: their own, but at least float32."""
    return weights.dtype if weights.dtype in (torch.float32, torch.float64) else torch.float32


def prepared(a: Weights, b: Weights, group: Group, allowed: tuple[Group, ...] = GROUPS) -> tuple[Weights, Weights]:
    """Check a pair and a group; return the networks detached, in at least float32, ``a`` repeated if it is one for all.

    Raises:
        TypeError: for something other than ``Weights``.
        ValueError: for networks of another spec, number, dtype or device, weights that are not finite, or a group
            that is unknown or not allowed.
    """
    check_pairs(a, b)
    check_group_of(b.spec, group, allowed)
    for name, weights in (("a", a), ("b", b)):
        check_finite(name, weights)
    moved = b.flat.detach().to(compute_dtype(b))
    return a.replace(a.flat.detach().to(moved.dtype).expand_as(moved)), b.replace(moved)
