"""Two aligned checkpoints: the line between them, and the module halfway."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from weightspace._checks import number
from weightspace._symmetry import Symmetry
from weightspace.checkpoints._align import move_state_dict
from weightspace.checkpoints._checks import check_module, check_state_dict


def interpolate_state_dicts(a: Mapping[str, Tensor], b: Mapping[str, Tensor], *, t: float = 0.5) -> dict[str, Tensor]:
    r"""Interpolate two state dicts, ``(1 - t) a + t b``; entries that are not floating-point are copied from ``a``.

    Args:
        a: the start of the line.
        b: its end, with the same keys and shapes.
        t: place on the line, usually in [0, 1].

    Raises:
        TypeError: for something other than mappings of tensors.
        ValueError: for other keys or shapes, or numbers that are complex or not finite.

    Example:
        >>> from weightspace.checkpoints._merge import interpolate_state_dicts
        >>> interpolate_state_dicts({"w": torch.zeros(2)}, {"w": torch.ones(2)}, t=0.25)
        {'w': tensor([0.2500, 0.2500])}
    """
    t = number("t", t)
    check_state_dict("a", a)
    check_state_dict("b", b)
    if differ := sorted(set(a) ^ set(b)):
        raise ValueError(f"expected state dicts with the same keys, got {differ} in one alone")
    if differ := [key for key in a if a[key].shape != b[key].shape]:
        raise ValueError(f"expected tensors of the same shapes, got others for {differ}")
    return {
        key: torch.lerp(value, b[key].to(value), t) if value.is_floating_point() else value.clone()
        for key, value in a.items()
    }


def merge(
    module: nn.Module,
    a: Mapping[str, Tensor],
    b: Mapping[str, Tensor],
    g: Symmetry | None = None,
    *,
    t: float = 0.5,
) -> nn.Module:
    r"""Copy the module, with the weights ``(1 - t) a + t (g b)``.

    Networks with batch norms (or instance norms that keep statistics) need :func:`repair_batch_norm` after it: the
    statistics of an average are not the average of the statistics.

    Args:
        module: the architecture, which is not modified.
        a: the state dict of one network.
        b: the state dict of the other.
        g: the element that moves ``b`` onto ``a``, see :func:`align_state_dicts`; the identity by default.
        t: place on the line.

    Raises:
        TypeError: for something other than a module, mappings of tensors and a ``Symmetry``.
        ValueError: for state dicts that do not fit one another or ``g``, or that are complex or not finite.
        RuntimeError: for state dicts that do not fit the module.

    Example:
        >>> from weightspace.checkpoints import merge
        >>> module = torch.nn.Linear(2, 1)
        >>> zeros, ones = ({k: v * 0 + i for k, v in module.state_dict().items()} for i in (0, 1))
        >>> merge(module, zeros, ones).bias.item()
        0.5
    """
    check_module(module)
    check_state_dict("b", b)
    merged = copy.deepcopy(module)
    merged.load_state_dict(interpolate_state_dicts(a, b if g is None else move_state_dict(b, g), t=t))
    return merged
