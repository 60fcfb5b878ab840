"""Batch norms of an averaged network: measure their statistics again."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from weightspace.checkpoints._checks import check_module, check_state_dict

NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)


@torch.no_grad()
def repair_batch_norm(module: nn.Module, batches: Iterable[Tensor]) -> nn.Module:
    """Copy the module, with the running statistics of its batch norms measured on data and averaged over all batches.

    Averaging two networks shrinks the variance of its channels; statistics measured on the averaged network itself undo
    that. Batch norms are measured, synchronised ones too, and instance norms with running statistics.

    Args:
        module: a network with such norms, which is not modified.
        batches: inputs of the module, in batches of hundreds; a few thousand inputs suffice.

    Returns:
        The copy, with every part in the mode that it was in.

    Raises:
        TypeError: for something other than a module.
        ValueError: for a network without such norms, or with running statistics of a norm that is not of torch.nn; for
            weights or statistics that are complex or not finite, no batch at all, or a norm that no batch reaches.

    Example:
        >>> from weightspace.checkpoints import repair_batch_norm
        >>> module = torch.nn.Sequential(torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1))
        >>> repaired = repair_batch_norm(module, [torch.tensor([[1.0], [3.0]])])
        >>> repaired[0].running_mean.item(), repaired[0].running_var.item()
        (2.0, 2.0)

    Reference:
        Jordan et al., *REPAIR: REnormalizing Permuted Activations for Interpolation Repair*, 2023.
    """
    check_module(module)
    check_state_dict("module", dict(module.named_parameters()))
    modes = [child.training for child in module.modules()]
    repaired = copy.deepcopy(module).eval()
    norms = _tracking(repaired)
    momenta, calls = [norm.momentum for norm in norms.values()], dict.fromkeys(norms, 0)

    def average(name: str, norm: Any, _: Any) -> None:
        """Set the momentum with which running statistics are the average over all calls, for instance norms too."""
        calls[name] += 1
        norm.momentum = 1 / calls[name]

    hooks = [norm.register_forward_pre_hook(partial(average, name)) for name, norm in norms.items()]
    for norm in norms.values():
        norm.reset_running_stats()
        norm.train()
    seen = 0
    for batch in batches:
        repaired(batch)
        seen += 1
    _check_measured(norms, calls, seen)
    for norm, momentum, hook in zip(norms.values(), momenta, hooks, strict=True):
        norm.momentum = momentum
        hook.remove()
    for child, training in zip(repaired.modules(), modes, strict=True):
        child.training = training
    return repaired


def _tracking(module: nn.Module) -> dict[str, Any]:
    """Find the norms with running statistics, by name."""
    found = {n: m for n, m in module.named_modules() if _tracks(m)}
    if not found:
        raise ValueError("expected batch norms with running statistics, got none; nothing needs repair")
    if unknown := [f"{type(m).__name__} ({n!r})" for n, m in found.items() if not isinstance(m, NORMS)]:
        raise ValueError(
            f"expected batch and instance norms of torch.nn, got running statistics of {unknown}; measure them by hand"
        )
    return found


def _tracks(module: nn.Module) -> bool:
    return module._buffers.get("running_var") is not None and getattr(module, "track_running_stats", True)


def _check_measured(norms: Mapping[str, Any], calls: Mapping[str, int], seen: int) -> None:
    """Refuse statistics of no batch, and statistics that are not finite."""
    if not seen:
        raise ValueError("batches: expected at least one batch of inputs, got none")
    if unreached := [name for name, count in calls.items() if not count]:
        raise ValueError(
            f"batches: expected inputs that reach every norm, got none for {unreached}; "
            "pass batches that do, or take these norms out of the module"
        )
    if bad := [n for n, m in norms.items() if not bool((m.running_mean + m.running_var).isfinite().all())]:
        raise ValueError(f"batches: expected finite inputs, got NaN or infinity in the statistics of {bad[:5]}")
